"""A `Pool` whose tasks and workers are counted for the metrics of the run."""

from __future__ import annotations

from typing_extensions import override

from posebatch.run.meter import RunMeter
from posebatch.run.pool import Capacity, Completion, Pool
from posebatch.run.tasks import Call


class MeteredPool(Pool):
    """Another pool, unchanged in what it does."""

    def __init__(self, pool: Pool, meter: RunMeter) -> None:
        self._pool, self._meter = pool, meter
        self._activity = 0

    @override
    def capacity(self) -> Capacity:
        capacity = self._pool.capacity()
        self._meter.note_capacity(capacity)
        return capacity

    @override
    def start_workers(self) -> None:
        self._pool.start_workers()

    @override
    def submit(self, task: Call) -> None:
        self._pool.submit(task)
        self._meter.task_submitted(task)

    @override
    def wait(self, timeout_s: float) -> list[Completion]:
        completions = self._pool.wait(timeout_s)
        for completion in completions:
            self._meter.task_ended(completion)
        return completions

    @override
    def activity(self) -> int:
        activity = self._pool.activity()
        if activity != self._activity:
            self._activity = activity
            self._meter.note_progress()
        return activity
