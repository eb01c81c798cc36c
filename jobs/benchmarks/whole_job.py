"""The job itself, from files to published tables: in one process without Ray, and on Ray."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, cast

import torch

from benchmarks.child_process import memory_mb, peak_memory_mb
from benchmarks.figures import Measured, Memory
from posebatch.core.errors import PosebatchError, RunAbortedError
from posebatch.core.settings import Settings
from posebatch.models.weights.names import weight_file
from posebatch.run.pool import Completion, Pool
from posebatch.run.preparation import Prepared, prepare
from posebatch.run.progress import Progress, Tally
from posebatch.run.scheduler import Scheduler
from posebatch.run.stop_request import StopRequest
from posebatch.run.tasks import SegmentTask, VideoTask
from posebatch.run.workers.segment_worker import SegmentProcessor
from posebatch.run.workers.video_tasks import perform


def in_this_process(archive: str, output: str, settings: Settings, threads: int) -> tuple[Measured, Memory]:
    """One worker in this process: probe, decode, estimate, stage, publish. Call it in a child: memory has a peak."""
    imports, started = memory_mb(), time.perf_counter()
    prepared = prepare([archive], output, settings)
    torch.set_num_threads(threads)
    processor = SegmentProcessor.load(prepared.context, settings.execution.device, threads)

    def end(job: SegmentTask | VideoTask) -> object:
        return processor.process(job) if isinstance(job, SegmentTask) else perform(job, prepared.context)

    measured = _timed(prepared, lambda: ThreadPool(end), started)
    processor.close()
    return measured, Memory(peak_memory_mb(), imports, _weights_mb(settings))


def on_ray(archive: str, output: str, settings: Settings) -> Measured:
    """The job on a local Ray, or on the cluster of ``RAY_ADDRESS``; all workers are ready before it begins."""
    from posebatch.run.workers.ray_pool import RayPool  # noqa: PLC0415 - where there is one
    from posebatch.run.workers.ray_session import choose_device, choose_workers, connected  # noqa: PLC0415 - where there is one

    prepared, started = prepare([archive], output, settings), time.perf_counter()
    execution = settings.execution
    with connected(execution):
        device = choose_device(execution)
        pool = RayPool(prepared.context, choose_workers(execution, device), device)
        while pool.idle_workers() < pool.workers():
            pool.wait(0.2)
        try:
            return _timed(prepared, lambda: pool, started)
        finally:
            pool.close()


def _timed(prepared: Prepared, start_pool: Callable[[], Pool], started: float) -> Measured:
    """The run from its first segment on; what came before it, since ``started``, is its start."""
    found = prepared.listing.videos
    progress = Progress(Tally(videos_total=len(found), bytes_total=found.size_bytes), io.StringIO())
    pool = _Watched(start_pool())
    scheduler = Scheduler(prepared.context, prepared.standings, progress, StopRequest())
    outcome = scheduler.run(prepared.videos(), lambda: cast(Pool, pool))
    if outcome.problems or pool.first_segment is None:
        reasons = [problem.reason for problem in outcome.problems] or ["there was nothing to do"]
        raise RunAbortedError(f"the measured run did not succeed: {reasons[0]}")
    seconds = time.perf_counter() - pool.first_segment
    return Measured(outcome.tally.frames, outcome.tally.persons, seconds, pool.first_segment - started)


def _weights_mb(settings: Settings) -> float:
    estimator = settings.estimator
    files = (weight_file("detector", estimator.detector_name), weight_file("pose", estimator.pose_name))
    return sum(os.path.getsize(file) for file in files) / 1e6


class _Watched:
    """A pool that remembers when it was given its first segment."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.first_segment: float | None = None

    def activity(self) -> int:
        """See `runner.Pool`."""
        return 0

    def submit(self, job: SegmentTask | VideoTask) -> None:
        if self.first_segment is None and isinstance(job, SegmentTask):
            self.first_segment = time.perf_counter()
        self._pool.submit(job)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


class ThreadPool:
    """A `runner.Pool` in this process: one worker with two places, and CPU tasks one at a time beside it."""

    def __init__(self, end: Callable[[SegmentTask | VideoTask], object]) -> None:
        self._end = end
        self._segments = ThreadPoolExecutor(2, "segment")
        self._tasks = ThreadPoolExecutor(1, "task")
        self._under_way: dict[Future[object], SegmentTask | VideoTask] = {}

    def workers(self) -> int:
        """See `runner.Pool`."""
        return 1

    def idle_workers(self) -> int:
        """See `runner.Pool`."""
        return int(self._segments_under_way() == 0)

    def shareable_workers(self) -> int:
        """See `runner.Pool`."""
        return int(self._segments_under_way() == 1)

    def idle_task_slots(self) -> int:
        """See `runner.Pool`."""
        return 2 - (len(self._under_way) - self._segments_under_way())

    def activity(self) -> int:
        """See `runner.Pool`."""
        return 0

    def submit(self, job: SegmentTask | VideoTask) -> None:
        """See `runner.Pool`."""
        threads = self._segments if isinstance(job, SegmentTask) else self._tasks
        self._under_way[threads.submit(self._end, job)] = job

    def wait(self, timeout_s: float) -> list[Completion]:
        """See `runner.Pool`."""
        done, _ = wait(self._under_way, timeout_s, FIRST_COMPLETED)
        return [_completion(self._under_way.pop(future), future) for future in done]

    def _segments_under_way(self) -> int:
        return sum(isinstance(job, SegmentTask) for job in self._under_way.values())


def _completion(job: SegmentTask | VideoTask, future: Future[object]) -> Completion:
    try:
        return Completion(job, future.result())
    except PosebatchError as error:
        return Completion(job, error=error)
