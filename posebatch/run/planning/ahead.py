"""Requests made ahead of their use by several threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS: Final = 16
"""Requests at once: a listing waits for the network, not for this machine."""


def mapped_ahead(act: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results of ``act`` in the order of ``items``; at most twice `THREADS` are in memory."""
    with ThreadPoolExecutor(THREADS) as threads:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(threads.submit(act, item))
            if len(waiting) == 2 * THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
