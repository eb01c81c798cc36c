"""The speed of one worker, measured on a video in this process: real decoding and real networks, without Ray."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Final

from typing_extensions import override

from posebatch.core.frames import FramePoses
from posebatch.core.images import FrameBatch
from posebatch.core.settings import EstimatorSettings
from posebatch.core.videos import SourceVideo, VideoPlan
from posebatch.models.networks.engines import resolve_device
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.stage_clock import StageClock
from posebatch.run.context import RunContext
from posebatch.run.tasks import SegmentTask
from posebatch.run.workers.segment_worker import SegmentProcessor

PROBE_SECONDS: Final = 10.0
"""Length of a measurement."""

WARM_UP_SECONDS: Final = 1.0
"""Work before a measurement, from the first frame on: first passes of a network are slower."""

MAX_SECONDS: Final = 60.0
"""Longest time for a probe, with opening the video again and again if it is short."""


@dataclass(frozen=True)
class ProbedSpeed:
    """What a probe has measured."""

    frames_per_second: float
    """Of one worker; 0 if no frame could be measured."""
    device: str
    """``cpu`` or ``cuda``."""


class _Timed:
    """Counts frames after the warm-up, over several segments, until the time is over."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds, self._clock = seconds, clock
        self._first: float | None = None
        self._began: float | None = None
        self._frames = 0
        self._last = 0.0
        self.is_over = False

    @property
    def rate(self) -> float:
        """Frames per second; 0 before two counted frames."""
        if self._began is None or self._last <= self._began:
            return 0.0
        return self._frames / (self._last - self._began)

    def count(self) -> None:
        """Count a frame that is done."""
        now = self._clock()
        self._first = now if self._first is None else self._first
        if self._began is not None:
            self._frames, self._last = self._frames + 1, now
            self.is_over = now - self._began >= self._seconds
        elif now - self._first >= WARM_UP_SECONDS:
            self._began = now


class _TimeIsOverError(Exception):
    """The time of the measurement is over."""


class _TimedEstimator(PoseEstimator):
    """An estimator that raises `_TimeIsOverError` at the end of the measurement."""

    timed: _Timed

    @override
    def estimate(self, batches: Iterable[FrameBatch], clock: StageClock | None = None) -> Iterator[FramePoses]:
        for frame in super().estimate(batches, clock):
            yield frame
            self.timed.count()
            if self.timed.is_over:
                raise _TimeIsOverError


def probe_speed(
    video: SourceVideo,
    plan: VideoPlan,
    context: RunContext,
    clock: Callable[[], float] = time.monotonic,
) -> ProbedSpeed:
    """Process segments of a video for `PROBE_SECONDS`, as a worker does. Nothing is written to the output.

    Raises `VideoError`, `StorageError`, and `WorkerCrashError` as `SegmentProcessor.process` does.
    """
    device = resolve_device(context.settings.execution.device)
    threads = 1 if device == "cpu" else max(1, (os.cpu_count() or 1) // 2)
    timed = _Timed(PROBE_SECONDS, clock)

    def load(settings: EstimatorSettings, device: str, engine: str) -> PoseEstimator:
        estimator = _TimedEstimator.load(settings, device, engine)
        assert isinstance(estimator, _TimedEstimator)
        estimator.timed = timed
        return estimator

    with tempfile.TemporaryDirectory(prefix="posebatch-probe-") as folder:
        processor = SegmentProcessor.load(replace(context, output=folder), device, threads, load)
        deadline = clock() + MAX_SECONDS
        try:
            with suppress(_TimeIsOverError):
                for segment in cycle(plan.segments):
                    processor.process(SegmentTask(video, plan.info, segment))
                    if clock() > deadline:
                        break
        finally:
            processor.close()
    return ProbedSpeed(timed.rate, device)
