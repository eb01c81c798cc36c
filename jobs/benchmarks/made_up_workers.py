"""Scheduling alone, on a real Ray: actors that only wait, and a driver that plans, schedules and counts as in a run.

The tasks for a CPU alone (probing, publishing) are answered in this process at once. So the figures show what the
driver and Ray cost, on however few cores; a core that the actors of a cluster would have is not needed here.
"""

from __future__ import annotations

import io
import resource
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from typing_extensions import override

from benchmarks.child_process import memory_mb, peak_memory_mb
from benchmarks.driver_throughput import WITHOUT_CLIPS, StubPool
from posebatch.core.records import VideoRecord
from posebatch.core.settings import Settings
from posebatch.core.version import __version__
from posebatch.core.videos import SourceVideo
from posebatch.dataset.publication import CommittedRecord
from posebatch.run.context import RunContext
from posebatch.run.failure_policy import DEFAULT_LIMITS
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.pool import Capacity, Completion, Pool
from posebatch.run.progress import Progress
from posebatch.run.scheduler import Scheduler
from posebatch.run.stop_request import StopRequest
from posebatch.run.tally import Tally
from posebatch.run.tasks import Call, ClipResult, ClipsTask, SegmentResult, SegmentTask
from posebatch.storage.local import LocalStore


@dataclass(frozen=True)
class MadeUpContext(RunContext):
    """The context of actors that only wait."""

    seconds: float = 0.0
    """How long the networks of a worker have a segment or a clip."""


class MadeUpWorker:
    """An actor in the place of `actors.SegmentWorker`: its networks have one segment or clip at a time, and wait."""

    def __init__(self, context: MadeUpContext, *_: object) -> None:
        self._context, self._networks = context, threading.Lock()

    def load(self) -> object:
        """See `actors.SegmentWorker`."""
        from posebatch.run.workers.actors import CallResult, ProcessHandle  # noqa: PLC0415 - Ray may be missing

        return CallResult(ProcessHandle(node_id="", crash_dir=""))

    def process(self, task: SegmentTask) -> object:
        """Wait as long as a segment takes."""
        from posebatch.run.workers.actors import CallResult  # noqa: PLC0415

        self._infer(1)
        return CallResult(SegmentResult(125, 0, 5.0))

    def process_clips(self, task: ClipsTask) -> object:
        """Wait as long as all clips take."""
        from posebatch.run.workers.actors import CallResult  # noqa: PLC0415

        self._infer(len(task.clips))
        return [CallResult(ClipResult(SegmentResult(50, 0, 2.0), _record(clip.video))) for clip in task.clips]

    def activity(self) -> int:
        """A heartbeat that never changes."""
        return 0

    def _infer(self, number: int) -> None:
        with self._networks:
            time.sleep(number * self._context.seconds)


class OnlyWorkers(Pool):
    """A pool whose workers are those of another, and whose CPU tasks are answered at once."""

    def __init__(self, workers: Pool, cpu_tasks: StubPool) -> None:
        self._workers, self._cpu_tasks = workers, cpu_tasks

    @override
    def capacity(self) -> Capacity:
        capacity = self._workers.capacity()
        slots = self._cpu_tasks.capacity().task_slots
        return replace(capacity, task_slots=slots)

    @override
    def start_workers(self) -> None:
        self._workers.start_workers()

    @override
    def submit(self, task: Call) -> None:
        pool = self._workers if isinstance(task, SegmentTask | ClipsTask) else self._cpu_tasks
        pool.submit(task)

    @override
    def wait(self, timeout_s: float) -> list[Completion]:
        answered = self._cpu_tasks.wait(0)
        return answered + self._workers.wait(0 if answered else timeout_s)

    @override
    def activity(self) -> int:
        return 0


@dataclass(frozen=True)
class SchedulingFigures:
    """A run over made-up workers on Ray."""

    workers: int
    unit: str
    """``segment`` or ``clip``."""
    units: int
    unit_s: float
    """Seconds that a worker's networks have each."""
    seconds: float
    """Of the run, from when all workers were ready."""
    driver_cpu_s: float
    """Processor time of the driver in it."""
    imports_mb: float
    """Memory of the driver before the run, MB."""
    peak_mb: float

    @property
    def capacity_share(self) -> float:
        """The work done as a fraction of what the workers could have done in the same time."""
        return self.units * self.unit_s / (self.workers * self.seconds)

    @property
    def overhead_ms(self) -> float:
        """Milliseconds of the driver's processor time for each unit."""
        return 1000 * self.driver_cpu_s / self.units


def schedule(
    folder: str,
    settings: Settings,
    workers: int,
    videos: int,
    segments_per_video: int,
    unit_s: float,
    clips: bool,
) -> SchedulingFigures:
    """Run over videos that are only names, on a local Ray with so many workers. Call it in a child process."""
    import ray  # noqa: PLC0415

    from posebatch.run.workers.ray_pool import RayPool  # noqa: PLC0415
    from posebatch.run.workers.ray_session import connect_to_ray  # noqa: PLC0415

    context = MadeUpContext("benchmark", settings, str(Path(folder, "output")), "none", "none", seconds=unit_s)
    before = memory_mb()
    with connect_to_ray(workers, 100 << 20):
        # the processes of Ray know no jobs/
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
        ray_pool = RayPool(context, workers, "cpu", MadeUpWorker)
        ray_pool.start_workers()
        while ray_pool.capacity().ready < workers:
            ray_pool.wait(0.2)
        pool = OnlyWorkers(ray_pool, StubPool(context, workers, segments_per_video))
        progress = Progress(Tally(videos_total=videos), io.StringIO())
        started, cpu = time.perf_counter(), _cpu_seconds()
        with CommitIndex.load(LocalStore(context.output), 0) as index:
            limits = DEFAULT_LIMITS if clips else WITHOUT_CLIPS
            scheduler = Scheduler(context, index, progress, StopRequest(), limits=limits)
            outcome = scheduler.run(_videos(videos), lambda: pool)
        seconds, cpu = time.perf_counter() - started, _cpu_seconds() - cpu
        ray_pool.close()
    assert outcome.tally.published == videos
    unit, units = ("clip", videos) if clips else ("segment", videos * segments_per_video)
    return SchedulingFigures(workers, unit, units, unit_s, seconds, cpu, before, peak_memory_mb())


def _videos(count: int) -> Iterator[SourceVideo]:
    return (SourceVideo(f"/made-up/{number:06d}.mp4", f"{number:06d}.mp4", "e", 1, 0.0) for number in range(count))


def _record(video: SourceVideo) -> CommittedRecord:
    record = VideoRecord(video.uri, video.etag, video.size_bytes, 0.0, "ok", "none", "benchmark", __version__)
    return CommittedRecord(video.output_path, "e", record)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
