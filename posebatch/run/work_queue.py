"""The queue of tasks that wait for a worker, and the order in which they get one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from posebatch.run.failure_policy import SchedulerLimits
from posebatch.run.pool import SEGMENTS_PER_WORKER, Pool
from posebatch.run.tasks import ClipsTask, ClipTask, SegmentTask, Task, VideoTask, WorkerTask


@dataclass(frozen=True)
class QueueDepth:
    """How many tasks wait."""

    segments: int
    clips: int
    cpu_tasks: int
    paused: int
    """Tasks whose pause before a retry is not over."""


class WorkQueue:
    """Tasks that wait: segments, clips, CPU tasks, and tasks whose pause before a retry is not over.

    Clips are given out in groups, but for those that must run alone. Segments come first: they finish videos.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        limits: SchedulerLimits,
        on_depth: Callable[[QueueDepth], None] = lambda _: None,
    ) -> None:
        """``clock``: seconds, monotonic. ``on_depth`` receives what still waits after each `submit_to`."""
        self._clock, self._limits, self._on_depth = clock, limits, on_depth
        self._segments: deque[WorkerTask] = deque()  # and the clips that must run alone
        self._clips: deque[ClipTask] = deque()
        self._cpu_tasks: deque[VideoTask] = deque()
        self._paused: list[tuple[float, Task]] = []

    @property
    def has_cpu_tasks(self) -> bool:
        """Whether a CPU task waits for a slot."""
        return bool(self._cpu_tasks)

    def add(self, task: Task, pause_s: float = 0.0) -> None:
        """Queue a task once ``pause_s`` seconds have passed."""
        if pause_s > 0:
            self._paused.append((self._clock() + pause_s, task))
        elif not isinstance(task, SegmentTask | ClipTask):
            self._cpu_tasks.append(task)
        elif task.alone:
            self._segments.appendleft(task)  # find out whether it crashes its worker before more of its video start
        elif isinstance(task, ClipTask):
            self._clips.append(task)
        else:
            self._segments.append(task)

    def drop_segments(self, uri: str) -> None:
        """Remove the segments of a video that no worker has begun."""
        self._segments = deque(task for task in self._segments if task.video.uri != uri)

    def submit_to(self, pool: Pool) -> None:
        """Give a pool as many tasks as it accepts."""
        self._end_pauses()
        if self._waiting:
            pool.start_workers()
        capacity = pool.capacity()
        for _ in range(min(capacity.task_slots, len(self._cpu_tasks))):
            pool.submit(self._cpu_tasks.popleft())
        for _ in range(min(capacity.idle, self._waiting)):
            if self._waiting:
                pool.submit(self._next_call(capacity.workers))
        self._submit_second_calls(pool)
        self._on_depth(QueueDepth(len(self._segments), len(self._clips), len(self._cpu_tasks), len(self._paused)))

    @property
    def _waiting(self) -> int:
        """Tasks that wait for a worker."""
        return len(self._segments) + len(self._clips)

    def _submit_second_calls(self, pool: Pool) -> None:
        """Give busy workers their next call.

        The last tasks wait for idle workers. So does one that must run alone.
        """
        capacity = pool.capacity()
        for _ in range(capacity.shareable):
            if self._waiting < capacity.workers or (self._segments and self._segments[0].alone):
                return
            pool.submit(self._next_call(capacity.workers))

    def _next_call(self, workers: int) -> SegmentTask | ClipsTask:
        if not self._segments:
            return self._next_clips(workers)
        task = self._segments.popleft()
        return task if isinstance(task, SegmentTask) else ClipsTask((task,))

    def _next_clips(self, workers: int) -> ClipsTask:
        """The next group of clips, smaller towards the end of a run so that all workers end together.

        A worker holds `SEGMENTS_PER_WORKER` groups at a time, so one is at most that part of its share of what waits.
        """
        share = -(-len(self._clips) // (SEGMENTS_PER_WORKER * workers))
        most, room = min(self._limits.clips_together, share), self._limits.group_bytes
        clips = [self._clips.popleft()]
        while self._clips and len(clips) < most:
            room -= clips[-1].video.size_bytes
            if self._clips[0].video.size_bytes > room:
                break
            clips.append(self._clips.popleft())
        return ClipsTask(tuple(clips))

    def _end_pauses(self) -> None:
        now, paused = self._clock(), self._paused
        self._paused = [(due, task) for due, task in paused if due > now]
        for due, task in paused:
            if due <= now:
                self.add(task)
