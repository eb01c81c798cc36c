"""Speed of the job by the number of workers, and the cost of a segment in Ray."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from benchmarks.figures import Measured
from posebatch.core.settings import Settings
from posebatch.core.videos import Segment, SourceVideo, VideoInfo
from posebatch.run.context import RunContext
from posebatch.run.tasks import SegmentResult, SegmentTask

INFO: Final = VideoInfo(
    "h264", "yuv420p", 1920, 1080, 0, Fraction(1, 25), 0, 60.0, 25.0, 1500, coded_width=1920, coded_height=1080
)
"""Facts of an invented video, for workers that decode nothing."""


@dataclass(frozen=True)
class Scaling:
    """The same work with different numbers of workers."""

    name: str
    runs: dict[int, Measured]
    """By ascending number of workers."""

    def speedup(self, workers: int) -> float:
        """Rate relative to the smallest number of workers."""
        return self.runs[workers].rate / next(iter(self.runs.values())).rate


@dataclass(frozen=True)
class PoolFigures:
    """Segments sent through Ray to idle workers."""

    workers: int
    segments: int
    seconds: float

    @property
    def segments_per_s(self) -> float:
        """Segments that Ray passes on per second."""
        return self.segments / self.seconds

    @property
    def seconds_per_segment(self) -> float:
        """Seconds of a worker for each segment."""
        return self.seconds * self.workers / self.segments


class IdleWorker:
    """An actor that takes the place of `SegmentWorker` and finishes every segment at once."""

    def __init__(self, *_: object) -> None:
        pass

    def load(self) -> object:
        """See `actors.SegmentWorker`."""
        from posebatch.run.workers.actors import CallResult, ProcessHandle  # noqa: PLC0415

        return CallResult(ProcessHandle(node_id="", crash_dir=""))

    def process(self, job: SegmentTask) -> object:
        """Return the result of a segment of one frame."""
        from posebatch.run.workers.actors import CallResult  # noqa: PLC0415

        return CallResult(SegmentResult(1, 0, 0.0))

    def activity(self) -> int:
        """A heartbeat that never changes."""
        return 0


def ray_overhead(settings: Settings, segments: int) -> PoolFigures:
    """Send segments through a Ray pool of idle workers. Call it in a child process."""
    from posebatch.run.workers.ray_cluster import RayCluster  # noqa: PLC0415
    from posebatch.run.workers.ray_pool import RayPool  # noqa: PLC0415
    from posebatch.run.workers.ray_session import choose_workers, connected  # noqa: PLC0415

    context = RunContext("benchmark", settings, "", "none", "none")
    tasks = deque(SegmentTask(SourceVideo("none", "none", "", 0, 0.0), INFO, Segment(i)) for i in range(segments))
    with connected(settings.execution):
        pool = RayPool(context, choose_workers(settings.execution, "cpu", RayCluster()), "cpu", IdleWorker)
        pool.start_workers()
        while (capacity := pool.capacity()).idle < capacity.workers:
            pool.wait(0.2)
        started, left = time.perf_counter(), segments
        while left:
            capacity = pool.capacity()
            for _ in range(min(capacity.idle + capacity.shareable, len(tasks))):
                pool.submit(tasks.popleft())
            left -= len(pool.wait(0.2))
        figures = PoolFigures(capacity.workers, segments, time.perf_counter() - started)
        pool.close()
    return figures
