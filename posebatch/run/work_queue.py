"""The queue of tasks that wait for a worker, and the order in which they get one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from posebatch.run.pool import Pool
from posebatch.run.tasks import SegmentTask, VideoTask


@dataclass(frozen=True)
class QueueDepth:
    """How many tasks wait."""

    segments: int
    cpu_tasks: int
    paused: int
    """Tasks whose pause before a retry is not over."""


class WorkQueue:
    """Tasks that wait: segments, CPU tasks, and tasks whose pause before a retry is not over."""

    def __init__(self, clock: Callable[[], float], on_depth: Callable[[QueueDepth], None] = lambda _: None) -> None:
        """``clock``: seconds, monotonic. ``on_depth`` receives what still waits after each `submit_to`."""
        self._clock, self._on_depth = clock, on_depth
        self._segments: deque[SegmentTask] = deque()
        self._cpu_tasks: deque[VideoTask] = deque()
        self._paused: list[tuple[float, SegmentTask | VideoTask]] = []

    @property
    def has_cpu_tasks(self) -> bool:
        """Whether a CPU task waits for a slot."""
        return bool(self._cpu_tasks)

    def add(self, task: SegmentTask | VideoTask, pause_s: float = 0.0) -> None:
        """Queue a task once ``pause_s`` seconds have passed."""
        if pause_s > 0:
            self._paused.append((self._clock() + pause_s, task))
        elif not isinstance(task, SegmentTask):
            self._cpu_tasks.append(task)
        elif task.alone:
            self._segments.appendleft(task)  # find out whether it crashes its worker before more of its video start
        else:
            self._segments.append(task)

    def add_alone(self, task: SegmentTask, pause_s: float = 0.0) -> None:
        """Queue a segment for a worker of its own."""
        self.add(replace(task, alone=True), pause_s)

    def drop_segments(self, uri: str) -> None:
        """Remove the segments of a video that no worker has begun."""
        self._segments = deque(task for task in self._segments if task.video.uri != uri)

    def submit_to(self, pool: Pool) -> None:
        """Give a pool as many tasks as it accepts."""
        self._end_pauses()
        capacity = pool.capacity()
        for _ in range(min(capacity.task_slots, len(self._cpu_tasks))):
            pool.submit(self._cpu_tasks.popleft())
        for _ in range(min(capacity.idle, len(self._segments))):
            pool.submit(self._segments.popleft())
        self._submit_second_segments(pool)
        self._on_depth(QueueDepth(len(self._segments), len(self._cpu_tasks), len(self._paused)))

    def _submit_second_segments(self, pool: Pool) -> None:
        """Give busy workers their next segment.

        The last segments wait for idle workers. So does a segment that must run alone.
        """
        capacity = pool.capacity()
        for _ in range(capacity.shareable):
            if len(self._segments) < capacity.workers or self._segments[0].alone:
                return
            pool.submit(self._segments.popleft())

    def _end_pauses(self) -> None:
        now, paused = self._clock(), self._paused
        self._paused = [(due, task) for due, task in paused if due > now]
        for due, task in paused:
            if due <= now:
                self.add(task)
