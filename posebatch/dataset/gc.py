"""Remove unreferenced objects from an output: leftovers of killed runs, and artifacts that no commit record references.

Only objects older than an age limit are removed, by the clock of the store. A run in progress keeps its objects
because it keeps writing to them. Each object is checked again right before it is removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Final

from posebatch.core.errors import ObjectNotFoundError, OutputError, SettingsError, StorageError
from posebatch.dataset.compaction.leftovers import unused_files
from posebatch.dataset.compaction.names import FOLDER as COMPACTED
from posebatch.dataset.layout import ATTEMPTS, RECORDS, STAGING, artifact_keys, data_folders, output_path_of
from posebatch.dataset.lease_place import FOLDER as LEASES
from posebatch.dataset.lease_place import SHARDS_FOLDER
from posebatch.dataset.publication import list_records, read_record
from posebatch.storage.local import SCRATCH_FOLDER
from posebatch.storage.store import Store, StoredObject

SECONDS_PER_DAY: Final = 86_400.0


MIN_AGE_LIMIT_S: Final = 3600.0
"""Longest time between two writes of a run for one video, seconds."""


DEFAULT_LIMIT_DAYS: Final = 7.0


RECORD_THREADS: Final = 16


RECORDS_AHEAD: Final = 64
"""Commit records that are read at once."""


_STAGED_KEY: Final = re.compile(rf"({STAGING}[0-9a-f]{{32}}/).+")


_ATTEMPTS_KEY: Final = re.compile(rf"{ATTEMPTS}[0-9a-f]{{32}}\.json")


_SCRATCH_KEY: Final = re.compile(rf"{SCRATCH_FOLDER}/[0-9a-f]{{32}}")


_FOREIGN_PATH: Final = re.compile(r"(^|/)([._/]|$)|[\ud800-\udfff]")
"""Paths that `encode_output_path` never makes: hidden names, empty names, bytes that are not UTF-8."""


@dataclass(frozen=True)
class Unreferenced:
    """An object, or a staging folder, that is not referenced."""

    key: str
    """Key of an object, or of a folder with a slash at the end."""
    why: str
    size_bytes: int
    age_s: float
    """Seconds since the last write."""
    objects: int = 1


@dataclass(frozen=True)
class AgeLimit:
    """The age from which unreferenced objects may be removed, by the clock of the store."""

    now: float
    """Unix time of the store when the command began, seconds."""
    seconds: float

    def age_s(self, stored: StoredObject) -> float:
        """Seconds since an object was written."""
        return self.now - stored.last_modified

    def is_past(self, stored: StoredObject) -> bool:
        """Whether an object is older than the limit."""
        return self.age_s(stored) > self.seconds


def check_is_output(store: Store) -> None:
    """Raise `OutputError` if no run has ever written to this store, as when its address names another folder."""
    traces = ((LEASES, ".json"), (SHARDS_FOLDER, ".json"), (RECORDS, ".parquet"), ("runs/", "/settings.yaml"))
    if not any(stored.key.endswith(suffix) for folder, suffix in traces for stored in store.list(folder)):
        raise OutputError(
            f"--output {store.root}: no output of posebatch: it holds neither a run nor a commit record. Give the "
            "address that `posebatch run --output` was given"
        )


def age_limit(store: Store, older_than_days: float) -> AgeLimit:
    """The limit for a store, by its own clock. Raises `SettingsError` for less than an hour."""
    seconds = older_than_days * SECONDS_PER_DAY
    if not seconds >= MIN_AGE_LIMIT_S:
        raise SettingsError(
            f"--older-than-days must be at least {MIN_AGE_LIMIT_S / SECONDS_PER_DAY:.3f} (an hour), got "
            f"{older_than_days:g}: a run in progress must keep its objects"
        )
    for stored in chain.from_iterable(store.list(f"{folder}/") for folder in ("_state", COMPACTED, *data_folders())):
        try:
            return AgeLimit(stored.last_modified + store.age_s(stored.key), seconds)
        except ObjectNotFoundError:  # removed since it was listed
            continue
    return AgeLimit(0.0, seconds)  # the output holds no object that could be old


def unreferenced(store: Store, limit: AgeLimit) -> Iterator[Unreferenced]:
    """List unreferenced objects older than the limit, lazily.

    Raises `NewerOutputError` if a later version of posebatch has published here, before it lists anything: this
    version does not know which objects such records refer to.
    """
    referenced = _referenced(store)
    yield from _old_staging_areas(store, limit)
    yield from _old_objects(store, ATTEMPTS, _ATTEMPTS_KEY, limit, "a count of failed attempts")
    yield from _old_objects(store, f"{SCRATCH_FOLDER}/", _SCRATCH_KEY, limit, "an unfinished write")
    for stored in unused_files(store, limit.seconds):
        if limit.is_past(stored):
            yield Unreferenced(stored.key, "no compacted table has it", stored.size_bytes, limit.age_s(stored))
    for folder in data_folders():
        for stored in store.list(f"{folder}/"):
            if stored.key not in referenced and _video_of(stored.key) is not None and limit.is_past(stored):
                yield Unreferenced(stored.key, "no commit record references it", stored.size_bytes, limit.age_s(stored))


def remove(store: Store, leftover: Unreferenced, limit: AgeLimit) -> bool:
    """Remove an object or a staging folder, unless it is in use again; returns whether it was removed.

    Hold the lease of the compaction for files of compacted tables: no compaction can take them up then.
    """
    if leftover.key.endswith("/"):
        staged = list(store.list(leftover.key))
        if not staged or not all(limit.is_past(stored) for stored in staged):
            return False
        for stored in staged:
            store.delete(stored.key)
        return True
    path = _video_of(leftover.key)
    if path is not None and leftover.key in _referenced_by(store, path):
        return False
    try:
        # a run writes the object before its record, so the age is checked after the record
        removable = limit.is_past(store.head(leftover.key))
    except ObjectNotFoundError:
        return False
    if removable:
        store.delete(leftover.key)
    return removable


def _old_staging_areas(store: Store, limit: AgeLimit) -> Iterator[Unreferenced]:
    """Staging areas whose newest object is older than the limit, each as one folder."""
    matches = ((stored, _STAGED_KEY.fullmatch(stored.key)) for stored in store.list(STAGING))
    staged = ((match[1], stored) for stored, match in matches if match is not None)
    for folder, members in groupby(staged, lambda member: member[0]):
        objects, size_bytes, newest = 0, 0, None
        for _, stored in members:
            objects, size_bytes = objects + 1, size_bytes + stored.size_bytes
            newest = stored if newest is None or stored.last_modified > newest.last_modified else newest
        if newest is not None and limit.is_past(newest):
            why = "segments of a video that was not finished, or not with these settings"
            yield Unreferenced(folder, why, size_bytes, limit.age_s(newest), objects)


def _old_objects(
    store: Store, prefix: str, pattern: re.Pattern[str], limit: AgeLimit, why: str
) -> Iterator[Unreferenced]:
    for stored in store.list(prefix):
        if pattern.fullmatch(stored.key) and limit.is_past(stored):
            yield Unreferenced(stored.key, why, stored.size_bytes, limit.age_s(stored))


def _referenced(store: Store) -> set[str]:
    """The keys of all artifacts that commit records reference."""
    paths = (path for path, _ in list_records(store))
    referenced: set[str] = set()
    with ThreadPoolExecutor(RECORD_THREADS) as threads:
        while chunk := list(islice(paths, RECORDS_AHEAD)):
            referenced.update(*threads.map(lambda path: _referenced_by(store, path), chunk))
    return referenced


def _referenced_by(store: Store, path: str) -> set[str]:
    """The keys that a video's commit record references: all it could reference if it is damaged."""
    try:
        record = read_record(store, path)
    except StorageError as error:
        if error.retryable:
            raise
        return set(artifact_keys(path))
    return {published.key for published in record.objects} if record else set()


def _video_of(key: str) -> str | None:
    """The output path of the video whose artifact has this key; None for a file that posebatch did not write."""
    path = output_path_of(key)
    return None if path is None or _FOREIGN_PATH.search(path) else path
