"""Keypoints to Gaussian heatmaps, and heatmaps back to keypoints: two directions of one convention.

Coordinates are heatmap pixels, x right, y down, integer = pixel centre. The score of a keypoint is its map's maximum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGMA = 2.0
"""Standard deviation of the target Gaussian, heatmap pixels (Xiao et al., ECCV 2018, section 4)."""


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


def decode_heatmaps(heatmaps: NDArray[np.float32]) -> NDArray[np.float32]:
    """The peak of each map: (n, k, height, width) -> (n, k, 3) x, y, score.

    The maximum's pixel, moved a quarter pixel toward its higher neighbour on each axis where it has both neighbours
    (SimpleBaseline's ``get_final_preds``). Of equal maxima the first in row order wins.
    """
    n, k, height, width = heatmaps.shape
    flat = heatmaps.reshape(n, k, height * width)
    peak = flat.argmax(axis=2)
    y, x = np.divmod(peak, width)
    score = np.take_along_axis(flat, peak[..., None], axis=2)[..., 0]

    def quarter_step(position: NDArray[np.intp], stride: int, size: int) -> NDArray[np.float32]:
        inside = (position > 0) & (position < size - 1)
        step = np.where(inside, stride, 0)
        higher = np.take_along_axis(flat, (peak + step)[..., None], axis=2)[..., 0]
        lower = np.take_along_axis(flat, (peak - step)[..., None], axis=2)[..., 0]
        return (0.25 * np.sign(higher - lower)).astype(np.float32)

    refined = [x + quarter_step(x, 1, width), y + quarter_step(y, width, height), score]
    keypoints: NDArray[np.float32] = np.stack(refined, axis=2).astype(np.float32)
    return keypoints
