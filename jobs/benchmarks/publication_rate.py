"""Publication rate of tiny videos, and whether it falls with the number published. Only the workers are stubs."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.child_process import memory_mb, peak_memory_mb
from benchmarks.driver_throughput import WITHOUT_CLIPS, StubPool, make_archive
from benchmarks.scaling import INFO
from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.core.records import DecodeReport, SegmentReport, VideoRecord
from posebatch.core.settings import Settings
from posebatch.core.videos import VideoPlan
from posebatch.dataset.publication import CommittedRecord
from posebatch.dataset.tables.staged import StagedWriter
from posebatch.run.context import RunContext
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.inputs import list_inputs, parse_inputs
from posebatch.run.progress import Progress
from posebatch.run.scheduler import Scheduler
from posebatch.run.stop_request import StopRequest
from posebatch.run.tally import Tally
from posebatch.run.tasks import FinalizeTask, ProbeResult, ProbeTask, SegmentResult, SegmentTask, Task
from posebatch.run.workers.finalize import finalize_video
from posebatch.storage.local import LocalStore

MARK: Final = 1000
"""Videos per rate."""


FRAMES: Final = 4
"""Frames of a tiny video, with one person each."""


STAGING: Final = "_state/staging/"


@dataclass(frozen=True)
class PublicationFigures:
    """The publication of tiny videos on the local store."""

    videos: int
    frames_per_video: int
    seconds: float
    publishing_s: float
    """Seconds within `finalize_video`."""
    publishing_cpu_s: float
    """Of them, seconds of processor time, over all threads."""
    staged_bytes_read: int
    """Bytes read from the staging area."""
    seconds_by_mark: list[float]
    """Seconds for each `MARK` videos, in their order."""
    memory_by_mark: list[float]
    """Memory after each `MARK` videos, MB."""
    imports_mb: float
    peak_mb: float
    up_to_date_after: int
    """Videos that the next run finds up to date: must be all."""


class CountingStore(LocalStore):
    """Counts the bytes that are read from the staging area."""

    staged_bytes_read = 0

    def read(self, key: str) -> bytes:
        """See `LocalStore`."""
        content = super().read(key)
        if key.startswith(STAGING):
            self.staged_bytes_read += len(content)
        return content


class CountingContext(RunContext):
    """A context whose store counts."""

    @cached_property
    def counting_store(self) -> CountingStore:
        """The output."""
        return CountingStore(self.output)

    def store(self) -> CountingStore:
        """The same, always."""
        return self.counting_store


class PublishingPool(StubPool):
    """A `Pool` that stages made-up poses and publishes them as the job does."""

    def __init__(self, context: RunContext, frames_per_video: int) -> None:
        super().__init__(context, 2, 1)
        self.publishing_s = self.publishing_cpu_s = 0.0
        rng = np.random.default_rng(0)
        self._frames = [_frame(index, rng) for index in range(frames_per_video)]

    def _perform(self, task: Task) -> object:
        match task:
            case SegmentTask():
                return self._stage(task)
            case ProbeTask():
                return ProbeResult(task.video, VideoPlan(INFO, self._segments), frozenset())
            case FinalizeTask():
                return self._finalize(task)
            case _:
                return super()._perform(task)

    def _finalize(self, task: FinalizeTask) -> CommittedRecord:
        started, cpu_started = time.perf_counter(), time.process_time()
        committed = finalize_video(task, self._context)
        self.publishing_s += time.perf_counter() - started
        self.publishing_cpu_s += time.process_time() - cpu_started
        return committed

    def _stage(self, task: SegmentTask) -> SegmentResult:
        content = io.BytesIO()
        writer = StagedWriter(content)
        for frame in self._frames:
            writer.add(frame)
        count = len(self._frames)
        writer.close(SegmentReport(DecodeReport(count, first_pts=0, last_pts=count - 1)))
        self._context.staging(task.video).stage(task.segment, content)
        return SegmentResult(count, count, 0.1)


def publish_tiny_videos(
    folder: str, settings: Settings, videos: int, frames_per_video: int = FRAMES
) -> PublicationFigures:
    """Publish so many videos. Call it in a child."""
    context = CountingContext("benchmark", settings, f"{folder}/output", "none", "none")
    archive, store = make_archive(Path(folder, "archive"), videos), context.store()
    found = list_inputs(parse_inputs([str(archive)]), settings.selection).videos
    before = memory_mb()
    marks, memory = [time.perf_counter()], []
    published = 0

    def count(_: VideoRecord) -> None:
        nonlocal published
        published += 1
        if published % MARK == 0:
            marks.append(time.perf_counter())
            memory.append(memory_mb())

    pool, progress = PublishingPool(context, frames_per_video), Progress(Tally(videos_total=videos), io.StringIO())
    with CommitIndex.load(store, len(found)) as index:
        Scheduler(context, index, progress, StopRequest(), count, WITHOUT_CLIPS).run(found, lambda: pool)
        seconds = time.perf_counter() - marks[0]
    index = CommitIndex.load(store, len(found))
    again = Scheduler(context, index, progress, StopRequest()).run(found, lambda: pool)
    by_mark = np.diff(marks).tolist()
    return PublicationFigures(
        videos,
        frames_per_video,
        seconds,
        pool.publishing_s,
        pool.publishing_cpu_s,
        store.staged_bytes_read,
        by_mark,
        memory,
        before,
        peak_memory_mb(),
        again.tally.up_to_date,
    )


def _frame(index: int, rng: np.random.Generator) -> FramePoses:
    return FramePoses(
        FrameRecord(index, index, index == 0, "ok"),
        rng.random((1, 4), np.float32),
        rng.random(1, np.float32),
        rng.random(1, np.float32),
        rng.random((1, 17, 3), np.float32),
    )
