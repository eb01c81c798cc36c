"""From a person's box to the network's crop and back: axis-aligned affine maps between pixel grids.

On every grid, integer coordinates are pixel centres. How a region maps to the pixel grid depends on how the network was
trained; `GridAlignment` has the three conventions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from posebatch.core.images import GridAlignment

BOX_PADDING = 1.25
"""Size of the crop relative to the box. Limbs may leave the box; SimpleBaseline's code uses the same value."""


_CENTRES: Final[Mapping[GridAlignment, float]] = {"edges": -0.5, "origin": 0.0, "one_based": -1.0}
"""Position of a region's centre on a grid, as an offset from half the grid's size, grid pixels."""


BoxFit = Literal["whole", "longer_side"]
"""How a box is fitted to the aspect of the crop. ``whole`` keeps all of the box. ``longer_side`` fits the longer side,
as the MATLAB demo does; this cuts the sides of a tall box whose aspect is still wider than the crop's."""


def crop_regions(
    bbox_xyxy: NDArray[np.floating[Any]], aspect_wh: float, padding: float = BOX_PADDING, fit: BoxFit = "whole"
) -> NDArray[np.float64]:
    """Widen boxes to an aspect ratio, then pad them: (n, 4) x1, y1, x2, y2 -> (n, 4) centre x, y, width, height.

    ``aspect_wh`` is width / height of the network's input. The centre stays. With ``whole`` the shorter side grows
    until the aspect fits. Nothing is stretched. Source: ``_box2cs`` of SimpleBaseline's code. A box of 40 x 80 pixels
    for an input of 192 x 256::

        >>> crop_regions(np.array([[0, 0, 40, 80]]), 192 / 256).tolist()
        [[20.0, 40.0, 75.0, 100.0]]
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
    """Affine maps (n, 2, 3) from pixels of a grid over each region to pixels of the frame.

    ``regions`` are (n, 4) from `crop_regions`; ``grid_wh`` is the width and height of the crop or heatmap, pixels.
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
    """Invert affine maps (n, 2, 3)."""
    linear = np.linalg.inv(affine[:, :, :2])
    offset = -(linear @ affine[:, :, 2:])
    return np.concatenate([linear, offset], axis=2)


def apply_affine(affine: NDArray[np.float64], points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Map points (n, k, 2) by affine maps (n, 2, 3) -> (n, k, 2)."""
    mapped: NDArray[np.float64] = points @ affine[:, :, :2].transpose(0, 2, 1) + affine[:, None, :, 2]
    return mapped
