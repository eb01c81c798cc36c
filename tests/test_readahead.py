"""Running ahead changes neither what comes nor its order, stays within its bound, and leaves no thread behind."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posebatch.readahead import read_ahead

PATIENCE_S = 10.0


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


@pytest.mark.parametrize("items", [[], [None], [1, 2, 3], [[]] * 3, list(range(1000))])
@pytest.mark.parametrize("limit", [0, 1, 3, 10**9])
def test_everything_comes_in_order(items: list[object], limit: int) -> None:
    assert list(read_ahead(items, limit)) == items
    assert list(read_ahead(iter(items), limit)) == items


@given(sizes=st.lists(st.integers(0, 20), max_size=30), limit=st.integers(0, 40))
def test_no_more_waits_than_may(sizes: list[int], limit: int) -> None:
    made: list[int] = []

    def produce() -> Iterator[int]:
        for size in sizes:
            made.append(size)
            yield size

    taken: list[int] = []
    for size in read_ahead(produce(), limit, size=lambda item: item):
        taken.append(size)
        # what has been let in: all but the one that its maker may be holding at the door
        let_in = sum(made[:-1]) - sum(taken[:-1])
        assert let_in <= max(limit, max(sizes) + taken[-1])
    assert taken == sizes


def test_one_item_may_wait_however_large() -> None:
    assert list(read_ahead([5, 5, 5], 1, size=lambda item: item)) == [5, 5, 5]


@pytest.mark.parametrize(("limit", "ahead"), [(0, 1), (1, 1), (2, 2), (5, 5)])
def test_the_maker_runs_ahead_to_its_limit_and_waits_there(limit: int, ahead: int) -> None:
    reached, made = threading.Event(), []

    def produce() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == ahead:  # the first one that has to wait
                reached.set()
            yield number

    with closing(read_ahead(produce(), limit)) as items:
        first = next(items)
        assert reached.wait(PATIENCE_S)
        assert first == 0
        assert len(made) == ahead + 1  # it cannot be let in before the first is given back


@pytest.mark.parametrize("good", [0, 1, 7])
@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), MemoryError()])
def test_an_error_comes_after_the_items_before_it(good: int, error: BaseException) -> None:
    def produce() -> Iterator[int]:
        yield from range(good)
        raise error

    items = read_ahead(produce(), 3)
    assert [next(items) for _ in range(good)] == list(range(good))
    with pytest.raises(type(error)) as raised:
        next(items)
    assert raised.value is error


def test_an_error_of_the_size_reaches_the_consumer() -> None:
    with pytest.raises(TypeError, match="len"):
        list(read_ahead([1, 2], 3, size=len))  # type: ignore[arg-type]


class Opened:
    """A generator that notes where and whether it is closed."""

    def __init__(self) -> None:
        self.closed_in: list[str] = []

    def items(self) -> Generator[int, None, None]:
        try:
            yield from range(1000)
        finally:
            self.closed_in.append(threading.current_thread().name)


def leave_early(items: Generator[int, None, None]) -> None:
    next(items)
    items.close()


def fail_early(items: Generator[int, None, None]) -> None:
    with contextlib.suppress(ZeroDivisionError), closing(items):
        for item in items:
            _ = 1 / item


def read_all(items: Generator[int, None, None]) -> None:
    assert sum(items) == 499_500


@pytest.mark.parametrize("consume", [leave_early, fail_early, read_all])
@pytest.mark.parametrize("limit", [0, 2, 10**6])
def test_the_source_is_closed_by_its_own_thread_before_we_go_on(
    consume: Callable[[Generator[int, None, None]], None], limit: int
) -> None:
    opened = Opened()
    consume(read_ahead(opened.items(), limit))
    assert opened.closed_in == ["read-ahead"]


def test_a_reader_that_is_never_read_starts_nothing() -> None:
    opened = Opened()
    read_ahead(opened.items(), 3).close()
    assert opened.closed_in == []
