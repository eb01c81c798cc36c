"""Rows of the table ``motion`` as arrays (stand-in)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

ANGLE_NAMES: Final = (
    *(f"{side}_{joint}" for joint in ("knee", "elbow", "hip", "shoulder") for side in ("left", "right")),
    *(f"{side}_{part}" for part in ("thigh", "shank", "upper_arm", "forearm") for side in ("left", "right")),
    *("trunk", "pelvis", "shoulders"),
)


@dataclass(frozen=True)
class MotionBlock:
    """Rows of the table ``motion``, ordered by frame_index and track_id."""

    track_id: NDArray[np.int32]
    frame_index: NDArray[np.int64]
    pts: NDArray[np.int64]
    time_s: NDArray[np.float64]
    person: NDArray[np.int32]
    joints: NDArray[np.float32]
    angles: NDArray[np.float32]
    rates: NDArray[np.float32]
    hip_xy: NDArray[np.float32]
    hip_height_torso: NDArray[np.float32]
    speed_torso_per_s: NDArray[np.float32]
