"""A fake pool that runs tasks in this process, in a fixed order, with scripted faults; and an archive to run it on."""

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
from posebatch.dataset.publication import CommittedRecord, read_record
from posebatch.run.admission import Admission
from posebatch.run.context import RunContext
from posebatch.run.failure_policy import SchedulerLimits
from posebatch.run.outcome import RunOutcome
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.inputs import list_videos, parse_inputs
from posebatch.run.pool import Capacity, Completion
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
from posebatch.run.workers.finalize import finalize_video
from posebatch.run.workers.packet_indexes import packet_index
from posebatch.run.workers.video_tasks import perform
from posebatch.storage.local import LocalStore
from posebatch.storage.open import check_unchanged, open_video
from posebatch.video.indexes.packet_index import NO_INDEX
from posebatch.video.options import DecodeOptions
from posebatch.video.segment_decoder import SegmentDecoder
from support.factories import staged_file
from support.tiny_video import write_tiny_video

Fault = Callable[[Task], PosebatchError | None]


FAST = SchedulerLimits(retry_seconds=0.0, poll_seconds=0.01, clips_together=1)
"""The limits of a run, without its pauses. No video is a clip."""

FAST_CLIPS = replace(FAST, clips_together=4)
"""The same, and every tiny video is taken for a clip."""

WATCHDOG_SECONDS = 60
"""A run that never ends must fail its own test and not block the others."""


def no_fault(_: Task) -> None:
    return None


def process(task: SegmentTask, context: RunContext) -> SegmentResult:
    """A worker's handling of a segment without networks: one person per frame, at the frame's number."""
    with open_video(task.video, context.endpoint_url) as file:
        options = DecodeOptions(sampling=context.settings.sampling, batch_frames=4)
        index = packet_index(task.video, context) if task.segment.is_scanned else NO_INDEX
        decoder = SegmentDecoder(file, task.video.uri, task.segment, task.info, options, index)
        records = [record for batch in decoder for record in batch.records]
    check_unchanged(task.video.uri, task.video.etag)
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
    context.staging(task.video).stage(task.segment, staged_file(frames, SegmentReport(decoder.report)))
    return SegmentResult(len(frames), len(frames), 0.1)


def process_clip(task: ClipTask, context: RunContext) -> ClipResult | ProbeResult:
    """A worker's handling of a clip without networks."""
    if task.again and (record := read_record(context.store(), task.video.output_path)):
        return ClipResult(SegmentResult(0, 0, 0.1), CommittedRecord(task.video.output_path, "", record))
    probed = perform(ProbeTask(task.video), context)
    assert isinstance(probed, ProbeResult)
    if len(probed.plan.segments) > 1:
        return probed
    counts = process(SegmentTask(task.video, probed.plan.info, probed.plan.segments[0]), context)
    if context.preview_fingerprints:
        return ClipResult(counts, replace(probed, staged=frozenset()))
    return ClipResult(counts, finalize_video(FinalizeTask(task.video, probed.plan, task.attempts), context))


def perform_without_networks(task: Task, context: RunContext) -> object:
    """The handling of any task, with made-up persons."""
    match task:
        case SegmentTask():
            return process(task, context)
        case ClipTask():
            return process_clip(task, context)
        case _:
            return perform(task, context)


def tasks_of(call: Call) -> list[Task]:
    """The tasks of a call."""
    return [*call.clips] if isinstance(call, ClipsTask) else [call]


@dataclass
class FakePool:
    """A `Pool` that ends one call at a time, in the order of submission; a dead worker ends all that it has."""

    context: RunContext
    fault: Fault
    held: Callable[[Task], bool]
    """Tasks that must not end yet."""
    perform: Callable[[Task], object]
    after: Callable[[Completion], None] = lambda _: None
    workers: int = 2
    alive: Callable[[], int] = lambda: 0
    running: list[Call] = field(default_factory=list)
    submitted: list[Task] = field(default_factory=list)
    groups: list[ClipsTask] = field(default_factory=list)
    """All groups of clips that were submitted."""
    segments: list[list[SegmentTask | ClipsTask]] = field(init=False)
    """Running segments and groups, by worker."""

    def __post_init__(self) -> None:
        self.segments = [[] for _ in range(self.workers)]

    def capacity(self) -> Capacity:
        return Capacity(
            idle=sum(not tasks for tasks in self.segments),
            shareable=sum(len(tasks) == 1 and not tasks[0].alone for tasks in self.segments),
            task_slots=2 - sum(not isinstance(call, SegmentTask | ClipsTask) for call in self.running),
            workers=self.workers,
            ready=self.workers,
        )

    def start_workers(self) -> None:
        pass

    def submit(self, task: Call) -> None:
        capacity = self.capacity()
        if isinstance(task, SegmentTask | ClipsTask):
            assert capacity.idle or (capacity.shareable and not task.alone)
            open_to_more = (tasks for tasks in self.segments if not any(other.alone for other in tasks))
            min(open_to_more, key=len).append(task)
            assert max(map(len, self.segments)) <= 2
        else:
            assert capacity.task_slots > 0
        self.running.append(task)
        self.submitted += tasks_of(task)
        self.groups += [task] if isinstance(task, ClipsTask) else []

    def wait(self, timeout_s: float) -> list[Completion]:
        call = next((call for call in self.running if not any(map(self.held, tasks_of(call)))), None)
        if call is None:
            time.sleep(0.001)
            return []
        completions = self._end(call)
        for completion in completions:
            self.after(completion)
        return completions

    def activity(self) -> int:
        return self.alive()

    def companions(self, task: SegmentTask) -> list[SegmentTask]:
        """The other segments in the worker of a running one."""
        (tasks,) = (tasks for tasks in self.segments if task in tasks)
        return [other for other in tasks if other is not task]

    def _end(self, call: Call) -> list[Completion]:
        """End a call. When a clip kills its worker, those before it in its group are published, but not reported."""
        completions: list[Completion] = []
        for task in tasks_of(call):
            completions.append(self._perform(task))
            if isinstance(completions[-1].error, WorkerDiedError):
                break
        calls = next((calls for calls in self.segments if call in calls), [])
        last = completions[-1]
        died = isinstance(last.error, WorkerDiedError) and bool(calls)
        ended = list(calls) if died else [call]
        for ended_call in ended:
            self.running.remove(ended_call)
        calls[:] = [other for other in calls if other not in ended]
        tasks = [task for ended_call in ended for task in tasks_of(ended_call)]
        if not died:
            return completions
        if not isinstance(last.error, WorkerCrashError | EvictedError):
            return [replace(last, task=task, shared=len(tasks) > 1) for task in tasks]
        evicted = EvictedError("scripted: ended by another segment")
        return [Completion(task, error=last.error if task is last.task else evicted) for task in tasks]

    def _perform(self, task: Task) -> Completion:
        error = self.fault(task)
        if error is not None:
            return Completion(task, error=error)
        try:
            return Completion(task, self.perform(task))
        except PosebatchError as caught:
            return Completion(task, error=caught)


class PlannedPool(FakePool):
    """A pool that starts once all videos are planned. Without it the planner's pace decides the groups of clips."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for planner in (thread for thread in threading.enumerate() if thread.name == "planner"):
            planner.join(WATCHDOG_SECONDS)
            assert not planner.is_alive()


class Archive:
    """A folder of videos, an output, and runs over them."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root / "in", LocalStore(root / "out")
        self.root.mkdir()
        self.pools: list[FakePool] = []
        self.records: list[VideoRecord] = []
        self.said = io.StringIO()
        self.tally = Tally()
        self.limits, self.clock = FAST, time.monotonic
        self.pool_class: type[FakePool] = FakePool
        self.after: Callable[[StopRequest, Completion], None] = lambda *_: None
        self.admission: Callable[[Progress], Admission | None] = lambda _: None

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
        held: Callable[[Task], bool] = lambda _: False,
        videos: Iterable[SourceVideo] | None = None,
        perform_task: Callable[[Task], object] | None = None,
        workers: int = 2,
        alive: Callable[[], int] = lambda: 0,
        **chosen,
    ) -> RunOutcome:
        context, stop = self.context(**chosen), StopRequest()

        def really(task: Task) -> object:
            return perform_without_networks(task, context)

        def start_pool() -> FakePool:
            pool = self.pool_class(
                context, fault, held, perform_task or really, lambda c: self.after(stop, c), workers, alive
            )
            self.pools.append(pool)
            return pool

        self.tally, self.records = Tally(), []
        progress = Progress(self.tally, self.said)
        index = CommitIndex.load(self.store, 0)
        scheduler = Scheduler(
            context, index, progress, stop, self.records.append, self.limits, self.clock, self.admission(progress)
        )
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

    def submitted(self, *kinds: type) -> list[Task]:
        return [task for task in self.pools[-1].submitted if isinstance(task, kinds)]

    def tries(self, name: str) -> Counter:
        """How often each segment of a video was submitted in the last run, by index."""
        return Counter(task.segment.index for task in self.submitted(SegmentTask) if task.video.output_path == name)

    def left_behind(self) -> list[str]:
        return [found.key for found in self.store.list("_state/")]


class Times:
    """A fault in one kind of task on one video, a number of times."""

    def __init__(
        self, error: Callable[[str], PosebatchError], kind: type, name: str = "", times: int = 1, segment=None
    ):
        self.error, self.kind, self.name, self.left, self.segment = error, kind, name, times, segment
        self.happened = 0

    def __call__(self, task: Task) -> PosebatchError | None:
        meant = isinstance(task, self.kind) and task.video.output_path.startswith(self.name)
        if isinstance(task, SegmentTask) and self.segment is not None and task.segment.index != self.segment:
            meant = False
        if not meant or self.happened >= self.left:
            return None
        self.happened += 1
        return self.error(f"{task.video.uri}: scripted")


ALWAYS = 10**9


def facts(outcome: RunOutcome) -> tuple[int, int, int, int]:
    tally = outcome.tally
    return tally.published, tally.up_to_date, tally.failed, tally.quarantined
