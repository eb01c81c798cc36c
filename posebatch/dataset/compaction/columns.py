"""The schemas of the compacted tables, and rows of published tables in their form."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from posebatch.dataset.compaction.names import ALL_TABLES, PATH, PUBLISHED_DAY, VIDEOS, etag_column
from posebatch.dataset.compaction.partitions import Partitioning
from posebatch.dataset.tables.schemas import TABLES, Schema


def file_schema(name: str, partitioning: Partitioning) -> Schema:
    """The columns of the Parquet files of a table. Those of the data tables lack the partition columns."""
    first = [pa.field(PATH, pa.string())]
    last: list[pa.Field] = []
    if name == VIDEOS:
        first += [pa.field(etag_column(table), pa.string()) for table in ALL_TABLES]
        last = [pa.field(column, pa.string()) for column in dict.fromkeys((PUBLISHED_DAY, *partitioning.columns))]
    return pa.schema([*first, *PLAIN_SCHEMAS[name], *last], metadata=TABLES[name].metadata)


def table_schema(name: str, partitioning: Partitioning) -> Schema:
    """The columns of a table."""
    schema = file_schema(name, partitioning)
    if name == VIDEOS:
        return schema
    return pa.schema([*schema, *(pa.field(column, pa.string()) for column in partitioning.columns)])


def partition_columns(name: str, partitioning: Partitioning) -> tuple[str, ...]:
    """The partition columns of a table; ``videos`` has none, because each query reads a column of it."""
    return () if name == VIDEOS else partitioning.columns


def in_form(table: pa.Table, schema: Schema, constants: dict[str, str | None]) -> pa.Table:
    """Rows with the columns of ``schema``: texts plain, ``constants`` added, all other missing columns null."""
    columns = []
    for column in schema:
        if column.name in constants:
            columns.append(pa.repeat(pa.scalar(constants[column.name], column.type), table.num_rows))
            continue
        index = table.schema.get_field_index(column.name)
        if index < 0:
            columns.append(pa.nulls(table.num_rows, column.type))
            continue
        values = table.column(index)
        columns.append(values if values.type == column.type else _cast(values, column.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(values: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if not pa.types.is_list(wanted):
        return values.cast(wanted)
    # the list of published objects: earlier versions had no checksums, and Arrow adds no field of a struct by itself
    return pa.chunked_array([pa.array(values.to_pylist(), wanted)], wanted)


def plain_schema(schema: Schema) -> Schema:
    """The same columns, with texts as plain strings."""
    return pa.schema([column.with_type(pa.string()) if _is_text(column) else column for column in schema])


def _is_text(column: pa.Field) -> bool:
    return bool(pa.types.is_dictionary(column.type))


PLAIN_SCHEMAS: Final = {name: plain_schema(schema) for name, schema in TABLES.items()}
"""The columns of the published tables, with texts as plain strings: Delta Lake has no dictionaries."""
