"""Change per second of angles and points, on true timestamps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posebatch.motion.movement.angles import PERIODS

Array = NDArray[np.float64]


def angle_rates(time_s: Array, angles: Array, linked: NDArray[np.bool_]) -> Array:
    """Degrees per second (m, A) of ``angles`` (m, A): central differences, one-sided where one neighbour is missing.

    ``linked`` (m, A) marks rows that continue the row before. An angle that passes the end of its period goes on.
    """
    half = PERIODS / 2
    return _rates(time_s, (np.diff(angles, axis=0) + half) % PERIODS - half, linked)


def velocities(time_s: Array, points: Array, linked: NDArray[np.bool_]) -> Array:
    """Change per second (m, k) of ``points`` (m, k), likewise."""
    return _rates(time_s, np.diff(points, axis=0), linked)


def _rates(time_s: Array, steps: Array, linked: NDArray[np.bool_]) -> Array:
    """``steps`` (m - 1, k) lead from a row to the next."""
    duration = np.diff(time_s)[:, None]
    usable = linked[1:] & ~np.isnan(steps) & (duration > 0)
    steps, duration = np.where(usable, steps, 0.0), np.where(usable, duration, 0.0)
    nothing = np.zeros((1, steps.shape[1]))
    change = np.concatenate([nothing, steps]) + np.concatenate([steps, nothing])
    time = np.concatenate([nothing, duration]) + np.concatenate([duration, nothing])
    rates: Array = np.where(time > 0, change / np.where(time > 0, time, 1.0), np.nan)
    return rates
