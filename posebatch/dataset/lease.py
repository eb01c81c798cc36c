"""One run at a time for each output: a lease that lies in the output itself.

Leases are numbered, ``_state/leases/0000000001.json`` and so on, and whoever has the highest number has the output. A
number is taken by a put that succeeds only where nothing lies yet, so of two that want it one gets it. The holder
renews its own object and marks it at the end; one that has not been renewed for `EXPIRES_SECONDS`, by the store's
clock, or whose process is known to be dead, is void, and the next number may be taken.

Nothing is lost where a store has no such puts, or a holder was only asleep and wakes up: publication bears two runs at
once, they just do the same work.
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
    UnsupportedError,
)
from posebatch.storage.store import Store

FOLDER: Final = "_state/leases/"


RENEW_SECONDS: Final = 15.0


EXPIRES_SECONDS: Final = 90.0
"""Several renewals may fail before a lease is void."""


POLL_SECONDS: Final = 5.0
"""How often somebody who waits looks."""


@dataclass(frozen=True)
class Holder:
    """Who has an output, since when."""

    run_id: str
    host: str
    process: str
    """Process id and start time, on that host."""
    since: str
    """UTC, ISO 8601."""
    ended: bool = False

    @classmethod
    def here(cls, run_id: str) -> Holder:
        """This process, from now on."""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(run_id, _host(), _process(os.getpid()), since)

    def is_dead(self) -> bool:
        """Whether it ran on this machine and does no more."""
        return self.host == _host() and _process(int(self.process.split()[0])) != self.process


class Lease:
    """The lease that this process holds."""

    def __init__(self, store: Store, number: int, holder: Holder, on_lost: Callable[[str], None]) -> None:
        self._store, self._number, self._holder, self._on_lost = store, number, holder, on_lost
        self._ended, self._lost = threading.Event(), False
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let the next one in."""
        self._ended.set()
        self._thread.join()
        if self._lost:
            return
        with contextlib.suppress(StorageError):  # then it expires
            _write(self._store, self._number, replace(self._holder, ended=True))

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            with contextlib.suppress(StorageError):  # tried again soon; long before the lease expires
                newest = _newest(self._store)
                if newest is not None and (newest[0] > self._number or newest[1].run_id != self._holder.run_id):
                    self._lost = True
                    self._on_lost(_described(newest[1]))
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

    ``say`` is told whom one waits for, and of a store that cannot keep two runs apart; ``on_lost`` when another run has
    taken the lease all the same. Raises `OutputHeldError` when another run has the output and ``wait`` is
    false, `OutputError` when the output cannot be written.
    """
    holder = Holder.here(run_id)
    try:
        number = _acquired(store, holder, wait, say)
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


def _acquired(store: Store, holder: Holder, wait: bool, say: Callable[[str], None]) -> int:
    told = ""
    while True:
        newest = _newest(store)
        held_by = None if newest is None else _holding(store, *newest)
        if held_by is None:
            number = (newest[0] if newest else 0) + 1
            if _take(store, number, holder):
                return number
            continue  # somebody was faster
        if not wait:
            raise OutputHeldError(f"{store.root}: {held_by}. Wait for its end with --wait")
        if held_by != told:
            say(f"waiting: {held_by}")
            told = held_by
        time.sleep(POLL_SECONDS)


def _take(store: Store, number: int, holder: Holder) -> bool:
    """Take a number; false when somebody else has it, or a higher one already."""
    try:
        store.put_if(_key(number), _content(holder), None)
    except PutRefusedError:
        return False
    _check_that_puts_are_refused(store, number, holder)
    newest = _newest(store)
    if newest is None or newest[0] != number or newest[1].run_id != holder.run_id:
        return False
    for found in list(store.list(FOLDER)):
        if found.key < _key(number - 1):  # the last one stays, so that no number is taken twice
            store.delete(found.key)
    return True


def _check_that_puts_are_refused(store: Store, number: int, holder: Holder) -> None:
    """Some stores take the condition and pay no heed to it. Raises `UnsupportedError` for these."""
    try:
        store.put_if(_key(number), _content(holder), None)
    except PutRefusedError:
        return
    raise UnsupportedError(f"{store.root}: this store pays no heed to conditions of puts")


def _holding(store: Store, number: int, holder: Holder) -> str | None:
    """Who has the output by a lease; None when it is void."""
    if holder.ended or holder.is_dead():
        return None
    try:
        age = store.age_s(_key(number))
    except ObjectNotFoundError:
        return None
    if age > EXPIRES_SECONDS:
        return None
    return f"{_described(holder)}, last sign of life {max(0.0, age):.0f} s ago"


def _described(holder: Holder) -> str:
    pid = holder.process.split()[0]
    return f"run {holder.run_id} (process {pid} on {holder.host.split()[0]}) has this output since {holder.since}"


def _newest(store: Store) -> tuple[int, Holder] | None:
    keys = sorted(found.key for found in store.list(FOLDER) if found.key.endswith(".json"))
    if not keys:
        return None
    try:
        number = int(keys[-1].removeprefix(FOLDER).removesuffix(".json"))
        return number, Holder(**json.loads(store.read(keys[-1])))
    except ObjectNotFoundError:
        return _newest(store)
    except (ValueError, TypeError) as error:
        raise StorageError(f"{store.uri(keys[-1])}: not a lease; delete it when no run is under way") from error


def _write(store: Store, number: int, holder: Holder) -> None:
    store.put(_key(number), _content(holder))


def _key(number: int) -> str:
    return f"{FOLDER}{number:010d}.json"


def _content(holder: Holder) -> bytes:
    content: dict[str, Any] = asdict(holder)
    return json.dumps(content).encode()


def _host() -> str:
    """This machine, since it was started: its name, and a number that another start would not have."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # process numbers mean something only in their own namespace: that of a container is another
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot, namespace = "unknown", str(os.getpid())
    return f"{socket.gethostname()} {boot} {namespace}"


def _process(pid: int) -> str:
    """A process, told from later ones with its number by when it started; no start when there is none."""
    try:
        state, *_, started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:20]
    except OSError:
        return f"{pid} none"
    return f"{pid} {'none' if state == 'Z' else started}"  # Z: dead, and nobody has asked about it yet
