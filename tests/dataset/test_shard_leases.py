"""The leases of shards: parts of one division work at once, everything else excludes each other."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from posebatch.core.errors import OutputHeldError, StorageUnavailableError
from posebatch.core.shards import Shard
from posebatch.dataset import lease as lease_module
from posebatch.dataset.lease import hold_lease
from posebatch.dataset.lease_place import EXPIRES_SECONDS, FOLDER, SHARDS_FOLDER, LeasePlace
from posebatch.storage.local import LocalStore
from posebatch.storage.store import Store

PATIENCE_S = 30.0

PARTS = {"whole": None, "1/2": Shard(1, 2), "2/2": Shard(2, 2), "1/4": Shard(1, 4)}


def never(_: str) -> None:
    raise AssertionError("no notice is expected")


def elsewhere(store: Store, part: Shard | None, number: int = 1, **changed: object) -> str:
    """Write a lease of a run on another machine; returns its key."""
    there = {"run_id": "other", "host": "there x y", "process": "1 2", "since": "2026-01-01T01:00:00+00:00", **changed}
    key = LeasePlace(store, part).key(number)
    store.put(key, json.dumps({"ended": False, **there}).encode())
    return key


@pytest.mark.parametrize(
    ("first", "second", "excluded"),
    [
        ("1/2", "2/2", False),
        ("1/2", "1/2", True),
        ("1/2", "1/4", True),
        ("1/4", "2/2", True),
        ("whole", "1/2", True),
        ("1/2", "whole", True),
    ],
)
def test_runs_exclude_each_other_unless_they_have_different_parts_of_one_division(
    store: Store, first: str, second: str, excluded: bool
) -> None:
    with hold_lease(store, "first", False, never, never, PARTS[first]):
        if not excluded:
            with hold_lease(store, "second", False, never, never, PARTS[second]):
                pass
            return
        with pytest.raises(OutputHeldError) as raised, hold_lease(store, "second", False, never, never, PARTS[second]):
            pass
    what = "this output" if first == "whole" else f"shard {first} of this output"
    assert f"run first (process {os.getpid()} on " in str(raised.value)
    assert f"has {what} since" in str(raised.value)
    with hold_lease(store, "second", False, never, never, PARTS[second]):
        pass


def test_refused_run_leaves_no_lease(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with hold_lease(store, "first", False, never, never, Shard(1, 2)):
        before = {stored.key for stored in store.list("_state/")}
        with pytest.raises(OutputHeldError), hold_lease(store, "second", False, never, never):
            pass
        assert {stored.key for stored in store.list("_state/")} == before


def test_leases_of_shards_are_not_among_those_that_earlier_versions_read(tmp_path: Path) -> None:
    """They would take them for damaged leases, and refuse the output for ever."""
    store = LocalStore(tmp_path)
    with hold_lease(store, "mine", False, never, never, Shard(1, 2)):
        assert list(store.list(FOLDER)) == []
        assert [stored.key for stored in store.list(SHARDS_FOLDER)] == [f"{SHARDS_FOLDER}1-of-2/0000000001.json"]


@pytest.mark.parametrize(
    ("changed", "age_s"), [({"ended": True}, 0.0), ({}, EXPIRES_SECONDS + 5)], ids=["ended", "expired"]
)
def test_void_lease_of_another_part_excludes_nobody(tmp_path: Path, changed: dict[str, object], age_s: float) -> None:
    store = LocalStore(tmp_path)
    for part in (None, Shard(1, 2), Shard(3, 4)):
        path = tmp_path / elsewhere(store, part, **changed)
        os.utime(path, (0, path.stat().st_mtime - age_s))
    for wanted in (None, Shard(1, 8)):
        with hold_lease(store, "mine", False, never, never, wanted):
            pass


def test_one_living_lease_among_many_void_ones_is_found(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for number in range(1, 20):
        elsewhere(store, Shard(number, 20), ended=number != 7)
    with pytest.raises(OutputHeldError, match="shard 7/20"), hold_lease(store, "mine", False, never, never):
        pass


def test_foreign_files_beside_the_leases_of_shards_are_passed_over(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for name in ("notes.txt", "1-of-2/notes.json", "x-of-2/0000000001.json"):
        store.put(f"{SHARDS_FOLDER}{name}", b"")
    with hold_lease(store, "mine", False, never, never):
        pass


def test_run_that_another_one_overtakes_between_its_looks_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other has looked before it, and writes its lease while this one takes its own."""
    store, take = LocalStore(tmp_path), LeasePlace.take

    def overtaken(self: LeasePlace, number: int, holder: lease_module.Holder) -> bool:
        elsewhere(store, Shard(1, 2))
        return take(self, number, holder)

    monkeypatch.setattr(LeasePlace, "take", overtaken)
    with pytest.raises(OutputHeldError, match="shard 1/2"), hold_lease(store, "mine", False, never, never):
        pass
    assert json.loads(store.read(LeasePlace(store, None).key(1)))["ended"] is True, "the other need not wait for it"


def test_waiting_run_on_the_whole_output_gets_it_after_all_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "POLL_SECONDS", 0.02)
    store, notices, order = LocalStore(tmp_path), [], []

    def whole() -> None:
        with hold_lease(store, "whole", True, notices.append, never):
            order.append("whole")

    waiter = threading.Thread(target=whole)
    with ExitStack() as shards:
        for number in (1, 2, 3):
            shards.enter_context(hold_lease(store, f"shard {number}", False, never, never, Shard(number, 3)))
        waiter.start()
        time.sleep(0.3)
        order.append("shards")
    waiter.join(PATIENCE_S)
    assert order == ["shards", "whole"]
    assert notices[0].startswith("waiting: run shard ")


@pytest.mark.parametrize(("mine", "other"), [(None, Shard(1, 2)), (Shard(1, 2), None), (Shard(1, 2), Shard(1, 4))])
def test_suspended_holder_learns_that_it_lost_the_lease_to_another_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: Shard | None, other: Shard | None
) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
    store, lost = LocalStore(tmp_path), []
    lost_lease = threading.Event()

    def on_lost(holder: str) -> None:
        lost.append(holder)
        lost_lease.set()

    with hold_lease(store, "mine", False, never, on_lost, mine):
        place = LeasePlace(store, mine)
        with monkeypatch.context() as suspended:
            suspended.setattr(LeasePlace, "read_newest", _suspended)
            time.sleep(0.1)  # the renewal that is under way has ended
            path = tmp_path / place.key(1)
            os.utime(path, (0, path.stat().st_mtime - EXPIRES_SECONDS - 5))
            elsewhere(store, other)
        assert lost_lease.wait(PATIENCE_S)
    assert len(lost) == 1
    assert lost[0].startswith("run other (process 1 on there) has ")
    assert json.loads(store.read(place.key(1)))["ended"] is True
    assert json.loads(store.read(LeasePlace(store, other).key(1)))["ended"] is False


def _suspended(_: LeasePlace) -> None:
    """A renewal that does not come to its put."""
    raise StorageUnavailableError("suspended")
