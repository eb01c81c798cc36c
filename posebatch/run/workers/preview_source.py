"""What the previews of a video draw: its persons, read from the staged segments or from the published tables.

The frames are read more than once: who is who, the gaps of tracks and the movement are known only at the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.errors import StorageUnavailableError
from posebatch.core.frames import FramePoses
from posebatch.core.records import VideoRecord
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.core.videos import VideoInfo
from posebatch.dataset.publication import read_published_frames, read_record
from posebatch.dataset.staging import StagingArea
from posebatch.dataset.tables.blocks import frame_block
from posebatch.motion.movement.angles import ANGLE_NAMES
from posebatch.motion.movement.motion_block import MotionBlock
from posebatch.motion.movement.series import Movement
from posebatch.motion.tracking.links import Links
from posebatch.report.head_regions import Gap, GapFinder
from posebatch.report.labels import LABELLED_JOINTS
from posebatch.run.context import RunContext
from posebatch.run.tasks import PreviewTask
from posebatch.run.workers.finalize import frames_of_segments, links_of_segments
from posebatch.run.workers.heartbeat import heartbeat

FRAMES_TOGETHER: Final = 512
"""Frames from which angles are computed at once."""


@dataclass(frozen=True)
class ClipSource:
    """A video whose previews are drawn."""

    info: VideoInfo
    read: Callable[[], Iterator[FramePoses]]
    """Reads all processed frames in order, from the beginning; with the tracks of their persons as far as needed."""
    record: VideoRecord | None = None
    """The commit record of a video that is published already."""


def clip_source(task: PreviewTask, staging: StagingArea, context: RunContext) -> ClipSource:
    """The source of the task's previews. Raises `StorageUnavailableError` if a published video is gone."""
    if task.plan is not None:
        plan, read = task.plan, staging.read_segment
        settings = context.settings
        needs_tracks = settings.colors_by_track or settings.preview.needs_tracks
        links = links_of_segments(read, plan, context) if needs_tracks else None
        return ClipSource(plan.info, lambda: _followed(chain.from_iterable(frames_of_segments(read, plan)), links))
    record = read_record(staging.store, task.video.output_path)
    if record is None or record.info is None:
        raise StorageUnavailableError(
            f"{task.video.uri}: its commit record is gone; the next run computes the video again"
        )
    return ClipSource(record.info, lambda: read_published_frames(staging.store, task.video.output_path), record)


def _followed(frames: Iterator[FramePoses], links: Links | None) -> Iterator[FramePoses]:
    """The frames of a whole video with the tracks of their persons."""
    begin = 0
    for frame in frames:
        end = begin + len(frame)
        yield frame if links is None else replace(frame, track_ids=links.track_ids[begin:end])
        begin = end


@dataclass(frozen=True)
class Outline:
    """What is known of a clip before its first frame is drawn."""

    frames: int
    """Frames that can be shown: those that were decoded without damage."""
    gaps: tuple[Gap, ...]
    """Frames in which a track is lost for a moment; empty unless heads are blurred."""
    links: Links
    """The tracks of its persons; empty unless angles are drawn."""


def outline(source: ClipSource, context: RunContext) -> Outline:
    """Read a clip once, as far as its previews need that."""
    preview = context.settings.preview
    shown, finder, ids, ranges = 0, GapFinder(), [], dict[int, list[int]]()
    for frame in source.read():
        heartbeat.beat()
        shown += frame.record.status == "ok"
        if preview.blurs_faces:
            finder.add(frame)
        if "angles" in preview.show:
            own = np.full(len(frame), -1, np.int32) if frame.track_ids is None else frame.track_ids
            ids.append(own)
            for track_id in own[own >= 0].tolist():
                index = frame.record.frame_index
                ranges.setdefault(track_id, [index, index])[1] = index
    return Outline(shown, tuple(finder.gaps), _links(ids, ranges))


def _links(ids: list[NDArray[np.int32]], ranges: dict[int, list[int]]) -> Links:
    tracks = [ranges[track_id] for track_id in sorted(ranges)]
    first, last = np.array(tracks, np.int64).reshape(-1, 2).T
    return Links(np.concatenate([np.zeros(0, np.int32), *ids]), first, last)


class ClipAngles:
    """The angles of each person, as the table ``motion`` has them, computed a little ahead of the frames::

    angles = ClipAngles(source, outline.links, context)
    for poses in source.read():
        by_joint = angles.of(poses)   # any frames, in order
    """

    def __init__(self, source: ClipSource, links: Links, context: RunContext) -> None:
        self._blocks = _movement(source, links, context)
        self._rows: deque[tuple[int, int, dict[int, float]]] = deque()  # frame, track, angles
        self._columns = {joint: ANGLE_NAMES.index(KEYPOINT_NAMES[joint]) for joint in LABELLED_JOINTS}

    def of(self, poses: FramePoses) -> list[dict[int, float]]:
        """Degrees by joint for each person of a frame; empty where they are not known."""
        index, by_track = poses.record.frame_index, dict[int, dict[int, float]]()
        while self._rows or self._read_on():
            if self._rows[0][0] > index:
                break
            frame_index, track_id, angles = self._rows.popleft()
            if frame_index == index:
                by_track[track_id] = angles
        ids = [] if poses.track_ids is None else poses.track_ids.tolist()
        return [by_track.get(track_id, {}) for track_id in ids] or [{}] * len(poses)

    def _read_on(self) -> bool:
        """Take the next rows; returns whether there are any."""
        for block in self._blocks:
            for row in range(len(block.track_id)):
                angles = {joint: float(block.angles[row, column]) for joint, column in self._columns.items()}
                self._rows.append((int(block.frame_index[row]), int(block.track_id[row]), angles))
            if self._rows:
                return True
        return False


def _movement(source: ClipSource, links: Links, context: RunContext) -> Iterator[MotionBlock]:
    info, settings = source.info, context.settings
    series = Movement(links, settings.motion, (info.width, info.height), settings.estimator.kpt_thr)
    remaining = source.read()
    while frames := list(islice(remaining, FRAMES_TOGETHER)):
        heartbeat.beat()
        yield from series.add(frame_block(frames, info.time_base))
    yield from series.finish()
