"""What the angles of the table ``motion`` depend on, and how their differences are taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import KEYPOINT_NAMES

Array = NDArray[np.float64]

_LIMB: Final = {
    "knee": ("hip", "knee", "ankle"),
    "elbow": ("shoulder", "elbow", "wrist"),
    "thigh": ("hip", "knee"),
    "shank": ("knee", "ankle"),
    "upper_arm": ("shoulder", "elbow"),
    "forearm": ("elbow", "wrist"),
}

_TRUNK: Final = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")

_ACROSS: Final = {"pelvis": _TRUNK[:2], "shoulders": _TRUNK[2:]}


def joints_of(angle: str) -> tuple[int, ...]:
    """Positions in `KEYPOINT_NAMES` of the joints that an angle depends on.

    >>> joints_of("left_knee")
    (11, 13, 15)
    """
    side, _, part = angle.partition("_")
    if part in _LIMB:
        names: tuple[str, ...] = tuple(f"{side}_{joint}" for joint in _LIMB[part])
    elif part in ("hip", "shoulder"):
        names = (*_TRUNK, f"{side}_{'knee' if part == 'hip' else 'elbow'}")
    else:
        names = _ACROSS.get(angle, _TRUNK)
    return tuple(sorted(KEYPOINT_NAMES.index(name) for name in names))


def is_segment(angle: str) -> bool:
    """Whether an angle is that of a segment against the horizontal, not that of a joint."""
    return not angle.endswith(("_knee", "_elbow", "_hip", "_shoulder"))


def periods(angles: Sequence[str]) -> Array:
    """Degrees (k,) after which each angle repeats: the lines across pelvis and shoulders have no direction."""
    return np.array([180.0 if angle in _ACROSS else 360.0 for angle in angles])


def wrapped(angles: Array, period: Array) -> Array:
    """Angles (..., k) in degrees, moved into ``-period / 2 <= angle < period / 2``."""
    half = period / 2
    result: Array = (angles + half) % period - half
    return result
