"""Commit records as rows of the table ``videos``, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from posebatch.core.errors import DamagedRecordError, StorageError
from posebatch.core.records import PublishedObject, StageSeconds, VideoRecord
from posebatch.core.redaction import utf8_text
from posebatch.core.videos import VideoInfo
from posebatch.dataset.tables.parquet import read_table, write_parquet
from posebatch.dataset.tables.schemas import VIDEOS_SCHEMA, VIDEOS_SCHEMAS

RECORDS_PER_PIECE: Final = 500
"""Records that a `RecordLog` keeps as objects before it packs them into a table."""


def record_to_row(record: VideoRecord) -> dict[str, Any]:
    """A commit record as a row of the videos table: a value for each column of `VIDEOS_SCHEMA`."""
    info, seconds = record.info, record.seconds
    return {
        "video": utf8_text(record.video),
        "etag": record.etag,
        "size_bytes": record.size_bytes,
        "last_modified": round(record.last_modified * 1_000_000),
        "status": record.status,
        "error_kind": record.error_kind,
        "error": None if record.error is None else utf8_text(record.error),
        "attempts": record.attempts,
        **(dict.fromkeys(_INFO_COLUMNS) if info is None else _info_to_columns(info)),
        "is_vfr": record.is_vfr,
        "frames_decoded": record.frames_decoded,
        "frames_processed": record.frames_processed,
        "timestamps_repaired": record.timestamps_repaired,
        "frames_resized": record.frames_resized,
        "persons": record.persons,
        "tracks": record.tracks,
        "grade": record.grade,
        "detector": record.detector,
        "pose": record.pose,
        "settings_fingerprint": record.settings_fingerprint,
        "posebatch_version": record.posebatch_version,
        "run_id": record.run_id,
        "decode_seconds": seconds.decode,
        "detect_seconds": seconds.detect,
        "pose_seconds": seconds.pose,
        "total_seconds": seconds.total,
        "wait_seconds": seconds.wait,
        "device": record.device,
        "objects": [_object_to_row(published) for published in record.objects],
    }


def record_from_row(row: Mapping[str, Any]) -> VideoRecord:
    """The inverse of `record_to_row`, for a row as ``to_pylist`` returns it. Earlier versions lack some columns."""
    return VideoRecord(
        video=row["video"],
        etag=row["etag"],
        size_bytes=row["size_bytes"],
        last_modified=row["last_modified"].timestamp(),
        status=row["status"],
        error_kind=row["error_kind"],
        error=row["error"],
        attempts=row["attempts"],
        info=None if row["codec"] is None else _info_from_row(row),
        is_vfr=row["is_vfr"],
        frames_decoded=row["frames_decoded"],
        frames_processed=row["frames_processed"],
        timestamps_repaired=row.get("timestamps_repaired") or 0,
        frames_resized=row.get("frames_resized") or 0,
        persons=row["persons"],
        tracks=row.get("tracks"),
        grade=row.get("grade"),
        detector=row["detector"],
        pose=row["pose"],
        settings_fingerprint=row["settings_fingerprint"],
        posebatch_version=row["posebatch_version"],
        run_id=row["run_id"],
        seconds=StageSeconds(
            decode=row["decode_seconds"],
            detect=row["detect_seconds"],
            pose=row["pose_seconds"],
            total=row["total_seconds"],
            wait=row.get("wait_seconds", 0.0),
        ),
        device=row["device"],
        objects=tuple(_object_from_row(published) for published in row["objects"]),
    )


_INFO_COLUMNS: Final = (
    *("width", "height", "rotation", "codec", "pixel_format"),
    *("time_base", "start_pts", "duration_s", "avg_fps", "frames_in_header"),
    *("mirrored", "sample_aspect_ratio", "coded_width", "coded_height", "track", "tracks_in_file"),
)
"""Columns that are null for a video that could not be opened."""


def _info_to_columns(info: VideoInfo) -> dict[str, Any]:
    return {
        "width": info.width,
        "height": info.height,
        "rotation": info.rotation,
        "codec": info.codec,
        "pixel_format": info.pixel_format,
        "time_base": str(info.time_base),
        "start_pts": info.start_pts,
        "duration_s": info.duration_s,
        "avg_fps": info.avg_fps,
        "frames_in_header": info.frames_in_header,
        "mirrored": info.mirrored,
        "sample_aspect_ratio": str(info.sample_aspect_ratio),
        "coded_width": info.coded_width,
        "coded_height": info.coded_height,
        "track": info.track,
        "tracks_in_file": utf8_text("; ".join(info.tracks_in_file)),
    }


def _info_from_row(row: Mapping[str, Any]) -> VideoInfo:
    return VideoInfo(
        codec=row["codec"],
        pixel_format=row["pixel_format"],
        width=row["width"],
        height=row["height"],
        rotation=row["rotation"],
        time_base=Fraction(row["time_base"]),
        start_pts=row["start_pts"],
        duration_s=row["duration_s"],
        avg_fps=row["avg_fps"],
        frames_in_header=row["frames_in_header"],
        mirrored=bool(row.get("mirrored")),
        sample_aspect_ratio=Fraction(row.get("sample_aspect_ratio") or 1),
        coded_width=row.get("coded_width") or 0,
        coded_height=row.get("coded_height") or 0,
        track=row.get("track"),
        tracks_in_file=tuple(filter(None, (row.get("tracks_in_file") or "").split("; "))),
    )


def _object_to_row(published: PublishedObject) -> dict[str, Any]:
    return {
        "kind": published.kind,
        "key": published.key,
        "rows": published.rows,
        "size_bytes": published.size_bytes,
        "fingerprint": published.fingerprint,
        "sha256": published.sha256,
    }


def _object_from_row(row: Mapping[str, Any]) -> PublishedObject:
    return PublishedObject(
        kind=row["kind"],
        key=row["key"],
        rows=row["rows"],
        size_bytes=row["size_bytes"],
        fingerprint=row["fingerprint"],
        sha256=row.get("sha256"),
    )


def videos_table(records: Sequence[VideoRecord]) -> pa.Table:
    """Commit records as rows of the videos table."""
    return pa.Table.from_pylist([record_to_row(record) for record in records], schema=VIDEOS_SCHEMA)


def record_to_bytes(record: VideoRecord, compression: str = "zstd") -> bytes:
    """A commit record as a Parquet file of one row."""
    sink = pa.BufferOutputStream()
    pq.write_table(videos_table([record]), sink, compression=compression)
    return sink.getvalue().to_pybytes()


def record_from_bytes(content: bytes) -> VideoRecord:
    """The inverse of `record_to_bytes`, for files of this version and of earlier ones.

    Raises `DamagedRecordError` for anything else, `NewerOutputError` if a later version wrote the file.
    """
    try:
        table = read_table(content, VIDEOS_SCHEMAS)
        if table.num_rows != 1:
            raise ValueError(f"{table.num_rows} rows instead of one")
        return record_from_row(table.to_pylist()[0])
    except ValueError as error:
        raise DamagedRecordError(
            f"a commit record cannot be read: {error}; `posebatch run` computes its video again; delete the record if "
            "the video is no longer in the archive"
        ) from error


def records_of_run(content: bytes) -> Iterator[VideoRecord]:
    """The commit records in a file that a `RecordLog` wrote, few of them in memory at once.

    Raises `StorageError` for anything else, `NewerOutputError` if a later version wrote the file.
    """
    try:
        table = read_table(content, VIDEOS_SCHEMAS)
    except ValueError as error:
        raise StorageError(f"the records of a run cannot be read: {error}") from error
    for batch in table.to_batches(max_chunksize=RECORDS_PER_PIECE):
        yield from map(record_from_row, batch.to_pylist())


class RecordLog:
    """Collects commit records in little memory and writes them as one Parquet file."""

    def __init__(self) -> None:
        self._pieces: list[pa.Table] = []
        self._waiting: list[VideoRecord] = []

    def add(self, record: VideoRecord) -> None:
        """Append a record.

        The first one is packed at once: Arrow then imports pandas, for up to seconds that a run has when it begins but
        not when it is stopped.
        """
        self._waiting.append(record)
        if not self._pieces or len(self._waiting) == RECORDS_PER_PIECE:
            self._pack()

    def write(self, sink: IO[bytes]) -> None:
        """Write all records."""
        if self._waiting:
            self._pack()
        no_rows = pa.Table.from_batches([], schema=VIDEOS_SCHEMA)  # `empty_table` would import pandas, too
        write_parquet(sink, VIDEOS_SCHEMA, self._pieces or [no_rows], {})

    def _pack(self) -> None:
        self._pieces.append(videos_table(self._waiting))
        self._waiting = []
