"""The movement of tracks over consecutive frames, as arrays: the rows of the table ``motion``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import check_array
from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.motion.movement.angles import ANGLE_NAMES

__all__ = ["ANGLE_NAMES", "MotionBlock"]


@dataclass(frozen=True)
class MotionBlock:
    """Rows (m,) ordered by frame, then track. A track has one row in each processed frame from its first to its last.

    Coordinates are pixels of the displayed frame, y down. NaN is a value that is not known.
    """

    track_id: NDArray[np.int32]
    """(m,) from 0."""
    frame_index: NDArray[np.int64]
    """(m,) position of the frame in the stream."""
    pts: NDArray[np.int64]
    """(m,) ticks of the stream's time base."""
    time_s: NDArray[np.float64]
    """(m,) seconds."""
    person: NDArray[np.int32]
    """(m,) rank of the person in the frame, -1 in a gap."""
    facing: NDArray[np.int8]
    """(m,) which way the person faces in the picture: 1 right, -1 left, 0 where this is no side view."""
    joints: NDArray[np.float32]
    """(m, 17, 3) smoothed x and y, and score: 0 where interpolated, NaN (all three) where not known."""
    angles: NDArray[np.float32]
    """(m, A) degrees, in the order of `ANGLE_NAMES`."""
    rates: NDArray[np.float32]
    """(m, A) degrees per second."""
    hip_xy: NDArray[np.float32]
    """(m, 2) middle of the hips, pixels."""
    hip_height_torso: NDArray[np.float32]
    """(m,) height of the middle of the hips above the lower ankle, torso lengths."""
    speed_torso_per_s: NDArray[np.float32]
    """(m,) speed of the middle of the hips in the picture, torso lengths per second."""

    def __post_init__(self) -> None:
        rows, angles = len(self.track_id), len(ANGLE_NAMES)
        check_array("track_id", self.track_id, np.int32, (None,))
        check_array("frame_index", self.frame_index, np.int64, (rows,))
        check_array("pts", self.pts, np.int64, (rows,))
        check_array("time_s", self.time_s, np.float64, (rows,))
        check_array("person", self.person, np.int32, (rows,))
        check_array("facing", self.facing, np.int8, (rows,))
        check_array("joints", self.joints, np.float32, (rows, NUM_KEYPOINTS, 3))
        check_array("angles", self.angles, np.float32, (rows, angles))
        check_array("rates", self.rates, np.float32, (rows, angles))
        check_array("hip_xy", self.hip_xy, np.float32, (rows, 2))
        check_array("hip_height_torso", self.hip_height_torso, np.float32, (rows,))
        check_array("speed_torso_per_s", self.speed_torso_per_s, np.float32, (rows,))
