"""Collects the figures of a track window by window, in bounded memory."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import KEYPOINT_NAMES, NUM_KEYPOINTS
from posebatch.motion.movement.histogram import LogHistogram
from posebatch.motion.movement.joint_series import JointSeries
from posebatch.motion.movement.quality import TrackSummary, graded
from posebatch.motion.movement.torso import torso_lengths
from posebatch.motion.movement.track_rows import TrackRows

BONES: Final[tuple[tuple[int, int], ...]] = tuple(
    (KEYPOINT_NAMES.index(f"{side}_{upper}"), KEYPOINT_NAMES.index(f"{side}_{lower}"))
    for side in ("left", "right")
    for upper, lower in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
)
"""Bones whose length is watched."""
_LEAST_LENGTHS: Final = 10
"""A bone that is seen less often does not count."""


class TrackMeasures:
    """Figures of one track. ``add`` takes its rows in order, in windows that do not depend on blocks."""

    def __init__(self, track_id: int, frame_center_x: float) -> None:
        self._id, self._center_x = track_id, frame_center_x
        self._frames: list[int] = []
        self._times: list[float] = []
        self._seen = self._gap = self._swaps = self._jumps = 0
        self._scores = self._off_center = 0.0
        self._side_views = 0
        self._joint_seen = np.zeros(NUM_KEYPOINTS, np.int64)
        self._height, self._torso, self._jitter = LogHistogram(), LogHistogram(), LogHistogram()
        self._bones = np.zeros((3, len(BONES)))
        """Number, sum and sum of squares of each bone's lengths."""

    def add(
        self,
        rows: TrackRows,
        series: JointSeries,
        part: slice,
        frame_index: NDArray[np.int64],
        is_side_view: NDArray[np.bool_],
    ) -> None:
        """Count the rows ``part``, which have numbers ``frame_index`` (n,) and are side views where so marked (n,)."""
        seen = rows.person[part] >= 0
        self._frames = [*self._frames[:1], int(frame_index[0]), int(frame_index[-1])]
        self._times = [*self._times[:1], float(rows.time_s[part][0]), float(rows.time_s[part][-1])]
        self._seen += int(seen.sum())
        self._gap += int((~seen).sum())
        self._swaps += int(series.swapped[part].sum())
        self._jumps += int(series.jumps[part].sum())
        self._side_views += int(is_side_view.sum())
        self._scores += float(rows.pose_score[part][seen].sum())
        self._off_center += float(np.abs(rows.center_x[part][seen] / self._center_x - 1).clip(max=1).sum())
        raw, xy, torso = series.raw[part], series.xy[part], series.torso[part]
        self._joint_seen += (~np.isnan(raw[..., 0])).sum(axis=0)
        self._height.add(rows.height[part])
        self._torso.add(torso_lengths(raw))
        if series.filtered:
            self._jitter.add((np.hypot(*np.moveaxis(raw - xy, -1, 0)) / torso[:, None])[series.linked[part]])
        self._add_bones(np.where(series.score[part, :, None] > 0, xy, np.nan), torso)

    def _add_bones(self, xy: NDArray[np.float64], torso: NDArray[np.float64]) -> None:
        upper, lower = np.transpose(BONES)
        lengths = np.hypot(*np.moveaxis(xy[:, upper] - xy[:, lower], -1, 0)) / torso[:, None]
        known = ~np.isnan(lengths)
        lengths = np.where(known, lengths, 0)
        self._bones += np.stack([known.sum(axis=0), lengths.sum(axis=0), (lengths**2).sum(axis=0)])

    def summary(self) -> TrackSummary:
        """The figures, graded; ``is_main`` is left for the comparison with other tracks."""
        spread = self._bone_spread()
        return graded(
            TrackSummary(
                track_id=self._id,
                first_frame=self._frames[0],
                last_frame=self._frames[-1],
                start_s=self._times[0],
                end_s=self._times[-1],
                frames_seen=self._seen,
                frames_gap=self._gap,
                mean_pose_score=self._scores / max(self._seen, 1),
                median_height_px=self._height.median(),
                torso_px=self._torso.median(),
                joint_seen=tuple((self._joint_seen / (self._seen + self._gap)).tolist()),
                side_view=self._side_views / (self._seen + self._gap),
                jitter_torso=self._jitter.median(),
                bone_length_cv_worst=float(spread.max()) if len(spread) else float("nan"),
                bone_length_cv_mean=float(spread.mean()) if len(spread) else float("nan"),
                swap_suspects=self._swaps,
                jump_suspects=self._jumps,
                is_main=False,
                grade="",
                grade_reason="",
            )
        )

    def prominence(self) -> float:
        """How much the video is about this person: rows times height in pixels, half as much at the edge."""
        height = self._height.median()
        return (self._seen - 0.5 * self._off_center) * height if height > 0 else 0.0

    def _bone_spread(self) -> NDArray[np.float64]:
        known = (self._bones[0] >= _LEAST_LENGTHS) & (self._bones[1] > 0)
        count, total, squares = self._bones[:, known]
        mean = total / count
        spread: NDArray[np.float64] = np.sqrt(np.maximum(squares / count - mean**2, 0)) / mean
        return spread
