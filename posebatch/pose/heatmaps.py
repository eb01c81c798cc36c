"""Keypoints to Gaussian heatmaps, and heatmaps back to keypoints.

Coordinates are heatmap pixels: x right, y down, integers at pixel centres. The score of a keypoint is the maximum of
its map.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

SIGMA = 2.0
"""Standard deviation of the target Gaussian, heatmap pixels (Xiao et al., ECCV 2018, section 4)."""


QUARTER_STEP: Final = 0.25
"""Step of SimpleBaseline from a peak toward its higher neighbour, heatmap pixels."""


Refinement = Literal["argmax", "quarter", "dark"]
"""The step after the search for the highest pixel. ``argmax``: none. ``quarter``: a quarter pixel toward the higher
neighbour on each axis, as in SimpleBaseline's code. ``dark``: to the maximum of the Gaussian fitted around it."""


_BLUR_RADIUS = 5
"""Heatmap pixels."""


_STENCIL_RADIUS = 2
"""Heatmap pixels on each side of the peak that DARK's derivatives use."""


def encode_heatmaps(
    keypoints_xy: NDArray[np.floating[Any]], heatmap_wh: tuple[int, int], sigma: float = SIGMA
) -> NDArray[np.float32]:
    """Draw Gaussians with peak 1 around keypoints: (n, k, 2) x, y -> (n, k, height, width) float32.

    A keypoint outside the map leaves only the tail of its Gaussian. The centre is not rounded to a pixel, unlike in the
    paper's code, so `decode_heatmaps` finds it again to a quarter pixel::

        >>> keypoints = np.array([[[10.0, 20.0]]])
        >>> decode_heatmaps(encode_heatmaps(keypoints, (48, 64))).tolist()
        [[[10.0, 20.0, 1.0]]]
    """
    width, height = heatmap_wh
    along_x = np.exp(-((np.arange(width) - keypoints_xy[..., 0:1]) ** 2) / (2 * sigma**2))
    along_y = np.exp(-((np.arange(height) - keypoints_xy[..., 1:2]) ** 2) / (2 * sigma**2))
    return (along_y[..., :, None] * along_x[..., None, :]).astype(np.float32)


def decode_heatmaps(heatmaps: NDArray[np.float32], refinement: Refinement = "quarter") -> NDArray[np.float32]:
    """Find the peak of each map: (n, k, height, width) -> (n, k, 3) x, y, score.

    The first of equal maxima in row order wins. A map without a positive value has no peak: its keypoint is 0, 0, and
    its score is the maximum. ``quarter`` gives the results of SimpleBaseline's ``get_final_preds``, also at the edges.
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
    """Steps of a quarter pixel toward the higher neighbour on each axis: (m, 2).

    The step is zero where a map has no peak. By the rule of the paper's code, the step is also zero where the peak lies
    in the first two columns or rows, or in the last one.
    """
    rows, x, y = _inside(maps, x, y, margin=1)
    steps = np.zeros((len(maps), 2), np.float32)
    steps[rows, 0] = np.sign(maps[rows, y, x + 1] - maps[rows, y, x - 1])
    steps[rows, 1] = np.sign(maps[rows, y + 1, x] - maps[rows, y - 1, x])
    return QUARTER_STEP * steps


def _dark_steps(maps: NDArray[np.float32], x: NDArray[np.intp], y: NDArray[np.intp]) -> NDArray[np.float32]:
    """Steps from the highest pixel to the maximum of the Gaussian around it: (m, 2).

    Source: Zhang et al., "Distribution-Aware Coordinate Representation for Human Pose Estimation", CVPR 2020. The map
    is smoothed with a Gaussian of the target's width, with zeros beyond the map. The logarithm of a Gaussian is a
    parabola, so Newton's step -H^-1 g from the highest pixel reaches its maximum (equation 7). The finite differences
    are those of the authors' code. Unlike there, the step is zero where the map is no Gaussian: where the logarithm is
    not concave, or the step leaves the stencil. The step is also zero within two pixels of the edge.
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
    """Select the maps with a positive peak away from the edge: their indices, and x and y of their peaks.

    The edge is ``margin`` pixels wide on the right and bottom, and two pixels on the left and top. The authors write
    this as ``1 < x < width - margin``.
    """
    height, width = maps.shape[1:]
    away = (x > 1) & (x < width - margin) & (y > 1) & (y < height - margin)
    rows = np.flatnonzero(away & (maps[np.arange(len(maps)), y, x] > 0))
    return rows, x[rows], y[rows]


def _smoothed_around(maps: NDArray[np.float32], x: NDArray[np.intp], y: NDArray[np.intp]) -> NDArray[np.float64]:
    """Smooth the 5 x 5 pixels around (x, y) of each map by a Gaussian of `SIGMA`: (r, height, width) -> (r, 5, 5).

    The filter has eleven taps, as in the authors' code, and sees zeros beyond the map.
    """
    taps = np.exp(-(np.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1) ** 2) / (2 * SIGMA**2))
    taps /= taps.sum()
    side = 2 * _STENCIL_RADIUS + 1
    blur = np.stack([np.pad(taps, (shift, side - 1 - shift)) for shift in range(side)])  # (5, 15), a band matrix
    reach = _BLUR_RADIUS + _STENCIL_RADIUS
    padded = np.pad(maps, ((0, 0), (reach, reach), (reach, reach)))
    around = np.arange(2 * reach + 1)
    patches = padded[np.arange(len(maps))[:, None, None], y[:, None, None] + around[:, None], x[:, None, None] + around]
    smoothed: NDArray[np.float64] = blur @ patches @ blur.T
    return smoothed
