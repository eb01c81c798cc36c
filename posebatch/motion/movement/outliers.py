"""Joints that leave the course of their neighbours in time for a few frames (Hampel filter)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]

HALF_WINDOW_S: Final = 0.1
"""The median is taken over the frames within this time on both sides: 7 frames at 30 per second, as in Sports2D."""
HALF_WINDOW_FRAMES: Final = (3, 12)
"""Fewest and most frames on a side."""
DEVIATIONS: Final = 3.0
"""An outlier is further from the median than this many standard deviations, estimated as 1.4826 MAD."""
LEAST_TORSO: Final = 0.1
"""And further than this, in torso lengths. A person who stands still has a MAD near 0."""


def half_window(interval_s: float) -> int:
    """Frames on one side of the window, at one frame each ``interval_s`` seconds."""
    return int(np.clip(round(HALF_WINDOW_S / interval_s), *HALF_WINDOW_FRAMES))


def outliers(xy: Array, torso: Array, half: int) -> NDArray[np.bool_]:
    """Marks (m, k) the outliers of joints (m, k, 2) in pixels; NaN is no data. ``torso`` (m,) is in pixels.

    ``half`` frames on both sides count, less the median speed there: a joint on a straight course has no deviation.
    Source: Pearson, Neuvo, Astola and Gabbouj, Generalized Hampel Filters, 2016, on distances in the picture.
    """
    if not len(xy):
        return np.zeros(xy.shape[:2], np.bool_)
    nothing = np.full((half, *xy.shape[1:]), np.nan, np.float32)
    padded = np.concatenate([nothing, xy.astype(np.float32), nothing])
    windows = sliding_window_view(padded, 2 * half + 1, axis=0)  # (m, k, 2, w)
    speed = _windowed_median(np.diff(padded, axis=0), 2 * half)[..., None]
    offsets = np.arange(-half, half + 1, dtype=np.float32)
    still = windows - np.where(np.isnan(speed), 0, speed) * offsets
    counts = _counts(padded, 2 * half + 1)
    from_median = still - _middle(np.sort(still, axis=-1), counts)[..., None]
    away = np.hypot(from_median[:, :, 0], from_median[:, :, 1])  # (m, k, w)
    own = away[..., half].copy()
    away.sort(axis=-1)
    limit = np.maximum(DEVIATIONS * 1.4826 * _middle(away, counts[:, :, 0]), LEAST_TORSO * torso[:, None])
    marks: NDArray[np.bool_] = own > limit
    return marks


def _windowed_median(values: NDArray[np.float32], width: int) -> Array:
    """The median (m - width + 1, ...) of ``width`` rows of ``values`` (m, ...) each, NaN left out."""
    ordered = np.sort(sliding_window_view(values, width, axis=0), axis=-1)
    return _middle(ordered, _counts(values, width))


def _counts(values: NDArray[np.float32], width: int) -> NDArray[np.int64]:
    """How many of ``width`` rows each are not NaN."""
    before = np.zeros((len(values) + 1, *values.shape[1:]), np.int64)
    np.cumsum(~np.isnan(values), axis=0, out=before[1:])
    return before[width:] - before[:-width]


def _middle(ordered: NDArray[np.floating[Any]], count: NDArray[np.int64]) -> Array:
    """The median of the first ``count`` (...) of ``ordered`` (..., w), in which NaN comes last."""
    width = ordered.shape[-1]
    start = np.arange(0, ordered.size, width).reshape(count.shape)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, width - 1)
    median: Array = (ordered.ravel()[start + low] + ordered.ravel()[start + high]) / 2
    return median
