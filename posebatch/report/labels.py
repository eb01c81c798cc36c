"""Draw boxes around persons, and the angles of their joints as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.report.drawing import JOINT_COLOURS
from posebatch.report.overlay import OUTLINE, SUPERSAMPLING, Colour, Overlay, to_layer

BOX_WIDTH: Final = 1.5
"""Width of the lines of a box, pixels of the image."""


LABELLED_JOINTS: Final = tuple(
    KEYPOINT_NAMES.index(f"{side}_{part}") for side in ("left", "right") for part in ("elbow", "knee")
)
"""Joints whose angle can be written."""


LABEL_SHARE: Final = 1 / 28
"""Height of an angle relative to the shorter side of the image."""


MIN_LABEL_PX: Final = 11
"""Least height of an angle, pixels of the image."""


def draw_boxes(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], colours: Sequence[Colour], scale: float = 1.0
) -> NDArray[np.uint8]:
    """Draw boxes (n, 4) x1, y1, x2, y2 in pixels of the full frame; returns a new image.

    ``image`` is the frame scaled by ``scale``. ``colours`` are (n). Without boxes the image itself is returned.
    """
    if not len(boxes):
        return image
    overlay = Overlay(image)
    for box, colour in zip(to_layer(boxes.reshape(-1, 2, 2), scale), colours, strict=True):
        corners = [tuple(box[0]), tuple(box[1])]
        overlay.pen.rectangle(corners, outline=OUTLINE, width=round((BOX_WIDTH + 1) * SUPERSAMPLING))
        overlay.pen.rectangle(corners, outline=(*colour, 255), width=round(BOX_WIDTH * SUPERSAMPLING))
    return overlay.flattened()


def draw_angles(
    image: NDArray[np.uint8],
    keypoints: NDArray[np.float32],
    angles: Sequence[Mapping[int, float]],
    thresholds: NDArray[np.float32],
    scale: float = 1.0,
) -> NDArray[np.uint8]:
    """Write angles beside their joints, in the colour of the side; returns a new image.

    ``image``, ``keypoints`` (n, 17, 3), ``thresholds`` (17,) and ``scale`` are those of `draw_skeletons`. ``angles``
    are degrees by joint for each of the n persons. Joints that are not drawn get none.
    """
    wanted = [
        (joint, keypoints[person, joint], degrees)
        for person, by_joint in enumerate(angles)
        for joint, degrees in by_joint.items()
        if keypoints[person, joint, 2] > thresholds[joint] and np.isfinite(degrees)
    ]
    if not wanted:
        return image
    overlay = Overlay(image)
    width, height = overlay.size_wh
    size = max(MIN_LABEL_PX * SUPERSAMPLING, min(width, height) * LABEL_SHARE)
    font = ImageFont.load_default(size)
    for joint, keypoint, degrees in wanted:
        text = f"{round(degrees)}°"
        x, y = to_layer(keypoint[:2], scale)
        length = overlay.pen.textlength(text, font) + SUPERSAMPLING
        left = float(np.clip(x + size * 0.7, 0, max(0, width - length)))
        overlay.pen.text(
            (left, float(np.clip(y, size / 2, max(size / 2, height - size / 2)))),
            text,
            font=font,
            anchor="lm",
            fill=(*JOINT_COLOURS[joint], 255),
            stroke_width=SUPERSAMPLING,
            stroke_fill=(*OUTLINE[:3], 255),
        )
    return overlay.flattened()
