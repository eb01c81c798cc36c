"""The end of admission: a run begins no further video after its deadline, or once its GPU hours are spent."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from posebatch.core.night_settings import NightSettings
from posebatch.run.tally import StopReason, Tally


def wall_clock() -> float:
    """Seconds since 1970. A deadline is a time of day, so a machine that slept has slept towards it."""
    return time.time()


class Admission:
    """Says whether a run may begin further videos, and counts the GPU hours of its workers in the tally."""

    def __init__(
        self,
        night: NightSettings,
        tally: Tally,
        deadline: datetime | None = None,
        say: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = wall_clock,
    ) -> None:
        """``deadline``: the moment that `NightSettings.deadline_after` named when the command began.

        ``say`` receives the sentence that admission has ended. ``clock``: seconds since 1970.
        """
        self._deadline, self._budget_hours, self._grace_s = deadline, night.max_gpu_hours, night.grace_minutes * 60
        self._tally, self._say, self._clock = tally, say, clock
        self._noted_at = clock()
        self._gpus = 0.0
        self._ended_at: float | None = None

    def note_gpus(self, gpus: float) -> None:
        """Note how many GPUs ready workers hold from now on; on a CPU, how many workers are ready."""
        now = self._clock()
        self._tally.gpu_hours += self._gpus * max(0.0, now - self._noted_at) / 3600
        self._noted_at, self._gpus = now, gpus

    @property
    def is_open(self) -> bool:
        """Whether a further video may begin. Once it may not, none may until the end of the run."""
        if self._ended_at is None and (reason := self._reason()) is not None:
            self._ended_at, self._tally.stopped_by = self._clock(), reason
            self._say(self._sentence(reason))
        return self._ended_at is None

    @property
    def is_over(self) -> bool:
        """Whether the videos in flight have had their time as well."""
        return not self.is_open and self._ended_at is not None and self._clock() - self._ended_at >= self._grace_s

    def _reason(self) -> StopReason | None:
        if self._deadline is not None and self._clock() >= self._deadline.timestamp():
            return "deadline"
        if self._budget_hours is not None and self._tally.gpu_hours >= self._budget_hours:
            return "gpu_hours"
        return None

    def _sentence(self, reason: StopReason) -> str:
        if reason == "deadline":
            assert self._deadline is not None
            why = f"the deadline {self._deadline.isoformat(timespec='minutes')} has passed"
        else:
            why = f"the budget of {self._budget_hours:g} GPU hours is spent"
        return f"{why}: no further video begins; those in flight have {self._grace_s / 60:g} minutes to finish"
