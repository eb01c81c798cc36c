"""Dynamic time warping: the steps of two performances that belong together.

The path comes from dtaidistance (Apache-2.0), over a table of costs, so that steps of which something is not known can
be part of it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.extras import need

Array = NDArray[np.float64]

PENALTY_DEG: Final = 2.0
"""A step in which only one performance moves on costs as much as this difference: less than that is noise of angles."""


SMOOTHING_SHARE: Final = 0.02
"""The path goes from step to step; it is averaged over this share of its steps on both sides."""


def step_costs(a: Array, b: Array, period: Array) -> Array:
    """Cost (n, m) of pairs of steps: the mean square of the differences between angles (n, k) and (m, k), degrees.

    Only angles that are known in both count. Pairs without one cost the median of the others: they say nothing. All are
    NaN if there is no other.
    """
    total, known = np.zeros((len(a), len(b))), np.zeros((len(a), len(b)))
    for one, other, turn in zip(a.T, b.T, period.tolist(), strict=True):  # one angle at a time bounds memory
        difference = (one[:, None] - other[None, :] + turn / 2) % turn - turn / 2
        sure = ~np.isnan(difference)
        total += np.where(sure, difference, 0.0) ** 2
        known += sure
    costs: Array = np.where(known > 0, total / np.maximum(known, 1), np.nan)
    if np.isnan(costs).all():
        return costs
    return np.where(np.isnan(costs), np.nanmedian(costs), costs)


def warping_path(costs: Array) -> NDArray[np.int64]:
    """The cheapest path (p, 2) of steps through ``costs`` (n, m) from the first pair to the last.

    Raises `UsageError` if dtaidistance is not installed.
    """
    need("dtaidistance")
    from dtaidistance import dtw, innerdistance  # noqa: PLC0415 - an optional extra

    rows = costs.tolist()

    class Looked(innerdistance.CustomInnerDist):  # type: ignore[misc]
        @staticmethod
        def inner_dist(x: float, y: float) -> float:
            return float(rows[int(x)][int(y)])

        @staticmethod
        def result(x: Array) -> Array:
            return x

        @staticmethod
        def inner_val(x: float) -> float:
            return x * x

    numbers = (np.arange(float(length)) for length in costs.shape)
    _, paths = dtw.warping_paths(*numbers, inner_dist=Looked, penalty=PENALTY_DEG)
    path = dtw.best_path(paths, penalty=PENALTY_DEG**2)
    return np.array(path, np.int64).reshape(-1, 2)


def moving_share(path: NDArray[np.int64]) -> float:
    """Share of the longer performance during which both move on, 0 to 1."""
    steps = np.diff(path, axis=0)
    return float((steps > 0).all(axis=1).sum() / max(1, path[-1].max()))


def smooth_map(path: NDArray[np.int64]) -> Array:
    """The step (n,) of the second performance for each of the first, as fractions; never falls, ends stay."""
    steps, last = int(path[-1, 0]) + 1, float(path[-1, 1])
    sums, counts = np.bincount(path[:, 0], path[:, 1], steps), np.bincount(path[:, 0], minlength=steps)
    middle = sums / counts
    middle[0], middle[-1] = 0.0, last
    half = round(SMOOTHING_SHARE * steps)
    reach = np.arange(1, half + 1)
    # mirrored through its ends, a straight map stays straight
    before, after = 2 * middle[0] - middle[reach[::-1]], 2 * middle[-1] - middle[-1 - reach]
    padded = np.concatenate([before, middle, after])
    smooth = np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid")
    smooth[0], smooth[-1] = 0.0, last
    result: Array = np.clip(np.maximum.accumulate(smooth), 0.0, last)
    return result
