"""Skeletons drawn on a frame."""

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
"""RGB of each edge of the skeleton, evenly spaced hues."""


JOINT_COLOUR: Final = (255, 0, 0)


SUPERSAMPLING: Final = 2
"""Lines are drawn this much larger and then reduced, which smooths their edges."""


def draw_skeletons(
    image: NDArray[np.uint8], keypoints: NDArray[np.float32], kpt_thr: float, scale: float = 1.0
) -> NDArray[np.uint8]:
    """Draw persons (n, 17, 3) on an RGB image; joints below ``kpt_thr`` and their edges are left out.

    ``keypoints`` are in pixels of the full frame, of which ``image`` is a copy scaled by ``scale``. A frame without
    persons is returned as it is.
    """
    if not len(keypoints):
        return image
    height, width = image.shape[:2]
    overlay = Image.new("RGBA", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    pen = ImageDraw.Draw(overlay)
    points = (keypoints[:, :, :2] + 0.5) * scale * SUPERSAMPLING  # an integer is a pixel's centre
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
    """In step with the person, so that a small one is not hidden under the drawing, and never clumsy for the frame."""
    extent = float(np.ptp(joints, axis=0).max())
    return min(max(1.0 * SUPERSAMPLING, extent / 40), max(1.5 * SUPERSAMPLING, frame_side / 120))
