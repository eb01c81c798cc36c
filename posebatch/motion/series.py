"""The movement of each track (stand-in: raw joints, no angles)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from posebatch.core.motion_settings import MotionSettings
from posebatch.motion.blocks import FrameBlock
from posebatch.motion.linking import Links
from posebatch.motion.motion_block import ANGLE_NAMES, MotionBlock
from posebatch.motion.quality import TrackSummary


class MovementSeries:
    """The movement of all tracks of a video."""

    def __init__(self, links: Links, settings: MotionSettings, size_wh: tuple[int, int], kpt_thr: float) -> None:
        self._links, self._settings, self._thr = links, settings, kpt_thr
        self._row = 0
        n = len(links.first_frame)
        self._seen, self._gap = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._times = np.full((n, 2), np.nan)
        self._score = np.zeros(n)

    def add(self, block: FrameBlock) -> Iterator[MotionBlock]:
        """Add frames; yields the rows that are final."""
        links = self._links
        ids = links.track_ids[self._row : self._row + len(block.frame)]
        self._row += len(ids)
        rows = []
        ends = np.searchsorted(block.frame, np.arange(len(block.frame_index) + 1))
        for f, index in enumerate(block.frame_index):
            of_track = {int(ids[i]): i for i in range(ends[f], ends[f + 1]) if ids[i] >= 0}
            for t in np.flatnonzero((links.first_frame <= index) & (links.last_frame >= index)):
                i = of_track.get(int(t), -1)
                rows.append((t, f, i))
                self._seen[t] += i >= 0
                self._gap[t] += i < 0
                if np.isnan(self._times[t, 0]):
                    self._times[t, 0] = block.time_s[f]
                self._times[t, 1] = block.time_s[f]
                self._score[t] += block.pose_scores[i] if i >= 0 else 0
        if not rows:
            return
        track, frame, row = (np.array(column) for column in zip(*rows, strict=True))
        joints = np.full((len(row), 17, 3), np.nan, np.float32)
        known = row >= 0
        joints[known] = block.keypoints[row[known]]
        joints[(joints[:, :, 2] <= self._thr)] = np.nan
        person = np.full(len(row), -1, np.int32)
        person[known] = block.person[row[known]]
        none = np.full((len(row), len(ANGLE_NAMES)), np.nan, np.float32)
        yield MotionBlock(
            track.astype(np.int32), block.frame_index[frame], block.pts[frame], block.time_s[frame], person,
            joints, none, none, none[:, :2], none[:, 0] * np.float32(self._settings.cutoff_hz), none[:, 0],
        )  # fmt: skip

    def finish(self) -> Iterator[MotionBlock]:
        """The rows that are left."""
        return iter(())

    def summaries(self) -> tuple[TrackSummary, ...]:
        """One for each track."""
        links = self._links
        main = int(np.argmax(self._seen)) if len(self._seen) else -1
        return tuple(
            TrackSummary(
                t, int(links.first_frame[t]), int(links.last_frame[t]), float(self._times[t, 0]),
                float(self._times[t, 1]), int(self._seen[t]), int(self._gap[t]),
                float(self._score[t] / self._seen[t]), 1.0, self._settings.cutoff_hz, (1.0,) * 17,
                0.0, 0.0, 0.0, 0, 0, t == main, "A", "",
            )
            for t in range(len(links.first_frame))
        )  # fmt: skip
