"""What the angles of the table ``motion`` depend on, and how their differences are taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.motion.movement.angles import ANGLES

Array = NDArray[np.float64]

_BY_NAME: Final = {angle.name: angle for angle in ANGLES}


def joints_of(angle: str) -> tuple[int, ...]:
    """Positions in `KEYPOINT_NAMES` of the joints that an angle depends on.

    >>> joints_of("left_knee")
    (11, 13, 15)
    """
    return _BY_NAME[angle].joints


def is_segment(angle: str) -> bool:
    """Whether an angle is that of a segment against the horizontal, not that of a joint."""
    return _BY_NAME[angle].v is None


def periods(angles: Sequence[str]) -> Array:
    """Degrees (k,) after which each angle repeats: the lines across pelvis and shoulders have no direction."""
    return np.array([_BY_NAME[angle].period for angle in angles])


def wrapped(angles: Array, period: Array) -> Array:
    """Angles (..., k) in degrees, moved into ``-period / 2 <= angle < period / 2``."""
    half = period / 2
    result: Array = (angles + half) % period - half
    return result
