"""The whole job, from files to published tables: in one process without Ray, and on Ray."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, cast

import torch
from typing_extensions import override

from benchmarks.child_process import memory_mb, peak_memory_mb
from benchmarks.figures import Measured, Memory
from posebatch.core.errors import PosebatchError, RunAbortedError
from posebatch.core.settings import Settings
from posebatch.models.weights.names import weight_file
from posebatch.run.pool import Completion, Pool
from posebatch.run.preparation import Prepared, prepare
from posebatch.run.progress import Progress, Tally
from posebatch.run.scheduler import Runner
from posebatch.run.tasks import SegmentTask, VideoTask
from posebatch.run.workers.segment_worker import SegmentProcessor
from posebatch.run.workers.video_tasks import perform


def in_this_process(archive: str, output: str, settings: Settings, threads: int) -> tuple[Measured, Memory]:
    """Run the job with one worker in this process. Call it in a child process: peak memory is of the process."""
    imports, started = memory_mb(), time.perf_counter()
    prepared = prepare([archive], output, settings)
    torch.set_num_threads(threads)
    processor = SegmentProcessor.load(prepared.context, settings.execution.device, threads)

    def perform_task(task: SegmentTask | VideoTask) -> object:
        return processor.process(task) if isinstance(task, SegmentTask) else perform(task, prepared.context)

    measured = _measure_run(prepared, lambda: ThreadPool(perform_task), started)
    processor.close()
    return measured, Memory(peak_memory_mb(), imports, _weights_mb(settings))


def on_ray(archive: str, output: str, settings: Settings) -> Measured:
    """Run the job on a local Ray, or on the cluster of ``RAY_ADDRESS``. The run begins when all workers are ready."""
    from posebatch.run.workers.ray_pool import RayPool  # noqa: PLC0415 - Ray may be missing
    from posebatch.run.workers.ray_session import choose_device, choose_workers, connected  # noqa: PLC0415

    prepared, started = prepare([archive], output, settings), time.perf_counter()
    execution = settings.execution
    with connected(execution):
        device = choose_device(execution)
        pool = RayPool(prepared.context, choose_workers(execution, device), device)
        while pool.idle_workers() < pool.workers():
            pool.wait(0.2)
        try:
            return _measure_run(prepared, lambda: pool, started)
        finally:
            pool.close()


def _measure_run(prepared: Prepared, start_pool: Callable[[], Pool], started: float) -> Measured:
    """Measure a run from its first segment on. The time from ``started`` to then is start-up."""
    videos = prepared.listing.videos
    progress = Progress(Tally(videos_total=len(videos), bytes_total=videos.size_bytes), io.StringIO())
    pool = _FirstSegmentPool(start_pool())
    outcome = Runner(prepared.context, prepared.standings, lambda: cast(Pool, pool), progress).run(prepared.videos())
    if outcome.complaints or pool.first_segment is None:
        reasons = [complaint.reason for complaint in outcome.complaints] or ["there was nothing to do"]
        raise RunAbortedError(f"the measured run did not succeed: {reasons[0]}")
    seconds = time.perf_counter() - pool.first_segment
    return Measured(outcome.tally.frames, outcome.tally.persons, seconds, pool.first_segment - started)


def _weights_mb(settings: Settings) -> float:
    estimator = settings.estimator
    files = (weight_file("detector", estimator.detector_name), weight_file("pose", estimator.pose_name))
    return sum(os.path.getsize(file) for file in files) / 1e6


class _FirstSegmentPool:
    """A pool that notes the time of its first segment."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.first_segment: float | None = None

    def submit(self, job: SegmentTask | VideoTask) -> None:
        if self.first_segment is None and isinstance(job, SegmentTask):
            self.first_segment = time.perf_counter()
        self._pool.submit(job)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


class ThreadPool(Pool):
    """A pool in this process: one worker for two segments at a time, and CPU tasks one at a time beside it."""

    def __init__(self, perform_task: Callable[[SegmentTask | VideoTask], object]) -> None:
        self._perform_task = perform_task
        self._segment_threads = ThreadPoolExecutor(2, "segment")
        self._task_threads = ThreadPoolExecutor(1, "task")
        self._running: dict[Future[object], SegmentTask | VideoTask] = {}

    @override
    def workers(self) -> int:
        return 1

    @override
    def idle_workers(self) -> int:
        return int(self._running_segments() == 0)

    @override
    def shareable_workers(self) -> int:
        return int(self._running_segments() == 1)

    @override
    def idle_task_slots(self) -> int:
        return 2 - (len(self._running) - self._running_segments())

    @override
    def activity(self) -> int:
        return 0

    @override
    def submit(self, job: SegmentTask | VideoTask) -> None:
        threads = self._segment_threads if isinstance(job, SegmentTask) else self._task_threads
        self._running[threads.submit(self._perform_task, job)] = job

    @override
    def wait(self, timeout_s: float) -> list[Completion]:
        done, _ = wait(self._running, timeout_s, FIRST_COMPLETED)
        return [_completion(self._running.pop(future), future) for future in done]

    def _running_segments(self) -> int:
        return sum(isinstance(task, SegmentTask) for task in self._running.values())


def _completion(task: SegmentTask | VideoTask, future: Future[object]) -> Completion:
    try:
        return Completion(task, future.result())
    except PosebatchError as error:
        return Completion(task, error=error)
