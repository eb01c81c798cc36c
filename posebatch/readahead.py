"""Run an iterator ahead of its consumer, in a thread, within a bound."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class _Raised:
    error: BaseException


_END = object()


def read_ahead(
    items: Iterable[Item], limit: int, size: Callable[[Item], int] = lambda _: 1
) -> Generator[Item, None, None]:
    """The items, in order, made by a thread that stays ahead by at most ``limit`` (in units of ``size``).

    One item may always wait, however large. What the iterator raises is raised here, after the items before it. When
    the consumer stops early (closes the generator, or raises), the thread stops too, before this returns.
    """
    source = iter(items)
    ahead: queue.Queue[object] = queue.Queue()
    room = threading.Condition()
    waiting = 0
    stopped = False

    def produce() -> None:
        nonlocal waiting
        try:
            for item in source:
                with room:
                    room.wait_for(lambda: stopped or waiting == 0 or waiting + size(item) <= limit)  # noqa: B023
                    if stopped:
                        return
                    waiting += size(item)
                ahead.put(item)
            ahead.put(_END)
        except BaseException as error:
            ahead.put(_Raised(error))
        finally:
            if isinstance(source, Generator):
                source.close()  # what it holds open belongs to this thread

    thread = threading.Thread(target=produce, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = ahead.get()
            if item is _END:
                return
            if isinstance(item, _Raised):
                raise item.error
            yield item  # type: ignore[misc]
            with room:
                waiting -= size(item)  # type: ignore[arg-type]
                room.notify()
    finally:
        with room:
            stopped = True
            room.notify()
        thread.join()
