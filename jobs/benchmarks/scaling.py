"""How the job grows with its workers, and what Ray costs a segment."""

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

INFO: Final = VideoInfo("h264", "yuv420p", 1920, 1080, 0, Fraction(1, 25), 0, 60.0, 25.0, 1500)


@dataclass(frozen=True)
class Scaling:
    """The same work with different numbers of workers."""

    name: str
    runs: dict[int, Measured]
    """By the number of workers, rising."""

    def speedup(self, workers: int) -> float:
        """Against the smallest number that was measured."""
        return self.runs[workers].rate / next(iter(self.runs.values())).rate


@dataclass(frozen=True)
class PoolFigures:
    """Segments through Ray to workers that do nothing."""

    workers: int
    segments: int
    seconds: float

    @property
    def segments_per_s(self) -> float:
        """That Ray passes on."""
        return self.segments / self.seconds

    @property
    def seconds_per_segment(self) -> float:
        """That a worker waits between two segments."""
        return self.seconds * self.workers / self.segments


class IdleWorker:
    """An actor in the place of one with networks, which does nothing and says so."""

    def __init__(self, *_: object) -> None:
        pass

    def load(self) -> object:
        """See `actors.SegmentWorker`."""
        from posebatch.run.workers.actors import CallResult, ProcessHandle  # noqa: PLC0415

        return CallResult(ProcessHandle(node_id="", crash_dir=""))

    def process(self, job: SegmentTask) -> object:
        """See `actors.SegmentWorker`."""
        from posebatch.run.workers.actors import CallResult  # noqa: PLC0415

        return CallResult(SegmentResult(1, 0, 0.0))

    def activity(self) -> int:
        """See `actors.SegmentWorker`."""
        return 0


def ray_overhead(settings: Settings, segments: int) -> PoolFigures:
    """Pass segments through a Ray pool of idle workers. Call it in a child."""
    from posebatch.run.workers.ray_pool import RayPool  # noqa: PLC0415
    from posebatch.run.workers.ray_session import choose_workers, connected  # noqa: PLC0415

    context = RunContext("benchmark", settings, "", "none", "none")
    jobs = deque(SegmentTask(SourceVideo("none", "none", "", 0, 0.0), INFO, Segment(i)) for i in range(segments))
    with connected(settings.execution):
        pool = RayPool(context, choose_workers(settings.execution, "cpu"), "cpu", IdleWorker)
        while (capacity := pool.capacity()).idle < capacity.workers:
            pool.wait(0.2)
        started, left = time.perf_counter(), segments
        while left:
            capacity = pool.capacity()
            for _ in range(min(capacity.idle + capacity.shareable, len(jobs))):
                pool.submit(jobs.popleft())
            left -= len(pool.wait(0.2))
        figures = PoolFigures(capacity.workers, segments, time.perf_counter() - started)
        pool.close()
    return figures
