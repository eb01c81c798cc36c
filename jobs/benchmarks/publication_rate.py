"""Publication rate of tiny videos, and whether it falls with the number published. Only the workers are stubs."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from typing_extensions import override

from benchmarks.child_process import memory_mb, peak_memory_mb
from benchmarks.driver_throughput import StubPool, make_archive
from benchmarks.scaling import INFO
from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.core.records import DecodeReport, SegmentReport
from posebatch.core.settings import Settings
from posebatch.core.videos import VideoPlan
from posebatch.dataset.publication import CommittedRecord
from posebatch.dataset.staging import StagingArea
from posebatch.dataset.tables.staged import StagedWriter
from posebatch.run.context import RunContext
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.inputs import list_inputs, parse_inputs
from posebatch.run.progress import Progress, Tally
from posebatch.run.scheduler import Runner
from posebatch.run.tasks import FinalizeTask, ProbeResult, ProbeTask, SegmentResult, SegmentTask, VideoTask
from posebatch.run.workers.finalize import finalize_video
from posebatch.storage.local import LocalStore

MARK: Final = 1000
"""Videos per rate."""


FRAMES: Final = 4
"""Frames of a tiny video, with one person each."""


@dataclass(frozen=True)
class PublicationFigures:
    """The publication of tiny videos on the local store."""

    videos: int
    seconds: float
    seconds_by_mark: list[float]
    """Seconds for each `MARK` videos, in their order."""
    memory_by_mark: list[float]
    """Memory after each `MARK` videos, MB."""
    imports_mb: float
    peak_mb: float
    up_to_date_after: int
    """Videos that the next run finds up to date: must be all."""


class PublishingPool(StubPool):
    """A pool that stages invented poses and publishes them as the job does."""

    @override
    def _perform(self, task: SegmentTask | VideoTask) -> object:
        match task:
            case SegmentTask():
                return self._stage(task)
            case ProbeTask():
                return ProbeResult(task.video, VideoPlan(INFO, self._segments), frozenset())
            case FinalizeTask():
                return finalize_video(task, self._context)
            case _:
                return super()._perform(task)

    def _stage(self, task: SegmentTask) -> SegmentResult:
        content = io.BytesIO()
        writer = StagedWriter(content)
        for index in range(FRAMES):
            writer.add(_frame(index))
        writer.close(SegmentReport(DecodeReport(FRAMES, first_pts=0, last_pts=FRAMES - 1)))
        staging = StagingArea.of(LocalStore(self._context.output), task.video, self._context.data_fingerprint)
        staging.stage(task.segment, content)
        return SegmentResult(FRAMES, FRAMES, 0.1)


def publish_tiny_videos(folder: str, settings: Settings, videos: int) -> PublicationFigures:
    """Publish ``videos`` tiny videos. Call it in a child process."""
    context = RunContext("benchmark", settings, f"{folder}/output", "none", "none")
    archive, store = make_archive(Path(folder, "archive"), videos), LocalStore(context.output)
    listed = list_inputs(parse_inputs([str(archive)]), settings.selection).videos
    index, before = CommitIndex(store, len(listed)), memory_mb()
    marks, memory = [time.perf_counter()], []
    published = 0

    def note(committed: CommittedRecord) -> None:
        nonlocal published
        index.note(committed)
        published += 1
        if published % MARK == 0:
            marks.append(time.perf_counter())
            memory.append(memory_mb())

    pool, progress = PublishingPool(context, 2, 1), Progress(Tally(videos_total=videos), io.StringIO())
    Runner(context, index, lambda: pool, progress, note).run(listed)
    seconds = time.perf_counter() - marks[0]
    index.save()
    again = Runner(context, CommitIndex(store, len(listed)), lambda: pool, progress, note).run(listed)
    by_mark = np.diff(marks).tolist()
    return PublicationFigures(videos, seconds, by_mark, memory, before, peak_memory_mb(), again.tally.up_to_date)


def _frame(index: int) -> FramePoses:
    return FramePoses(
        FrameRecord(index, index, index == 0, "ok"),
        np.ones((1, 4), np.float32),
        np.ones(1, np.float32),
        np.ones(1, np.float32),
        np.ones((1, 17, 3), np.float32),
    )
