"""Items from one thread to another, in order, within a bound that several channels share."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class ChannelClosedError(Exception):
    """The other side has given up before the end."""


class SharedBudget:
    """How much may wait, in all channels that share this room together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.changed = threading.Condition()
        """Guards this room and the channels that share it."""


class Channel(Generic[Item]):
    """One thread puts, another iterates. Either may close the channel before its end, and the other notices.

    One item may always wait, however large. An item takes up room until the one after it is asked for.
    """

    def __init__(self, room: SharedBudget, size: Callable[[Item], int] = lambda _: 1) -> None:
        self._room, self._size = room, size
        self._waiting: deque[Item] = deque()
        self._in_use = 0  # size of what the consumer has
        self._ended = self._closed = False
        self.waited_s = 0.0
        """Seconds that the consumer has waited for items."""

    def put(self, item: Item) -> bool:
        """Hand an item over, once there is room; False when the channel is closed, so that no more are wanted."""
        room, size = self._room, self._size(item)
        with room.changed:
            room.changed.wait_for(lambda: self._closed or room.taken == 0 or room.taken + size <= room.limit)
            if self._closed:
                return False
            room.taken += size
            self._waiting.append(item)
            room.changed.notify_all()
            return True

    def end(self) -> None:
        """No more will be put."""
        with self._room.changed:
            self._ended = True
            self._room.changed.notify_all()

    def close(self) -> None:
        """Give up, from either side; what waits is dropped. After the end of all items it makes no difference."""
        with self._room.changed:
            self._closed = True
            self._give_back(self._in_use + sum(map(self._size, self._waiting)))
            self._waiting.clear()
            self._in_use = 0

    def __iter__(self) -> Iterator[Item]:
        """The items, as they come. Raises `ChannelClosedError` when the channel is closed before its end."""
        while True:
            started = time.perf_counter()
            with self._room.changed:
                self._give_back(self._in_use)
                self._in_use = 0
                self._room.changed.wait_for(lambda: self._waiting or self._ended or self._closed)
                self.waited_s += time.perf_counter() - started
                if self._closed:
                    raise ChannelClosedError
                if not self._waiting:
                    return
                item = self._waiting.popleft()
                self._in_use = self._size(item)
            yield item

    def _give_back(self, size: int) -> None:
        self._room.taken -= size
        self._room.changed.notify_all()
