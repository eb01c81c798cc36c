"""The speed of a run in its steady state: what its ready workers do, without the time that it takes to start."""

from __future__ import annotations

from collections.abc import Callable


class SpeedMeter:
    """Counts the seconds that workers were ready, up to the last staged segment.

    A rate over the elapsed time would count the start of Ray, the loading of networks, and the minutes in which a
    cluster grows. Here a rate is that of one worker, times the workers that are ready now.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock``: seconds, monotonic."""
        self._clock = clock
        self._started = self._noted = clock()
        self._ready = 0
        self._most_recent = 0  # workers ready when any was ready last
        self._frames = 0
        self._worker_seconds = 0.0
        self.worked_s = 0.0
        """Seconds from the first ready worker to the last staged segment."""
        self._worker_seconds_staged = 0.0
        self.start_s: float | None = None
        """Seconds until the first worker was ready; None before that."""

    def note(self, ready: int, frames: int) -> None:
        """Note the state of the run at this moment: workers that are ready, and frames that are staged."""
        now = self._clock()
        self._worker_seconds += self._ready * (now - self._noted)
        self._noted, self._ready = now, ready
        if ready:
            self._most_recent = ready
            if self.start_s is None:
                self.start_s = now - self._started
        if frames > self._frames:
            self._frames, self._worker_seconds_staged = frames, self._worker_seconds
            self.worked_s = 0.0 if self.start_s is None else now - self._started - self.start_s

    @property
    def steady_s(self) -> float | None:
        """Seconds that the workers ready now would have taken for all staged frames; None before the first."""
        if not self._frames or not self._most_recent or not self._worker_seconds_staged:
            return None
        return self._worker_seconds_staged / self._most_recent

    @property
    def frames_per_second(self) -> float | None:
        """Frames per second in the steady state; None before the first frames."""
        return None if self.steady_s is None else self._frames / self.steady_s

    def summary(self) -> dict[str, float | None]:
        """Its part of ``summary.json``: seconds of the start, and frames per second in the steady state."""
        rate = self.frames_per_second
        return {
            "start_s": None if self.start_s is None else round(self.start_s, 3),
            "frames_per_second": None if rate is None else round(rate, 3),
        }
