"""From a person's box to the network's crop and back: axis-aligned affine maps between pixel grids.

Both grids put a pixel's centre on the integer. A map that carries a crop's outer edges onto a grid's outer edges
therefore sends the crop's centre to ``(size - 1) / 2``, for the input image and for the smaller heatmaps alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BOX_PADDING = 1.25
"""How much larger than the box the crop is: room for limbs that leave it (SimpleBaseline's code does the same)."""


def crop_regions(
    bbox_xyxy: NDArray[np.floating[Any]], aspect_wh: float, padding: float = BOX_PADDING
) -> NDArray[np.float64]:
    """Widen boxes to an aspect ratio, then pad them: (n, 4) x1, y1, x2, y2 -> (n, 4) centre x, y, width, height.

    ``aspect_wh`` is width / height of the network's input. Each box keeps its centre; its shorter side grows until the
    aspect fits, so nothing of the box is cut and nothing is stretched. Source: SimpleBaseline's ``_box2cs``.
    """
    boxes = bbox_xyxy.astype(np.float64)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    fitted_width = np.maximum(width, height * aspect_wh)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = np.stack([fitted_width, fitted_width / aspect_wh], axis=1) * padding
    return np.concatenate([centre, size], axis=1)


def grid_to_frame(regions: NDArray[np.float64], grid_wh: tuple[int, int]) -> NDArray[np.float64]:
    """The affine maps (n, 2, 3) from pixels of a grid laid over each region to pixels of the frame.

    ``regions`` are (n, 4) as `crop_regions` gives them; ``grid_wh`` is the width and height of the crop or heatmap.
    """
    step = regions[:, 2:] / np.asarray(grid_wh, np.float64)
    origin = regions[:, :2] - step * (np.asarray(grid_wh, np.float64) - 1) / 2
    affine = np.zeros((len(regions), 2, 3))
    affine[:, 0, 0], affine[:, 1, 1] = step[:, 0], step[:, 1]
    affine[:, :, 2] = origin
    return affine


def invert_affine(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse maps of (n, 2, 3) affine maps."""
    linear = np.linalg.inv(affine[:, :, :2])
    offset = -(linear @ affine[:, :, 2:])
    return np.concatenate([linear, offset], axis=2)


def apply_affine(affine: NDArray[np.float64], points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Map points (n, k, 2) by affine maps (n, 2, 3)."""
    mapped: NDArray[np.float64] = points @ affine[:, :, :2].transpose(0, 2, 1) + affine[:, None, :, 2]
    return mapped
