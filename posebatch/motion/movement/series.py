"""The movement of all tracks of a video: smoothed joints, angles, speeds, and what each track is worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.motion_settings import MotionSettings
from posebatch.core.skeleton import KEYPOINT_NAMES, NUM_KEYPOINTS
from posebatch.motion.blocks import FrameBlock
from posebatch.motion.movement.angles import ANGLES, MIRROR, body_angles
from posebatch.motion.movement.facing import HALF_WINDOW_S, Facing, facing, side_evidence
from posebatch.motion.movement.joint_series import JointSeries, joint_series
from posebatch.motion.movement.motion_block import MotionBlock
from posebatch.motion.movement.outliers import HALF_WINDOW_FRAMES
from posebatch.motion.movement.quality import TrackSummary
from posebatch.motion.movement.smoothing import low_pass
from posebatch.motion.movement.speeds import angle_rates, velocities
from posebatch.motion.movement.track_measures import TrackMeasures
from posebatch.motion.movement.track_rows import TrackRows, track_rows
from posebatch.motion.movement.windows import FrameWindows, Window
from posebatch.motion.tracking.links import Links

Array = NDArray[np.float64]

WINDOW_S: Final = 30.0
"""Length of the windows in which a video is handled."""
MAIN_S: Final = 1.0
"""The main person is seen at least this long."""

_HIPS: Final = [KEYPOINT_NAMES.index(f"{side}_hip") for side in ("left", "right")]
_ANKLES: Final = [KEYPOINT_NAMES.index(f"{side}_ankle") for side in ("left", "right")]
_NEEDS: Final = np.array([[joint in angle.joints for angle in ANGLES] for joint in range(NUM_KEYPOINTS)], np.float32)
"""(17, A) which angle needs which joint."""


class Movement:
    """Computes the movement of the tracks of one video from its frames, given once in order.

    Results do not depend on where blocks end. Memory is bounded by a window, and a summary per track.

    >>> series = Movement(links, settings, (1920, 1080), kpt_thr=0.3)
    >>> for block in blocks:
    ...     for rows in series.add(block):
    ...         write(rows)
    >>> for rows in series.finish():
    ...     write(rows)
    >>> series.summaries()
    """

    def __init__(self, links: Links, settings: MotionSettings, size_wh: tuple[int, int], kpt_thr: float) -> None:
        self._links, self._settings, self._size, self._kpt_thr = links, settings, size_wh, kpt_thr
        self._windows = FrameWindows(WINDOW_S, context_s(settings))
        self._rows = 0
        self._origin: float | None = None
        self._open: dict[int, TrackMeasures] = {}
        self._faces: dict[int, float] = {}
        self._summaries: dict[int, TrackSummary] = {}
        self._prominence: dict[int, float] = {}

    def add(self, block: FrameBlock) -> Iterator[MotionBlock]:
        """Take the next frames; gives the rows that are final, ordered by frame and track."""
        rows = len(block.frame)
        ids = self._links.track_ids[self._rows : self._rows + rows]
        if len(ids) != rows:
            raise ValueError(f"links cover {len(self._links.track_ids)} rows, the frames have more")
        self._rows += rows
        if self._origin is None and len(block.time_s):
            self._origin = float(block.time_s[0])
        for window in self._windows.add(block, ids):
            yield from self._movement(window)

    def finish(self) -> Iterator[MotionBlock]:
        """The remaining rows."""
        if self._rows != len(self._links.track_ids):
            raise ValueError(f"links cover {len(self._links.track_ids)} rows, the frames have {self._rows}")
        for window in self._windows.finish():
            yield from self._movement(window)

    def summaries(self) -> tuple[TrackSummary, ...]:
        """One per track, by id, after `finish`. The main person is the most prominent one that is seen long enough."""
        main = max(
            (track for track, summary in self._summaries.items() if summary.end_s - summary.start_s >= MAIN_S),
            key=lambda track: (self._prominence[track], -track),
            default=None,
        )
        return tuple(replace(self._summaries[track], is_main=track == main) for track in sorted(self._summaries))

    def _movement(self, window: Window) -> Iterator[MotionBlock]:
        """The rows of one window. What a crowd has in it comes in parts, sorted together."""
        parts = [self._part(window, rows) for rows in track_rows(window, self._links, 2 * HALF_WINDOW_FRAMES[1])]
        self._close(int(window.block.frame_index[window.stop - 1]))
        if parts:
            yield _sorted(parts)

    def _part(self, window: Window, rows: TrackRows) -> MotionBlock:
        assert self._origin is not None
        filter_ = low_pass(window.block.time_s, self._settings.cutoff_hz)
        series = joint_series(rows, self._settings, self._kpt_thr, filter_, self._origin)
        faced = self._facing(rows, series, round(HALF_WINDOW_S / filter_.interval_s))
        core = (rows.track >= 0) & (rows.frame >= window.start) & (rows.frame < window.stop)
        self._measure(window, rows, series, core, faced)
        return _block(window, rows, series, faced, core)

    def _facing(self, rows: TrackRows, series: JointSeries, half: int) -> Facing:
        before = np.array([self._faces.get(int(track), 0.0) for track in rows.track[rows.begins]])
        return facing(side_evidence(series.xy, series.torso), rows.begins, rows.ends, half, before)

    def _measure(
        self, window: Window, rows: TrackRows, series: JointSeries, core: NDArray[np.bool_], faced: Facing
    ) -> None:
        for begin, end in zip(rows.begins.tolist(), rows.ends.tolist(), strict=True):
            inside = np.flatnonzero(core[begin:end]) + begin
            if not len(inside):
                continue
            track, part = int(rows.track[begin]), slice(int(inside[0]), int(inside[-1]) + 1)
            measures = self._open.setdefault(track, TrackMeasures(track, self._size[0] / 2))
            measures.add(rows, series, part, window.block.frame_index[rows.frame[part]], faced.is_side_view[part])
            self._faces[track] = float(faced.side[part][-1])

    def _close(self, frame_index: int) -> None:
        """Sum up the tracks that end by ``frame_index``."""
        for track in [track for track in self._open if self._links.last_frame[track] <= frame_index]:
            measures = self._open.pop(track)
            del self._faces[track]
            self._summaries[track], self._prominence[track] = measures.summary(), measures.prominence()


def context_s(settings: MotionSettings) -> float:
    """Seconds on both sides of a window that its rows may depend on: the filter's memory, and a gap with its knots."""
    return 4.0 + settings.max_gap_seconds + 3.0 / settings.cutoff_hz


def _block(window: Window, rows: TrackRows, series: JointSeries, faced: Facing, core: NDArray[np.bool_]) -> MotionBlock:
    sides = faced.side
    angles = body_angles(series.xy, sides)
    linked = (~series.linked).astype(np.float32) @ _NEEDS == 0
    as_seen = np.where(sides[:, None] > 0, angles, MIRROR - angles)  # a turn of the person is no turn of a joint
    rates = angle_rates(rows.time_s, as_seen, linked) * sides[:, None]
    hips = series.xy[:, _HIPS].mean(axis=1)
    hips_linked = series.linked[:, _HIPS].all(axis=1, keepdims=True).repeat(2, axis=1)
    speed = np.hypot(*velocities(rows.time_s, hips, hips_linked).T) / series.torso
    height = (series.xy[:, _ANKLES, 1].max(axis=1) - hips[:, 1]) / series.torso
    at, block = rows.frame[core], window.block
    return MotionBlock(
        track_id=rows.track[core].astype(np.int32),
        frame_index=block.frame_index[at],
        pts=block.pts[at],
        time_s=block.time_s[at],
        person=rows.person[core],
        facing=np.where(faced.is_side_view, sides, 0)[core].astype(np.int8),
        joints=np.concatenate([series.xy[core], series.score[core, :, None]], axis=2).astype(np.float32),
        angles=angles[core].astype(np.float32),
        rates=rates[core].astype(np.float32),
        hip_xy=hips[core].astype(np.float32),
        hip_height_torso=height[core].astype(np.float32),
        speed_torso_per_s=speed[core].astype(np.float32),
    )


def _sorted(parts: list[MotionBlock]) -> MotionBlock:
    names = list(MotionBlock.__dataclass_fields__)
    values = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    order = np.lexsort((values["track_id"], values["frame_index"]))
    return MotionBlock(**{name: value[order] for name, value in values.items()})
