"""The size of a person over time, as the length of the torso in the picture."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.motion.movement.track_rows import TrackRows

Array = NDArray[np.float64]

BIN_S: Final = 0.25
HALF_BINS: Final = 8
"""The local length is a median over 2 s on both sides: a person bends and rises, and walks towards the camera."""
TORSO_OF_HEIGHT: Final = 0.28
"""Torso length over box height of a standing person, where no torso is seen (Winter: 0.288 of the stature)."""
LEAST_PX: Final = 1.0
"""The local length is at least this: lengths are divided by it."""

_LEFT: Final = [KEYPOINT_NAMES.index(name) for name in ("left_shoulder", "left_hip")]
_RIGHT: Final = [KEYPOINT_NAMES.index(name) for name in ("right_shoulder", "right_hip")]


def torso_lengths(xy: NDArray[np.floating[Any]]) -> Array:
    """Lengths (m,) in pixels of joints (m, 17, 2): from the middle of the shoulders to the middle of the hips.

    With one side not known it is the length of the other side, with none NaN.
    """
    left, right = (xy[:, shoulder] - xy[:, hip] for shoulder, hip in (_LEFT, _RIGHT))
    left, right = np.where(np.isnan(left), right, left), np.where(np.isnan(right), left, right)
    lengths: Array = np.hypot(*((left + right) / 2).T)
    return lengths


def local_torso(rows: TrackRows, lengths: Array, origin: float) -> Array:
    """The running median (m,) of ``lengths`` (m,) in each track, pixels; NaN in the padding.

    It is taken over bins of `BIN_S` seconds, counted from ``origin``. Beyond an end of a track its last bin counts
    again, so that a person who comes nearer is not taken for larger there.
    """
    lengths = np.where(np.isnan(lengths), TORSO_OF_HEIGHT * rows.height, lengths)
    result = np.full(len(rows), np.nan)
    for begin, end in zip(rows.begins.tolist(), rows.ends.tolist(), strict=True):
        result[begin:end] = _running(rows.time_s[begin:end] - origin, lengths[begin:end])
    return result


def _running(time: Array, lengths: Array) -> Array:
    seen = np.flatnonzero(~np.isnan(lengths))
    if not len(seen):
        return np.full(len(time), np.nan)
    bins, medians = _bin_medians(np.floor(time[seen] / BIN_S).astype(np.int64), lengths[seen])
    places = np.arange(len(bins))[:, None] + np.arange(-HALF_BINS, HALF_BINS + 1)
    values = medians[places.clip(0, len(bins) - 1)]
    smooth: Array = np.interp(time, (bins + 0.5) * BIN_S, np.median(values, axis=1)).clip(min=LEAST_PX)
    return smooth


def _bin_medians(numbers: NDArray[np.int64], values: Array) -> tuple[NDArray[np.int64], Array]:
    """The bins that have values, and the median of each. ``numbers`` (n,) ascend."""
    bins, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    ordered = values[np.lexsort((values, numbers))]
    medians: Array = (ordered[first + (counts - 1) // 2] + ordered[first + counts // 2]) / 2
    return bins, medians
