"""The lease of an output: a second run is refused or waits, and the lease of a dead run is void."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from posebatch.core.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    OutputError,
    OutputHeldError,
    PutRefusedError,
    StorageError,
    StorageUnavailableError,
    UnsupportedError,
)
from posebatch.dataset import lease as lease_module
from posebatch.dataset.lease import hold_lease
from posebatch.dataset.lease_place import EXPIRES_SECONDS, FOLDER, Holder, process_id
from posebatch.storage.local import LocalStore
from posebatch.storage.store import Store, StoredObject

PATIENCE_S = 30.0


def never(_: str) -> None:
    raise AssertionError("no notice is expected")


def leases(store: Store) -> list[str]:
    return [stored.key.removeprefix(FOLDER) for stored in store.list(FOLDER)]


def elsewhere(store: Store, number: int = 1, **changed: object) -> None:
    """Write a lease of a run on another machine."""
    there = {"run_id": "other", "host": "there x y", "process": "1 2", "since": "2026-01-01T01:00:00+00:00", **changed}
    store.put(f"{FOLDER}{number:010d}.json", json.dumps({"ended": False, **there}).encode())


def test_lease_is_free_at_first_and_marked_as_ended(store: Store) -> None:
    with hold_lease(store, "mine", False, never, never):
        assert leases(store) == ["0000000001.json"]
        assert json.loads(store.read(f"{FOLDER}0000000001.json"))["ended"] is False
    assert json.loads(store.read(f"{FOLDER}0000000001.json"))["ended"] is True


def test_leases_of_earlier_runs_are_removed(store: Store) -> None:
    for number in range(1, 5):
        with hold_lease(store, "mine", False, never, never):
            assert leases(store)[-1] == f"{number:010d}.json"
            assert len(leases(store)) <= 2, "the last one stays, so that no number is taken twice"


def test_second_run_is_refused_and_names_the_holder(store: Store) -> None:
    with (
        hold_lease(store, "first", False, never, never),
        pytest.raises(OutputHeldError) as raised,
        hold_lease(store, "second", False, never, never),
    ):
        pass
    message = str(raised.value)
    assert f"run first (process {os.getpid()} on " in message
    assert f"has this output since {time.strftime('%Y-')}" in message
    assert "last sign of life" in message
    assert "--wait" in message
    assert leases(store) == ["0000000001.json"], "the refused run leaves nothing"


def test_waiting_run_gets_the_lease_next(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "POLL_SECONDS", 0.02)
    notices, order = [], []

    def second() -> None:
        with hold_lease(store, "second", True, notices.append, never):
            order.append("second")

    with hold_lease(store, "first", False, never, never):
        waiter = threading.Thread(target=second)
        waiter.start()
        time.sleep(0.5)
        order.append("first")
    waiter.join(PATIENCE_S)
    assert order == ["first", "second"]
    assert notices[0].startswith("waiting: run first (process")


@pytest.mark.parametrize(
    ("left", "is_void"),
    [
        ({}, False),
        ({"ended": True}, True),
        ({"host": Holder.here("x").host, "process": f"{os.getpid()} 77"}, True),
        ({"host": Holder.here("x").host, "process": "999999999 1"}, True),
        ({"host": Holder.here("x").host, "process": Holder.here("x").process}, False),
    ],
    ids=["elsewhere", "ended", "another process has its number", "no such process", "lives here"],
)
def test_lease_is_void_if_its_holder_ended_or_died(store: Store, left: dict[str, object], is_void: bool) -> None:
    elsewhere(store, 7, **left)
    if is_void:
        with hold_lease(store, "mine", False, never, never):
            assert leases(store)[-1] == "0000000008.json"
        return
    with pytest.raises(OutputHeldError, match="run other"), hold_lease(store, "mine", False, never, never):
        pass


def test_lease_of_a_killed_process_is_void_at_once(tmp_path: Path) -> None:
    """A killed run can be restarted at once, even while its process is a zombie."""
    script = (
        "import sys, time\n"
        "from posebatch.dataset.lease import hold_lease\n"
        "from posebatch.storage.local import LocalStore\n"
        "with hold_lease(LocalStore(sys.argv[1]), 'killed', False, print, print):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    store = LocalStore(tmp_path)
    with pytest.raises(OutputHeldError, match="run killed"), hold_lease(store, "mine", False, never, never):
        pass
    process.kill()
    deadline = time.monotonic() + PATIENCE_S
    while process_id(process.pid) != f"{process.pid} none" and time.monotonic() < deadline:
        time.sleep(0.01)
    with hold_lease(store, "mine", False, never, never):
        pass
    process.wait()
    process.stdout.close()


def test_lease_expires_by_the_clock_of_the_store(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    elsewhere(store)
    path = tmp_path / FOLDER / "0000000001.json"
    written = path.stat().st_mtime
    os.utime(path, (0, written - EXPIRES_SECONDS + 5))
    with pytest.raises(OutputHeldError, match="last sign of life 8"), hold_lease(store, "mine", False, never, never):
        pass
    os.utime(path, (0, written - EXPIRES_SECONDS - 5))
    with hold_lease(store, "mine", False, never, never):
        pass


def test_lease_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
    path = tmp_path / FOLDER / "0000000001.json"
    with hold_lease(LocalStore(tmp_path), "mine", False, never, never):
        first, deadline = path.stat().st_mtime_ns, time.monotonic() + PATIENCE_S
        while path.stat().st_mtime_ns == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("number", [1, 2], ids=["the same number, by a store without atomic puts", "the next number"])
def test_suspended_holder_learns_that_it_lost_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
    store, lost = LocalStore(tmp_path), []
    lost_lease = threading.Event()

    def on_lost(holder: str) -> None:
        lost.append(holder)
        lost_lease.set()

    with hold_lease(store, "mine", False, never, on_lost):
        elsewhere(store, number)
        assert lost_lease.wait(PATIENCE_S)
    assert len(lost) == 1
    assert lost[0].startswith("run other (process 1 on there) has this output")
    newest = json.loads(store.read(f"{FOLDER}{number:010d}.json"))
    assert (newest["run_id"], newest["ended"]) == ("other", False), "the lease of the other run is unchanged"


class Faulty(LocalStore):
    """A store without conditional puts, one that ignores their conditions, or one that fails."""

    def __init__(self, root: Path, fault: StorageError | str | None) -> None:
        super().__init__(root)
        self.fault = fault

    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        if isinstance(self.fault, StorageError):
            raise self.fault
        return self.put(key, content) if self.fault == "heedless" else super().put_if(key, content, etag)


@pytest.mark.parametrize("fault", [UnsupportedError("no such puts"), "heedless"])
def test_lease_warns_if_the_store_has_no_conditional_puts(tmp_path: Path, fault: StorageError | str) -> None:
    notices: list[str] = []
    with hold_lease(Faulty(tmp_path, fault), "mine", False, notices.append, never):
        assert len(notices) == 1
        assert "two runs at once would not notice each other" in notices[0]


@pytest.mark.parametrize("fault", [AccessDeniedError("denied"), StorageUnavailableError("down")])
def test_lease_names_an_output_that_cannot_be_written(tmp_path: Path, fault: StorageError) -> None:
    with (
        pytest.raises(OutputError, match=f"cannot be written: {fault}"),
        hold_lease(Faulty(tmp_path, fault), "mine", False, never, never),
    ):
        pass


def test_lease_survives_failed_renewals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.02)
    failures: list[str] = []

    def fail(self: Store, prefix: str = "") -> Iterator[StoredObject]:
        failures.append(prefix)
        raise StorageUnavailableError("down")

    with hold_lease(LocalStore(tmp_path), "mine", False, never, never), pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "list", fail)
        deadline = time.monotonic() + PATIENCE_S
        while len(failures) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(failures) >= 3


class VanishingStore(LocalStore):
    """Every lease that is listed is gone when it is read."""

    def read(self, key: str) -> bytes:
        raise ObjectNotFoundError(key)


def test_lease_that_always_vanishes_is_an_error(tmp_path: Path) -> None:
    elsewhere(LocalStore(tmp_path))
    with (
        pytest.raises(OutputError, match="the newest lease disappeared 3 times; try again"),
        hold_lease(VanishingStore(tmp_path), "mine", False, never, never),
    ):
        pass


class LosingStore(LocalStore):
    """Another run is always faster: it takes each number first, and its lease ends at once."""

    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        self.put(key, json.dumps({**json.loads(bytes(content)), "run_id": "faster", "ended": True}).encode())  # type: ignore[arg-type]
        raise PutRefusedError(key)


def test_lease_gives_up_when_other_runs_are_always_faster(tmp_path: Path) -> None:
    store = LosingStore(tmp_path)
    with (
        pytest.raises(OutputError, match="other runs took 10 leases in a row; try again"),
        hold_lease(store, "mine", True, never, never),
    ):
        pass
    assert leases(store) == [f"{number:010d}.json" for number in range(1, 11)]


def test_lease_goes_to_one_of_many_concurrent_runs(tmp_path: Path) -> None:
    store, begin, done = LocalStore(tmp_path), threading.Barrier(6), threading.Event()
    holders = []

    def attempt(number: int) -> None:
        begin.wait(PATIENCE_S)
        try:
            with hold_lease(store, f"run {number}", False, never, never):
                holders.append(number)
                done.wait(PATIENCE_S)
        except OutputHeldError:
            return

    with ThreadPoolExecutor(6) as threads:
        attempts = [threads.submit(attempt, number) for number in range(6)]
        deadline = time.monotonic() + PATIENCE_S
        while sum(future.done() for future in attempts) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        done.set()
    assert len(holders) == 1


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"run_id": 1}'])
def test_lease_names_a_damaged_lease(tmp_path: Path, content: bytes) -> None:
    store = LocalStore(tmp_path)
    store.put(f"{FOLDER}0000000003.json", content)
    with (
        pytest.raises(OutputError, match=r"0000000003\.json: not a lease"),
        hold_lease(store, "mine", False, never, never),
    ):
        pass
