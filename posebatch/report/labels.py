"""Draw boxes around persons, and the angles of their joints as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

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


MIN_LABEL_PX: Final = 13
"""Least height of an angle, pixels of the image."""


MIN_PERSON: Final = 10
"""Least height or width of a person with labels, relative to theirs: those of smaller persons would overlap."""


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
    overlay: Overlay | None = None
    size = max(MIN_LABEL_PX, min(image.shape[:2]) * LABEL_SHARE) * SUPERSAMPLING
    for joints, degrees in zip(keypoints, angles, strict=True):
        visible = joints[:, 2] > thresholds
        known = [joint for joint, value in degrees.items() if visible[joint] and np.isfinite(value)]
        points = to_layer(joints[:, :2], scale)
        if not known or np.ptp(points[visible], axis=0).max() < MIN_PERSON * size:
            continue
        overlay = overlay or Overlay(image)
        middle = float(points[visible, 0].mean())
        for joint in known:
            _write(overlay, points[joint], middle, f"{round(degrees[joint])}°", size, JOINT_COLOURS[joint])
    return image if overlay is None else overlay.flattened()


def _write(
    overlay: Overlay, point: NDArray[np.floating[Any]], middle: float, text: str, size: float, colour: Colour
) -> None:
    """Write beside a point, on the side that faces away from ``middle``, inside the picture."""
    (width, height), font = overlay.size_wh, ImageFont.load_default(size)
    length, (x, y) = overlay.pen.textlength(text, font) + SUPERSAMPLING, point
    left = x - 0.6 * size - length if x < middle else x + 0.6 * size
    place = (
        float(np.clip(left, 0, max(0, width - length))),
        float(np.clip(y, size / 2, max(size / 2, height - size / 2))),
    )
    fill, rim = (*colour, 255), (*OUTLINE[:3], 255)
    overlay.pen.text(place, text, font=font, anchor="lm", fill=fill, stroke_width=SUPERSAMPLING, stroke_fill=rim)
