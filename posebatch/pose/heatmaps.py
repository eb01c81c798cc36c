"""Keypoints to Gaussian heatmaps, and heatmaps back to keypoints: two directions of one convention.

Coordinates are heatmap pixels, x right, y down, integer = pixel centre. The score of a keypoint is its map's maximum.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

SIGMA = 2.0
"""Standard deviation of the target Gaussian, heatmap pixels (Xiao et al., ECCV 2018, section 4)."""


QUARTER_STEP: Final = 0.25
"""How far SimpleBaseline moves a peak toward its higher neighbour, heatmap pixels."""


Refinement = Literal["argmax", "quarter", "dark"]
"""What follows the search for the highest pixel: nothing; a quarter of a pixel toward the higher neighbour on each
axis, as SimpleBaseline's code does; or DARK, the maximum of the Gaussian that fits best around it."""


_BLUR_RADIUS = 5


_STENCIL_RADIUS = 2


def encode_heatmaps(
    keypoints_xy: NDArray[np.floating[Any]], heatmap_wh: tuple[int, int], sigma: float = SIGMA
) -> NDArray[np.float32]:
    """Gaussians with peak 1 around keypoints: (n, k, 2) -> (n, k, height, width).

    A keypoint outside the map leaves only the tail of its Gaussian. Unlike the paper's code the centre is not rounded
    to a pixel, so that `decode_heatmaps` can find it again to a quarter pixel.
    """
    width, height = heatmap_wh
    along_x = np.exp(-((np.arange(width) - keypoints_xy[..., 0:1]) ** 2) / (2 * sigma**2))
    along_y = np.exp(-((np.arange(height) - keypoints_xy[..., 1:2]) ** 2) / (2 * sigma**2))
    return (along_y[..., :, None] * along_x[..., None, :]).astype(np.float32)


def decode_heatmaps(heatmaps: NDArray[np.float32], refinement: Refinement = "quarter") -> NDArray[np.float32]:
    """The peak of each map: (n, k, height, width) -> (n, k, 3) x, y, score.

    Of equal maxima the first in row order wins. A map without a positive value has no peak: its keypoint is 0, 0 with
    the score as it is. ``quarter`` agrees with SimpleBaseline's ``get_final_preds`` in every case, edges included.
    """
    n, k, height, width = heatmaps.shape
    maps = heatmaps.reshape(n * k, height, width)
    peak = maps.reshape(n * k, height * width).argmax(axis=1)
    y, x = np.divmod(peak, width)
    score = maps[np.arange(n * k), y, x]
    position = np.stack([x, y], axis=1).astype(np.float32)
    position[~(score > 0)] = 0
    if refinement == "quarter":
        position += _quarter_steps(maps, x, y)
    elif refinement == "dark":
        position += _dark_steps(maps, x, y)
    keypoints: NDArray[np.float32] = np.concatenate([position, score[:, None]], axis=1).reshape(n, k, 3)
    return keypoints


def _quarter_steps(maps: NDArray[np.float32], x: NDArray[np.intp], y: NDArray[np.intp]) -> NDArray[np.float32]:
    """A quarter pixel toward the higher neighbour on each axis: (m, 2).

    None at all where the peak lies in the two first or in the last column or row, which is the rule of the paper's
    code, nor where there is no peak.
    """
    rows, x, y = _inside(maps, x, y, margin=1)
    steps = np.zeros((len(maps), 2), np.float32)
    steps[rows, 0] = np.sign(maps[rows, y, x + 1] - maps[rows, y, x - 1])
    steps[rows, 1] = np.sign(maps[rows, y + 1, x] - maps[rows, y - 1, x])
    return QUARTER_STEP * steps


def _dark_steps(maps: NDArray[np.float32], x: NDArray[np.intp], y: NDArray[np.intp]) -> NDArray[np.float32]:
    """From the highest pixel to the maximum of the Gaussian around it: (m, 2).

    Zhang et al., "Distribution-Aware Coordinate Representation for Human Pose Estimation", CVPR 2020: the map is
    smoothed with a Gaussian of the target's width (zero beyond the map), its logarithm taken, which is a parabola where
    the map is a Gaussian, and Newton's step -H^-1 g made from the highest pixel (equation 7), with the finite
    differences of the authors' code. Unlike there, the pixel stays as it is where the logarithm is not concave or the
    step leaves the pixels that were looked at: the map is no Gaussian then. So it does within two pixels of the edge.
    """
    rows, x, y = _inside(maps, x, y, margin=_STENCIL_RADIUS)
    steps = np.zeros((len(maps), 2), np.float32)
    log = np.log(np.maximum(_smoothed_around(maps[rows], x, y), 1e-10))  # (r, 5, 5), the peak in the middle
    gx, gy = (log[:, 2, 3] - log[:, 2, 1]) / 2, (log[:, 3, 2] - log[:, 1, 2]) / 2
    hxx = (log[:, 2, 4] - 2 * log[:, 2, 2] + log[:, 2, 0]) / 4
    hyy = (log[:, 4, 2] - 2 * log[:, 2, 2] + log[:, 0, 2]) / 4
    hxy = (log[:, 3, 3] - log[:, 1, 3] - log[:, 3, 1] + log[:, 1, 1]) / 4
    determinant = hxx * hyy - hxy**2
    concave = (hxx < 0) & (determinant > 0)
    step = np.stack([hxy * gy - hyy * gx, hxy * gx - hxx * gy], axis=1)
    step /= np.where(concave, determinant, 1)[:, None]
    trusted = concave & (np.abs(step) <= _STENCIL_RADIUS).all(axis=1)
    steps[rows[trusted]] = step[trusted]
    return steps


def _inside(
    maps: NDArray[np.float32], x: NDArray[np.intp], y: NDArray[np.intp], margin: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Which maps have a positive peak away from the edge, and where: indices, x and y of those alone.

    ``margin`` pixels to the right and below, two to the left and above (the authors' ``1 < x < width - margin``).
    """
    height, width = maps.shape[1:]
    away = (x > 1) & (x < width - margin) & (y > 1) & (y < height - margin)
    rows = np.flatnonzero(away & (maps[np.arange(len(maps)), y, x] > 0))
    return rows, x[rows], y[rows]


def _smoothed_around(maps: NDArray[np.float32], x: NDArray[np.intp], y: NDArray[np.intp]) -> NDArray[np.float64]:
    """The 5 x 5 pixels around (x, y) of each map, smoothed with a Gaussian of `SIGMA`: (r, height, width) -> (r, 5, 5).

    Eleven taps, as in the authors' code; zero beyond the map.
    """
    taps = np.exp(-(np.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1) ** 2) / (2 * SIGMA**2))
    taps /= taps.sum()
    side = 2 * _STENCIL_RADIUS + 1
    blur = np.stack([np.pad(taps, (shift, side - 1 - shift)) for shift in range(side)])  # (5, 15), banded
    reach = _BLUR_RADIUS + _STENCIL_RADIUS
    padded = np.pad(maps, ((0, 0), (reach, reach), (reach, reach)))
    around = np.arange(2 * reach + 1)
    patches = padded[np.arange(len(maps))[:, None, None], y[:, None, None] + around[:, None], x[:, None, None] + around]
    smoothed: NDArray[np.float64] = blur @ patches @ blur.T
    return smoothed
