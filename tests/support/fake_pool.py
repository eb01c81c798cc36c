"""A pool in this process that runs tasks in a fixed order and fails as scripted, and an archive to run it on."""

import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from posebatch.core.errors import (
    EvictedError,
    PosebatchError,
    WorkerCrashError,
    WorkerDiedError,
)
from posebatch.core.frames import FramePoses
from posebatch.core.records import SegmentReport, VideoRecord
from posebatch.core.settings import settings_from
from posebatch.core.videos import SourceVideo
from posebatch.dataset.publication import read_record
from posebatch.run.context import RunContext
from posebatch.run.outcome import RunOutcome
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.inputs import list_videos, parse_inputs
from posebatch.run.pool import Completion
from posebatch.run.progress import Progress, Tally
from posebatch.run.scheduler import Scheduler
from posebatch.run.stop_request import StopRequest
from posebatch.run.tasks import (
    SegmentResult,
    SegmentTask,
    VideoTask,
)
from posebatch.run.workers.video_tasks import perform
from posebatch.storage.local import LocalStore
from posebatch.storage.open import check_unchanged, open_source
from posebatch.video.options import DecodeOptions
from posebatch.video.segment_decoder import SegmentDecoder
from support.factories import staged_file
from support.tiny_video import write_tiny_video

Job = SegmentTask | VideoTask
Fault = Callable[[Job], PosebatchError | None]


WATCHDOG_SECONDS = 60
"""A run that waits for ever must fail its test, not stop all tests."""


def no_fault(_: Job) -> None:
    return None


def process(job: SegmentTask, context: RunContext) -> SegmentResult:
    """What a worker does with a segment, but for the networks: everybody stands at the number of their frame."""
    with open_source(job.video.uri, job.video.etag, context.endpoint_url) as file:
        decoder = SegmentDecoder(
            file,
            job.video.uri,
            job.segment,
            job.info,
            DecodeOptions(sampling=context.settings.sampling, batch_frames=4),
        )
        records = [record for batch in decoder for record in batch.records]
    check_unchanged(job.video.uri, job.video.etag)
    frames = [
        FramePoses(
            record,
            np.full((1, 4), record.frame_index, np.float32),
            np.ones(1, np.float32),
            np.ones(1, np.float32),
            np.ones((1, 17, 3), np.float32),
        )
        for record in records
    ]
    work = context.staging(job.video)
    work.stage(job.segment, staged_file(frames, SegmentReport(decoder.report)))
    return SegmentResult(len(frames), len(frames), 0.1)


@dataclass
class FakePool:
    """Ends one job at a time, in the order in which they were given; a worker that dies takes its segments along."""

    context: RunContext
    fault: Fault
    held: Callable[[Job], bool]
    """Jobs that must not end yet."""
    perform: Callable[[Job], object]
    after: Callable[[Completion], None] = lambda _: None
    wanted: int = 2
    alive: Callable[[], int] = lambda: 0
    under_way: list[Job] = field(default_factory=list)
    submitted: list[Job] = field(default_factory=list)
    in_workers: list[list[SegmentTask]] = field(init=False)

    def __post_init__(self) -> None:
        self.in_workers = [[] for _ in range(self.wanted)]

    def workers(self) -> int:
        return self.wanted

    def idle_workers(self) -> int:
        return sum(not jobs for jobs in self.in_workers)

    def shareable_workers(self) -> int:
        return sum(len(jobs) == 1 and not jobs[0].alone for jobs in self.in_workers)

    def activity(self) -> int:
        return self.alive()

    def idle_task_slots(self) -> int:
        return 2 - sum(not isinstance(job, SegmentTask) for job in self.under_way)

    def submit(self, job: Job) -> None:
        if isinstance(job, SegmentTask):
            assert self.idle_workers() or (self.shareable_workers() and not job.alone)
            min((jobs for jobs in self.in_workers if not any(one.alone for one in jobs)), key=len).append(job)
            assert max(map(len, self.in_workers)) <= 2
        else:
            assert self.idle_task_slots() > 0
        self.under_way.append(job)
        self.submitted.append(job)

    def wait(self, timeout_s: float) -> list[Completion]:
        job = next((job for job in self.under_way if not self.held(job)), None)
        if job is None:
            time.sleep(0.001)
            return []
        completion = self._end(job)
        worker = next((jobs for jobs in self.in_workers if job in jobs), [])
        ended: list[Job] = [job]
        if isinstance(completion.error, WorkerDiedError) and worker:
            ended = list(worker)
        for one in ended:
            self.under_way.remove(one)
        worker[:] = [one for one in worker if one not in ended]
        completions = [replace(completion, job=one, shared=len(ended) > 1) for one in ended]
        if isinstance(completion.error, WorkerCrashError | EvictedError):
            bystander = EvictedError("scripted: ended by another segment")
            errors = [completion.error if one is job else bystander for one in ended]
            completions = [Completion(one, error=error) for one, error in zip(ended, errors, strict=True)]
        for one in completions:
            self.after(one)
        return completions

    def _end(self, job: Job) -> Completion:
        error = self.fault(job)
        if error is not None:
            return Completion(job, error=error)
        try:
            return Completion(job, self.perform(job))
        except PosebatchError as caught:
            return Completion(job, error=caught)


class Archive:
    """A folder of videos, an output, and runs over them, night after night."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root / "in", LocalStore(root / "out")
        self.root.mkdir()
        self.pools: list[FakePool] = []
        self.records: list[VideoRecord] = []
        self.said = io.StringIO()
        self.tally = Tally()
        self.pool_class: type[FakePool] = FakePool
        self.after: Callable[[StopRequest, Completion], None] = lambda *_: None

    def add(self, *names: str, **look) -> None:
        for name in names:
            write_tiny_video(self.root / name, **look)

    def videos(self) -> Iterator[SourceVideo]:
        settings = settings_from({})
        return list_videos(parse_inputs([str(self.root)]), settings.selection)

    def video(self, name: str) -> SourceVideo:
        return next(video for video in self.videos() if video.output_path == name)

    def context(self, **chosen) -> RunContext:
        settings = settings_from({"segment_seconds": 0.2, **chosen})
        return RunContext("run-1", settings, self.store.root, "d@1", "p@1")

    def run(
        self,
        fault: Fault = no_fault,
        held: Callable[[Job], bool] = lambda _: False,
        videos: Iterable[SourceVideo] | None = None,
        perform_job: Callable[[Job], object] | None = None,
        workers: int = 2,
        alive: Callable[[], int] = lambda: 0,
        **chosen,
    ) -> RunOutcome:
        context, stop = self.context(**chosen), StopRequest()

        def really(job: Job) -> object:
            return process(job, context) if isinstance(job, SegmentTask) else perform(job, context)

        def start_pool() -> FakePool:
            pool = self.pool_class(
                context, fault, held, perform_job or really, lambda c: self.after(stop, c), workers, alive
            )
            self.pools.append(pool)
            return pool

        self.tally, self.records = Tally(), []
        progress = Progress(self.tally, self.said)
        scheduler = Scheduler(context, CommitIndex(self.store), progress, stop, self.records.append)
        watchdog = threading.Timer(WATCHDOG_SECONDS, stop.request, ["the watchdog"])
        watchdog.start()
        try:
            outcome = scheduler.run(iter(self.videos() if videos is None else videos), start_pool)
        finally:
            watchdog.cancel()
        assert "planner" not in {thread.name for thread in threading.enumerate()}
        return outcome

    def record(self, name: str) -> VideoRecord:
        record = read_record(self.store, name)
        assert record is not None
        return record

    def submitted(self, *kinds: type) -> list[Job]:
        return [job for job in self.pools[-1].submitted if isinstance(job, kinds)]

    def tries(self, name: str) -> Counter:
        """How often each segment of a video was given to a worker in the last run."""
        return Counter(job.segment.index for job in self.submitted(SegmentTask) if job.video.output_path == name)

    def left_behind(self) -> list[str]:
        return [found.key for found in self.store.list("_state/")]


class Times:
    """A fault that happens to one kind of job on one video, so many times."""

    def __init__(
        self, error: Callable[[str], PosebatchError], kind: type, name: str = "", times: int = 1, segment=None
    ):
        self.error, self.kind, self.name, self.left, self.segment = error, kind, name, times, segment
        self.happened = 0

    def __call__(self, job: Job) -> PosebatchError | None:
        meant = isinstance(job, self.kind) and job.video.output_path.startswith(self.name)
        if isinstance(job, SegmentTask) and self.segment is not None and job.segment.index != self.segment:
            meant = False
        if not meant or self.happened >= self.left:
            return None
        self.happened += 1
        return self.error(f"{job.video.uri}: scripted")


ALWAYS = 10**9


def facts(outcome: RunOutcome) -> tuple[int, int, int, int]:
    tally = outcome.tally
    return tally.published, tally.up_to_date, tally.failed, tally.quarantined
