"""What is known of one frame: its number and status, the boxes and the poses found in it.

Coordinates are pixels of the displayed frame (rotation applied), x right, y down; an integer is a pixel's centre, so a
frame of width W spans -0.5 to W - 0.5. Times are integer ticks (``pts``) of the stream's own time base; seconds appear
only at the edge, as ``pts * time_base``. Intervals are half-open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import NUM_KEYPOINTS

FrameStatus = Literal["ok", "corrupt", "missing"]


def check_array(name: str, array: NDArray[Any], dtype: type[np.generic], shape: Sequence[int | None]) -> None:
    """Raise ``ValueError`` unless ``array`` has ``dtype`` and ``shape`` (None stands for any length)."""
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits or array.dtype != dtype:
        wanted = "(" + ", ".join("n" if want is None else str(want) for want in shape) + ")"
        raise ValueError(f"{name} must be {np.dtype(dtype)} {wanted}, got {array.dtype} {array.shape}")


@dataclass(frozen=True)
class FrameRecord:
    """One frame of the stream, decodable or not."""

    frame_index: int
    """Position in presentation order, from 0, whatever the stride."""
    pts: int
    is_keyframe: bool
    status: FrameStatus


@dataclass(frozen=True)
class Detections:
    """The persons that a detector found in one frame, best first."""

    bbox_xyxy: NDArray[np.float32]
    """(n, 4) x1, y1, x2, y2 in pixels."""
    scores: NDArray[np.float32]
    """(n,) in 0..1, descending."""
    left_out: int = 0
    """Persons who were found besides, and are more than were wanted."""

    def __post_init__(self) -> None:
        check_array("bbox_xyxy", self.bbox_xyxy, np.float32, (None, 4))
        check_array("scores", self.scores, np.float32, (len(self.bbox_xyxy),))

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class FramePoses:
    """The persons of one frame, ranked by ``pose_scores``, best first."""

    record: FrameRecord
    bbox_xyxy: NDArray[np.float32]
    """(n, 4) the detector's boxes, pixels."""
    bbox_scores: NDArray[np.float32]
    """(n,)"""
    pose_scores: NDArray[np.float32]
    """(n,) box score times the mean of the confident keypoints' scores."""
    keypoints: NDArray[np.float32]
    """(n, 17, 3) x, y in pixels, score."""
    left_out: int = 0
    """Persons whom the detector found in this frame besides, more than were wanted. Known to who computed the frame; no
    table holds it."""

    def __post_init__(self) -> None:
        n = len(self.bbox_xyxy)
        check_array("bbox_xyxy", self.bbox_xyxy, np.float32, (n, 4))
        check_array("bbox_scores", self.bbox_scores, np.float32, (n,))
        check_array("pose_scores", self.pose_scores, np.float32, (n,))
        check_array("keypoints", self.keypoints, np.float32, (n, NUM_KEYPOINTS, 3))

    @classmethod
    def empty(cls, record: FrameRecord) -> FramePoses:
        """A frame without a person."""
        zeros = np.zeros((0,), np.float32)
        return cls(record, zeros.reshape(0, 4), zeros, zeros, zeros.reshape(0, NUM_KEYPOINTS, 3))

    def __len__(self) -> int:
        return len(self.bbox_xyxy)
