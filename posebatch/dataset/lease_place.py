"""The places of leases: one folder for the whole output, and one for each shard of it.

Runs of different shards of one division, such as 1/64 and 2/64, do not exclude each other. Everything else does: a run
on the whole output and a run on a shard, and runs on shards of different divisions, which may share videos.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from posebatch.core.errors import (
    ObjectNotFoundError,
    PutRefusedError,
    StorageError,
    StorageUnavailableError,
    UnsupportedError,
)
from posebatch.core.shards import Shard
from posebatch.storage.store import Store, StoredObject

FOLDER: Final = "_state/leases/"
"""Of the whole output."""


SHARDS_FOLDER: Final = "_state/shard-leases/"
"""Above those of the shards. Apart from `FOLDER`, where versions without shards would take them for damaged leases."""


EXPIRES_SECONDS: Final = 90.0
"""Six times `posebatch.dataset.lease.RENEW_SECONDS`, so several renewals may fail before a lease is void."""


READ_TRIES: Final = 3
"""Tries to read the newest lease. Its object may be removed after it was listed, when another run takes a number."""


_SHARD_LEASE: Final = re.compile(rf"{SHARDS_FOLDER}([0-9]+)-of-([0-9]+)/[0-9]{{10}}\.json")


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
        return cls(run_id, _host_id(), process_id(os.getpid()), since)

    def is_over(self) -> bool:
        """Whether the run has ended, or its process ran on this machine and is dead."""
        return self.ended or (self.host == _host_id() and process_id(int(self.process.split()[0])) != self.process)


@dataclass(frozen=True)
class LeasePlace:
    """Where the leases of an output lie, or those of one part of it."""

    store: Store
    part: Shard | None
    """None: the whole output."""

    @property
    def folder(self) -> str:
        """Prefix of the keys of these leases."""
        return FOLDER if self.part is None else f"{SHARDS_FOLDER}{self.part.number}-of-{self.part.count}/"

    def key(self, number: int) -> str:
        """Key of a lease."""
        return f"{self.folder}{number:010d}.json"

    def write(self, number: int, holder: Holder) -> None:
        """Write a lease that this process holds."""
        self.store.put(self.key(number), _content(holder))

    def age_s(self, number: int) -> float:
        """Seconds since a lease was renewed, by the clock of the store; endless if it is gone."""
        try:
            return self.store.age_s(self.key(number))
        except ObjectNotFoundError:
            return math.inf

    def read_newest(self) -> tuple[int, Holder] | None:
        """The lease with the highest number; None if there is none.

        Raises `StorageError` for a damaged lease, `StorageUnavailableError` if leases are replaced faster than read.
        """
        for _ in range(READ_TRIES):
            keys = [stored.key for stored in self._list()]
            if not keys:
                return None
            try:
                return _read(self.store, max(keys))
            except ObjectNotFoundError:
                continue
        folder = self.store.uri(self.folder)
        raise StorageUnavailableError(f"{folder}: the newest lease disappeared {READ_TRIES} times; try again")

    def take(self, number: int, holder: Holder) -> bool:
        """Take a number; returns False if another run has this or a higher one."""
        try:
            self.store.put_if(self.key(number), _content(holder), None)
        except PutRefusedError:
            return False
        self._check_that_puts_are_refused(number, holder)
        newest = self.read_newest()
        if newest is None or newest[0] != number or newest[1].run_id != holder.run_id:
            return False
        for listed in list(self._list()):
            if listed.key < self.key(number - 1):  # the last one stays, so that no number is taken twice
                self.store.delete(listed.key)
        return True

    def held_by(self, number: int, holder: Holder) -> str | None:
        """A description of the run that holds this part by a lease; None if the lease is void."""
        if holder.is_over():
            return None
        age = self.age_s(number)
        if age > EXPIRES_SECONDS:
            return None
        return f"{self.describe(holder)}, last sign of life {max(0.0, age):.0f} s ago"

    def excluded_by(self) -> str | None:
        """A description of a run on another part that excludes runs on this one; None if there is none.

        Raises as `read_newest`.
        """
        for _ in range(READ_TRIES):
            try:
                return self._look_at_others()
            except ObjectNotFoundError:
                continue
        folder = self.store.uri(SHARDS_FOLDER)
        raise StorageUnavailableError(f"{folder}: leases disappeared {READ_TRIES} times; try again")

    def _look_at_others(self) -> str | None:
        others = sorted(self._leases_that_exclude(), key=lambda other: -other[1].last_modified)
        for place, stored in others:
            if self.store.age_s(stored.key) > EXPIRES_SECONDS:
                return None  # all that follow are older, so they need not be read
            held_by = place.held_by(*_read(self.store, stored.key))
            if held_by is not None:
                return held_by
        return None

    def describe(self, holder: Holder) -> str:
        """Names a run that holds this part."""
        pid, host = holder.process.split()[0], holder.host.split()[0]
        what = "this output" if self.part is None else f"shard {self.part} of this output"
        return f"run {holder.run_id} (process {pid} on {host}) has {what} since {holder.since}"

    def _list(self) -> Iterator[StoredObject]:
        return (stored for stored in self.store.list(self.folder) if stored.key.endswith(".json"))

    def _check_that_puts_are_refused(self, number: int, holder: Holder) -> None:
        """Raise `UnsupportedError` if the store accepts the condition of a put and then ignores it, as some do."""
        try:
            self.store.put_if(self.key(number), _content(holder), None)
        except PutRefusedError:
            return
        raise UnsupportedError(f"{self.store.root}: this store ignores the conditions of puts")

    def _leases_that_exclude(self) -> Iterator[tuple[LeasePlace, StoredObject]]:
        """The newest lease of each other place that excludes runs on this one."""
        newest: dict[LeasePlace, StoredObject] = {}
        for stored in self.store.list(SHARDS_FOLDER):
            match = _SHARD_LEASE.fullmatch(stored.key)
            if match is None:
                continue
            other = LeasePlace(self.store, Shard(int(match[1]), int(match[2])))
            if self.part is None or int(match[2]) != self.part.count:
                newest[other] = max(newest.get(other, stored), stored, key=lambda lease: lease.key)
        yield from newest.items()
        whole = LeasePlace(self.store, None)
        leases = [] if self.part is None else list(whole._list())
        if leases:
            yield whole, max(leases, key=lambda lease: lease.key)


def _read(store: Store, key: str) -> tuple[int, Holder]:
    """Number and content of a lease. Raises `ObjectNotFoundError`, and `StorageError` for a damaged lease."""
    content = store.read(key)
    try:
        return int(key.rpartition("/")[2].removesuffix(".json")), Holder(**json.loads(content))
    except (ValueError, TypeError) as error:
        raise StorageError(f"{store.uri(key)}: not a lease; delete it when no run is in progress") from error


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


def process_id(pid: int) -> str:
    """Process id and start time, which tell a process from later ones with the same id; ``none`` if it is not alive."""
    try:
        state, *_, started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:20]
    except OSError:
        return f"{pid} none"
    return f"{pid} {'none' if state == 'Z' else started}"  # Z: a zombie, dead but not yet waited for
