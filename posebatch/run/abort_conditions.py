"""The conditions under which a run gives up: nothing moves any more, or the store is down."""

from __future__ import annotations

from collections.abc import Callable, Collection

from posebatch.core.errors import PosebatchError, RunAbortedError
from posebatch.run.failure_policy import SchedulerLimits, is_storage_failure
from posebatch.run.pool import SEGMENTS_PER_WORKER


class IdleTimeout:
    """Aborts a run in which nothing has changed for too long: a run must never hang."""

    def __init__(self, minutes: float, clock: Callable[[], float]) -> None:
        """``clock``: seconds, monotonic."""
        self._minutes, self._clock = minutes, clock
        self._state: object = None
        self._changed_at = clock()

    def check(self, state: object, under_way: Collection[str]) -> None:
        """Raise `RunAbortedError` if ``state`` has been the same for too long.

        ``under_way``: addresses of the videos in flight, for the message.
        """
        now = self._clock()
        if state != self._state:
            self._state, self._changed_at = state, now
        if now - self._changed_at < self._minutes * 60:
            return
        named = ", ".join(sorted(under_way)[:5]) or "the listing of the inputs"
        more = f" and {len(under_way) - 5} more" if len(under_way) > 5 else ""
        raise RunAbortedError(
            f"nothing has moved for {self._minutes:g} minutes (--max-idle-minutes); under way: {named}{more}. "
            "What is published stays; run the same command again"
        )


class StorageOutage:
    """Aborts a run after too many storage errors in a row."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self._max_failures = limits.max_storage_failures
        self._failures = 0.0
        self._last_error: PosebatchError | None = None

    def count(self, error: PosebatchError | None, share: float = 1.0) -> None:
        """Count the end of a task: an error, or None for a success. A clip is a ``share`` of a call."""
        if error is None:
            self._failures = 0.0
        elif is_storage_failure(error):
            self._failures, self._last_error = self._failures + share, error

    def check(self, workers: int) -> None:
        """Raise `RunAbortedError` if the store is down; each of the ``workers`` may fail a few times before."""
        if self._failures >= max(self._max_failures, 3 * SEGMENTS_PER_WORKER * workers):
            raise RunAbortedError(
                f"{self._failures:g} storage errors in a row, the last one: {self._last_error}. "
                "What is published stays; run the same command again when the store answers"
            )
