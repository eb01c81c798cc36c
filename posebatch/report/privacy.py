"""Hide persons in a picture before anything is drawn on it: blur regions, or show no pixel of it."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CELLS: Final = 4
"""A blurred region holds so many mean colours along its longer side: less than a face needs to be recognised."""


BACKGROUND: Final = (24, 26, 32)
"""Colour behind skeletons that are shown alone."""


def blurred(image: NDArray[np.uint8], regions: NDArray[np.float32], scale: float = 1.0) -> NDArray[np.uint8]:
    """Blur regions of an RGB image (height, width, 3); returns a new image. All other pixels stay as they are.

    ``regions`` are (n, 4) x1, y1, x2, y2 in pixels of the full frame; ``image`` is the frame scaled by ``scale``. Each
    pixel that a region touches is replaced by a mixture of means over large parts of the region.
    """
    hidden = image.copy()
    height, width = image.shape[:2]
    corners = (regions.reshape(-1, 2, 2) + 0.5) * scale  # an integer is the centre of a pixel, here its left edge
    for (left, top), (right, bottom) in corners:
        x1, y1 = max(int(np.floor(left)), 0), max(int(np.floor(top)), 0)
        x2, y2 = min(int(np.ceil(right)), width), min(int(np.ceil(bottom)), height)
        if x1 < x2 and y1 < y2:
            hidden[y1:y2, x1:x2] = _few_colours(hidden[y1:y2, x1:x2])
    return hidden


def blank(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image of the same size that holds no pixel of this one."""
    return np.broadcast_to(np.array(BACKGROUND, np.uint8), image.shape).copy()


def _few_colours(patch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = patch.shape[:2]
    cell = max(height, width) / CELLS
    cells = max(1, round(width / cell)), max(1, round(height / cell))
    means = Image.fromarray(np.ascontiguousarray(patch)).resize(cells, Image.Resampling.BOX)
    return np.asarray(means.resize((width, height), Image.Resampling.BILINEAR))
