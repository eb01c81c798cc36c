"""Compare two performances: which times belong together, and how far angles differ there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.errors import InputError
from posebatch.core.frames import check_array
from posebatch.motion.comparing.angle_facts import periods, wrapped
from posebatch.motion.comparing.performance import Performance
from posebatch.motion.comparing.warping import moving_share, smooth_map, step_costs, warping_path

Array = NDArray[np.float64]

DEFAULT_ANGLES: Final = (
    *(f"{side}_{joint}" for joint in ("knee", "hip", "shoulder", "elbow") for side in ("left", "right")),
    "trunk",
)
"""The angles that are compared unless others are chosen."""


MIN_ROWS: Final = 5
"""A performance with fewer rows in which an angle is known has no course."""


MIN_STEPS: Final = 400
"""Performances are compared at this many times at least: coarser steps cost degrees where a joint is fast."""


MAX_STEPS: Final = 1000
"""And at this many at most: the work grows with the square."""


MIN_OVERLAP: Final = 0.2
"""An angle counts if it is known in both performances in this share of the steps."""


MIN_MOVING: Final = 0.2
"""Both must move on together in this share of the steps; else they have no course in common."""


@dataclass(frozen=True)
class Comparison:
    """Two performances at n phases of the first, for k angles. NaN is a value that is not known."""

    angle_names: tuple[str, ...]
    phase: Array
    """(n,) from 0 to 1: share of the first performance's time."""
    time_a: Array
    """(n,) seconds of the first video."""
    time_b: Array
    """(n,) seconds of the second video, where it is equally far."""
    a: Array
    """(n, k) degrees."""
    b: Array
    """(n, k) degrees."""
    left_out: tuple[str, ...] = ()
    """Angles that were chosen, but are known in both in less than `MIN_OVERLAP` of the steps."""

    def __post_init__(self) -> None:
        steps, angles = len(self.phase), len(self.angle_names)
        for name in ("phase", "time_a", "time_b"):
            check_array(name, getattr(self, name), np.float64, (steps,))
        for name in ("a", "b"):
            check_array(name, getattr(self, name), np.float64, (steps, angles))

    @property
    def difference(self) -> Array:
        """(n, k) degrees, ``b - a`` the shorter way round."""
        return wrapped(self.b - self.a, periods(self.angle_names))

    @property
    def root_mean_square(self) -> Array:
        """(n,) degrees: the difference of the known angles together; NaN where none is known in both."""
        square, known = self.difference**2, ~np.isnan(self.difference)
        mean = np.where(known, square, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        return np.where(known.any(axis=1), np.sqrt(mean), np.nan)


def compare(a: Performance, b: Performance, angle_names: Sequence[str] = DEFAULT_ANGLES) -> Comparison:
    """Align ``b`` to ``a`` by dynamic time warping over angles, and take their differences.

    Both are read at equally many times. Raises `InputError` if one is too short, if too little of either is known at
    the same phase, or if they have no course in common.

    Example::

        comparison = compare(skilled, learner, ["left_knee", "right_knee"])
        print(np.nanmax(np.abs(comparison.difference), axis=0))
    """
    a, b = _checked(a.only(angle_names)).trimmed(), _checked(b.only(angle_names)).trimmed()
    steps = int(np.clip(2 * len(a.time_s), MIN_STEPS, MAX_STEPS))  # by A alone: references share its phases
    phase = np.linspace(0.0, 1.0, steps)
    time_a, grid_b = a.time_s[0] + phase * a.duration_s, b.time_s[0] + phase * b.duration_s
    angles_a = a.angles_at(time_a)
    costs = step_costs(angles_a, b.angles_at(grid_b), periods(angle_names))
    if np.isnan(costs).all():
        raise InputError(f"{a.label} and {b.label}: no angle of {', '.join(angle_names)} is known in both")
    path = warping_path(costs)
    moving = moving_share(path)
    if moving < MIN_MOVING:
        raise InputError(
            f"{a.label} and {b.label} cannot be aligned: they have {moving:.0%} of their course in common; choose the "
            "same part of either, as in clip.mp4@2-5, or other --angles"
        )
    time_b = np.interp(smooth_map(path), np.arange(steps), grid_b)
    whole = Comparison(a.angle_names, phase, time_a, time_b, angles_a, b.angles_at(time_b))
    return _sure_part(whole, a.label, b.label)


def _checked(performance: Performance) -> Performance:
    rows = int((~np.isnan(performance.angles)).any(axis=1).sum())
    if rows < MIN_ROWS:
        raise InputError(
            f"{performance.label}: too short to compare: its angles are known in {rows} of "
            f"{len(performance.time_s)} rows, and {MIN_ROWS} are needed"
        )
    return performance


def _sure_part(whole: Comparison, label_a: str, label_b: str) -> Comparison:
    """Without the angles that are known in both too seldom. Raises `InputError` if none remains."""
    overlap = (~np.isnan(whole.difference)).mean(axis=0)
    sure = overlap >= MIN_OVERLAP
    if not sure.any():
        best = int(np.argmax(overlap))
        raise InputError(
            f"{label_a} and {label_b} cannot be compared: too little is known of both at the same phase; the best "
            f"angle, {whole.angle_names[best]}, is known together in {overlap[best]:.0%} of the course, and "
            f"{MIN_OVERLAP:.0%} are needed"
        )
    names = tuple(np.array(whole.angle_names)[sure].tolist())
    left_out = tuple(name for name in whole.angle_names if name not in names)
    return Comparison(
        names, whole.phase, whole.time_a, whole.time_b, whole.a[:, sure], whole.b[:, sure], left_out=left_out
    )


def largest_moments(comparison: Comparison, count: int = 3, apart: float = 0.12) -> tuple[int, ...]:
    """Up to ``count`` steps of the largest difference, in order of the phase, at least ``apart`` in phase."""
    size = np.where(np.isnan(comparison.root_mean_square), -1.0, comparison.root_mean_square)
    chosen: list[int] = []
    for step in np.argsort(-size, kind="stable").tolist():
        far = all(abs(comparison.phase[step] - comparison.phase[other]) >= apart for other in chosen)
        if size[step] >= 0 and far and len(chosen) < count:
            chosen.append(step)
    return tuple(sorted(chosen))
