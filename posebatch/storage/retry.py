"""The retry policy for requests to a store."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from posebatch.core.errors import StorageUnavailableError

P = ParamSpec("P")


T = TypeVar("T")


class RepeatedRequests:
    """Counts the requests of this process that were repeated, for the metrics of a run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def add(self) -> None:
        """Count one."""
        with self._lock:
            self._count += 1

    def take(self) -> int:
        """The number since the last call."""
        with self._lock:
            count, self._count = self._count, 0
        return count


repeated_requests: Final = RepeatedRequests()
"""Those of this process."""


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with full jitter: each pause is drawn between 0 and a bound that doubles.

    Random pauses keep many clients from coming back at the same moment.
    """

    attempts: int = 8
    """Attempts for one request, the first among them."""
    first_pause_s: float = 0.2
    """Bound of the pause before the second attempt, seconds."""
    longest_pause_s: float = 20.0
    """The bound stops doubling here, seconds."""
    patience_s: float = 120.0
    """No attempt begins later than this after the first one, seconds."""

    def call(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``act`` again while it raises `StorageUnavailableError`; every other error is final.

        Raises the last `StorageUnavailableError` when the attempts or the patience are used up.
        """
        begun = time.monotonic()
        for attempt in range(self.attempts - 1):
            try:
                return act(*args, **kwargs)
            except StorageUnavailableError:
                pause = random.uniform(0, min(self.longest_pause_s, self.first_pause_s * 2**attempt))
                if time.monotonic() - begun + pause > self.patience_s:
                    raise
                repeated_requests.add()
                time.sleep(pause)
        return act(*args, **kwargs)


DEFAULT_POLICY = RetryPolicy()
"""Read by each store and reader that is made without a policy of its own."""


class _HasRetryPolicy(Protocol):
    @property
    def retry_policy(self) -> RetryPolicy: ...


S = TypeVar("S", bound=_HasRetryPolicy)


def retried(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method by the ``retry_policy`` of its object."""

    @functools.wraps(method)
    def call_with_retries(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.retry_policy.call(method, self, *args, **kwargs)

    return call_with_retries
