"""A bounded hand-over of items from one thread to another. Several channels can share one bound."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class ChannelClosedError(Exception):
    """The other side closed the channel before its end."""


class SharedBudget:
    """The total size of the items that all channels of this budget may hold."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.changed = threading.Condition()
        """Guards this budget and all of its channels."""


class Channel(Generic[Item]):
    """One thread puts items, another iterates over them in the same order. Either side may close the channel early.

    An item counts against the budget from `put` until the consumer asks for the next one. An item larger than the whole
    budget is accepted when nothing else counts, so that it cannot block for ever.
    """

    def __init__(self, budget: SharedBudget, size: Callable[[Item], int] = lambda _: 1) -> None:
        self._budget, self._size = budget, size
        self._waiting: deque[Item] = deque()
        self._size_in_use = 0  # of the item that the consumer has
        self._ended = self._closed = False
        self.waited_s = 0.0
        """Seconds that the consumer waited for items."""

    def put(self, item: Item) -> bool:
        """Hand over an item as soon as the budget allows. False when the channel is closed: stop producing then."""
        budget, size = self._budget, self._size(item)
        with budget.changed:
            budget.changed.wait_for(lambda: self._closed or budget.used == 0 or budget.used + size <= budget.limit)
            if self._closed:
                return False
            budget.used += size
            self._waiting.append(item)
            budget.changed.notify_all()
            return True

    def end(self) -> None:
        """Declare that no more items follow."""
        with self._budget.changed:
            self._ended = True
            self._budget.changed.notify_all()

    def close(self) -> None:
        """Close the channel from either side, and drop the items that wait. No effect after the last item."""
        with self._budget.changed:
            self._closed = True
            self._release(self._size_in_use + sum(map(self._size, self._waiting)))
            self._waiting.clear()
            self._size_in_use = 0

    def __iter__(self) -> Iterator[Item]:
        """The items as they come. Raises `ChannelClosedError` when the channel is closed before its end."""
        while True:
            started = time.perf_counter()
            with self._budget.changed:
                self._release(self._size_in_use)
                self._size_in_use = 0
                self._budget.changed.wait_for(lambda: self._waiting or self._ended or self._closed)
                self.waited_s += time.perf_counter() - started
                if self._closed:
                    raise ChannelClosedError
                if not self._waiting:
                    return
                item = self._waiting.popleft()
                self._size_in_use = self._size(item)
            yield item

    def _release(self, size: int) -> None:
        self._budget.used -= size
        self._budget.changed.notify_all()
