"""The published tables and the staged files: Arrow schemas, rows to bytes and back, and readers for analysts.

The only module that knows Parquet. A table's bytes depend on its rows alone: rows are cut into row groups of a fixed
size whatever pieces they come in, and nothing about the clock, the host or the run is written.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from posebatch.errors import InputError, NewerOutputError, StagedError, StorageError
from posebatch.settings import nearest
from posebatch.skeleton import KEYPOINT_NAMES, NUM_KEYPOINTS, SKELETON_EDGES
from posebatch.storage import open_store
from posebatch.types import (
    DecodeReport,
    FramePoses,
    FrameRecord,
    PublishedObject,
    SegmentReport,
    SourceVideo,
    StageSeconds,
    VideoInfo,
    VideoRecord,
)
from posebatch.version import __version__

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION: Final = 2
"""Rises with every change of a table's columns. Files of earlier versions stay readable, see `KNOWN_SCHEMAS`; those of
later ones are refused."""

ROW_GROUP_ROWS: Final = 65_536
"""Rows of a row group: bounds the memory of whoever writes or reads a long video's table."""

STAGED_PIECE_FRAMES: Final = 512
"""Frames that wait in memory while a segment is staged."""

READ_THREADS: Final = 16

RECORDS_PACKED_TOGETHER: Final = 500

_VIDEO = pa.dictionary(pa.int32(), pa.string())
_TIMING = [pa.field("frame_index", pa.int64()), pa.field("pts", pa.int64()), pa.field("time_s", pa.float64())]
_BBOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
KEYPOINT_COLUMNS: Final = tuple(f"{joint}_{part}" for joint in KEYPOINT_NAMES for part in ("x", "y", "score"))
"""The 51 columns of the keypoints, in COCO order."""

_SHARED_METADATA: Final = {
    "posebatch.schema_version": str(SCHEMA_VERSION),
    "posebatch.keypoint_names": json.dumps(KEYPOINT_NAMES),
    "posebatch.skeleton_edges": json.dumps(SKELETON_EDGES),
    "posebatch.coordinates": "pixels of the displayed frame, x right, y down, integer = pixel centre",
    "posebatch.units": json.dumps({"time_s": "seconds", "pts": "ticks of the stream's time base", "bbox": "pixels"}),
}

POSES_SCHEMA: Final = pa.schema(
    [
        pa.field("video", _VIDEO),
        *_TIMING,
        pa.field("person", pa.int32()),
        pa.field("track_id", pa.int32()),
        *(pa.field(name, pa.float32()) for name in (*_BBOX, "bbox_score", "pose_score", *KEYPOINT_COLUMNS)),
    ],
    metadata=_SHARED_METADATA,
)
"""One row per person per processed frame, ordered by frame_index and person."""

FRAMES_SCHEMA: Final = pa.schema(
    [
        pa.field("video", _VIDEO),
        *_TIMING,
        pa.field("is_keyframe", pa.bool_()),
        pa.field("status", pa.string()),
        pa.field("num_persons", pa.int32()),
    ],
    metadata=_SHARED_METADATA,
)
"""One row per processed frame, persons or not, decodable or not, ordered by frame_index."""

_OBJECT = pa.struct(
    [
        pa.field("kind", pa.string()),
        pa.field("key", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("size_bytes", pa.int64()),
        pa.field("fingerprint", pa.string()),
        pa.field("sha256", pa.string()),
    ]
)

VIDEOS_SCHEMA: Final = pa.schema(
    [
        pa.field("video", pa.string()),
        pa.field("etag", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("last_modified", pa.timestamp("us", tz="UTC")),
        pa.field("status", pa.string()),
        pa.field("error_kind", pa.string()),
        pa.field("error", pa.string()),
        pa.field("attempts", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("rotation", pa.int32()),
        pa.field("codec", pa.string()),
        pa.field("pixel_format", pa.string()),
        pa.field("time_base", pa.string()),
        pa.field("start_pts", pa.int64()),
        pa.field("duration_s", pa.float64()),
        pa.field("avg_fps", pa.float64()),
        pa.field("is_vfr", pa.bool_()),
        pa.field("frames_in_header", pa.int64()),
        pa.field("frames_decoded", pa.int64()),
        pa.field("frames_processed", pa.int64()),
        pa.field("persons", pa.int64()),
        pa.field("detector", pa.string()),
        pa.field("pose", pa.string()),
        pa.field("settings_fingerprint", pa.string()),
        pa.field("posebatch_version", pa.string()),
        pa.field("run_id", pa.string()),
        pa.field("decode_seconds", pa.float64()),
        pa.field("detect_seconds", pa.float64()),
        pa.field("pose_seconds", pa.float64()),
        pa.field("total_seconds", pa.float64()),
        pa.field("wait_seconds", pa.float64()),
        pa.field("device", pa.string()),
        pa.field("objects", pa.list_(_OBJECT)),
    ],
    metadata=_SHARED_METADATA,
)
"""One row per video: its commit record."""

_OBJECTS_COLUMN: Final = VIDEOS_SCHEMA.get_field_index("objects")
_VIDEOS_WITHOUT_SHA256: Final = VIDEOS_SCHEMA.set(
    _OBJECTS_COLUMN, pa.field("objects", pa.list_(pa.struct([part for part in _OBJECT if part.name != "sha256"])))
)
_VIDEOS_WITHOUT_WAIT: Final = _VIDEOS_WITHOUT_SHA256.remove(VIDEOS_SCHEMA.get_field_index("wait_seconds"))

KNOWN_SCHEMAS: Final[Mapping[str, tuple[pa.Schema, ...]]] = {
    "poses": (POSES_SCHEMA,),
    "frames": (FRAMES_SCHEMA,),
    "videos": (VIDEOS_SCHEMA, _VIDEOS_WITHOUT_SHA256, _VIDEOS_WITHOUT_WAIT),
}
"""Of each folder of tables today's schema, then those of earlier versions, the latest first."""
COLUMNS: Final = frozenset(name for one in (POSES_SCHEMA, FRAMES_SCHEMA, VIDEOS_SCHEMA) for name in one.names)
"""The names of all columns of the published tables; all are lower case."""

_PERSON = pa.struct(
    [
        pa.field("bbox_xyxy", pa.list_(pa.float32(), 4)),
        pa.field("bbox_score", pa.float32()),
        pa.field("pose_score", pa.float32()),
        pa.field("keypoints", pa.list_(pa.float32(), NUM_KEYPOINTS * 3)),
    ]
)

STAGED_SCHEMA: Final = pa.schema(
    [
        pa.field("frame_index", pa.int64()),
        pa.field("pts", pa.int64()),
        pa.field("is_keyframe", pa.bool_()),
        pa.field("status", pa.string()),
        pa.field("persons", pa.list_(_PERSON)),
    ]
)
"""One row per processed frame of a segment, its persons inside."""


# --- staged segments ---------------------------------------------------------------------------------------------


class StagedWriter:
    """Writes a segment's frames as they come, so that a long segment never lies in memory: an Arrow IPC file."""

    def __init__(self, sink: IO[bytes]) -> None:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_file(sink, STAGED_SCHEMA, options=options)
        self._waiting: list[FramePoses] = []

    def add(self, frame: FramePoses) -> None:
        """Take the next frame."""
        self._waiting.append(frame)
        if len(self._waiting) == STAGED_PIECE_FRAMES:
            self._write({})

    def close(self, report: SegmentReport) -> None:
        """Write what is left, and the report with it."""
        parts = {"decode": vars(report.decode), "seconds": vars(report.seconds), "device": report.device}
        self._write({"report": json.dumps(parts)})
        self._writer.close()

    def _write(self, metadata: Mapping[str, str]) -> None:
        self._writer.write_batch(_staged_batch(self._waiting), custom_metadata=metadata)
        self._waiting = []


def read_staged(content: bytes) -> tuple[Iterator[list[FramePoses]], SegmentReport]:
    """The frames that a `StagedWriter` wrote, a piece at a time, and the report.

    Raises `StagedError` for damage, and for what another version of posebatch staged in another form.
    """
    try:
        file = pa.ipc.open_file(content)
        if not file.schema.equals(STAGED_SCHEMA):
            raise ValueError("its columns are those of another version of posebatch")
        _, metadata = file.get_batch_with_custom_metadata(file.num_record_batches - 1)
        parts = json.loads(metadata[b"report"])
        report = SegmentReport(DecodeReport(**parts["decode"]), StageSeconds(**parts["seconds"]), parts["device"])
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise StagedError(f"a staged segment cannot be read: {error}") from error
    return (_frames(file.get_batch(i)) for i in range(file.num_record_batches)), report


def _staged_batch(frames: Sequence[FramePoses]) -> pa.RecordBatch:
    columns = [
        pa.array([frame.record.frame_index for frame in frames], pa.int64()),
        pa.array([frame.record.pts for frame in frames], pa.int64()),
        pa.array([frame.record.is_keyframe for frame in frames], pa.bool_()),
        pa.array([frame.record.status for frame in frames], pa.string()),
        _persons(frames),
    ]
    return pa.record_batch(columns, schema=STAGED_SCHEMA)


def _persons(frames: Sequence[FramePoses]) -> pa.ListArray:
    """The persons of each frame, one list a frame."""
    boxes, scores, pose_scores, keypoints = _person_columns(frames)
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(boxes.reshape(-1)), 4),
        pa.array(scores),
        pa.array(pose_scores),
        pa.FixedSizeListArray.from_arrays(pa.array(keypoints.reshape(-1)), NUM_KEYPOINTS * 3),
    ]
    offsets = np.cumsum([0, *(len(frame) for frame in frames)])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.StructArray.from_arrays(columns, fields=list(_PERSON))
    )


def _frames(batch: pa.RecordBatch) -> list[FramePoses]:
    """The inverse of `_staged_batch`."""
    persons = batch["persons"]
    ends = np.cumsum([0, *persons.value_lengths().to_pylist()])
    flat = persons.flatten()
    boxes = flat.field("bbox_xyxy").flatten().to_numpy().reshape(-1, 4)
    scores, pose_scores = flat.field("bbox_score").to_numpy(), flat.field("pose_score").to_numpy()
    keypoints = flat.field("keypoints").flatten().to_numpy().reshape(-1, NUM_KEYPOINTS, 3)
    timing = batch.drop_columns(["persons"]).to_pylist()
    return [
        FramePoses(FrameRecord(**row), boxes[a:b], scores[a:b], pose_scores[a:b], keypoints[a:b])
        for row, a, b in zip(timing, ends[:-1], ends[1:], strict=True)
    ]


def _person_columns(
    frames: Sequence[FramePoses],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Boxes (n, 4), their scores (n,), pose scores (n,) and keypoints (n, 17, 3) of all frames, one after another."""
    return (
        _joined([frame.bbox_xyxy for frame in frames], 4),
        _joined([frame.bbox_scores for frame in frames]),
        _joined([frame.pose_scores for frame in frames]),
        _joined([frame.keypoints for frame in frames], NUM_KEYPOINTS, 3),
    )


# --- published tables --------------------------------------------------------------------------------------------


def provenance(
    video: SourceVideo, info: VideoInfo, sampling: Mapping[str, Any], models: Mapping[str, str], fingerprint: str
) -> dict[str, str]:
    """What a published file says of its own origin: a pure function of source, weights and settings."""
    return {
        "posebatch.video": text(video.uri),
        "posebatch.etag": video.etag,
        "posebatch.sampling": json.dumps(sampling),
        "posebatch.models": json.dumps(models),
        "posebatch.settings_fingerprint": fingerprint,
        "posebatch.time_base": str(info.time_base),
        "posebatch.frame_width": str(info.width),
        "posebatch.frame_height": str(info.height),
    }


def poses_table(frames: Sequence[FramePoses], video: str, time_base: Fraction) -> pa.Table:
    """Rows of the poses table."""
    counts = [len(frame) for frame in frames]
    boxes, scores, pose_scores, keypoints = _person_columns(frames)
    flat = keypoints.reshape(-1, NUM_KEYPOINTS * 3)
    person = [rank for count in counts for rank in range(count)]
    columns = [
        _constant(video, len(person)),
        *(np.repeat(column, counts) for column in _timing(frames, time_base)),
        pa.array(person, pa.int32()),
        pa.nulls(len(person), pa.int32()),
        *(boxes[:, i] for i in range(4)),
        scores,
        pose_scores,
        *(flat[:, i] for i in range(NUM_KEYPOINTS * 3)),
    ]
    return pa.table(columns, schema=POSES_SCHEMA)


def frames_table(frames: Sequence[FramePoses], video: str, time_base: Fraction) -> pa.Table:
    """Rows of the frames table."""
    columns = [
        _constant(video, len(frames)),
        *_timing(frames, time_base),
        pa.array([frame.record.is_keyframe for frame in frames], pa.bool_()),
        pa.array([frame.record.status for frame in frames], pa.string()),
        pa.array([len(frame) for frame in frames], pa.int32()),
    ]
    return pa.table(columns, schema=FRAMES_SCHEMA)


DATA_TABLES: Final[Mapping[str, tuple[Callable[[Sequence[FramePoses], str, Fraction], pa.Table], pa.Schema]]] = {
    "poses": (poses_table, POSES_SCHEMA),
    "frames": (frames_table, FRAMES_SCHEMA),
}
"""How the rows of each data table are made, and their schema."""


def published_frames(frames_content: bytes, poses_content: bytes) -> Iterator[FramePoses]:
    """The frames and persons in a video's two published tables, a row group at a time. Raises `NewerOutputError`."""
    poses = _rows_by_frame(open_parquet(poses_content))
    held = next(poses, None)
    names = ["frame_index", "pts", "is_keyframe", "status"]
    for batch in open_parquet(frames_content).iter_batches(ROW_GROUP_ROWS, columns=names):
        for row in batch.to_pylist():
            record = FrameRecord(**row)
            if held is None or held[0] != record.frame_index:
                yield FramePoses.empty(record)
                continue
            persons = held[1]
            yield FramePoses(
                record, persons[:, :4], persons[:, 4], persons[:, 5], persons[:, 6:].reshape(-1, NUM_KEYPOINTS, 3)
            )
            held = next(poses, None)


def _rows_by_frame(file: pq.ParquetFile) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """frame_index and the persons' numbers (n, 4 + 2 + 51) of each frame that has persons."""
    names = [*_BBOX, "bbox_score", "pose_score", *KEYPOINT_COLUMNS]
    carried: list[tuple[int, NDArray[np.float32]]] = []
    for batch in file.iter_batches(ROW_GROUP_ROWS, columns=["frame_index", *names]):
        index = batch["frame_index"].to_numpy()
        numbers = np.stack([batch[name].to_numpy() for name in names], axis=1)
        starts = np.flatnonzero(np.diff(index, prepend=index[0] - 1))
        for a, b in zip(starts, [*starts[1:], len(index)], strict=True):
            if carried and carried[0][0] == index[a]:  # the persons of one frame lie in two row groups
                carried = [(int(index[a]), np.concatenate([carried[0][1], numbers[a:b]]))]
                continue
            yield from carried
            carried = [(int(index[a]), numbers[a:b])]
    yield from carried


def write_parquet(sink: IO[bytes], schema: pa.Schema, pieces: Iterable[pa.Table], metadata: Mapping[str, str]) -> int:
    """Write pieces of a table as one Parquet file in row groups of `ROW_GROUP_ROWS`; returns the number of rows."""
    described = schema.with_metadata({**(schema.metadata or {}), **metadata})
    rows = 0
    with pq.ParquetWriter(sink, described, compression="zstd", version="2.6", write_page_index=True) as writer:
        for group in _regrouped(pieces, schema):
            writer.write_table(group.replace_schema_metadata(described.metadata), row_group_size=ROW_GROUP_ROWS)
            rows += group.num_rows
    return rows


def _regrouped(pieces: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of `ROW_GROUP_ROWS`, laid out alike whatever the pieces were."""
    waiting: list[pa.Table] = []
    rows = 0
    for piece in pieces:
        waiting.append(piece)
        rows += piece.num_rows
        while rows >= ROW_GROUP_ROWS:
            joined = pa.concat_tables(waiting)
            yield _compact(joined.slice(0, ROW_GROUP_ROWS))
            waiting = [joined.slice(ROW_GROUP_ROWS)]
            rows -= ROW_GROUP_ROWS
    yield _compact(pa.concat_tables(waiting) if waiting else schema.empty_table())


def _compact(table: pa.Table) -> pa.Table:
    return table.unify_dictionaries().combine_chunks()


def _timing(frames: Sequence[FramePoses], time_base: Fraction) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    index = np.array([frame.record.frame_index for frame in frames], np.int64)
    pts = np.array([frame.record.pts for frame in frames], np.int64)
    return index, pts, seconds_of(pts, time_base)


def seconds_of(pts: NDArray[np.int64], time_base: Fraction) -> NDArray[np.float64]:
    """The column ``time_s`` that goes with ``pts``, to the bit."""
    seconds: NDArray[np.float64] = pts * time_base.numerator / time_base.denominator
    return seconds


def _joined(arrays: Sequence[NDArray[np.float32]], *shape: int) -> NDArray[np.float32]:
    return np.concatenate([np.zeros((0, *shape), np.float32), *arrays])


def _constant(value: str, length: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(length, np.int32)), pa.array([text(value)], pa.string()))


def text(value: str) -> str:
    """A file name as text that Arrow takes: bytes that are no UTF-8 become ``\\\\xNN``."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


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
        "video": text(record.video),
        "error": None if record.error is None else text(record.error),
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
        table = read_table(content, "videos")
        if table.num_rows != 1:
            raise ValueError(f"{table.num_rows} rows instead of one")
        return record_from_row(table.to_pylist()[0])
    except ValueError as error:
        raise StorageError(
            f"a commit record cannot be read: {error}; delete it to have its video done again"
        ) from error


# --- files -------------------------------------------------------------------------------------------------------


def read_table(content: bytes, folder: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns (all when None) of a table of ``folder``, in this version or an earlier one.

    Raises ``ValueError`` when it is damaged or no such table, `NewerOutputError` when a later version wrote it.
    """
    try:
        file = open_parquet(content)
        table = file.read(columns=columns)
    except (pa.ArrowException, OSError) as error:  # damage within a file comes as OSError
        raise ValueError(f"not a readable Parquet file: {' '.join(str(error).split())}") from error
    if not any(file.schema_arrow.equals(known) for known in KNOWN_SCHEMAS[folder]):
        raise ValueError("its columns are not those of this version of posebatch")
    return table


def open_parquet(content: bytes) -> pq.ParquetFile:
    """A Parquet file in memory, unless a later version of posebatch wrote it: then `NewerOutputError`."""
    file = pq.ParquetFile(pa.BufferReader(content))
    version = schema_version(file.schema_arrow.metadata)
    if version is not None and version > SCHEMA_VERSION:
        raise NewerOutputError(
            f"written by a newer posebatch, as schema version {version}; this is posebatch {__version__}, which knows "
            f"versions up to {SCHEMA_VERSION}: upgrade it, or choose another output"
        )
    return file


def schema_version(metadata: Mapping[bytes, bytes] | None) -> int | None:
    """The version that a file's metadata states; None when it states none."""
    stated = (metadata or {}).get(b"posebatch.schema_version", b"")
    return int(stated) if stated.isdigit() else None


# --- readers -----------------------------------------------------------------------------------------------------


def read_poses(
    root: str, match: str = "*", columns: Sequence[str] | None = None, endpoint_url: str | None = None
) -> pd.DataFrame:
    """One row per person per processed frame, from a local or ``s3://`` output, as a pandas DataFrame.

    ``match`` is a glob over the videos' paths in the archive (``"ski/*"``, ``"*.mov"``), ``columns`` the columns to
    read (all when None). Tables of earlier versions are read with them: what they do not have is null. Raises
    `InputError` when the output holds no such table, or the tables no such column, and `NewerOutputError` when a later
    version of posebatch wrote one of them.
    """
    return _read(root, "poses", match, columns, endpoint_url)


def read_frames(
    root: str, match: str = "*", columns: Sequence[str] | None = None, endpoint_url: str | None = None
) -> pd.DataFrame:
    """One row per processed frame, persons or not, decodable or not; see `read_poses`."""
    return _read(root, "frames", match, columns, endpoint_url)


def read_videos(
    root: str, match: str = "*", columns: Sequence[str] | None = None, endpoint_url: str | None = None
) -> pd.DataFrame:
    """One row per video: what it is, how it went, and where its results are; see `read_poses`."""
    return _read(root, "videos", match, columns, endpoint_url)


def _read(root: str, folder: str, match: str, columns: Sequence[str] | None, endpoint_url: str | None) -> pd.DataFrame:
    schema = KNOWN_SCHEMAS[folder][0]
    for name in columns or ():
        if name not in schema.names:
            raise InputError(f"no column is called {name!r}{nearest(name, schema.names)}")
    store = open_store(root, endpoint_url)
    keys = [found.key for found in store.list(f"{folder}/") if _matches(found.key, folder, match)]
    if not keys:
        raise InputError(f"{store.uri(folder)}: no table of a video that matches {match!r}")

    def one(key: str) -> pa.Table:
        try:
            return open_parquet(store.read(key)).read(columns=columns)
        except NewerOutputError as error:
            raise NewerOutputError(f"{store.uri(key)}: {error}") from error

    chosen = schema.names if columns is None else columns
    wanted = schema.empty_table().select(chosen)  # tables of earlier versions may have less
    with ThreadPoolExecutor(READ_THREADS) as pool:
        joined = pa.concat_tables([wanted, *pool.map(one, keys)], promote_options="permissive")
    return joined.unify_dictionaries().to_pandas()


def _matches(key: str, folder: str, match: str) -> bool:
    return key.endswith(".parquet") and fnmatch.fnmatchcase(key[len(folder) + 1 : -len(".parquet")], match)
