"""Data of one frame: its number and status, the boxes and the poses found in it.

Coordinates are pixels of the displayed frame (rotation applied), x right, y down. An integer is the centre of a pixel,
so a frame of width W spans -0.5 to W - 0.5. Times are integer ticks (``pts``) of the stream's time base; tables also
hold seconds, ``pts * time_base``. Intervals are half-open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import NUM_KEYPOINTS

FrameStatus = Literal["ok", "corrupt", "missing"]
TimeStatus = Literal["ok", "repaired", "made_up"]
"""Where a frame's time comes from: from the stream, from its neighbours because the stream's was wrong, or because it
had none."""


def check_array(name: str, array: NDArray[Any], dtype: type[np.generic], shape: Sequence[int | None]) -> None:
    """Raise ``ValueError`` unless ``array`` has ``dtype`` and ``shape``, in which None is any length."""
    fits = array.ndim == len(shape) and all(
        expected in (None, length) for expected, length in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != dtype:
        text = "(" + ", ".join("n" if expected is None else str(expected) for expected in shape) + ")"
        raise ValueError(f"{name} must be {np.dtype(dtype)} {text}, got {array.dtype} {array.shape}")


@dataclass(frozen=True)
class FrameRecord:
    """A frame of the stream, decodable or not."""

    frame_index: int
    """Position among all frames of the stream in presentation order, from 0."""
    pts: int
    is_keyframe: bool
    status: FrameStatus
    time_status: TimeStatus = "ok"


@dataclass(frozen=True)
class Detections:
    """Persons that a detector found in one frame, best first."""

    bbox_xyxy: NDArray[np.float32]
    """(n, 4) x1, y1, x2, y2, pixels."""
    scores: NDArray[np.float32]
    """(n,) in 0..1, descending."""
    left_out: int = 0
    """Number of further persons, dropped because of ``max_persons``."""

    def __post_init__(self) -> None:
        check_array("bbox_xyxy", self.bbox_xyxy, np.float32, (None, 4))
        check_array("scores", self.scores, np.float32, (len(self.bbox_xyxy),))

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class FramePoses:
    """Persons of one frame with their poses, ranked by ``pose_scores``, best first."""

    record: FrameRecord
    bbox_xyxy: NDArray[np.float32]
    """(n, 4) boxes of the detector, x1, y1, x2, y2, pixels."""
    bbox_scores: NDArray[np.float32]
    """(n,) scores of the detector, 0..1."""
    pose_scores: NDArray[np.float32]
    """(n,) box score times the mean score of the confident keypoints."""
    keypoints: NDArray[np.float32]
    """(n, 17, 3) x, y in pixels, and score."""
    left_out: int = 0
    """Number of further persons, dropped because of ``max_persons``. It is not stored in any table."""
    track_ids: NDArray[np.int32] | None = None
    """(n,) track of each person, -1 for none; None where persons were not followed over the video."""

    def __post_init__(self) -> None:
        n = len(self.bbox_xyxy)
        check_array("bbox_xyxy", self.bbox_xyxy, np.float32, (n, 4))
        check_array("bbox_scores", self.bbox_scores, np.float32, (n,))
        check_array("pose_scores", self.pose_scores, np.float32, (n,))
        check_array("keypoints", self.keypoints, np.float32, (n, NUM_KEYPOINTS, 3))
        if self.track_ids is not None:
            check_array("track_ids", self.track_ids, np.int32, (n,))

    @classmethod
    def empty(cls, record: FrameRecord) -> FramePoses:
        """A frame without persons."""
        zeros = np.zeros((0,), np.float32)
        return cls(record, zeros.reshape(0, 4), zeros, zeros, zeros.reshape(0, NUM_KEYPOINTS, 3))

    def taken(self, persons: NDArray[np.intp]) -> FramePoses:
        """The same frame with the persons of these indices, in their order."""
        return FramePoses(
            self.record,
            self.bbox_xyxy[persons],
            self.bbox_scores[persons],
            self.pose_scores[persons],
            self.keypoints[persons],
            self.left_out,
            None if self.track_ids is None else self.track_ids[persons],
        )

    def __len__(self) -> int:
        return len(self.bbox_xyxy)
