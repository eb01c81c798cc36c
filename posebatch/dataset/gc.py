"""Takes away what nobody needs any more: what killed runs have left, and data that no commit record vouches for.

Nothing younger than a limit is touched, by the store's clock, so a run that is under way keeps what it is working on:
it writes again and again. Right before something is taken away it is looked at once more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Final

from posebatch.core.errors import ObjectNotFoundError, SettingsError, StorageError
from posebatch.dataset.layout import DATA_FOLDERS, data_key
from posebatch.dataset.publication import read_record
from posebatch.storage.local import SCRATCH_FOLDER
from posebatch.storage.store import Store, StoredObject

SECONDS_OF_A_DAY: Final = 86_400.0


SHORTEST_LIMIT_S: Final = 3600.0
"""A run may need so long between two writes for one video."""


DEFAULT_LIMIT_DAYS: Final = 7.0


RECORD_THREADS: Final = 16


RECORDS_AHEAD: Final = 64


_STAGING = "_state/staging/"


_STAGED = re.compile(rf"{_STAGING}[0-9a-f]{{32}}/.+")


_ATTEMPTS = re.compile(r"_state/attempts/[0-9a-f]{32}\.json")


_SCRATCH = re.compile(rf"{SCRATCH_FOLDER}/[0-9a-f]{{32}}")


_NEVER_OURS = re.compile(r"(^|/)([._/]|$)|[\ud800-\udfff]")
"""Names that `encode_output_path` does not make: hidden ones, empty ones, bytes that are no text."""


@dataclass(frozen=True)
class Unreferenced:
    """Something that nobody needs any more."""

    key: str
    """One object, or a folder of them with a slash at its end."""
    why: str
    size_bytes: int
    age_s: float
    """Since it was last written to."""
    objects: int = 1


@dataclass(frozen=True)
class AgeLimit:
    """What is old: a moment of the store's clock."""

    now: float
    """Unix time when we began, seconds."""
    seconds: float

    def age_s(self, found: StoredObject) -> float:
        """Seconds since an object was written."""
        return self.now - found.last_modified

    def is_past(self, found: StoredObject) -> bool:
        """Whether an object has not been written to for as long as the limit."""
        return self.age_s(found) > self.seconds


def age_limit(store: Store, older_than_days: float) -> AgeLimit:
    """The limit for a store, by its own clock. Raises `SettingsError` for one that is too short."""
    seconds = older_than_days * SECONDS_OF_A_DAY
    if not seconds >= SHORTEST_LIMIT_S:
        raise SettingsError(
            f"--older-than-days must be at least {SHORTEST_LIMIT_S / SECONDS_OF_A_DAY:.3f} (an hour), got "
            f"{older_than_days:g}: a run that is under way must keep what it works on"
        )
    for found in chain.from_iterable(store.list(f"{folder}/") for folder in ("_state", *DATA_FOLDERS)):
        try:
            return AgeLimit(found.last_modified + store.age_s(found.key), seconds)
        except ObjectNotFoundError:  # taken away since it was listed
            continue
    return AgeLimit(0.0, seconds)  # nothing is there that could be old


def unreferenced(store: Store, limit: AgeLimit) -> Iterator[Unreferenced]:
    """What nobody needs any more, as it is found.

    Raises `NewerOutputError` when a later version of posebatch has published here: what its records vouch for is not
    known.
    """
    vouched = _vouched(store)  # first: a refusal must come before anything is taken away
    yield from _staging(store, limit)
    yield from _old(store, "_state/attempts/", _ATTEMPTS, limit, "a count of tries in vain")
    yield from _old(store, f"{SCRATCH_FOLDER}/", _SCRATCH, limit, "a write that never ended")
    for folder in DATA_FOLDERS:
        for found in store.list(f"{folder}/"):
            if found.key not in vouched and _output_path(found.key) is not None and limit.is_past(found):
                yield Unreferenced(found.key, "no commit record vouches for it", found.size_bytes, limit.age_s(found))


def remove(store: Store, leftover: Unreferenced, limit: AgeLimit) -> bool:
    """Remove something, unless it is needed again by now; returns whether it was removed."""
    if leftover.key.endswith("/"):
        staged = list(store.list(leftover.key))
        if not staged or not all(limit.is_past(found) for found in staged):
            return False
        for found in staged:
            store.delete(found.key)
        return True
    path = _output_path(leftover.key)
    if path is not None and leftover.key in _vouched_by(store, path):
        return False
    try:
        needless = limit.is_past(store.head(leftover.key))  # last: a run writes the object, then its record
    except ObjectNotFoundError:
        return False
    if needless:
        store.delete(leftover.key)
    return needless


def _staging(store: Store, limit: AgeLimit) -> Iterator[Unreferenced]:
    """Staging areas into which nobody has written for long, each as a whole."""
    staged = (found for found in store.list(_STAGING) if _STAGED.fullmatch(found.key))
    for folder, members in groupby(staged, lambda found: found.key[: len(_STAGING) + 32]):
        objects = size = 0
        newest: StoredObject | None = None
        for found in members:
            objects, size = objects + 1, size + found.size_bytes
            newest = found if newest is None else max(newest, found, key=lambda one: one.last_modified)
        if newest is not None and limit.is_past(newest):
            why = "segments of a video that was not finished, or not with these settings"
            yield Unreferenced(f"{folder}/", why, size, limit.age_s(newest), objects)


def _old(store: Store, prefix: str, ours: re.Pattern[str], limit: AgeLimit, why: str) -> Iterator[Unreferenced]:
    for found in store.list(prefix):
        if ours.fullmatch(found.key) and limit.is_past(found):
            yield Unreferenced(found.key, why, found.size_bytes, limit.age_s(found))


def _vouched(store: Store) -> set[str]:
    """The keys of all data objects that must stay."""
    paths = (
        found.key.removeprefix("videos/").removesuffix(".parquet")
        for found in store.list("videos/")
        if found.key.endswith(".parquet")
    )
    vouched: set[str] = set()
    with ThreadPoolExecutor(RECORD_THREADS) as threads:
        while chunk := list(islice(paths, RECORDS_AHEAD)):
            vouched.update(*threads.map(lambda path: _vouched_by(store, path), chunk))
    return vouched


def _vouched_by(store: Store, path: str) -> set[str]:
    """The keys that the commit record of a video vouches for; all that it could when it cannot be read."""
    try:
        record = read_record(store, path)
    except StorageError as error:
        if error.retryable:
            raise
        return {data_key(folder, path) for folder in DATA_FOLDERS}
    return {published.key for published in record.objects} if record else set()


def _output_path(key: str) -> str | None:
    """The video whose result lies under a key; None when it is no place for one, so that somebody else put it there."""
    folder, _, rest = key.partition("/")
    path, dot, _ = rest.rpartition(".")
    ours = folder in DATA_FOLDERS and dot and data_key(folder, path) == key and not _NEVER_OURS.search(path)
    return path if ours else None
