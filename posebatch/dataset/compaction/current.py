"""The rows that a table of an output has now: those of the compaction that are current, and the small files besides.

A row of the compaction is current if the small file that it came from is still listed with the same ETag. All other
files of the listing are read themselves. So the rows are those of the small files, at any moment, whatever a run, a
derivation or a compaction is doing meanwhile.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from typing_extensions import override

from posebatch.dataset.compaction.columns import PLAIN_SCHEMAS
from posebatch.dataset.compaction.names import FOLDER, PATH
from posebatch.dataset.compaction.snapshot import Snapshot, has_compaction, open_snapshot
from posebatch.dataset.tables.schemas import Schema
from posebatch.storage.arrow_files import arrow_files
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
    files = pa.table({"path": [path_of(name, stored) for stored in listed], "etag": [stored.etag for stored in listed]})
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
    wanted = ds.field(PATH).isin(now.compacted) if len(now.outdated) else None
    return rows.to_table([PATH, *columns], filter=wanted)


class TableNow(ds.Dataset):  # type: ignore[misc]  # pyarrow has no types
    """A table of an output, found when it is first read.

    DuckDB takes it for any other dataset of Arrow: it asks for ``schema`` when a view is made, and calls ``scanner``
    when the view is queried. Later queries show the files that the first one has found.
    """

    def __init__(self, store: Store, name: str, snapshot: Callable[[], Snapshot | None]) -> None:
        self._store, self._name, self._snapshot = store, name, snapshot
        self._found: tuple[ds.Dataset, pa.Array] | None = None

    @property
    @override
    def schema(self) -> Schema:
        """The columns, without lists: their form differs between versions."""
        return pa.schema([column for column in PLAIN_SCHEMAS[self._name] if not pa.types.is_list(column.type)])

    @override
    def scanner(self, columns: list[str] | None = None, filter: pc.Expression | None = None, **chosen: Any) -> Any:
        """A scan of the rows; arguments as for any dataset of Arrow."""
        if self._found is None:
            self._found = self._find()
        rows, outdated = self._found
        if len(outdated):
            current = ~ds.field(PATH).isin(outdated)
            filter = current if filter is None else filter & current  # noqa: A001 - the name of the argument
        return rows.scanner(columns=self.schema.names if columns is None else columns, filter=filter, **chosen)

    def _find(self) -> tuple[ds.Dataset, pa.Array]:
        listed = [stored for stored in self._store.list(f"{self._name}/") if stored.key.endswith(".parquet")]
        now = find_current_rows(self._snapshot(), self._name, listed)
        schema = pa.schema([pa.field(PATH, pa.string()), *self.schema])
        form, place = ds.ParquetFileFormat(), arrow_files(self._store.root, self._store.endpoint_url)
        fragments = [
            form.make_fragment(stored.key, filesystem=place, file_size=stored.size_bytes) for stored in now.small_files
        ]
        small = ds.FileSystemDataset(fragments, schema, form, place)
        if now.snapshot is None:
            return small, now.outdated
        large = now.snapshot.dataset(self._name, schema, now.snapshot.files(self._name))
        return ds.dataset([large, small]), now.outdated
