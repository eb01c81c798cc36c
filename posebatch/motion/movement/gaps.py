"""Gaps in the series of a joint: which are filled, how, and the runs that remain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class FilledSeries:
    """Series of points without their short gaps. Series lie one after the other: (s,) rows in all."""

    xy: Array
    """(s, 2) NaN where not known."""
    interpolated: Flags
    """(s,) filled by interpolation."""
    run: NDArray[np.int64]
    """(s,) number of the run of consecutive known or filled rows, -1 where not known."""


def fill_gaps(time_s: Array, xy: Array, breaks: Flags, max_gap_s: float) -> FilledSeries:
    """Interpolate the gaps of at most ``max_gap_s`` seconds between two known rows by PCHIP.

    ``time_s`` (s,) ascends within a series. ``xy`` (s, 2) is NaN where not known. ``breaks`` (s,) marks rows that do
    not continue the row before: the first of a series, and those after a cut. Nothing is interpolated over a break.
    """
    known = np.flatnonzero(~np.isnan(xy[:, 0]))
    filled, interpolated = xy.copy(), np.zeros(len(xy), np.bool_)
    if not len(known):
        return FilledSeries(filled, interpolated, np.full(len(xy), -1))
    piece = np.cumsum(breaks)[known]
    h = np.diff(time_s[known])
    next_row = np.diff(known) == 1
    linked = (np.diff(piece) == 0) & (next_row | (h <= max_gap_s))
    at = np.flatnonzero(linked & ~next_row)
    lengths = known[at + 1] - known[at] - 1
    rows = np.arange(int(lengths.sum())) + np.repeat(known[at] + 1 - np.cumsum(lengths) + lengths, lengths)
    left = np.repeat(at, lengths)
    filled[rows] = _pchip(time_s[known], xy[known], linked, left, time_s[rows])
    interpolated[rows] = True
    return FilledSeries(filled, interpolated, _runs(len(xy), known, linked))


def _runs(length: int, known: NDArray[np.intp], linked: Flags) -> NDArray[np.int64]:
    run = np.full(length, -1)
    first = np.flatnonzero(np.concatenate([[True], ~linked]))
    starts, stops = known[first], known[np.append(first[1:], len(known)) - 1] + 1
    lengths = stops - starts
    rows = np.arange(int(lengths.sum())) + np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
    run[rows] = np.repeat(np.arange(len(starts)), lengths)
    return run


def _pchip(t: Array, y: Array, linked: Flags, left: NDArray[np.intp], at: Array) -> Array:
    """Values (n, 2) at times ``at`` (n,), each between the knots ``left`` (n,) and ``left + 1``.

    Knots ``t`` (k,), ``y`` (k, 2) are connected where ``linked`` (k - 1,). Source: Fritsch and Butland, 1984, as in
    ``scipy.interpolate.PchipInterpolator``, for many series at once.
    """
    h = np.where(linked, np.diff(t), np.nan)[:, None]
    slope = np.diff(y, axis=0) / h
    knots, place = np.unique(np.concatenate([left, left + 1]), return_inverse=True)
    d = _knot_slopes(h, slope, knots)
    d0, d1 = d[place[: len(left)]], d[place[len(left) :]]
    step = h[left]
    s = (at - t[left])[:, None] / step
    value: Array = (
        (1 + 2 * s) * (1 - s) ** 2 * y[left]
        + s * (1 - s) ** 2 * step * d0
        + s**2 * (3 - 2 * s) * y[left + 1]
        - s**2 * (1 - s) * step * d1
    )
    return value


def _knot_slopes(h: Array, slope: Array, knots: NDArray[np.intp]) -> Array:
    """Slopes (n, 2) at ``knots``; ``h`` and ``slope`` are NaN in the intervals that connect nothing."""
    nothing = np.full((2, 1), np.nan)
    h = np.concatenate([nothing, h, nothing])  # interval k lies to the right of knot k, at k + 2
    slope = np.concatenate([nothing.repeat(2, 1), slope, nothing.repeat(2, 1)])
    h0, h1, m0, m1 = h[knots + 1], h[knots + 2], slope[knots + 1], slope[knots + 2]
    w0, w1 = 2 * h1 + h0, h1 + 2 * h0
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = np.where(m0 * m1 > 0, (w0 + w1) / (w0 / m0 + w1 / m1), 0.0)
    first = _end_slope(h1, h[np.minimum(knots + 3, len(h) - 1)], m1, slope[np.minimum(knots + 3, len(h) - 1)])
    last = _end_slope(h0, h[knots], m0, slope[knots])
    d: Array = np.where(np.isnan(h0), first, np.where(np.isnan(h1), last, inner))
    return d


def _end_slope(h0: Array, h1: Array, m0: Array, m1: Array) -> Array:
    """The slope at an end, from the two intervals beside it, three-point formula; one interval is a straight line."""
    d = ((2 * h0 + h1) * m0 - h0 * m1) / (h0 + h1)
    d = np.where(np.sign(d) != np.sign(m0), 0.0, d)
    d = np.where((np.sign(m0) != np.sign(m1)) & (np.abs(d) > 3 * np.abs(m0)), 3 * m0, d)
    slope: Array = np.where(np.isnan(h1), m0, d)
    return slope
