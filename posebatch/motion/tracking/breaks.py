"""Breaks of motion: places where a tracklet may change from one person to another who is close by."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.motion.tracking.local_motion import velocity
from posebatch.motion.tracking.row_window import RowWindow

ROWS_COMPARED: Final = 12
"""The velocity of so many rows before is compared with that of so many rows after."""


SPEED_SPREAD: Final = 0.4
"""Standard deviation of what people change their velocity by from one moment to the next, heights a second."""


LARGEST_CHANGE: Final = 3.0
"""Change of velocity that is a break, in standard deviations."""


SIZE_CHANGE: Final = 0.2
"""Change of the logarithm of the height from one row to the next that is a break."""


def part_at_breaks(window: RowWindow, rows: range) -> None:
    """Part tracklets behind those of ``rows`` at which the motion breaks while somebody else is close.

    A person who turns around without a rival gets the same tracklet back when bridges are chosen.
    """
    joined = np.array(rows, np.int64)
    joined = joined[window.following[joined] >= 0]
    joined = joined[_crowded(window, joined)]
    next_rows = window.following[joined]
    height = np.minimum(_height(window, joined), _height(window, next_rows)).clip(1.0)
    before, variance = velocity(window, joined, window.previous, ROWS_COMPARED)
    after, variance_after = velocity(window, next_rows, window.following, ROWS_COMPARED)
    change = np.hypot(*(after - before).T) / height / np.sqrt(variance + variance_after + SPEED_SPREAD**2)
    step = np.abs(np.log(_height(window, next_rows).clip(1.0) / _height(window, joined).clip(1.0)))
    window.part(joined[(step > SIZE_CHANGE) | ((change > LARGEST_CHANGE) & _is_peak(window, joined, change))])


def _height(window: RowWindow, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    height: NDArray[np.float64] = window.boxes[rows, 3] - window.boxes[rows, 1]
    return height


def _is_peak(window: RowWindow, rows: NDArray[np.int64], change: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the change is larger than at the row before, and not smaller than at the row after."""
    by_row = np.zeros(len(window.order) + 1)  # the last one stands for no row
    by_row[rows] = change
    return (change > by_row[window.previous[rows]]) & (change >= by_row[window.following[rows]])


def _crowded(window: RowWindow, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether another box of the same frame has its centre within one height of the row's centre."""
    starts = np.searchsorted(window.order, np.arange(len(window.time_s) + 1))
    counts = starts[window.order[rows] + 1] - starts[window.order[rows]]
    some = counts > 1
    crowded = np.zeros(len(rows), bool)
    which = np.repeat(np.flatnonzero(some), counts[some])
    position = np.arange(len(which)) - np.repeat(np.cumsum(counts[some]) - counts[some], counts[some])
    row, other = rows[which], starts[window.order[rows[which]]] + position
    offset = window.boxes[row] - window.boxes[other]
    apart = np.abs(offset[:, :2] + offset[:, 2:]).max(axis=1) / 2
    near = (apart < np.maximum(_height(window, row), _height(window, other))) & (row != other)
    crowded[which[near]] = True
    return crowded
