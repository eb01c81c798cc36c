"""Place and velocity of a person at a row, from the rows before or after it."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.motion.tracking.row_window import RowWindow

SECONDS_SEEN: Final = 0.6
"""Rows within this time describe a person at one moment."""


PLACE_NOISE: Final = 0.05
"""Standard deviation of a box's centre, in heights of the box."""


USUAL_SPEED: Final = 1.0
"""Standard deviation of a person's speed, in heights a second (walking: about 0.8)."""


def walk(
    window: RowWindow, rows: NDArray[np.int64], neighbour: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows (n, count) met from each of ``rows`` (n,) on, and whether they exist within `SECONDS_SEEN`.

    ``neighbour`` is `RowWindow.previous` or `RowWindow.following`.
    """
    seen = np.empty((len(rows), count), np.int64)
    known = np.ones((len(rows), count), bool)
    seen[:, 0] = rows
    for step in range(1, count):
        further = neighbour[seen[:, step - 1]]
        known[:, step] = known[:, step - 1] & (further >= 0)
        seen[:, step] = np.where(known[:, step], further, seen[:, step - 1])
    time = window.time_s[window.order[seen]]
    return seen, known & (np.abs(time - time[:, :1]) <= SECONDS_SEEN)


def local_motion(
    time: NDArray[np.float64], centres: NDArray[np.float64], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centre (n, 2) and velocity (n, 2) at the end, and the velocity's variance (n,).

    The velocity is the most probable one, given boxes with `PLACE_NOISE` and a person with `USUAL_SPEED`.
    """
    weight = known / known.sum(axis=1, keepdims=True)
    from_end = time - time[:, :1]
    mean_time = (from_end * weight).sum(axis=1)
    mean_centre = (centres * weight[..., None]).sum(axis=1)
    spread = (from_end - mean_time[:, None]) * known
    total = (spread**2).sum(axis=1) + (PLACE_NOISE / USUAL_SPEED) ** 2
    velocity = (spread[..., None] * (centres - mean_centre[:, None])).sum(axis=1) / total[:, None]
    return mean_centre - velocity * mean_time[:, None], velocity, PLACE_NOISE**2 / total


def velocity(
    window: RowWindow, rows: NDArray[np.int64], neighbour: NDArray[np.int64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Velocity (n, 2) at ``rows`` (n,), pixels a second, from at most ``count`` rows, and its variance (n,)."""
    seen, known = walk(window, rows, neighbour, count)
    boxes = window.boxes[seen]
    return local_motion(window.time_s[window.order[seen]], (boxes[..., :2] + boxes[..., 2:]) / 2, known)[1:]
