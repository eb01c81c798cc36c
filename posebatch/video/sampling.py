"""Which frames are wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from posebatch.settings import SamplingSettings
from posebatch.types import VideoInfo


@dataclass(frozen=True)
class Sampler:
    """Wants every N-th frame by number, or those on screen at F ticks a second from the first frame on."""

    stride: int
    start_pts: int
    step: Fraction | None
    """From tick to tick, in the stream's time base; None: by number."""

    @classmethod
    def of(cls, sampling: SamplingSettings, info: VideoInfo) -> Sampler:
        """What a run's settings mean for one video."""
        step = None
        if sampling.fps is not None:
            step = 1 / (Fraction(sampling.fps).limit_denominator(1_000_000) * info.time_base)
        return cls(sampling.stride, info.start_pts, step)

    @property
    def wants_all(self) -> bool:
        """Whether every frame is wanted."""
        return self.step is None and self.stride == 1

    def wants(self, frame_index: int, pts: int, until: int) -> bool:
        """Whether a frame is wanted that is on screen for ``pts <= tick < until``."""
        if self.step is None:
            return frame_index % self.stride == 0
        next_tick = self.start_pts + math.ceil((pts - self.start_pts) / self.step) * self.step
        return next_tick < until
