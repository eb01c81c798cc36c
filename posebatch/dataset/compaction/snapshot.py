"""The state of the compaction of an output: which files it consists of, and which published files it has taken.

The newest transaction of ``videos`` states the version of each other table that belongs to it. Versions after these
come from a compaction that was killed between two transactions, or is between them now. They do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from posebatch.core.errors import NewerOutputError, StorageError
from posebatch.core.version import __version__
from posebatch.dataset.compaction.columns import PLAIN_SCHEMAS
from posebatch.dataset.compaction.delta import DataFile, Table, open_table
from posebatch.dataset.compaction.names import (
    DATA_TABLES,
    PATH,
    PUBLISHED_DAY,
    RECORD,
    SCHEMA_TRANSACTION,
    VIDEOS,
    etag_column,
    table_folder,
    version_transaction,
)
from posebatch.dataset.compaction.partitions import Partitioning
from posebatch.dataset.tables.schemas import SCHEMA_VERSION, Schema
from posebatch.storage.arrow_files import arrow_files
from posebatch.storage.delta_access import delta_access
from posebatch.storage.store import Store

if TYPE_CHECKING:
    import pyarrow.dataset as ds

_TAKEN: Final = pa.schema([pa.field("path", pa.string()), pa.field("etag", pa.string())])


class Snapshot:
    """The compaction as its last complete batch has left it."""

    def __init__(self, store: Store, videos: Table) -> None:
        self._store, self._videos = store, videos
        self._access = delta_access(store.root, store.endpoint_url)

    @property
    def version(self) -> int:
        """The version of ``videos``."""
        return self._videos.version

    def version_of(self, name: str) -> int:
        """The version of a table that belongs to this snapshot."""
        stated = self._videos.version if name == VIDEOS else self._videos.transaction(version_transaction(name))
        if stated is None:
            raise StorageError(f"{self._store.uri(table_folder(VIDEOS))}: no transaction states a version of {name}")
        return stated

    def files(self, name: str) -> tuple[DataFile, ...]:
        """The files of a table."""
        if name == VIDEOS:
            return self._videos.files()
        table = open_table(self._access, table_folder(name), self.version_of(name))
        if table is None:
            raise StorageError(f"{self._store.uri(table_folder(name))}: the log of this table is gone")
        return table.files()

    @cached_property
    def partitioning(self) -> Partitioning:
        """The partition columns of the data tables."""
        table = open_table(self._access, table_folder(DATA_TABLES[0]))
        return Partitioning(table.partition_columns if table else ())

    def rows(self, name: str, files: Sequence[DataFile] | None = None) -> ds.Dataset:
        """The rows of a table, of all its files or of some: the columns of the published table after `PATH`.

        The files are opened when rows are read. Files whose statistics exclude a condition are not opened.
        """
        schema = pa.schema([pa.field(PATH, pa.string()), *PLAIN_SCHEMAS[name]])
        return self.dataset(name, schema, self.files(name) if files is None else files)

    def dataset(self, name: str, schema: Schema, files: Sequence[DataFile]) -> ds.Dataset:
        """Columns of the files of a table."""
        import pyarrow.dataset as ds  # noqa: PLC0415 - loads pandas, and every command imports this module

        form = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True))
        place = arrow_files(self._store.root, self._store.endpoint_url)
        fragments = [
            form.make_fragment(
                f"{table_folder(name)}/{file.path}",
                filesystem=place,
                partition_expression=_bounds(file),
                file_size=file.size_bytes,
            )
            for file in files
        ]
        return ds.FileSystemDataset(fragments, schema, form, place)

    def open_file(self, name: str, file: DataFile) -> pq.ParquetFile:
        """One file of a table, to be read a row group at a time."""
        place = arrow_files(self._store.root, self._store.endpoint_url)
        return pq.ParquetFile(place.open_input_file(f"{table_folder(name)}/{file.path}"), pre_buffer=True)

    def held_records(self) -> list[tuple[str, str, str]]:
        """The commit records in the compaction: output path, ETag and day of publication."""
        names = [PATH, RECORD, PUBLISHED_DAY]
        schema = pa.schema([pa.field(name, pa.string()) for name in names])
        rows = self.dataset(VIDEOS, schema, self._videos.files()).to_table()
        return list(zip(*(rows[name].to_pylist() for name in names), strict=True))

    def taken(self, name: str) -> pa.Table:
        """The published files of a table whose rows are in the compaction: columns ``path`` and ``etag``."""
        column = etag_column(name)
        schema = pa.schema([pa.field(PATH, pa.string()), pa.field(column, pa.string())])
        rows = self.dataset(VIDEOS, schema, self._videos.files()).to_table(filter=pc.field(column).is_valid())
        return rows.rename_columns(["path", "etag"]).cast(_TAKEN)


def _bounds(file: DataFile) -> pc.Expression:
    """The statistics of a file as a condition that all its rows meet."""
    path, video = pc.field(PATH), pc.field("video")
    in_paths = (path >= file.paths[0]) & (path <= file.paths[1])
    return in_paths & (video >= file.videos[0]) & (video <= file.videos[1])


def open_snapshot(store: Store) -> Snapshot | None:
    """The compaction of an output; None if no batch was ever completed. Needs the library ``deltalake``.

    Raises `NewerOutputError` if a later version of posebatch has written it.
    """
    videos = open_table(delta_access(store.root, store.endpoint_url), table_folder(VIDEOS))
    schema_version = None if videos is None else videos.transaction(SCHEMA_TRANSACTION)
    if videos is None or schema_version is None:
        return None
    if schema_version > SCHEMA_VERSION:
        raise NewerOutputError(
            f"{store.uri(table_folder(VIDEOS))}: written by a newer posebatch, as schema version {schema_version}; "
            f"this is posebatch {__version__}, which knows versions up to {SCHEMA_VERSION}: upgrade it"
        )
    return Snapshot(store, videos)


def has_compaction(store: Store) -> bool:
    """Whether a compaction has begun in an output: one request."""
    return next(store.list(f"{table_folder(VIDEOS)}/_delta_log/"), None) is not None
