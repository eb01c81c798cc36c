"""The movement of one person over a stretch of a video, and its values at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import check_array
from posebatch.core.skeleton import KEYPOINT_NAMES, NUM_KEYPOINTS
from posebatch.motion.comparing.angle_facts import periods, wrapped

Array = NDArray[np.float64]

HIPS = [KEYPOINT_NAMES.index(f"{side}_hip") for side in ("left", "right")]
SHOULDERS = [KEYPOINT_NAMES.index(f"{side}_shoulder") for side in ("left", "right")]


@dataclass(frozen=True)
class Performance:
    """One person's movement over rows (m,) of the table ``motion``, in order of time. NaN is a value not known."""

    label: str
    """How messages and pictures name it, such as ``clip.mp4#0``."""
    angle_names: tuple[str, ...]
    """(k,) names of `posebatch.motion.movement.motion_block.ANGLE_NAMES`."""
    time_s: Array
    """(m,) seconds of the video, ascending."""
    angles: Array
    """(m, k) degrees."""
    joints: Array
    """(m, 17, 3) x, y in pixels of the displayed frame, y down; and score, 0 where interpolated."""

    def __post_init__(self) -> None:
        rows = len(self.time_s)
        check_array("time_s", self.time_s, np.float64, (None,))
        check_array("angles", self.angles, np.float64, (rows, len(self.angle_names)))
        check_array("joints", self.joints, np.float64, (rows, NUM_KEYPOINTS, 3))
        if (np.diff(self.time_s) <= 0).any():
            raise ValueError("time_s must ascend")

    @property
    def duration_s(self) -> float:
        """Seconds from the first row to the last."""
        return float(np.ptp(self.time_s)) if len(self.time_s) else 0.0

    def between(self, from_s: float, to_s: float) -> Performance:
        """The rows from ``from_s`` to ``to_s``, both included."""
        return self._rows((self.time_s >= from_s) & (self.time_s <= to_s))

    def only(self, angle_names: Sequence[str]) -> Performance:
        """With these angles, in this order. Raises ``ValueError`` for one that it lacks."""
        columns = [self.angle_names.index(name) for name in angle_names]
        return replace(self, angle_names=tuple(angle_names), angles=self.angles[:, columns])

    def trimmed(self) -> Performance:
        """Without the rows before the first and after the last in which an angle is known."""
        known = np.flatnonzero(~np.isnan(self.angles).all(axis=1))
        return self._rows(slice(known[0], known[-1] + 1) if len(known) else slice(0, 0))

    def angles_at(self, times: Array) -> Array:
        """Angles (n, k) at ``times`` (n,), between rows the shorter way round; NaN beside rows that are not known."""
        low, share = _neighbours(times, self.time_s)
        high, period = np.minimum(low + 1, len(self.time_s) - 1), periods(self.angle_names)
        turn = wrapped(self.angles[high] - self.angles[low], period)
        moved = self.angles[low] + np.where(share[:, None] > 0, share[:, None] * turn, 0.0)
        return wrapped(moved, period)

    def joints_at(self, times: Array) -> Array:
        """Joints (n, 17, 3) at ``times`` (n,), between rows in a straight line; NaN beside rows that are not known."""
        low, share = _neighbours(times, self.time_s)
        return _between(self.joints, low, share[:, None, None])

    def _rows(self, rows: Any) -> Performance:
        return replace(self, time_s=self.time_s[rows], angles=self.angles[rows], joints=self.joints[rows])


def torso_px(joints: Array) -> float:
    """The median distance between the middle of the hips and that of the shoulders of (m, 17, 3); NaN if unknown."""
    lengths = np.linalg.norm(joints[:, SHOULDERS, :2].mean(axis=1) - joints[:, HIPS, :2].mean(axis=1), axis=1)
    known = lengths[~np.isnan(lengths)]
    return float(np.median(known)) if len(known) else float("nan")


def in_torsos(joints: Array, torso: float) -> Array:
    """Joints (n, 17, 3) in torso lengths around the middle of the hips; NaN where the hips are not known."""
    centre = joints[:, HIPS, :2].mean(axis=1, keepdims=True)
    return np.concatenate([(joints[:, :, :2] - centre) / torso, joints[:, :, 2:]], axis=2)


def _neighbours(times: Array, time_s: Array) -> tuple[NDArray[np.int64], Array]:
    """The last row (n,) at or before each of ``times``, and the share (n,) of the way to the next, 0 to 1."""
    inside = np.clip(times, time_s[0], time_s[-1])
    low = np.clip(np.searchsorted(time_s, inside, side="right") - 1, 0, max(0, len(time_s) - 2))
    high = np.minimum(low + 1, len(time_s) - 1)
    step = time_s[high] - time_s[low]
    share = np.where(step > 0, (inside - time_s[low]) / np.where(step > 0, step, 1.0), 0.0)
    exact = share > 1 - 1e-9  # the row after is meant: the one before may be unknown
    return np.where(exact, high, low), np.where(exact | (share < 1e-9), 0.0, share)


def _between(values: Array, low: NDArray[np.int64], share: Array) -> Array:
    high = np.minimum(low + 1, len(values) - 1)
    return np.where(share > 0, (1 - share) * values[low] + share * values[high], values[low])
