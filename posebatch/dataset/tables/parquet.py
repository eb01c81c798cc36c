"""Parquet files: write them in row groups of a fixed size, open them with a check of their version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from posebatch.core.errors import NewerOutputError
from posebatch.core.version import __version__
from posebatch.dataset.tables.schemas import ROW_GROUP_ROWS, SCHEMA_VERSION


def write_parquet(sink: IO[bytes], schema: pa.Schema, pieces: Iterable[pa.Table], metadata: Mapping[str, str]) -> int:
    """Write a table, given in pieces, as a Parquet file with row groups of `ROW_GROUP_ROWS`; returns its rows."""
    described = schema.with_metadata({**(schema.metadata or {}), **metadata})
    rows = 0
    with pq.ParquetWriter(sink, described, compression="zstd", version="2.6", write_page_index=True) as writer:
        for group in _regrouped(pieces, schema):
            writer.write_table(group.replace_schema_metadata(described.metadata), row_group_size=ROW_GROUP_ROWS)
            rows += group.num_rows
    return rows


def _regrouped(pieces: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of `ROW_GROUP_ROWS`, so that the bytes do not depend on how the rows were split."""
    pending: list[pa.Table] = []
    rows = 0
    for piece in pieces:
        pending.append(piece)
        rows += piece.num_rows
        while rows >= ROW_GROUP_ROWS:
            joined = pa.concat_tables(pending)
            yield _compact(joined.slice(0, ROW_GROUP_ROWS))
            pending = [joined.slice(ROW_GROUP_ROWS)]
            rows -= ROW_GROUP_ROWS
    yield _compact(pa.concat_tables(pending) if pending else schema.empty_table())


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


def open_parquet(content: bytes) -> pq.ParquetFile:
    """Open a Parquet file in memory. Raises `NewerOutputError` if a later version of posebatch wrote it."""
    file = pq.ParquetFile(pa.BufferReader(content))
    version = schema_version(file.schema_arrow.metadata)
    if version is not None and version > SCHEMA_VERSION:
        raise NewerOutputError(
            f"written by a newer posebatch, as schema version {version}; this is posebatch {__version__}, which knows "
            f"versions up to {SCHEMA_VERSION}: upgrade it, or choose another output"
        )
    return file


def schema_version(metadata: Mapping[bytes, bytes] | None) -> int | None:
    """The schema version in a file's metadata; None if there is none."""
    stated = (metadata or {}).get(b"posebatch.schema_version", b"")
    return int(stated) if stated.isdigit() else None
