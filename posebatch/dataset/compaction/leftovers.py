"""Files below ``compact/`` that are no part of any table: of killed compactions, and replaced ones."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterator
from typing import Final

from posebatch.dataset.compaction.delta import open_table
from posebatch.dataset.compaction.names import ALL_TABLES, FOLDER, table_folder
from posebatch.dataset.compaction.snapshot import open_snapshot
from posebatch.storage.delta_access import delta_access
from posebatch.storage.local import SCRATCH_FOLDER
from posebatch.storage.store import Store, StoredObject

_FILE: Final = re.compile(r"(?:[^/]+/)*[0-9a-f]{32}\.parquet")


_SCRATCH: Final = re.compile(rf"{FOLDER}/{SCRATCH_FOLDER}/[0-9a-f]{{32}}")


def can_judge_compaction() -> bool:
    """Whether the library that reads the logs of the tables is installed."""
    return importlib.util.find_spec("deltalake") is not None


def unused_files(store: Store, limit_s: float) -> Iterator[StoredObject]:
    """Files of no table: neither in the newest version, nor in the one that ``videos`` states, nor removed recently.

    ``limit_s`` is the time in seconds for which removed files stay, because readers and older versions use them. The
    age of the files themselves is for the caller to check. Yields nothing without the library ``deltalake``.
    """
    if next(store.list(f"{FOLDER}/"), None) is None or not can_judge_compaction():
        return
    access, snapshot = delta_access(store.root, store.endpoint_url), open_snapshot(store)
    for name in ALL_TABLES:
        folder = table_folder(name)
        table = open_table(access, folder)
        kept = [] if snapshot is None else [snapshot.version_of(name)]
        expired = None if table is None else set(table.expired(math.ceil(limit_s / 3600), kept))
        for stored in store.list(f"{folder}/"):
            path = stored.key[len(folder) + 1 :]
            if _FILE.fullmatch(path) and (expired is None or path in expired):
                yield stored
    yield from (stored for stored in store.list(f"{FOLDER}/{SCRATCH_FOLDER}/") if _SCRATCH.fullmatch(stored.key))
