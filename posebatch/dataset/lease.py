"""A lease in the output itself, so that one run at a time works on it, or on each shard of it.

Leases are numbered objects, ``_state/leases/0000000001.json`` and so on; the highest number holds the output. A run
takes the next number by a conditional put that succeeds only if the key is free, so one of several runs gets it. The
holder renews its lease, and marks it as ended when the run ends. A lease is void if it is marked as ended, if it was
not renewed for `EXPIRES_SECONDS` by the clock of the store, or if its process ran on this machine and is dead.

Each shard has such leases in a folder of its own. A run that has taken one then looks for leases in other folders that
exclude it (`LeasePlace.excluded_by`), and gives its own up if one of them is alive. Each of two runs that exclude each
other writes first and looks then, so at least one sees the other. If they start at the same moment, both may be
refused.

The lease saves work and is not needed for correctness: publication tolerates two runs, which then do the same work.
That happens on a store without conditional puts, or if a suspended holder continues after its lease has expired.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from posebatch.core.errors import (
    OutputError,
    OutputHeldError,
    StorageError,
    StorageUnavailableError,
    UnsupportedError,
)
from posebatch.core.shards import Shard
from posebatch.dataset.lease_place import EXPIRES_SECONDS, Holder, LeasePlace
from posebatch.storage.store import Store

RENEW_SECONDS: Final = 15.0


POLL_SECONDS: Final = 5.0
"""Mean time between two looks of a run that waits for the output."""


TAKE_TRIES: Final = 10
"""Tries to take a free number before giving up. Each failed try means that another run was faster."""


class Lease:
    """A lease that this process holds. A thread renews it until `release`."""

    def __init__(self, place: LeasePlace, number: int, holder: Holder, on_lost: Callable[[str], None]) -> None:
        self._place, self._number, self._holder, self._on_lost = place, number, holder, on_lost
        self._ended, self._lost = threading.Event(), False
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Stop renewing and mark the lease as ended, unless another run has taken over."""
        self._ended.set()
        self._thread.join()
        if self._lost:
            return
        with contextlib.suppress(StorageError):  # the lease then expires
            self._place.write(self._number, replace(self._holder, ended=True))

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            with contextlib.suppress(StorageError):  # the next renewal comes long before the lease expires
                other = self._renew()
                if other is not None:
                    self._lost = True
                    self._on_lost(other)
                    return

    def _renew(self) -> str | None:
        """Renew the lease, unless another run has taken over: then returns a description of that run."""
        newest = self._place.read_newest()
        if newest is not None and (newest[0] > self._number or newest[1].run_id != self._holder.run_id):
            return self._place.describe(newest[1])
        may_have_expired = self._place.age_s(self._number) > EXPIRES_SECONDS / 2  # the put below may take a while, too
        self._place.write(self._number, self._holder)
        if not may_have_expired:  # as long as a lease is alive, no run that it excludes gets one
            return None
        other = self._place.excluded_by()
        if other is not None:
            self._place.write(self._number, replace(self._holder, ended=True))
        return other


@contextlib.contextmanager
def hold_lease(
    store: Store,
    run_id: str,
    wait: bool,
    say: Callable[[str], None],
    on_lost: Callable[[str], None],
    part: Shard | None = None,
) -> Iterator[None]:
    """Hold the output, or one ``part`` of it, while the block runs.

    ``say`` receives notices: who holds the output while waiting, or that the store has no conditional writes.
    ``on_lost`` is called, from another thread, if another run takes over. Raises `OutputHeldError` if another run
    holds the output and ``wait`` is false, `OutputError` if the output cannot be written.
    """
    holder, place = Holder.here(run_id), LeasePlace(store, part)
    try:
        number = _acquire(place, holder, wait, say)
    except UnsupportedError as error:
        say(f"{error}: two runs at once would not notice each other. They do no harm but do the work twice")
        yield
        return
    except StorageError as error:
        raise OutputError(f"--output {store.root} cannot be written: {error}") from error
    lease = Lease(place, number, holder, on_lost)
    try:
        yield
    finally:
        lease.release()


def _acquire(place: LeasePlace, holder: Holder, wait: bool, say: Callable[[str], None]) -> int:
    """Take the next number as soon as no other run stands against it; returns the number."""
    announced = ""
    failed_takes = 0
    while failed_takes < TAKE_TRIES:
        newest = place.read_newest()
        held_by = (place.held_by(*newest) if newest else None) or place.excluded_by()
        if held_by is None:
            number = (newest[0] if newest else 0) + 1
            if not place.take(number, holder):
                failed_takes += 1
                continue
            held_by = place.excluded_by()  # again: the other may have begun since
            if held_by is None:
                return number
            place.write(number, replace(holder, ended=True))
        if not wait:
            raise OutputHeldError(f"{place.store.root}: {held_by}. Wait for its end with --wait")
        if held_by != announced:
            say(f"waiting: {held_by}")
            announced = held_by
        failed_takes = 0
        time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))  # two runs that exclude each other must not keep in step
    folder = place.store.uri(place.folder)
    raise StorageUnavailableError(f"{folder}: other runs took {TAKE_TRIES} leases in a row; try again")
