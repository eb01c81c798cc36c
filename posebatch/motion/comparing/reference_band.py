"""Several reference performances as a band over the phase of the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posebatch.motion.comparing.angle_facts import periods, wrapped
from posebatch.motion.comparing.comparison import Comparison

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """Quartiles over the references at n phases, for k angles: degrees, NaN where none is known."""

    low: Array
    """(n, k) lower quartile."""
    median: Array
    """(n, k)."""
    high: Array
    """(n, k) upper quartile."""
    references: int
    """Number of performances, the first included."""


def reference_band(first: Comparison, others: Sequence[Comparison]) -> Band | None:
    """The band of a reference and of ``others`` that were compared with it; None without others.

    Each of ``others`` has the first's phases, and the first as ``a``. An angle that one lacks is not known there.
    """
    if not others:
        return None
    turns = [np.zeros_like(first.a), *(_columns(other, first.angle_names) for other in others)]
    stacked = np.stack(turns)
    stacked[:, np.isnan(first.a)] = np.nan
    nothing = np.isnan(stacked).all(axis=0)
    quartiles = np.nanpercentile(np.where(nothing, 0.0, stacked), (25, 50, 75), axis=0)
    period = periods(first.angle_names)
    low, median, high = (np.where(nothing, np.nan, wrapped(first.a + turn, period)) for turn in quartiles)
    return Band(low, median, high, len(stacked))


def _columns(other: Comparison, names: Sequence[str]) -> Array:
    """The differences (n, k) of the named angles; NaN where ``other`` lacks one."""
    found = [
        other.difference[:, other.angle_names.index(name)] if name in other.angle_names else None for name in names
    ]
    nothing = np.full(len(other.phase), np.nan)
    return np.column_stack([nothing if column is None else column for column in found])
