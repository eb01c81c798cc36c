"""The order in which waiting tasks get a worker, on workers that only count time."""

from __future__ import annotations

import math

import pytest
from typing_extensions import override

from posebatch.core.videos import SourceVideo
from posebatch.run.failure_policy import DEFAULT_LIMITS
from posebatch.run.pool import SEGMENTS_PER_WORKER, Capacity, Completion, Pool
from posebatch.run.tasks import Call, ClipsTask, ClipTask
from posebatch.run.work_queue import WorkQueue


class CountingWorkers(Pool):
    """Workers that take one second for each clip, and process their calls one after another."""

    def __init__(self, workers: int) -> None:
        self.calls: list[list[float]] = [[] for _ in range(workers)]  # by worker: when each call ends
        self.now = 0.0
        self.clips = 0

    @override
    def capacity(self) -> Capacity:
        held = [len(calls) for calls in self.calls]
        shareable = sum(0 < number < SEGMENTS_PER_WORKER for number in held)
        return Capacity(held.count(0), shareable, 0, len(held), len(held))

    @override
    def start_workers(self) -> None:
        pass

    @override
    def submit(self, task: Call) -> None:
        assert isinstance(task, ClipsTask)
        worker = min(self.calls, key=len)
        worker.append(max([self.now, *worker]) + len(task.clips))
        self.clips += len(task.clips)

    @override
    def wait(self, timeout_s: float) -> list[Completion]:
        self.now = min(calls[0] for calls in self.calls if calls)
        for calls in self.calls:
            calls[:] = [end for end in calls if end > self.now]
        return []

    @override
    def activity(self) -> int:
        return 0


@pytest.mark.parametrize(("clips", "workers"), [(0, 2), (1, 2), (20, 1), (20, 2), (60, 8), (200, 32), (1000, 8)])
def test_queue_gives_out_clips_so_that_all_workers_end_together(clips: int, workers: int) -> None:
    queue, pool = WorkQueue(lambda: 0.0, DEFAULT_LIMITS), CountingWorkers(workers)
    for number in range(clips):
        queue.add(ClipTask(SourceVideo(f"/in/{number}", str(number), "etag", 10, 0.0)))
    queue.submit_to(pool)
    while any(pool.calls):
        pool.wait(0.0)
        queue.submit_to(pool)
    assert pool.clips == clips
    fair = math.ceil(clips / workers)
    assert fair <= pool.now <= 1.1 * fair + 1
