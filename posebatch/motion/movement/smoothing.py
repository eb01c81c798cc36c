"""Zero-phase low-pass filter for many runs at once, on even or uneven timestamps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.signal import butter, lfilter, lfilter_zi

Array = NDArray[np.float64]

EVEN: Final = 0.05
"""Frame intervals that differ from their median by at most this share are even."""
HIGHEST: Final = 0.45
"""Highest cut-off frequency that is filtered, as a share of the frame rate. Above, frames show nothing to remove."""
_LEAST_PADDING: Final = 9
"""Frames by which a run is continued at either end: what ``filtfilt`` takes for this filter."""
_CELLS: Final = 1 << 21
"""Values that are filtered at a time, at most."""


@dataclass(frozen=True)
class LowPass:
    """A Butterworth filter of 2nd order that runs forward and backward: 4th order without delay.

    The cut-off frequency is that of one pass, as in Sports2D. Both passes together halve the power at 0.802 times it
    (Winter, Biomechanics and Motor Control of Human Movement, section 2.2.4.4).
    """

    interval_s: float
    """Seconds from frame to frame; the step of the even grid where frames are uneven."""
    even: bool
    """Whether frames are evenly spaced."""
    cutoff_hz: float

    @property
    def passes_all(self) -> bool:
        """Whether the frame rate is too low for the cut-off frequency: nothing is filtered."""
        return self.cutoff_hz * self.interval_s >= HIGHEST

    @property
    def padding(self) -> int:
        """Frames by which a run is continued at either end: 1.5 periods. A run without more frames is not filtered."""
        return max(_LEAST_PADDING, ceil(1.5 / (self.cutoff_hz * self.interval_s)))


def low_pass(time_s: NDArray[np.float64], cutoff_hz: float) -> LowPass:
    """The filter for frames at ``time_s`` (f,), ascending."""
    steps = np.diff(time_s)
    steps = steps[steps > 0]
    if not len(steps):
        return LowPass(1.0, True, cutoff_hz)
    interval = float(np.median(steps))
    if (np.abs(steps - interval) <= EVEN * interval).all():
        return LowPass(interval, True, cutoff_hz)
    return LowPass(float(np.percentile(steps, 10)), False, cutoff_hz)


def smooth(
    time_s: Array, xy: Array, starts: NDArray[np.intp], stops: NDArray[np.intp], low_pass: LowPass
) -> tuple[Array, NDArray[np.bool_]]:
    """Filter the runs of rows ``starts`` to ``stops`` (r,) of ``xy`` (s, 2); all other rows stay as they are.

    Returns the rows (s, 2), and which runs (r,) are smooth now. A run that is too short for the filter stays as it is.
    With a frame rate too low for the cut-off frequency all stay, and count as smooth.
    """
    result, lengths = xy.copy(), stops - starts
    if low_pass.passes_all:
        return result, np.ones(len(starts), np.bool_)
    long = _frames(time_s, starts, stops, low_pass) > low_pass.padding
    if low_pass.even:
        for chosen in _batches(np.flatnonzero(long), lengths, low_pass.padding):
            rows, values = _filtered(xy, starts[chosen], lengths[chosen], low_pass)
            result[rows] = values
    else:
        for run in np.flatnonzero(long).tolist():
            part = slice(starts[run], stops[run])
            result[part] = _filtered_uneven(time_s[part], xy[part], low_pass)
    return result, long


def _frames(
    time_s: Array, starts: NDArray[np.intp], stops: NDArray[np.intp], low_pass: LowPass
) -> NDArray[np.floating[Any]]:
    """Length of each run in steps of the grid, and no more than it has rows."""
    spans = (time_s[stops - 1] - time_s[starts]) / low_pass.interval_s
    frames: NDArray[np.floating[Any]] = np.minimum(stops - starts, np.floor(spans + 0.5) + 1)
    return frames


def _batches(runs: NDArray[np.intp], lengths: NDArray[np.intp], padding: int) -> Iterator[NDArray[np.intp]]:
    """Runs of similar length together: those of a batch take as long as its longest."""
    ordered = runs[np.argsort(lengths[runs], kind="stable")]
    while len(ordered):
        most = int(1.3 * lengths[ordered[0]]) + padding
        count = int(np.searchsorted(lengths[ordered], most, side="right"))
        count = min(count, max(1, _CELLS // (2 * (most + 2 * padding))))
        yield ordered[:count]
        ordered = ordered[count:]


def _filtered(
    xy: Array, starts: NDArray[np.intp], lengths: NDArray[np.intp], low_pass: LowPass
) -> tuple[NDArray[np.intp], Array]:
    """Rows (n,) of the runs and their filtered values (n, 2), as ``scipy.signal.filtfilt`` gives for each run.

    Each run is continued by point reflection at both ends. Runs of a batch begin together, so that one call filters
    all; what follows the end of a shorter one changes nothing before it.
    """
    pad, longest = low_pass.padding, int(lengths.max())
    points = xy.view(np.complex128)[:, 0]  # x and y pass the filter together
    at = np.arange(longest + 2 * pad)[None, :] - pad
    last = (lengths - 1)[:, None]
    mirrored = np.where(at < 0, -at, np.where(at > last, np.maximum(2 * last - at, 0), at))
    values = points[starts[:, None] + mirrored]
    values[:, :pad] = 2 * values[:, [pad]] - values[:, :pad]
    values = np.where(at > last, 2 * points[starts + lengths - 1][:, None] - values, values)
    run = np.arange(len(starts))[:, None]
    forward = _one_pass(values, low_pass)[run, np.maximum(last + pad - at, 0)]
    inside = np.arange(longest)[None, :] <= last
    filtered = _one_pass(forward, low_pass)[run, np.where(inside, last + pad - np.arange(longest), 0)]
    return (starts[:, None] + np.arange(longest))[inside], filtered[inside][:, None].view(np.float64)


def _one_pass(values: NDArray[np.complex128], low_pass: LowPass) -> NDArray[np.complex128]:
    """Filter along the last axis, from the steady state of the first value."""
    b, a = _coefficients(low_pass.cutoff_hz * low_pass.interval_s)
    filtered, _ = lfilter(b, a, values, axis=-1, zi=lfilter_zi(b, a) * values[..., :1])
    result: NDArray[np.complex128] = filtered
    return result


@lru_cache(maxsize=64)
def _coefficients(cutoff_per_frame: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Numerator and denominator of one pass."""
    b, a = butter(2, 2 * cutoff_per_frame)
    return b, a


def _filtered_uneven(time_s: Array, xy: Array, low_pass: LowPass) -> Array:
    """Resample a run to an even grid by PCHIP, filter, and read the result at the true times."""
    steps = ceil((time_s[-1] - time_s[0]) / low_pass.interval_s)
    grid = np.linspace(time_s[0], time_s[-1], steps + 1)
    even = LowPass(float(grid[1] - grid[0]), True, low_pass.cutoff_hz)
    values = np.ascontiguousarray(PchipInterpolator(time_s, xy)(grid))
    if even.padding >= len(grid):
        return xy
    _, filtered = _filtered(values, np.zeros(1, np.intp), np.array([len(grid)]), even)
    mapped: Array = PchipInterpolator(grid, filtered)(time_s)
    return mapped
