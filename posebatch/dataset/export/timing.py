"""Frame rates for formats that know one, from frames at any times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

TOLERANCE_STEPS: Final = 0.25
"""Times that deviate from an even grid by at most this share of a step count as constant: containers round times."""


LONGEST_BRIDGE_S: Final = 0.5
"""Seconds. Between neighbouring frames further apart than this, nothing is interpolated."""


FALLBACK_RATE_HZ: Final = 30.0
"""The rate of a track of one frame in a video whose header states none."""


@dataclass(frozen=True)
class Timing:
    """The frame rate of a track."""

    rate_hz: float
    is_constant: bool


def timing_of(time_s: NDArray[np.float64], fps: float) -> Timing:
    """The rate of frames at these times: mean rate if they are even, otherwise 1 / median interval.

    ``fps`` is the rate of the header, for a track of one frame.
    """
    if len(time_s) < 2:
        return Timing(fps or FALLBACK_RATE_HZ, is_constant=True)
    step = float(time_s[-1] - time_s[0]) / (len(time_s) - 1)
    even = time_s[0] + step * np.arange(len(time_s))
    if np.abs(time_s - even).max() <= TOLERANCE_STEPS * step:
        return Timing(1 / step, is_constant=True)
    return Timing(1 / float(np.median(np.diff(time_s))), is_constant=False)


def resampled(
    time_s: NDArray[np.float64], values: NDArray[np.float64], rate_hz: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values (n, ...) at even times from the first frame on, by linear interpolation; returns times and values.

    A value is NaN where a neighbour is NaN or the neighbours are more than `LONGEST_BRIDGE_S` apart.
    """
    count = int(np.floor((time_s[-1] - time_s[0]) * rate_hz + 1e-6)) + 1
    grid = np.minimum(time_s[0] + np.arange(count) / rate_hz, time_s[-1])
    after = np.clip(np.searchsorted(time_s, grid), 1, len(time_s) - 1)
    span = time_s[after] - time_s[after - 1]
    share = ((grid - time_s[after - 1]) / span).reshape(-1, *[1] * (values.ndim - 1))
    mixed = (1 - share) * values[after - 1] + share * values[after]
    exact = np.where(share == 0, values[after - 1], np.where(share == 1, values[after], mixed))
    exact[(span > LONGEST_BRIDGE_S) & ~np.isin(grid, time_s)] = np.nan
    return grid, exact
