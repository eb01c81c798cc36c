"""A channel changes neither what comes nor its order, keeps within its room, and lets nobody wait for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posebatch.run.workers.channel import Channel, ChannelClosedError, SharedBudget

PATIENCE_S = 10.0


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def put_all(channel: Channel[int], items: list[int]) -> bool:
    for item in items:
        if not channel.put(item):
            return False
    channel.end()
    return True


def size(item: int) -> int:
    return item


@pytest.mark.parametrize("items", [[], [7], [1, 2, 3], list(range(1000))])
@pytest.mark.parametrize("limit", [0, 1, 3, 10**9])
def test_everything_comes_in_order(threads: ThreadPoolExecutor, items: list[int], limit: int) -> None:
    room = SharedBudget(limit)
    channel = Channel[int](room)
    putting = threads.submit(put_all, channel, items)
    assert list(channel) == items
    assert putting.result(PATIENCE_S)
    assert room.taken == 0


@given(
    first=st.lists(st.integers(0, 20), max_size=20),
    second=st.lists(st.integers(0, 20), max_size=20),
    limit=st.integers(0, 40),
)
def test_two_channels_in_turn_share_one_room(first: list[int], second: list[int], limit: int) -> None:
    room = SharedBudget(limit)
    channels = [Channel[int](room, size), Channel[int](room, size)]

    def produce() -> None:
        for channel, items in zip(channels, (first, second), strict=True):
            assert put_all(channel, items)

    most = max([limit, *first, *second])
    with ThreadPoolExecutor(1) as pool:
        producing = pool.submit(produce)
        for channel, items in zip(channels, (first, second), strict=True):
            taken = []
            for item in channel:
                assert 0 <= room.taken <= most, "or one item, if that is larger"
                taken.append(item)
            assert taken == items
        producing.result(PATIENCE_S)
    assert room.taken == 0


@pytest.mark.parametrize(("limit", "ahead"), [(0, 1), (1, 1), (2, 2), (5, 5)])
def test_what_has_no_room_waits_outside(threads: ThreadPoolExecutor, limit: int, ahead: int) -> None:
    room, handed_over = SharedBudget(limit), threading.Semaphore(0)
    channel = Channel[int](room)

    def produce() -> None:
        for number in range(100):
            assert channel.put(number)
            handed_over.release()
        channel.end()

    producing = threads.submit(produce)
    items = iter(channel)
    assert next(items) == 0, "it takes up room until the next one is asked for"
    for _ in range(ahead):
        assert handed_over.acquire(timeout=PATIENCE_S)
    assert not handed_over.acquire(timeout=0.05)
    assert list(items) == list(range(1, 100))
    producing.result(PATIENCE_S)


def test_one_item_may_wait_however_large(threads: ThreadPoolExecutor) -> None:
    channel = Channel[int](SharedBudget(1), size)
    threads.submit(put_all, channel, [5, 5, 5])
    assert list(channel) == [5, 5, 5]


def consumer_waiting(channel: Channel[int], threads: ThreadPoolExecutor) -> Future[object]:
    return threads.submit(list, channel)


def producer_waiting(channel: Channel[int], threads: ThreadPoolExecutor) -> Future[object]:
    return threads.submit(put_all, channel, [1, 2, 3])


@pytest.mark.parametrize("somebody", [consumer_waiting, producer_waiting])
@pytest.mark.parametrize("others", [0, 4])
def test_closing_frees_whoever_waits_and_gives_the_room_back(
    threads: ThreadPoolExecutor,
    somebody: Callable[[Channel[int], ThreadPoolExecutor], Future[object]],
    others: int,
) -> None:
    room = SharedBudget(1)
    neighbour = Channel[int](room, size)
    channel = Channel[int](room, size)
    if others:
        assert neighbour.put(others)
    waiting = somebody(channel, threads)
    channel.close()
    if somebody is consumer_waiting:
        with pytest.raises(ChannelClosedError):
            waiting.result(PATIENCE_S)
    else:
        assert waiting.result(PATIENCE_S) is False
    assert room.taken == others, "only its own"
    assert not channel.put(1)
    channel.close()
    assert room.taken == others


@pytest.mark.parametrize("taken", [1, 2])
def test_closing_amid_the_items_drops_the_rest(taken: int) -> None:
    room = SharedBudget(100)
    channel = Channel[int](room, size)
    assert put_all(channel, [3, 4, 5])
    items = iter(channel)
    for _ in range(taken):
        next(items)
    channel.close()
    with pytest.raises(ChannelClosedError):
        next(items)
    assert room.taken == 0


def test_it_counts_how_long_its_consumer_waits(threads: ThreadPoolExecutor) -> None:
    channel, asked = Channel[int](SharedBudget(9)), threading.Event()

    def produce() -> None:
        channel.put(1)
        asked.wait(PATIENCE_S)
        threading.Event().wait(0.05)
        put_all(channel, [2])

    threads.submit(produce)
    items = iter(channel)
    next(items)
    before = channel.waited_s
    asked.set()
    assert next(items) == 2
    assert channel.waited_s >= before + 0.05
