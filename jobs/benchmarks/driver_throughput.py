"""Throughput and memory of the driver: a run over stub workers that finish at once."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from typing_extensions import override

from benchmarks.child_process import memory_mb, peak_memory_mb
from benchmarks.scaling import INFO
from posebatch.core.records import VideoRecord
from posebatch.core.settings import Settings
from posebatch.core.version import __version__
from posebatch.core.videos import Segment, SourceVideo, VideoPlan
from posebatch.dataset.layout import record_key
from posebatch.dataset.publication import CommittedRecord
from posebatch.dataset.tables.records import record_to_bytes
from posebatch.run.context import RunContext
from posebatch.run.failure_policy import SchedulerLimits
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.inputs import list_videos, parse_inputs
from posebatch.run.pool import Capacity, Completion, Pool
from posebatch.run.progress import Progress
from posebatch.run.scheduler import Scheduler
from posebatch.run.stop_request import StopRequest
from posebatch.run.tally import Tally
from posebatch.run.tasks import (
    Call,
    ClipResult,
    ClipsTask,
    ClipTask,
    FinalizeTask,
    ProbeResult,
    ProbeTask,
    SegmentResult,
    SegmentTask,
    Task,
)
from posebatch.storage.local import LocalStore, local_etag

FOLDER_VIDEOS: Final = 1000
"""Videos per folder of the archive."""


WITHOUT_CLIPS: Final = SchedulerLimits(clips_together=1)
"""No video is taken for a clip, however small it is."""


@dataclass(frozen=True)
class DriverFigures:
    """A run of the driver over stub workers, and a second run with nothing to do."""

    workers: int
    videos: int
    segments_per_video: int
    seconds: float
    """Time to list, decide, schedule, write a small file per video, and write the ledger."""
    again_s: float
    """Time of the second run, which finds all videos up to date by that ledger."""
    published_again: int
    """Videos that the second run published: must be 0."""
    imports_mb: float
    """Memory before the run, MB."""
    peak_at_tenth_mb: float
    """Peak memory after a tenth of the videos, MB."""
    peak_mb: float

    @property
    def segments(self) -> int:
        """Segments scheduled by the first run."""
        return self.videos * self.segments_per_video

    @property
    def segments_per_s(self) -> float:
        """Segments scheduled per second."""
        return self.segments / self.seconds


class StubPool(Pool):
    """A `Pool` whose workers answer at once, and whose CPU tasks do next to nothing, so that the driver is all.

    Only the commit record of a video is published, always with the bytes of the first one. All videos have its ETag and
    fingerprint, by which the next run finds them up to date.
    """

    def __init__(self, context: RunContext, workers: int, segments_per_video: int) -> None:
        self._context, self._workers = context, workers
        self._record_bytes = b""
        self._segments = tuple(Segment(i, 100 * i, 100) for i in range(segments_per_video))
        self._calls: list[Call] = []

    @override
    def capacity(self) -> Capacity:
        busy = sum(isinstance(call, SegmentTask | ClipsTask) for call in self._calls)
        cpu_tasks = len(self._calls) - busy
        return Capacity(self._workers - busy, 0, max(2, self._workers) - cpu_tasks, self._workers, self._workers)

    @override
    def start_workers(self) -> None:
        pass

    @override
    def submit(self, task: Call) -> None:
        self._calls.append(task)

    @override
    def wait(self, timeout_s: float) -> list[Completion]:
        calls, self._calls = self._calls, []
        return [Completion(task, self._perform(task)) for call in calls for task in tasks_of(call)]

    @override
    def activity(self) -> int:
        return 0

    def _perform(self, task: Task) -> object:
        match task:
            case ClipTask():
                return ClipResult(SegmentResult(50, 0, 2.0), self._publish(task.video))
            case SegmentTask():
                return SegmentResult(100, 0, 4.0)
            case ProbeTask():
                return ProbeResult(task.video, VideoPlan(INFO, self._segments), frozenset())
            case FinalizeTask():
                return self._publish(task.video)
            case _:
                raise AssertionError(f"nothing here can fail, but there is a {type(task).__name__}")

    def _publish(self, video: SourceVideo) -> CommittedRecord:
        record = VideoRecord(
            video=video.uri,
            etag=video.etag,
            size_bytes=video.size_bytes,
            last_modified=video.last_modified,
            status="ok",
            settings_fingerprint=self._context.data_fingerprint,
            run_id=self._context.run_id,
            posebatch_version=__version__,
            info=INFO,
        )
        path = Path(self._context.output, record_key(video.output_path))
        if not self._record_bytes:
            self._record_bytes = record_to_bytes(record)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._record_bytes)
        return CommittedRecord(video.output_path, local_etag(path.stat()), record)


def tasks_of(call: Call) -> tuple[Task, ...]:
    """The tasks that a call is made of: the clips of a group, or the call itself."""
    return call.clips if isinstance(call, ClipsTask) else (call,)


def run_driver(
    folder: str,
    settings: Settings,
    videos: int,
    segments_per_video: int,
    workers: int,
    limits: SchedulerLimits = WITHOUT_CLIPS,
) -> DriverFigures:
    """Run over an archive of empty files, twice. Call it in a child process. With `DEFAULT_LIMITS` all are clips."""
    context = RunContext("benchmark", settings, f"{folder}/output", "none", "none")
    archive = make_archive(Path(folder, "archive"), videos)
    before = memory_mb()
    peaks: list[float] = []
    published = 0

    def count(_: VideoRecord) -> None:
        nonlocal published
        published += 1
        if published == max(1, videos // 10):
            peaks.append(peak_memory_mb())

    def run() -> float:
        started, store = time.perf_counter(), LocalStore(context.output)
        pool = StubPool(context, workers, segments_per_video)
        progress = Progress(Tally(videos_total=videos), io.StringIO())
        with CommitIndex.load(store, videos) as index:
            scheduler = Scheduler(context, index, progress, StopRequest(), count, limits)
            scheduler.run(_list_videos(archive, settings), lambda: pool)
        return time.perf_counter() - started

    seconds = run()
    again_s = run()
    again = published - videos
    return DriverFigures(
        workers, videos, segments_per_video, seconds, again_s, again, before, peaks[0], peak_memory_mb()
    )


def make_archive(archive: Path, videos: int) -> Path:
    """Make empty files, all with the same ETag."""
    for number in range(videos):
        path = archive / f"{number // FOLDER_VIDEOS:03d}" / f"{number:06d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (0, 0))
    return archive


def _list_videos(archive: Path, settings: Settings) -> Iterator[SourceVideo]:
    return (replace(video, size_bytes=1) for video in list_videos(parse_inputs([str(archive)]), settings.selection))
