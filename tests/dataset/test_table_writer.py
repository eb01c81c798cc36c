"""Row groups of a Parquet file that is written a piece at a time."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posebatch.dataset.tables.parquet import TableWriter
from posebatch.dataset.tables.schemas import ROW_GROUP_ROWS

SCHEMA = pa.schema([("number", pa.int64())])


def numbers(first: int, last: int) -> pa.Table:
    return pa.table({"number": pa.array(range(first, last), pa.int64())}, schema=SCHEMA)


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        (0, [0]),
        (5, [5]),
        (ROW_GROUP_ROWS, [ROW_GROUP_ROWS, 0]),  # published files end like this: their bytes must not change
        (ROW_GROUP_ROWS + 3, [ROW_GROUP_ROWS, 3]),
        (2 * ROW_GROUP_ROWS, [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 0]),
    ],
)
def test_table_writer_fills_row_groups(rows: int, groups: list[int]) -> None:
    sink = io.BytesIO()
    with TableWriter(sink, SCHEMA, {"key": "value"}) as writer:
        for first in range(0, rows, 40_000):
            writer.add(numbers(first, min(rows, first + 40_000)))
    assert writer.rows == rows
    file = pq.ParquetFile(io.BytesIO(sink.getvalue()))
    assert [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)] == groups
    assert file.schema_arrow.metadata[b"key"] == b"value"
    assert file.read()["number"].to_pylist() == list(range(rows))
