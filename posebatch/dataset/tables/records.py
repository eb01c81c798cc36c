"""Rows of the table ``videos``, made from commit records and read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from posebatch.core.errors import StorageError
from posebatch.core.records import PublishedObject, StageSeconds, VideoRecord
from posebatch.core.videos import VideoInfo

if TYPE_CHECKING:
    pass
from posebatch.core.redaction import utf8_text
from posebatch.dataset.tables.parquet import read_table, write_parquet
from posebatch.dataset.tables.schemas import VIDEOS_SCHEMA, VIDEOS_SCHEMAS

RECORDS_PACKED_TOGETHER: Final = 500


# --- commit records ----------------------------------------------------------------------------------------------


def record_to_row(record: VideoRecord) -> dict[str, Any]:
    """A commit record as a row of the videos table."""
    info = record.info
    row = {
        name: getattr(record, name)
        for name in VIDEOS_SCHEMA.names
        if hasattr(record, name) and name not in {"objects", "last_modified", "video"}
    }
    row |= {} if info is None else {name: getattr(info, name) for name in VIDEOS_SCHEMA.names if hasattr(info, name)}
    row |= {f"{stage}_seconds": seconds for stage, seconds in vars(record.seconds).items()}
    return row | {
        "video": utf8_text(record.video),
        "error": None if record.error is None else utf8_text(record.error),
        "time_base": None if info is None else str(info.time_base),
        "last_modified": round(record.last_modified * 1_000_000),
        "objects": [vars(published) for published in record.objects],
    }


def record_from_row(row: Mapping[str, Any]) -> VideoRecord:
    """The commit record in a row of the videos table, as ``to_pylist`` gives it."""
    info = None
    if row["codec"] is not None:
        info_names = VideoInfo.__dataclass_fields__
        info = VideoInfo(**{**{name: row[name] for name in info_names}, "time_base": Fraction(row["time_base"])})
    seconds = StageSeconds(**{stage: row.get(f"{stage}_seconds", 0.0) for stage in StageSeconds.__dataclass_fields__})
    objects = tuple(PublishedObject(**published) for published in row["objects"])
    special = {"info": info, "seconds": seconds, "objects": objects, "last_modified": row["last_modified"].timestamp()}
    plain = {name: row[name] for name in VideoRecord.__dataclass_fields__ if name not in special}
    return VideoRecord(**plain, **special)


def videos_table(records: Sequence[VideoRecord]) -> pa.Table:
    """Rows of the videos table."""
    return pa.Table.from_pylist([record_to_row(record) for record in records], schema=VIDEOS_SCHEMA)


def record_to_bytes(record: VideoRecord, compression: str = "zstd") -> bytes:
    """A commit record as a Parquet file of one row."""
    sink = pa.BufferOutputStream()
    pq.write_table(videos_table([record]), sink, compression=compression)
    return sink.getvalue().to_pybytes()


class RecordLog:
    """Commit records as they come, packed, to be written as one Parquet file at the end."""

    def __init__(self) -> None:
        self._packed: list[pa.Table] = []
        self._loose: list[VideoRecord] = []

    def add(self, record: VideoRecord) -> None:
        """Take one more record."""
        self._loose.append(record)
        if len(self._loose) == RECORDS_PACKED_TOGETHER:
            self._pack()

    def write(self, sink: IO[bytes]) -> None:
        """Write all records."""
        self._pack()
        write_parquet(sink, VIDEOS_SCHEMA, self._packed, {})

    def _pack(self) -> None:
        self._packed.append(videos_table(self._loose))
        self._loose = []


def record_from_bytes(content: bytes) -> VideoRecord:
    """The commit record in a file that `record_to_bytes` made, in this version or an earlier one.

    Raises `StorageError` when it is none, `NewerOutputError` when a later version made it.
    """
    try:
        table = read_table(content, VIDEOS_SCHEMAS)
        if table.num_rows != 1:
            raise ValueError(f"{table.num_rows} rows instead of one")
        return record_from_row(table.to_pylist()[0])
    except ValueError as error:
        raise StorageError(
            f"a commit record cannot be read: {error}; delete it to have its video done again"
        ) from error
