"""Where the heads of persons are: the regions that are blurred, also in frames in which a person is lost for a moment.

Nose, eyes and ears give the region. A wrong region shows a face, so that regions are generous, and the upper part of
the person's box counts where these joints are unsure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import FramePoses, check_array
from posebatch.core.skeleton import KEYPOINT_NAMES

HEAD: Final = [KEYPOINT_NAMES.index(name) for name in ("nose", "left_eye", "right_eye", "left_ear", "right_ear")]


SURE: Final = 0.5
"""Score from which a joint of the head counts."""


MIN_SURE_JOINTS: Final = 2
"""With fewer joints of the head the upper part of the box counts, too."""


_RADII: Final = (
    ("left_ear", "right_ear", 1.2),
    ("left_eye", "right_eye", 2.6),
    ("nose", "left_eye", 2.6),
    ("nose", "right_eye", 2.6),
    ("nose", "left_ear", 1.5),
    ("nose", "right_ear", 1.5),
    ("left_eye", "left_ear", 1.6),
    ("right_eye", "right_ear", 1.6),
    ("left_shoulder", "right_shoulder", 0.45),
)
"""Half the side of the region relative to the distance of two sure joints; the largest counts. A head is 23 cm high,
15 cm wide between the ears, 6 cm between the eyes; shoulders are 36 cm apart."""


_RADIUS_OF_BOX: Final = 0.09
"""Least half of the side of the region relative to the longer side of the box. A standing person's head takes 0.13."""


UPPER_PART: Final = 0.35
"""Share of the box that counts as its upper part. It is the whole box of a person who lies: wider than high."""


GAP_MARGIN: Final = 0.3
"""A region between two frames is larger by this share of its size: nobody moves quite evenly."""


def head_region(box: NDArray[np.float32], keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
    """The region (4,) x1, y1, x2, y2 of the head of a person with this box (4,) and these keypoints (17, 3), pixels."""
    sure = keypoints[:, 2] >= SURE
    head = [joint for joint in HEAD if sure[joint]]
    sides = box[2:] - box[:2]
    radius = float(_RADIUS_OF_BOX * sides.max())
    for first, second, factor in _RADII:
        a, b = KEYPOINT_NAMES.index(first), KEYPOINT_NAMES.index(second)
        if sure[a] and sure[b]:
            radius = max(radius, factor * float(np.hypot(*(keypoints[a, :2] - keypoints[b, :2]))))
    if len(head) >= MIN_SURE_JOINTS:
        return _around(keypoints[head, :2], radius)
    height = sides[1] if sides[0] > sides[1] else UPPER_PART * sides[1]
    upper = np.array([box[0], box[1], box[2], box[1] + height], np.float32)
    guess = keypoints[HEAD, :2]
    inside = ((guess >= box[:2]) & (guess <= box[2:])).all(axis=1)
    return _union(upper, _around(guess[inside], radius)) if inside.any() else upper


def head_regions(poses: FramePoses) -> NDArray[np.float32]:
    """The regions (n, 4) of the heads of the persons of a frame."""
    regions = [head_region(box, joints) for box, joints in zip(poses.bbox_xyxy, poses.keypoints, strict=True)]
    return np.array(regions, np.float32).reshape(-1, 4)


def _around(points: NDArray[np.float32], radius: float) -> NDArray[np.float32]:
    """The box around points, whose centre is at least ``radius`` from each side."""
    centre = points.mean(axis=0)
    low = np.minimum(points.min(axis=0), centre - radius)
    high = np.maximum(points.max(axis=0), centre + radius)
    return np.concatenate([low, high]).astype(np.float32)


def _union(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])])


@dataclass(frozen=True)
class Gap:
    """A track is lost between two frames. Frames are given by their ``pts``."""

    pts: tuple[int, int]
    """Of the last frame before the gap, and of the first one after it."""
    regions: NDArray[np.float32]
    """(2, 4) region of the head in these frames."""

    def __post_init__(self) -> None:
        check_array("regions", self.regions, np.float32, (2, 4))

    def region(self, pts: int) -> NDArray[np.float32]:
        """The region (4,) in a frame of the gap: between those of its ends, and larger by `GAP_MARGIN`."""
        begin, end = self.pts
        share = (pts - begin) / (end - begin)
        middle = (1 - share) * self.regions[0] + share * self.regions[1]
        margin = GAP_MARGIN * (middle[2:] - middle[:2]) / 2
        return np.concatenate([middle[:2] - margin, middle[2:] + margin]).astype(np.float32)


class GapFinder:
    """Finds the gaps of all tracks in the frames of a clip, given once in order."""

    def __init__(self) -> None:
        self._frames = 0
        self._last: dict[int, tuple[int, int, NDArray[np.float32]]] = {}  # by track: frame, pts, region
        self.gaps: list[Gap] = []
        """In the order in which they end."""

    def add(self, poses: FramePoses) -> None:
        """Take the next frame."""
        ids = [] if poses.track_ids is None else poses.track_ids.tolist()
        for person, track_id in enumerate(ids):
            if track_id < 0:
                continue
            region = head_region(poses.bbox_xyxy[person], poses.keypoints[person])
            before = self._last.get(track_id)
            if before is not None and self._frames > before[0] + 1 and poses.record.pts > before[1]:
                self.gaps.append(Gap((before[1], poses.record.pts), np.stack([before[2], region])))
            self._last[track_id] = self._frames, poses.record.pts, region
        self._frames += 1


class HeadsOfClip:
    """The regions of all heads in each frame of a clip: those of the persons found, and those in gaps."""

    def __init__(self, gaps: Iterable[Gap] = ()) -> None:
        self._waiting = deque(sorted(gaps, key=lambda gap: gap.pts))
        self._open: list[Gap] = []

    def regions(self, poses: FramePoses) -> NDArray[np.float32]:
        """The regions (n, 4) in a frame. Call it with frames in order; some may be left out."""
        pts = poses.record.pts
        while self._waiting and self._waiting[0].pts[0] < pts:
            self._open.append(self._waiting.popleft())
        self._open = [gap for gap in self._open if gap.pts[1] > pts]
        lost = [gap.region(pts) for gap in self._open]
        return np.concatenate([head_regions(poses), np.array(lost, np.float32).reshape(-1, 4)])
