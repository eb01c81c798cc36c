"""The rows that a table of an output has now: those of the compaction that are current, and the small files besides.

A row of the compaction is current if the small file that it came from is still listed with the same ETag. All other
files of the listing are read themselves. So the rows are those of the small files, at any moment, whatever a run, a
derivation or a compaction is doing meanwhile.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from posebatch.dataset.compaction.names import FOLDER, PATH
from posebatch.dataset.compaction.snapshot import Snapshot, has_compaction, open_snapshot
from posebatch.storage.store import Store, StoredObject


@dataclass(frozen=True)
class CurrentRows:
    """Where the rows of a table are."""

    snapshot: Snapshot | None
    """None if no row of a compaction is current."""
    compacted: pa.Array
    """Output paths of the videos whose rows are read from the compaction."""
    outdated: pa.Array
    """Output paths of the other videos that it has."""
    small_files: Sequence[StoredObject]
    """In the order of the listing."""


def find_current_rows(snapshot: Snapshot | None, name: str, listed: Sequence[StoredObject]) -> CurrentRows:
    """Where the rows of ``listed`` are, which are files of the table ``name``."""
    nothing = pa.array([], pa.string())
    if snapshot is None:
        return CurrentRows(None, nothing, nothing, listed)
    paths, etags = [path_of(name, stored) for stored in listed], [stored.etag for stored in listed]
    files = pa.table({"path": pa.array(paths, pa.string()), "etag": pa.array(etags, pa.string())})
    taken, keys = snapshot.taken(name), ["path", "etag"]
    compacted = taken.join(files, keys, join_type="left semi")["path"].combine_chunks()
    outdated = taken.join(files, keys, join_type="left anti")["path"].combine_chunks()
    if not len(compacted):
        return CurrentRows(None, nothing, nothing, listed)
    is_small = pc.invert(pc.is_in(files["path"], value_set=compacted)).to_pylist()
    small = [stored for stored, small in zip(listed, is_small, strict=True) if small]
    return CurrentRows(snapshot, compacted, outdated, small)


def usable_snapshot(store: Store) -> Snapshot | None:
    """The compaction of an output, if it has one. Warns if there is one that cannot be read here."""
    if not has_compaction(store):
        return None
    if importlib.util.find_spec("deltalake") is None:
        warnings.warn(
            f"{store.uri(FOLDER)} is not used, so reading takes longer: pip install 'posebatch[compact]'", stacklevel=2
        )
        return None
    return open_snapshot(store)


def path_of(name: str, stored: StoredObject) -> str:
    """The output path of the video that a file of a table belongs to."""
    return stored.key[len(name) + 1 : -len(".parquet")]


def read_compacted(now: CurrentRows, name: str, columns: Sequence[str]) -> pa.Table:
    """The current rows of the compaction: `PATH`, then ``columns`` of the published table."""
    if now.snapshot is None:
        raise ValueError("no row of the compaction is current")
    least, most = pc.min_max(now.compacted).as_py().values()
    files = [file for file in now.snapshot.files(name) if file.paths[0] <= most and least <= file.paths[1]]
    rows = now.snapshot.rows(name, files)
    wanted = pc.field(PATH).isin(now.compacted) if len(now.outdated) else None
    return rows.to_table([PATH, *columns], filter=wanted)
