"""A block of consecutive processed frames and the persons in them, as arrays.

Coordinates are pixels of the displayed frame, x right, y down, an integer is the centre of a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import check_array
from posebatch.core.skeleton import NUM_KEYPOINTS


@dataclass(frozen=True)
class FrameBlock:
    """Consecutive processed frames (f) and the persons (n) found in them, ordered by frame and person.

    A video is a sequence of blocks. Results must not depend on where blocks end.
    """

    frame_index: NDArray[np.int64]
    """(f,) position of the frame in the stream, ascending. Not consecutive with ``--stride`` or ``--fps``."""
    pts: NDArray[np.int64]
    """(f,) ticks of the stream's time base."""
    time_s: NDArray[np.float64]
    """(f,) seconds, ascending."""
    frame: NDArray[np.int64]
    """(n,) position in ``frame_index`` of the frame that a person was found in, ascending."""
    person: NDArray[np.int32]
    """(n,) rank of the person in the frame, from 0."""
    bbox_xyxy: NDArray[np.float32]
    """(n, 4) pixels."""
    bbox_scores: NDArray[np.float32]
    """(n,) in 0..1."""
    pose_scores: NDArray[np.float32]
    """(n,) in 0..1."""
    keypoints: NDArray[np.float32]
    """(n, 17, 3) x, y in pixels, score in 0..1."""

    def __post_init__(self) -> None:
        frames, persons = len(self.frame_index), len(self.frame)
        check_array("frame_index", self.frame_index, np.int64, (None,))
        check_array("pts", self.pts, np.int64, (frames,))
        check_array("time_s", self.time_s, np.float64, (frames,))
        check_array("frame", self.frame, np.int64, (None,))
        check_array("person", self.person, np.int32, (persons,))
        check_array("bbox_xyxy", self.bbox_xyxy, np.float32, (persons, 4))
        check_array("bbox_scores", self.bbox_scores, np.float32, (persons,))
        check_array("pose_scores", self.pose_scores, np.float32, (persons,))
        check_array("keypoints", self.keypoints, np.float32, (persons, NUM_KEYPOINTS, 3))
