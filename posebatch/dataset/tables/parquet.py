"""Parquet files: write them in row groups of a fixed size, open them with a check of their version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from posebatch.core.errors import NewerOutputError
from posebatch.core.version import __version__
from posebatch.dataset.tables.schemas import ROW_GROUP_ROWS, SCHEMA_VERSION


class TableWriter:
    """Writes one Parquet file, a piece of its table at a time, in row groups of `ROW_GROUP_ROWS` rows.

    The bytes do not depend on where the pieces begin. Leaving the ``with`` block completes the file::

        with TableWriter(file, FRAMES_SCHEMA, metadata) as writer:
            writer.add(piece)
    """

    def __init__(self, sink: IO[bytes], schema: pa.Schema, metadata: Mapping[str, str]) -> None:
        self.rows = 0
        """Rows written so far."""
        self._schema = schema
        self._metadata = {**(schema.metadata or {}), **metadata}
        described = schema.with_metadata(self._metadata)
        self._writer = pq.ParquetWriter(sink, described, compression="zstd", version="2.6", write_page_index=True)
        self._waiting: list[pa.Table] = []
        self._rows_waiting = 0

    @property
    def rows_added(self) -> int:
        """Rows added so far, written or not."""
        return self.rows + self._rows_waiting

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        with self._writer:
            if error_type is None:
                self._write(pa.concat_tables(self._waiting) if self._waiting else self._schema.empty_table())

    def add(self, piece: pa.Table) -> None:
        """Append rows."""
        self._waiting.append(piece)
        self._rows_waiting += piece.num_rows
        while self._rows_waiting >= ROW_GROUP_ROWS:
            joined = pa.concat_tables(self._waiting)
            self._write(joined.slice(0, ROW_GROUP_ROWS))
            self._waiting = [joined.slice(ROW_GROUP_ROWS)]
            self._rows_waiting -= ROW_GROUP_ROWS

    def _write(self, group: pa.Table) -> None:
        compact = _compact(group).replace_schema_metadata(self._metadata)
        self._writer.write_table(compact, row_group_size=ROW_GROUP_ROWS)
        self.rows += group.num_rows


def write_parquet(sink: IO[bytes], schema: pa.Schema, pieces: Iterable[pa.Table], metadata: Mapping[str, str]) -> int:
    """Write pieces of a table as one Parquet file; returns the number of rows. See `TableWriter`."""
    with TableWriter(sink, schema, metadata) as writer:
        for piece in pieces:
            writer.add(piece)
    return writer.rows


def _compact(table: pa.Table) -> pa.Table:
    return table.unify_dictionaries().combine_chunks()


def read_table(content: bytes, schemas: Sequence[pa.Schema], columns: Sequence[str] | None = None) -> pa.Table:
    """Columns (all when None) of a table that has one of ``schemas``.

    Raises ``ValueError`` for a damaged file or another table, `NewerOutputError` if a later version wrote it.
    """
    try:
        file = open_parquet(content)
        table = file.read(columns=columns)
    except (pa.ArrowException, OSError) as error:  # damage within a file comes as OSError
        raise ValueError(f"not a readable Parquet file: {' '.join(str(error).split())}") from error
    if not any(file.schema_arrow.equals(schema) for schema in schemas):
        raise ValueError("its columns are not those of this version of posebatch")
    return table


def open_parquet(content: bytes | IO[bytes]) -> pq.ParquetFile:
    """Open a Parquet file. Raises `NewerOutputError` if a later version of posebatch wrote it."""
    file = pq.ParquetFile(pa.BufferReader(content) if isinstance(content, bytes) else content)
    version = schema_version(file.schema_arrow.metadata)
    if version is not None and version > SCHEMA_VERSION:
        raise NewerOutputError(
            f"written by a newer posebatch, as schema version {version}; this is posebatch {__version__}, which knows "
            f"versions up to {SCHEMA_VERSION}: upgrade it, or choose another output"
        )
    return file


def read_counted(
    content: bytes, schemas: Sequence[pa.Schema], rows: int, columns: Sequence[str]
) -> tuple[pa.Table, list[str]]:
    """Columns of a table that must have ``rows`` rows, and the problems: unreadable, another number, nulls.

    The table is empty if it cannot be read.
    """
    try:
        table = read_table(content, schemas, columns)
    except (ValueError, NewerOutputError) as error:
        return schemas[0].empty_table(), [str(error)]
    if table.num_rows != rows:
        return table, [f"{table.num_rows} rows, its record says {rows}"]
    return table, [f"{name} is null in some rows" for name in columns if table[name].null_count]


def schema_version(metadata: Mapping[bytes, bytes] | None) -> int | None:
    """The schema version in a file's metadata; None if there is none."""
    stated = (metadata or {}).get(b"posebatch.schema_version", b"")
    return int(stated) if stated.isdigit() else None
