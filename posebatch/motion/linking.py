"""Who is who over a video (stand-in: greedy IoU from frame to frame)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from posebatch.core.motion_settings import MotionSettings
from posebatch.motion.blocks import FrameBlock


@dataclass(frozen=True)
class Links:
    """The track of each person row of a video."""

    track_ids: NDArray[np.int32]
    """(rows,) one per person row in row order, -1: no track."""
    first_frame: NDArray[np.int64]
    """(tracks,) frame_index of the first row of each track."""
    last_frame: NDArray[np.int64]
    """(tracks,) frame_index of its last row."""


def link(blocks: Iterable[FrameBlock], settings: MotionSettings, size_wh: tuple[int, int], kpt_thr: float) -> Links:
    """Link the persons of a video into tracks."""
    ids: list[int] = []
    first: list[int] = []
    last: list[int] = []
    boxes: list[NDArray[np.float32]] = []
    times: list[float] = []
    for block in blocks:
        ends = np.searchsorted(block.frame, np.arange(len(block.frame_index) + 1))
        for f, (a, b) in enumerate(pairwise(ends)):
            taken: set[int] = set()
            for i in range(a, b):
                box, time_s = block.bbox_xyxy[i], float(block.time_s[f])
                open_tracks = [
                    t for t in range(len(boxes)) if t not in taken and time_s - times[t] <= settings.max_gap_seconds
                ]
                best = max(open_tracks, key=lambda t: _iou(boxes[t], box), default=None)
                if best is None or _iou(boxes[best], box) < 0.3:
                    if block.bbox_scores[i] < 0.3:
                        ids.append(-1)
                        continue
                    best = len(boxes)
                    first.append(int(block.frame_index[f]))
                    last.append(0)
                    boxes.append(box)
                    times.append(time_s)
                taken.add(best)
                ids.append(best)
                last[best], boxes[best], times[best] = int(block.frame_index[f]), box, time_s
    return Links(np.array(ids, np.int32), np.array(first, np.int64), np.array(last, np.int64))


def _iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inner = float(np.prod(np.clip(high - low, 0, None)))
    union = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - inner
    return inner / union if union > 0 else 0.0
