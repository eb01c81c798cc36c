"""A channel keeps items and their order, stays within its budget, and never blocks a thread for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posebatch.run.workers import channel as channel_module
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


@pytest.mark.parametrize(
    ("items", "limit"), [([], 1), ([7], 0), ([1, 2, 3], 10**9), (list(range(1000)), 0), (list(range(1000)), 3)]
)
def test_channel_keeps_items_in_order(threads: ThreadPoolExecutor, items: list[int], limit: int) -> None:
    budget = SharedBudget(limit)
    channel = Channel[int](budget)
    putting = threads.submit(put_all, channel, items)
    assert list(channel) == items
    assert putting.result(PATIENCE_S)
    assert budget.used == 0


@given(
    first=st.lists(st.integers(0, 20), max_size=20),
    second=st.lists(st.integers(0, 20), max_size=20),
    limit=st.integers(0, 40),
)
def test_channels_in_turn_share_one_budget(first: list[int], second: list[int], limit: int) -> None:
    budget = SharedBudget(limit)
    channels = [Channel[int](budget, size), Channel[int](budget, size)]

    def produce() -> None:
        for channel, items in zip(channels, (first, second), strict=True):
            assert put_all(channel, items)

    most = max([limit, *first, *second])
    with ThreadPoolExecutor(1) as pool:
        producing = pool.submit(produce)
        for channel, items in zip(channels, (first, second), strict=True):
            received = []
            for item in channel:
                assert 0 <= budget.used <= most, "or one item larger than the budget"
                received.append(item)
            assert received == items
        producing.result(PATIENCE_S)
    assert budget.used == 0


@pytest.mark.parametrize(("limit", "ahead"), [(0, 1), (1, 1), (2, 2), (5, 5)])
def test_put_blocks_when_the_budget_is_used_up(threads: ThreadPoolExecutor, limit: int, ahead: int) -> None:
    budget, handed_over = SharedBudget(limit), threading.Semaphore(0)
    channel = Channel[int](budget)

    def produce() -> None:
        for number in range(100):
            assert channel.put(number)
            handed_over.release()
        channel.end()

    producing = threads.submit(produce)
    items = iter(channel)
    assert next(items) == 0, "it counts until the next one is asked for"
    for _ in range(ahead):
        assert handed_over.acquire(timeout=PATIENCE_S)
    assert not handed_over.acquire(timeout=0.05)
    assert list(items) == list(range(1, 100))
    producing.result(PATIENCE_S)


def test_item_larger_than_the_budget_is_accepted(threads: ThreadPoolExecutor) -> None:
    channel = Channel[int](SharedBudget(1), size)
    threads.submit(put_all, channel, [5, 5, 5])
    assert list(channel) == [5, 5, 5]


def consumer_waiting(channel: Channel[int], threads: ThreadPoolExecutor) -> Future[object]:
    return threads.submit(list, channel)


def producer_waiting(channel: Channel[int], threads: ThreadPoolExecutor) -> Future[object]:
    return threads.submit(put_all, channel, [1, 2, 3])


@pytest.mark.parametrize("start_waiting", [consumer_waiting, producer_waiting])
@pytest.mark.parametrize("others", [0, 4])
def test_close_wakes_the_waiting_side_and_frees_the_budget(
    threads: ThreadPoolExecutor,
    start_waiting: Callable[[Channel[int], ThreadPoolExecutor], Future[object]],
    others: int,
) -> None:
    budget = SharedBudget(1)
    neighbour = Channel[int](budget, size)
    channel = Channel[int](budget, size)
    if others:
        assert neighbour.put(others)
    waiting = start_waiting(channel, threads)
    channel.close()
    if start_waiting is consumer_waiting:
        with pytest.raises(ChannelClosedError):
            waiting.result(PATIENCE_S)
    else:
        assert waiting.result(PATIENCE_S) is False
    assert budget.used == others, "only its own share is freed"
    assert not channel.put(1)
    channel.close()
    assert budget.used == others


@pytest.mark.parametrize("consumed", [1, 2])
def test_close_drops_the_items_that_wait(consumed: int) -> None:
    budget = SharedBudget(100)
    channel = Channel[int](budget, size)
    assert put_all(channel, [3, 4, 5])
    items = iter(channel)
    for _ in range(consumed):
        next(items)
    channel.close()
    with pytest.raises(ChannelClosedError):
        next(items)
    assert budget.used == 0


def test_channel_counts_the_seconds_its_consumer_waits(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, asked = [0.0], threading.Event()

    def perf_counter() -> float:
        asked.set()
        return seconds[0]

    def produce() -> bool:
        asked.wait(PATIENCE_S)
        seconds[0] += 7.0
        return put_all(channel, [1])

    monkeypatch.setattr(channel_module, "time", SimpleNamespace(perf_counter=perf_counter))
    channel = Channel[int](SharedBudget(9))
    threads.submit(produce)
    assert list(channel) == [1]
    assert channel.waited_s == 7.0
