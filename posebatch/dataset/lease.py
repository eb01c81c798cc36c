"""A lease in the output itself, so that one run at a time works on it.

Leases are numbered objects, ``_state/leases/0000000001.json`` and so on; the highest number holds the output. A run
takes the next number by a conditional put that succeeds only if the key is free, so one of several runs gets it. The
holder renews its lease, and marks it as ended when the run ends. A lease is void if it is marked as ended, if it was
not renewed for `EXPIRES_SECONDS` by the clock of the store, or if its process ran on this machine and is dead.

The lease saves work and is not needed for correctness: publication tolerates two runs, which then do the same work.
That happens on a store without conditional puts, or if a suspended holder continues after its lease has expired.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from posebatch.core.errors import (
    ObjectNotFoundError,
    OutputError,
    OutputHeldError,
    PutRefusedError,
    StorageError,
    StorageUnavailableError,
    UnsupportedError,
)
from posebatch.storage.store import Store

FOLDER: Final = "_state/leases/"


RENEW_SECONDS: Final = 15.0


EXPIRES_SECONDS: Final = 90.0
"""Six times `RENEW_SECONDS`, so several renewals may fail before a lease is void."""


POLL_SECONDS: Final = 5.0
"""Time between two looks of a run that waits for the output."""


READ_TRIES: Final = 3
"""Tries to read the newest lease. Its object may be removed after it was listed, when another run takes a number."""


TAKE_TRIES: Final = 10
"""Tries to take a free number before giving up. Each failed try means that another run was faster."""


@dataclass(frozen=True)
class Holder:
    """The run that holds an output: the content of a lease."""

    run_id: str
    host: str
    process: str
    """Process id and start time, on that host."""
    since: str
    """UTC, ISO 8601."""
    ended: bool = False

    @classmethod
    def here(cls, run_id: str) -> Holder:
        """This process as holder, from now on."""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(run_id, _host_id(), _process_id(os.getpid()), since)

    def is_dead(self) -> bool:
        """Whether the process ran on this machine and has ended."""
        return self.host == _host_id() and _process_id(int(self.process.split()[0])) != self.process


class Lease:
    """A lease that this process holds. A thread renews it until `release`."""

    def __init__(self, store: Store, number: int, holder: Holder, on_lost: Callable[[str], None]) -> None:
        self._store, self._number, self._holder, self._on_lost = store, number, holder, on_lost
        self._ended, self._lost = threading.Event(), False
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Stop renewing and mark the lease as ended, unless another run has taken over."""
        self._ended.set()
        self._thread.join()
        if self._lost:
            return
        with contextlib.suppress(StorageError):  # the lease then expires
            _write(self._store, self._number, replace(self._holder, ended=True))

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            with contextlib.suppress(StorageError):  # the next renewal comes long before the lease expires
                newest = _read_newest(self._store)
                if newest is not None and (newest[0] > self._number or newest[1].run_id != self._holder.run_id):
                    self._lost = True
                    self._on_lost(_describe(newest[1]))
                    return
                _write(self._store, self._number, self._holder)


@contextlib.contextmanager
def hold_lease(
    store: Store,
    run_id: str,
    wait: bool,
    say: Callable[[str], None],
    on_lost: Callable[[str], None],
) -> Iterator[None]:
    """Hold the output while the block runs.

    ``say`` receives notices: who holds the output while waiting, or that the store has no conditional writes.
    ``on_lost`` is called, from another thread, if another run takes over. Raises `OutputHeldError` if another run
    holds the output and ``wait`` is false, `OutputError` if the output cannot be written.
    """
    holder = Holder.here(run_id)
    try:
        number = _acquire(store, holder, wait, say)
    except UnsupportedError as error:
        say(f"{error}: two runs at once would not notice each other. They do no harm but do the work twice")
        yield
        return
    except StorageError as error:
        raise OutputError(f"--output {store.root} cannot be written: {error}") from error
    lease = Lease(store, number, holder, on_lost)
    try:
        yield
    finally:
        lease.release()


def _acquire(store: Store, holder: Holder, wait: bool, say: Callable[[str], None]) -> int:
    """Take the next number as soon as the output is free; returns the number."""
    announced = ""
    failed_takes = 0
    while failed_takes < TAKE_TRIES:
        newest = _read_newest(store)
        held_by = None if newest is None else _held_by(store, *newest)
        if held_by is None:
            number = (newest[0] if newest else 0) + 1
            if _take(store, number, holder):
                return number
            failed_takes += 1
            continue
        if not wait:
            raise OutputHeldError(f"{store.root}: {held_by}. Wait for its end with --wait")
        if held_by != announced:
            say(f"waiting: {held_by}")
            announced = held_by
        failed_takes = 0
        time.sleep(POLL_SECONDS)
    raise StorageUnavailableError(f"{store.uri(FOLDER)}: other runs took {TAKE_TRIES} leases in a row; try again")


def _take(store: Store, number: int, holder: Holder) -> bool:
    """Take a number; returns False if another run has this or a higher one."""
    try:
        store.put_if(_key(number), _content(holder), None)
    except PutRefusedError:
        return False
    _check_that_puts_are_refused(store, number, holder)
    newest = _read_newest(store)
    if newest is None or newest[0] != number or newest[1].run_id != holder.run_id:
        return False
    for listed in list(store.list(FOLDER)):
        if listed.key < _key(number - 1):  # the last one stays, so that no number is taken twice
            store.delete(listed.key)
    return True


def _check_that_puts_are_refused(store: Store, number: int, holder: Holder) -> None:
    """Raise `UnsupportedError` if the store accepts the condition of a put and then ignores it, as some do."""
    try:
        store.put_if(_key(number), _content(holder), None)
    except PutRefusedError:
        return
    raise UnsupportedError(f"{store.root}: this store ignores the conditions of puts")


def _held_by(store: Store, number: int, holder: Holder) -> str | None:
    """A description of the run that holds the output by this lease; None if the lease is void."""
    if holder.ended or holder.is_dead():
        return None
    try:
        age = store.age_s(_key(number))
    except ObjectNotFoundError:
        return None
    if age > EXPIRES_SECONDS:
        return None
    return f"{_describe(holder)}, last sign of life {max(0.0, age):.0f} s ago"


def _describe(holder: Holder) -> str:
    pid = holder.process.split()[0]
    return f"run {holder.run_id} (process {pid} on {holder.host.split()[0]}) has this output since {holder.since}"


def _read_newest(store: Store) -> tuple[int, Holder] | None:
    """The lease with the highest number; None if there is none.

    Raises `StorageError` for a damaged lease, `StorageUnavailableError` if leases are replaced faster than read.
    """
    for _ in range(READ_TRIES):
        keys = sorted(listed.key for listed in store.list(FOLDER) if listed.key.endswith(".json"))
        if not keys:
            return None
        try:
            number = int(keys[-1].removeprefix(FOLDER).removesuffix(".json"))
            return number, Holder(**json.loads(store.read(keys[-1])))
        except ObjectNotFoundError:
            continue
        except (ValueError, TypeError) as error:
            raise StorageError(f"{store.uri(keys[-1])}: not a lease; delete it when no run is in progress") from error
    raise StorageUnavailableError(f"{store.uri(FOLDER)}: the newest lease disappeared {READ_TRIES} times; try again")


def _write(store: Store, number: int, holder: Holder) -> None:
    store.put(_key(number), _content(holder))


def _key(number: int) -> str:
    return f"{FOLDER}{number:010d}.json"


def _content(holder: Holder) -> bytes:
    content: dict[str, Any] = asdict(holder)
    return json.dumps(content).encode()


def _host_id() -> str:
    """Host name, boot id and namespace of process ids: process ids of equal hosts can be compared."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")  # a container has its own
    except OSError:
        boot, namespace = "unknown", str(os.getpid())
    return f"{socket.gethostname()} {boot} {namespace}"


def _process_id(pid: int) -> str:
    """Process id and start time, which tell a process from later ones with the same id; ``none`` if it is not alive."""
    try:
        state, *_, started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:20]
    except OSError:
        return f"{pid} none"
    return f"{pid} {'none' if state == 'Z' else started}"  # Z: a zombie, dead but not yet waited for
