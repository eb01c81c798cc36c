"""From a person's box to the network's crop and back: axis-aligned affine maps between pixel grids.

All grids put a pixel's centre on the integer. How a region of the frame lies on a grid is a convention that a network
has learnt, so there are two, see `GridAlignment`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from posebatch.core.images import GridAlignment

BOX_PADDING = 1.25
"""How much larger than the box the crop is: room for limbs that leave it (SimpleBaseline's code does the same)."""


_CENTRES: Final[Mapping[GridAlignment, float]] = {"edges": -0.5, "origin": 0.0, "one_based": -1.0}
"""Where a region's centre lies on a grid, as a distance from half the grid's size."""


BoxFit = Literal["whole", "longer_side"]
"""What a crop keeps of a box whose aspect is not its own: all of it; or, as in the MATLAB demo, its longer side, which
cuts the sides of a box that is taller than wide, but wider than the crop is."""


def crop_regions(
    bbox_xyxy: NDArray[np.floating[Any]], aspect_wh: float, padding: float = BOX_PADDING, fit: BoxFit = "whole"
) -> NDArray[np.float64]:
    """Widen boxes to an aspect ratio, then pad them: (n, 4) x1, y1, x2, y2 -> (n, 4) centre x, y, width, height.

    ``aspect_wh`` is width / height of the network's input. Each box keeps its centre and nothing is stretched; the
    shorter side grows until the aspect fits, so that nothing of the box is cut (``whole``). Source: SimpleBaseline's
    ``_box2cs``.
    """
    boxes = bbox_xyxy.astype(np.float64)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    by_height = height > width if fit == "longer_side" else height * aspect_wh > width
    fitted_width = np.where(by_height, height * aspect_wh, width)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = np.stack([fitted_width, fitted_width / aspect_wh], axis=1) * padding
    return np.concatenate([centre, size], axis=1)


def grid_to_frame(
    regions: NDArray[np.float64], grid_wh: tuple[int, int], alignment: GridAlignment = "edges"
) -> NDArray[np.float64]:
    """The affine maps (n, 2, 3) from pixels of a grid laid over each region to pixels of the frame.

    ``regions`` are (n, 4) as `crop_regions` gives them; ``grid_wh`` is the width and height of the crop or heatmap.
    """
    size = np.asarray(grid_wh, np.float64)
    step = regions[:, 2:] / size
    centre = size / 2 + _CENTRES[alignment]
    origin = regions[:, :2] - step * centre
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
