"""Trackers of the library ``trackers``, to compare the linker with. They see boxes, no joints."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.extras import need
from posebatch.motion.blocks import FrameBlock

OTHER_TRACKERS: Final = ("bytetrack", "oc-sort")


def track_with(name: str, block: FrameBlock) -> NDArray[np.int64]:
    """The track of each person (n,), -1 without one, by one of `OTHER_TRACKERS` with its defaults.

    Their patience is 1 s. Raises `UsageError` if the library is not installed.
    """
    need("trackers")
    from trackers import ByteTrackTracker, OCSORTTracker  # noqa: PLC0415 - few installations have it

    frames_per_s = 1 / float(np.median(np.diff(block.time_s)))
    tracker = {"bytetrack": ByteTrackTracker, "oc-sort": OCSORTTracker}[name](frame_rate=frames_per_s)
    track = np.full(len(block.frame), -1, np.int64)
    for frame in range(len(block.frame_index)):
        rows = np.flatnonzero(block.frame == frame)
        updated = tracker.update(_detections(block, rows))
        if len(updated):  # without a person it has no columns
            track[updated.data["row"].astype(np.int64)] = updated.tracker_id
    return track


def _detections(block: FrameBlock, rows: NDArray[np.int64]) -> Any:
    import supervision  # noqa: PLC0415 - comes with trackers

    return supervision.Detections(
        xyxy=block.bbox_xyxy[rows].astype(np.float64).reshape(-1, 4),
        confidence=block.bbox_scores[rows].astype(np.float64),
        class_id=np.zeros(len(rows), np.int64),
        data={"row": rows},  # the order of what comes back may differ
    )
