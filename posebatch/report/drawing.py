"""Draw skeletons on a frame."""

from __future__ import annotations

import colorsys
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from posebatch.core.skeleton import SKELETON_EDGES

EDGE_COLOURS: Final = tuple(
    tuple(round(255 * part) for part in colorsys.hsv_to_rgb(i / len(SKELETON_EDGES), 1, 1))
    for i in range(len(SKELETON_EDGES))
)
"""RGB colour of each edge of the skeleton, in evenly spaced hues."""


JOINT_COLOUR: Final = (255, 0, 0)


SUPERSAMPLING: Final = 2
"""Factor by which lines are drawn larger and then reduced, which smooths their edges."""


def draw_skeletons(
    image: NDArray[np.uint8], keypoints: NDArray[np.float32], kpt_thr: float, scale: float = 1.0
) -> NDArray[np.uint8]:
    """Draw the skeletons of persons on an RGB image (height, width, 3); returns a new image.

    ``keypoints`` are (n, 17, 3): x, y in pixels of the full frame, and score. ``image`` is the frame scaled by
    ``scale``. Keypoints with a score of at most ``kpt_thr`` and their edges are left out. Without persons the image
    itself is returned.

    Example::

        drawn = draw_skeletons(image, poses.keypoints, kpt_thr=0.2)
    """
    if not len(keypoints):
        return image
    height, width = image.shape[:2]
    overlay = Image.new("RGBA", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    pen = ImageDraw.Draw(overlay)
    points = (keypoints[:, :, :2] + 0.5) * scale * SUPERSAMPLING  # an integer is the centre of a pixel
    for person, visible in zip(points, keypoints[:, :, 2] > kpt_thr, strict=True):
        if not visible.any():
            continue
        line = _line_width(person[visible], min(width, height) * SUPERSAMPLING)
        for (a, b), colour in zip(SKELETON_EDGES, EDGE_COLOURS, strict=True):
            if visible[a] and visible[b]:
                pen.line([tuple(person[a]), tuple(person[b])], fill=(*colour, 255), width=round(line))
        radius = line * 0.8
        for x, y in person[visible]:
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(*JOINT_COLOUR, 255))
    canvas = Image.fromarray(np.ascontiguousarray(image)).convert("RGBA")
    canvas.alpha_composite(overlay.reduce(SUPERSAMPLING))
    return np.asarray(canvas.convert("RGB"))


def _line_width(joints: NDArray[np.float32], frame_side: int) -> float:
    """Line width in supersampled pixels: proportional to the person, within limits that depend on the frame."""
    extent = float(np.ptp(joints, axis=0).max())
    return min(max(1.0 * SUPERSAMPLING, extent / 40), max(1.5 * SUPERSAMPLING, frame_side / 120))
