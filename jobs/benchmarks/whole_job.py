"""The whole job, from files to published tables: in one process without Ray, and on Ray."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import torch
from typing_extensions import override

from benchmarks.child_process import memory_mb, peak_memory_mb
from benchmarks.driver_throughput import tasks_of
from benchmarks.figures import Measured, Memory
from posebatch.core.errors import PosebatchError, RunAbortedError
from posebatch.core.settings import Settings
from posebatch.models.weights.names import weight_file
from posebatch.run.failure_policy import DEFAULT_LIMITS, SchedulerLimits
from posebatch.run.pool import Capacity, Completion, Pool
from posebatch.run.preparation import Prepared, prepare
from posebatch.run.progress import Progress
from posebatch.run.scheduler import Scheduler
from posebatch.run.stop_request import StopRequest
from posebatch.run.tally import Tally
from posebatch.run.tasks import Call, ClipsTask, ClipTask, SegmentTask
from posebatch.run.workers.clip_worker import ClipEnd, ClipProcessor
from posebatch.run.workers.segment_worker import SegmentProcessor
from posebatch.run.workers.video_tasks import perform


def in_this_process(
    archive: str, output: str, settings: Settings, threads: int, limits: SchedulerLimits = DEFAULT_LIMITS
) -> tuple[Measured, Memory]:
    """Run the job with one worker in this process. Call it in a child process: peak memory is of the process."""
    imports, started = memory_mb(), time.perf_counter()
    prepared = prepare([archive], output, settings)
    torch.set_num_threads(threads)
    processor = SegmentProcessor.load(prepared.context, settings.execution.device, threads)

    clips = ClipProcessor(prepared.context, processor)

    def process(call: Call) -> list[Completion]:
        if isinstance(call, ClipsTask):
            return [_completion(clip, end) for clip, end in zip(call.clips, clips.process(call), strict=True)]
        performed = processor.process(call) if isinstance(call, SegmentTask) else perform(call, prepared.context)
        return [Completion(call, performed)]

    measured = _measure_run(prepared, lambda: ThreadPool(process), started, limits)
    processor.close()
    return measured, Memory(peak_memory_mb(), imports, _weights_mb(settings))


def on_ray(archive: str, output: str, settings: Settings, limits: SchedulerLimits = DEFAULT_LIMITS) -> Measured:
    """Run the job on a local Ray, or on the cluster of ``RAY_ADDRESS``. The run begins when all workers are ready."""
    from posebatch.run.workers.ray_cluster import RayCluster  # noqa: PLC0415 - Ray may be missing
    from posebatch.run.workers.ray_pool import RayPool  # noqa: PLC0415
    from posebatch.run.workers.ray_session import choose_device, choose_workers, connected  # noqa: PLC0415

    prepared, started = prepare([archive], output, settings), time.perf_counter()
    execution = settings.execution
    with connected(execution):
        cluster = RayCluster()
        device = choose_device(execution, cluster)
        pool = RayPool(prepared.context, choose_workers(execution, device, cluster), device)
        pool.start_workers()
        while (capacity := pool.capacity()).idle < capacity.workers:
            pool.wait(0.2)
        try:
            return _measure_run(prepared, lambda: pool, started, limits)
        finally:
            pool.close()


def _measure_run(
    prepared: Prepared, start_pool: Callable[[], Pool], started: float, limits: SchedulerLimits
) -> Measured:
    """The run from its first segment on; what came before it, since ``started``, is its start."""
    found = prepared.listing.videos
    progress = Progress(Tally(videos_total=len(found), bytes_total=found.size_bytes), io.StringIO())
    pool = _TimedPool(start_pool())
    scheduler = Scheduler(prepared.context, prepared.load_index(), progress, StopRequest(), limits=limits)
    outcome = scheduler.run(prepared.videos(), lambda: pool)
    if outcome.problems or pool.first_segment is None:
        reasons = [problem.reason for problem in outcome.problems] or ["there was nothing to do"]
        raise RunAbortedError(f"the measured run did not succeed: {reasons[0]}")
    seconds, cpu_s = time.perf_counter() - pool.first_segment, time.process_time() - pool.first_cpu_s
    return Measured(outcome.tally.frames, outcome.tally.persons, seconds, pool.first_segment - started, cpu_s)


def _weights_mb(settings: Settings) -> float:
    estimator = settings.estimator
    files = (weight_file("detector", estimator.detector_name), weight_file("pose", estimator.pose_name))
    return sum(os.path.getsize(file) for file in files) / 1e6


class _TimedPool(Pool):
    """A pool that notes when its first segment was submitted."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.first_segment: float | None = None
        self.first_cpu_s = 0.0

    @override
    def capacity(self) -> Capacity:
        return self._pool.capacity()

    @override
    def start_workers(self) -> None:
        self._pool.start_workers()

    @override
    def submit(self, task: Call) -> None:
        if self.first_segment is None and isinstance(task, SegmentTask | ClipsTask):
            self.first_segment, self.first_cpu_s = time.perf_counter(), time.process_time()
        self._pool.submit(task)

    @override
    def wait(self, timeout_s: float) -> list[Completion]:
        return self._pool.wait(timeout_s)

    @override
    def activity(self) -> int:
        return 0


class ThreadPool(Pool):
    """A `Pool` in this process: one worker for two calls, and one thread for CPU tasks."""

    def __init__(self, process: Callable[[Call], list[Completion]]) -> None:
        self._process = process
        self._worker_threads = ThreadPoolExecutor(2, "worker")
        self._task_thread = ThreadPoolExecutor(1, "task")
        self._running: dict[Future[list[Completion]], Call] = {}

    @override
    def capacity(self) -> Capacity:
        busy = sum(isinstance(call, SegmentTask | ClipsTask) for call in self._running.values())
        return Capacity(int(busy == 0), int(busy == 1), 2 - (len(self._running) - busy), 1, 1)

    @override
    def start_workers(self) -> None:
        pass

    @override
    def submit(self, task: Call) -> None:
        threads = self._worker_threads if isinstance(task, SegmentTask | ClipsTask) else self._task_thread
        self._running[threads.submit(self._process, task)] = task

    @override
    def wait(self, timeout_s: float) -> list[Completion]:
        done, _ = wait(self._running, timeout_s, FIRST_COMPLETED)
        return [completion for future in done for completion in _completions(self._running.pop(future), future)]

    @override
    def activity(self) -> int:
        return 0


def _completions(call: Call, future: Future[list[Completion]]) -> list[Completion]:
    try:
        return future.result()
    except PosebatchError as error:
        return [Completion(task, error=error) for task in tasks_of(call)]


def _completion(clip: ClipTask, end: Future[ClipEnd]) -> Completion:
    try:
        return Completion(clip, end.result())
    except PosebatchError as error:
        return Completion(clip, error=error)
