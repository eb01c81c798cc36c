import dataclasses
import io
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.factories import staged_file
from support.upkeep_factories import EARLIER_VIDEOS, as_remembered, earlier_record, with_version

import posebatch
from posebatch.core.errors import DamagedRecordError, InputError, NewerOutputError, StagedError, StorageError
from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.core.records import DecodeReport, PublishedObject, SegmentReport, StageSeconds, VideoRecord
from posebatch.core.redaction import utf8_text
from posebatch.core.skeleton import KEYPOINT_NAMES, SKELETON_EDGES
from posebatch.core.videos import SourceVideo, VideoInfo
from posebatch.dataset.layout import FRAMES, POSES, record_key
from posebatch.dataset.tables import parquet as parquet_module
from posebatch.dataset.tables import records, rows, schemas, staged
from posebatch.dataset.tables.checks import check_frames, check_poses
from posebatch.dataset.tables.parquet import schema_version, write_parquet
from posebatch.dataset.tables.readers import read_frames, read_poses, read_videos
from posebatch.dataset.tables.records import (
    RecordLog,
    record_from_bytes,
    record_to_bytes,
    record_to_row,
    videos_table,
)
from posebatch.dataset.tables.rows import frames_table, poses_table, provenance, published_frames
from posebatch.dataset.tables.schemas import FRAMES_SCHEMA, POSES_SCHEMA, VIDEOS_SCHEMA
from posebatch.dataset.tables.staged import read_staged

TIME_BASE = Fraction(1, 12_800)
INFO = VideoInfo("h264", "yuv420p", 64, 48, 90, TIME_BASE, 0, 4.0, 25.0, 100)
VIDEO = SourceVideo("s3://bucket/ski/a.mp4", "bucket/ski/a.mp4", "etag-1", 1234, 1.5)
RECORD = VideoRecord(
    video=VIDEO.uri,
    etag="etag-1",
    size_bytes=1234,
    last_modified=1_700_000_000.125,
    status="ok",
    settings_fingerprint="f" * 16,
    run_id="run-1",
    posebatch_version="0.1",
)


def frame(index: int, persons: int = 0, status: str = "ok", seed: int | None = None) -> FramePoses:
    rng = np.random.default_rng(index if seed is None else seed)

    def numbers(*shape):
        return rng.uniform(-10, 2000, (persons, *shape)).astype(np.float32)

    record = FrameRecord(index, 512 * index, index % 12 == 0, status)
    return FramePoses(record, numbers(4), numbers(), numbers(), numbers(17, 3))


def some_frames(counts) -> list[FramePoses]:
    return [frame(i, persons) for i, persons in enumerate(counts)]


def assert_same_frames(actual, expected):
    actual = list(actual)
    assert [item.record for item in actual] == [item.record for item in expected]
    for a, b in zip(actual, expected, strict=True):
        for name in ("bbox_xyxy", "bbox_scores", "pose_scores", "keypoints"):
            assert getattr(a, name).dtype == np.float32
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def parquet(kind: str, pieces, metadata=None) -> bytes:
    make, schema = rows.DATA_TABLES[kind]
    sink = io.BytesIO()
    write_parquet(sink, schema, (make(piece, VIDEO.uri, TIME_BASE) for piece in pieces), metadata or {})
    return sink.getvalue()


def cut(frames, places):
    """The frames in pieces, cut at the given places; pieces may be empty."""
    edges = [0, *sorted(places), len(frames)]
    return [frames[a:b] for a, b in itertools.pairwise(edges)]


counts_of_persons = st.lists(st.integers(0, 3), max_size=12)

# --- staged segments -----------------------------------------------------------------------------------------------

reports = st.builds(
    DecodeReport,
    st.integers(0, 10**6),
    st.integers(0, 9),
    st.booleans(),
    *[st.none() | st.integers(-(2**62), 2**62)] * 4,
)
seconds = st.builds(StageSeconds, *[st.floats(0, 1e6)] * 5)


@given(
    st.lists(st.tuples(st.sampled_from(["ok", "corrupt", "missing"]), st.integers(0, 3)), max_size=6),
    st.integers(0, 2**40),
    reports,
    seconds,
    st.sampled_from(["", "cpu", "NVIDIA H200"]),
)
def test_staged_segment_is_read_back(rows, first, report, spent, device):
    frames = [frame(first + i, persons, status, seed=i) for i, (status, persons) in enumerate(rows)]
    whole = SegmentReport(report, spent, device)
    content = staged_file(frames, whole).getvalue()
    pieces, found_report = read_staged(content)
    assert_same_frames(list(chain.from_iterable(pieces)), frames)
    assert found_report == whole
    assert staged_file(frames, whole).getvalue() == content, "equal rows give equal bytes"


def test_staged_segment_keeps_nan_and_infinity():
    odd = frame(0, 1)
    odd.keypoints[0, 0] = (np.nan, np.inf, -np.inf)
    pieces, _ = read_staged(staged_file([odd]).getvalue())
    assert_same_frames(list(chain.from_iterable(pieces)), [odd])


@pytest.mark.parametrize("count", [0, 1, 3, 4, 6, 7])
def test_staged_writer_writes_batches(count, monkeypatch):
    monkeypatch.setattr(staged, "FRAMES_PER_BATCH", 3)
    frames = [frame(i, i % 3, seed=i) for i in range(count)]
    pieces = [list(piece) for piece in read_staged(staged_file(frames).getvalue())[0]]
    assert max(map(len, pieces)) <= 3
    assert_same_frames(list(chain.from_iterable(pieces)), frames)


@pytest.mark.parametrize("content", [b"", b"no arrow", staged_file([]).getvalue()[:-20]])
def test_read_staged_refuses_a_damaged_file(content):
    with pytest.raises(StorageError, match="staged segment"):
        read_staged(content)


def staged_otherwise(schema: pa.Schema | None = None, **parts) -> bytes:
    """A staged segment without frames, with other columns or another report."""
    report = {"decode": vars(DecodeReport()), "seconds": vars(StageSeconds()), "device": "cpu", **parts}
    sink = io.BytesIO()
    columns = schemas.STAGED_SCHEMA if schema is None else schema
    with pa.ipc.new_file(sink, columns) as writer:
        batch = pa.RecordBatch.from_pylist([], schema=columns)
        writer.write_batch(batch, custom_metadata={"report": json.dumps(report)})
    return sink.getvalue()


def test_read_staged_accepts_a_shorter_report():
    assert read_staged(staged_otherwise())[1].device == "cpu"
    parts = {"seconds": {"decode": 1.0}}  # an earlier version wrote fewer fields
    assert read_staged(staged_otherwise(**parts))[1].seconds == StageSeconds(1.0)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            staged_otherwise(schemas.STAGED_SCHEMA.append(pa.field("tracks", pa.int32()))), id="a column more"
        ),
        pytest.param(staged_otherwise(schemas.STAGED_SCHEMA.remove(2)), id="a column less"),
        pytest.param(staged_otherwise(schemas.STAGED_SCHEMA.set(1, pa.field("pts", pa.int32()))), id="another type"),
        pytest.param(staged_otherwise(decode={**vars(DecodeReport()), "frames_guessed": 3}), id="a longer report"),
        pytest.param(staged_otherwise(seconds=[1, 2]), id="another report"),
        pytest.param(staged_otherwise(decode=None), id="no report"),
    ],
)
def test_read_staged_refuses_files_of_other_versions(content: bytes):
    """Files of earlier and later versions: the segment is computed again."""
    with pytest.raises(StagedError, match="a staged segment cannot be read"):
        read_staged(content)


# --- schemas -------------------------------------------------------------------------------------------------------

# the columns that users rely on
POSES_COLUMNS = (
    "video:dictionary<values=string, indices=int32, ordered=0> frame_index:int64 pts:int64 time_s:double "
    "person:int32 track_id:int32 bbox_x1:float bbox_y1:float bbox_x2:float bbox_y2:float "
    "bbox_score:float pose_score:float"
).replace(", ", ",").split() + [f"{joint}_{part}:float" for joint in KEYPOINT_NAMES for part in ("x", "y", "score")]
FRAMES_COLUMNS = [
    "video:dictionary<values=string,indices=int32,ordered=0>",
    "frame_index:int64",
    "pts:int64",
    "time_s:double",
    "is_keyframe:bool",
    "status:string",
    "time_status:string",
    "num_persons:int32",
]
VIDEOS_COLUMNS = [
    "video",
    "etag",
    "size_bytes",
    "last_modified",
    "status",
    "error_kind",
    "error",
    "attempts",
    "width",
    "height",
    "rotation",
    *("mirrored", "sample_aspect_ratio", "coded_width", "coded_height", "track", "tracks_in_file"),
    "codec",
    "pixel_format",
    "time_base",
    "start_pts",
    "duration_s",
    "avg_fps",
    "is_vfr",
    "frames_in_header",
    "frames_decoded",
    "frames_processed",
    *("timestamps_repaired", "frames_resized"),
    *("persons", "tracks", "grade"),
    "detector",
    "pose",
    "settings_fingerprint",
    "posebatch_version",
    "run_id",
    "decode_seconds",
    "detect_seconds",
    "pose_seconds",
    "total_seconds",
    "wait_seconds",
    "device",
    "objects",
]


@pytest.mark.parametrize(("schema", "columns"), [(POSES_SCHEMA, POSES_COLUMNS), (FRAMES_SCHEMA, FRAMES_COLUMNS)])
def test_data_schemas_have_the_documented_columns(schema, columns):
    assert [f"{field.name}:{field.type}".replace(", ", ",") for field in schema] == columns


def test_videos_schema_has_the_documented_columns():
    assert VIDEOS_SCHEMA.names == VIDEOS_COLUMNS


@pytest.mark.parametrize("kind", ["poses", "frames"])
@pytest.mark.parametrize("counts", [[], [0, 0], [1, 2, 0]])
def test_published_files_have_schema_and_metadata(kind, counts):
    origin = provenance(VIDEO, INFO, {"stride": 1, "fps": None}, {"detector": "d@1", "pose": "p@1"}, "abc")
    file = pq.ParquetFile(io.BytesIO(parquet(kind, [some_frames(counts)], origin)))
    assert file.schema_arrow.equals(rows.DATA_TABLES[kind][1])
    assert file.metadata.num_rows == (sum(counts) if kind == "poses" else len(counts))
    metadata = {
        key.decode(): value.decode()
        for key, value in file.schema_arrow.metadata.items()
        if key.startswith(b"posebatch.")
    }
    assert json.loads(metadata.pop("posebatch.keypoint_names")) == list(KEYPOINT_NAMES)
    assert json.loads(metadata.pop("posebatch.skeleton_edges")) == [list(edge) for edge in SKELETON_EDGES]
    assert json.loads(metadata.pop("posebatch.sampling")) == {"stride": 1, "fps": None}
    assert json.loads(metadata.pop("posebatch.models")) == {"detector": "d@1", "pose": "p@1"}
    assert json.loads(metadata.pop("posebatch.units"))["time_s"] == "seconds"
    assert "displayed frame" in metadata.pop("posebatch.coordinates")
    assert metadata == {
        "posebatch.schema_version": "4",
        "posebatch.video": VIDEO.uri,
        "posebatch.etag": "etag-1",
        "posebatch.settings_fingerprint": "abc",
        "posebatch.time_base": "1/12800",
        "posebatch.frame_width": "64",
        "posebatch.frame_height": "48",
    }
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    assert {group.column(i).compression for group in groups for i in range(group.num_columns)} <= {"ZSTD"}


def test_poses_table_has_a_row_per_person():
    frames = [frame(0, 0), frame(4, 2), frame(8, 1)]
    table = poses_table(frames, "a.mp4", Fraction(1, 512)).to_pandas()
    assert table["frame_index"].tolist() == [4, 4, 8]
    assert table["pts"].tolist() == [2048, 2048, 4096]
    assert table["time_s"].tolist() == [4.0, 4.0, 8.0]
    assert table["person"].tolist() == [0, 1, 0]
    assert table["video"].tolist() == ["a.mp4"] * 3
    assert table["track_id"].isna().all()
    assert table["bbox_x2"].tolist() == [*frames[1].bbox_xyxy[:, 2], frames[2].bbox_xyxy[0, 2]]
    assert table["bbox_score"].tolist() == [*frames[1].bbox_scores, *frames[2].bbox_scores]
    assert table["pose_score"].tolist() == [*frames[1].pose_scores, *frames[2].pose_scores]
    assert table["nose_x"].tolist() == [*frames[1].keypoints[:, 0, 0], frames[2].keypoints[0, 0, 0]]
    assert table["right_ankle_score"].tolist() == [*frames[1].keypoints[:, 16, 2], frames[2].keypoints[0, 16, 2]]


def test_frames_table_has_a_row_per_frame():
    table = frames_table([frame(0, 2), frame(1, 0, "missing"), frame(12, 1)], "a.mp4", Fraction(1, 512)).to_pandas()
    assert table.drop(columns="video").to_numpy().tolist() == [
        [0, 0, 0.0, True, "ok", "ok", 2],
        [1, 512, 1.0, False, "missing", "ok", 0],
        [12, 6144, 12.0, True, "ok", "ok", 1],
    ]


@given(st.integers(-(2**40), 2**40), st.sampled_from([Fraction(1, 90_000), Fraction(1001, 30_000), Fraction(1, 1)]))
def test_time_s_is_pts_times_time_base(pts, time_base):
    empty = FramePoses.empty(FrameRecord(0, pts, True, "ok"))
    (time_s,) = frames_table([empty], "a", time_base)["time_s"].to_pylist()
    assert time_s == pytest.approx(float(pts * time_base), rel=1e-15)


def test_track_id_may_be_null():
    assert POSES_SCHEMA.field("track_id").nullable
    table = pq.read_table(io.BytesIO(parquet("poses", [some_frames([2])])))
    assert table["track_id"].null_count == 2


# --- published tables ----------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.data(), counts_of_persons, st.sampled_from([1, 3, 4, 1000]))
def test_published_bytes_do_not_depend_on_the_split(monkeypatch, data, counts, group_rows):
    for module in (parquet_module, rows):
        monkeypatch.setattr(module, "ROW_GROUP_ROWS", group_rows)
    frames = some_frames(counts)
    places = data.draw(st.lists(st.integers(0, len(frames)), max_size=5))
    for kind in ("poses", "frames"):
        assert parquet(kind, cut(frames, places)) == parquet(kind, [frames])


@pytest.mark.parametrize("kind", ["poses", "frames"])
def test_write_parquet_accepts_no_pieces(kind):
    assert pq.read_table(io.BytesIO(parquet(kind, []))).num_rows == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(counts_of_persons, st.sampled_from([1, 2, 3, 1000]))
def test_published_frames_are_read_back(monkeypatch, counts, group_rows):
    """The persons of one frame may lie in two row groups."""
    for module in (parquet_module, rows):
        monkeypatch.setattr(module, "ROW_GROUP_ROWS", group_rows)
    frames = some_frames(counts)
    if len(frames) > 1:
        frames[1] = replace(FramePoses.empty(replace(frames[1].record, status="corrupt")))
    content = [parquet(kind, [frames]) for kind in ("frames", "poses")]
    for table_content in content:
        sizes = [group.num_rows for group in row_groups(table_content)]
        assert all(size == group_rows for size in sizes[:-1])
        assert all(size <= group_rows for size in sizes)
    assert_same_frames(published_frames(*content), frames)


def row_groups(content: bytes):
    metadata = pq.ParquetFile(io.BytesIO(content)).metadata
    return [metadata.row_group(i) for i in range(metadata.num_row_groups)]


def test_write_parquet_counts_rows():
    table = frames_table(some_frames([1, 2, 3]), "a", TIME_BASE)
    assert write_parquet(io.BytesIO(), FRAMES_SCHEMA, [], {}) == 0
    assert write_parquet(io.BytesIO(), FRAMES_SCHEMA, [table, table], {}) == 6


@pytest.mark.parametrize(
    ("name", "shown"),
    [("", ""), ("ski/a b=ü.mp4", "ski/a b=ü.mp4"), ("a\udcff\udc80.mp4", "a\\xff\\x80.mp4"), ("日本.mov", "日本.mov")],
)
def test_names_that_are_not_utf8_are_escaped(name, shown):
    assert utf8_text(name) == shown
    assert poses_table(some_frames([1]), name, TIME_BASE)["video"].to_pylist() == [shown]
    origin = provenance(replace(VIDEO, uri=name), INFO, {}, {}, "")
    assert origin["posebatch.video"] == shown


# --- commit records ------------------------------------------------------------------------------------------------

OBJECTS = (
    PublishedObject("poses", "poses/a.mp4.parquet", 7, 999, "f" * 16, "0" * 64),
    PublishedObject("preview", "previews/a.mp4.gif", 3, 10**12, "e" * 16),
)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(RECORD, id="nothing known"),
        pytest.param(replace(RECORD, status="failed", error_kind="damaged", error="no frame"), id="failed"),
        pytest.param(
            replace(
                RECORD,
                info=INFO,
                is_vfr=True,
                frames_decoded=100,
                frames_processed=50,
                persons=7,
                detector="d@1",
                pose="p@1",
                seconds=StageSeconds(0.5, 1, 2, 3.25, 0.125),
                device="cpu",
                objects=OBJECTS,
                attempts=3,
            ),
            id="ok",
        ),
        pytest.param(
            replace(RECORD, status="partial", info=INFO, is_vfr=False, error_kind="damaged", error="3 frames"),
            id="partial",
        ),
        pytest.param(replace(RECORD, last_modified=0.0, size_bytes=2**40, error="é\n%"), id="edges"),
    ],
)
def test_records_are_read_back(record):
    assert record_from_bytes(record_to_bytes(record)) == record
    assert record_to_bytes(record) == record_to_bytes(record)


EVERYTHING = VideoRecord(
    video="/in/a.mp4",
    etag="etag-1",
    size_bytes=1,
    last_modified=2.0,
    status="partial",
    settings_fingerprint="f",
    run_id="run-1",
    posebatch_version="0.1",
    error_kind="damaged",
    error="3 frames",
    attempts=3,
    info=VideoInfo(
        *("h264", "yuv420p", 64, 48, 90, TIME_BASE, 5, 4.0, 25.0, 100),
        mirrored=True,
        sample_aspect_ratio=Fraction(4, 3),
        coded_width=48,
        coded_height=48,
        track=1,
        tracks_in_file=("0: mjpeg 16x16", "1: h264 48x48, 25 fps"),
    ),
    is_vfr=True,
    frames_decoded=4,
    frames_processed=6,
    timestamps_repaired=2,
    frames_resized=1,
    persons=7,
    tracks=2,
    grade="B",
    detector="d@1",
    pose="p@1",
    seconds=StageSeconds(0.5, 1.5, 2.5, 3.5, 4.5),
    device="cpu",
    objects=(PublishedObject("poses", "poses/a.mp4.parquet", 7, 8, "f", "0" * 64),),
)
"""A record in which every field has a value of its own."""


def test_record_rows_have_a_value_for_every_column():
    """Arrow would make a null of a column that is missing, and drop one that is new."""
    row = record_to_row(EVERYTHING)
    assert set(row) == set(VIDEOS_SCHEMA.names)
    assert None not in row.values()
    assert set(row["objects"][0]) == {part.name for part in VIDEOS_SCHEMA.field("objects").type.value_type}
    assert set(record_to_row(RECORD)) == set(VIDEOS_SCHEMA.names)


def test_record_rows_keep_every_field():
    defaults = {field.name: field.default for field in dataclasses.fields(VideoRecord)}
    assert all(getattr(EVERYTHING, name) != default for name, default in defaults.items())
    assert record_from_bytes(record_to_bytes(EVERYTHING)) == EVERYTHING


FULL = replace(RECORD, info=INFO, seconds=StageSeconds(0.5, 1, 2, 3.25, 0.125), objects=OBJECTS)


@pytest.mark.parametrize("columns", EARLIER_VIDEOS.values(), ids=EARLIER_VIDEOS)
def test_records_of_earlier_versions_are_read(columns):
    """Earlier versions had fewer columns. All of these must be there."""
    earlier = earlier_record(FULL, columns)
    assert record_from_bytes(earlier) == as_remembered(FULL, columns)
    for name in ("pose_seconds", "objects", "device"):
        with pytest.raises(StorageError, match="its columns are not those of this version"):
            record_from_bytes(file_of(pq.read_table(io.BytesIO(earlier)).drop_columns(name)))


NEWER = schemas.SCHEMA_VERSION + 1


@pytest.mark.parametrize("extra", [False, True], ids=["the same columns", "a column more"])
def test_records_of_later_versions_are_refused_as_newer(extra):
    table = pq.read_table(io.BytesIO(with_version(record_to_bytes(FULL), NEWER)))
    content = file_of(table.append_column("extra", pa.array([1])) if extra else table)
    with pytest.raises(NewerOutputError, match=f"schema version {NEWER}; .* up to {NEWER - 1}: upgrade it"):
        record_from_bytes(content)


@pytest.mark.parametrize(
    ("metadata", "version"),
    [
        (None, None),
        ({}, None),
        ({b"posebatch.schema_version": b""}, None),
        ({b"posebatch.schema_version": b"two"}, None),
        ({b"posebatch.schema_version": b"1"}, 1),
        ({b"posebatch.schema_version": b"12"}, 12),
    ],
)
def test_schema_version_is_read_from_metadata(metadata, version):
    assert schema_version(metadata) == version


def file_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def test_records_escape_names_that_are_not_utf8():
    odd = replace(RECORD, video="/in/a\udcff.mp4", error="/in/a\udcff.mp4: empty")
    assert record_from_bytes(record_to_bytes(odd)) == replace(
        RECORD, video="/in/a\\xff.mp4", error="/in/a\\xff.mp4: empty"
    )


@given(st.floats(0, 4e9))
def test_records_keep_microseconds(when):
    last_modified = record_from_bytes(record_to_bytes(replace(RECORD, last_modified=when))).last_modified
    assert last_modified == pytest.approx(when, abs=1e-6)


def as_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


WHOLE = record_to_bytes(replace(RECORD, info=INFO, objects=OBJECTS))


def flipped(content: bytes, *places: int) -> bytes:
    changed = bytearray(content)
    for place in places:
        changed[place] ^= 0xFF
    return bytes(changed)


UNREADABLE = [
    pytest.param(b"", id="empty"),
    pytest.param(b"garbage", id="garbage"),
    pytest.param(WHOLE[:-1], id="cut off at the end"),
    pytest.param(WHOLE[: len(WHOLE) // 2], id="half"),
    pytest.param(flipped(WHOLE, *range(-200, -100)), id="damaged footer"),
    pytest.param(flipped(WHOLE, *range(4, 400)), id="damaged page"),
    pytest.param(as_bytes(videos_table([])), id="no row"),
    pytest.param(as_bytes(videos_table([RECORD, RECORD])), id="two rows"),
    pytest.param(as_bytes(frames_table(some_frames([0]), "a", TIME_BASE)), id="another table"),
    pytest.param(as_bytes(videos_table([RECORD]).drop_columns(["objects"])), id="without a column"),
    pytest.param(as_bytes(videos_table([RECORD]).drop_columns(["size_bytes"])), id="without another"),
]


@pytest.mark.parametrize("content", UNREADABLE)
def test_record_from_bytes_refuses_other_files(content):
    with pytest.raises(DamagedRecordError, match=r"a commit record cannot be read: .*; `posebatch run` computes"):
        record_from_bytes(content)


def test_record_log_writes_all_records(monkeypatch):
    monkeypatch.setattr(records, "RECORDS_PER_PIECE", 3)
    for count in (0, 1, 3, 7):
        log, sink = RecordLog(), io.BytesIO()
        for i in range(count):
            log.add(replace(RECORD, attempts=i))
        log.write(sink)
        table = pq.read_table(io.BytesIO(sink.getvalue()))
        assert table.schema.equals(VIDEOS_SCHEMA)
        assert table["attempts"].to_pylist() == list(range(count))


def test_record_log_writes_at_once_when_a_run_is_stopped():
    """Arrow imports pandas for the first rows that it makes, which takes longer than a stopped run may have."""
    script = (
        "import io, sys\n"
        "from posebatch.dataset.tables.records import RecordLog\n"
        "RecordLog().write(io.BytesIO())\n"
        "print('pandas' in sys.modules)\n"
        "from posebatch.core.records import VideoRecord\n"
        "log = RecordLog()\n"
        "log.add(VideoRecord('/in/a.mp4', 'e', 1, 1.0, 'failed', 'f', 'run-1', '0', 'damaged', 'no frame'))\n"
        "print('pandas' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"], "none for no rows; for others it is there before the end"


# --- checks --------------------------------------------------------------------------------------------------------


def origin_of(stride=1, fps=None):
    return provenance(VIDEO, INFO, {"stride": stride, "fps": fps}, {}, "")


@pytest.mark.parametrize(
    ("indices", "stride", "fps", "problem"),
    [
        pytest.param([], 1, None, None, id="empty"),
        pytest.param([0, 1, 2], 1, None, None, id="every frame"),
        pytest.param([0, 3, 6], 3, None, None, id="every third"),
        pytest.param([0, 2, 7], 1, 5.0, None, id="by time"),
        pytest.param([1, 2], 1, None, "does not count 0, 1", id="first lost"),
        pytest.param([0, 2], 1, None, "does not count 0, 1", id="one lost"),
        pytest.param([0, 3, 9], 3, None, "does not count 0, 3", id="third lost"),
        pytest.param([0, 1, 1], 1, None, "does not count 0, 1", id="one doubled"),
        pytest.param([0, 2, 2], 1, 5.0, "does not rise", id="by time, one doubled"),
        pytest.param([2, 0], 1, 5.0, "does not rise", id="by time, backwards"),
    ],
)
def test_check_frames_finds_gaps_and_duplicates(indices, stride, fps, problem):
    content = parquet("frames", [[frame(i, 1) for i in indices]], origin_of(stride, fps))
    problems, counted = check_frames(content, len(indices))
    assert counted.tolist() == [[i, 1] for i in indices]
    assert bool(problems) is (problem is not None)
    assert problem is None or problem in problems[0]


@pytest.mark.parametrize(("later", "found"), [(6, []), (5, []), (4, ["pts falls from one row to the next"])])
def test_check_frames_finds_falling_pts(later, found):
    frames = [replace(frame(i), record=FrameRecord(i, pts, False, "ok")) for i, pts in enumerate([5, later])]
    problems, _ = check_frames(parquet("frames", [frames], origin_of()), 2)
    assert problems == found


@pytest.mark.parametrize(
    ("frames", "problem"),
    [
        pytest.param([0, 2, 1], None, id="right"),
        pytest.param([0, 1, 1], "not those that the frames table counts", id="one lost"),
        pytest.param([0, 3, 1], "not those that the frames table counts", id="one more"),
        pytest.param([2, 0, 1], "not those that the frames table counts", id="another frame"),
    ],
)
def test_check_poses_compares_with_the_frames_table(frames, problem):
    content = parquet("poses", [some_frames(frames)])
    counted = np.array([[0, 0], [1, 2], [2, 1]])
    problems = check_poses(content, sum(frames), counted)
    assert problems == ([] if problem is None else problems[:1])
    assert problem is None or problem in problems[0]


def test_check_poses_finds_a_wrong_rank():
    table = poses_table(some_frames([2]), VIDEO.uri, TIME_BASE)
    doubled = table.set_column(4, POSES_SCHEMA.field("person"), pa.array([0, 0], pa.int32()))
    assert check_poses(as_bytes(doubled), 2, np.array([[0, 2]])) == [
        "person does not count 0, 1, 2, ... within each frame"
    ]
    assert check_poses(as_bytes(table), 2, np.array([[0, 2]])) == []


POSES_OF_TWO = parquet("poses", [some_frames([1, 1])])
FRAMES_OF_TWO = parquet("frames", [some_frames([1, 1])], origin_of())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"", "not a readable Parquet file", id="empty"),
        pytest.param(b"PAR1", "not a readable Parquet file", id="garbage"),
        pytest.param(POSES_OF_TWO[:-9], "not a readable Parquet file", id="cut off"),
        pytest.param(flipped(POSES_OF_TWO, *range(-4000, -3000)), "not a readable Parquet file", id="damaged footer"),
        pytest.param(flipped(POSES_OF_TWO, *range(4, 2000)), "not a readable Parquet file", id="damaged pages"),
        pytest.param(FRAMES_OF_TWO, "its columns are not those", id="other columns"),
        pytest.param(parquet("poses", [some_frames([1])]), "1 rows, its record says 2", id="row lost"),
        pytest.param(parquet("poses", [some_frames([1, 2])]), "3 rows, its record says 2", id="row doubled"),
    ],
)
def test_check_poses_finds_a_damaged_file(content, problem):
    problems = check_poses(content, 2, np.array([[0, 1], [1, 1]]))
    assert problem in problems[0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"", "not a readable Parquet file", id="empty"),
        pytest.param(flipped(FRAMES_OF_TWO, *range(4, 600)), "not a readable Parquet file", id="damaged pages"),
        pytest.param(POSES_OF_TWO, "its columns are not those", id="other columns"),
        pytest.param(parquet("frames", [some_frames([1])], origin_of()), "1 rows, its record says 2", id="row lost"),
        pytest.param(parquet("frames", [some_frames([1, 1])]), "its metadata does not state", id="no metadata"),
    ],
)
def test_check_frames_finds_a_damaged_file(content, problem):
    problems, counted = check_frames(content, 2)
    assert problem in problems[0]
    assert counted.shape == (0, 2)


# --- readers -------------------------------------------------------------------------------------------------------


def publish(root: Path, path: str, counts: list[int], uri: str) -> None:
    for artifact in (POSES, FRAMES):
        target = root / artifact.key(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        make, schema = rows.DATA_TABLES[artifact.kind]
        with target.open("wb") as sink:
            write_parquet(sink, schema, [make(some_frames(counts), uri, TIME_BASE)], {})
    target = root / record_key(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(record_to_bytes(replace(RECORD, video=uri, persons=sum(counts))))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("dataset")
    publish(root, "dt=2024-01-01/ski/a.mp4", [1, 2], "/in/dt=2024-01-01/ski/a.mp4")
    publish(root, "dt=2024-01-02/ski/b=1.mov", [0, 0, 0], "/in/dt=2024-01-02/ski/b=1.mov")
    publish(root, "dt=2024-01-02/run/c.mp4", [3], "/in/dt=2024-01-02/run/c.mp4")
    (root / "_state/staging").mkdir(parents=True)
    (root / "_state/staging/x.arrow").write_bytes(b"not for readers")
    (root / "poses/_SUCCESS").write_bytes(b"")
    return root


@pytest.mark.parametrize("suffix", ["", "/"])
def test_pandas_reads_a_folder_with_partitions(dataset: Path, suffix: str):
    table = pd.read_parquet(f"{dataset}/poses{suffix}")
    assert len(table) == 6
    assert sorted(table["dt"].astype(str)) == ["2024-01-01"] * 3 + ["2024-01-02"] * 3
    assert list(table.columns) == [*POSES_SCHEMA.names, "dt"]
    assert set(table["video"]) == {"/in/dt=2024-01-01/ski/a.mp4", "/in/dt=2024-01-02/run/c.mp4"}
    assert len(pd.read_parquet(f"{dataset}/frames/")) == 6
    assert len(pd.read_parquet(f"{dataset}/videos/")) == 3
    assert len(pd.read_parquet(f"{dataset}/poses/", filters=[("dt", "==", "2024-01-02")])) == 3


def test_duckdb_reads_a_folder_with_partitions(dataset: Path):
    query = "select dt, count(*), min(frame_index) from read_parquet(?, hive_partitioning=true) group by dt order by dt"
    connection = duckdb.connect()  # the default connection would keep an unfinished result
    rows = connection.execute(query, [f"{dataset}/frames/**/*.parquet"]).fetchall()
    assert [(str(dt), count, first) for dt, count, first in rows] == [("2024-01-01", 2, 0), ("2024-01-02", 4, 0)]
    joined = connection.execute(
        f"""select count(*) from '{dataset}/frames/**/*.parquet' f
            left join '{dataset}/poses/**/*.parquet' p using (video, frame_index) where p.video is null"""
    ).fetchone()
    assert joined == (3,), "frames without a person"


@pytest.mark.parametrize(
    ("read", "match", "rows"),
    [
        (read_poses, "*", 6),
        (read_frames, "*", 6),
        (read_videos, "*", 3),
        (read_poses, "*/ski/*", 3),
        (read_poses, "*b=1.mov", 0),
        (read_frames, "*.mov", 3),
        (read_videos, "dt=2024-01-02/*", 2),
        (read_poses, "dt=2024-01-02/run/c.mp4", 3),
    ],
)
def test_readers_read_matching_videos(dataset: Path, read, match, rows):
    table = read(str(dataset), match)
    assert len(table) == rows
    schema = {read_poses: POSES_SCHEMA, read_frames: FRAMES_SCHEMA, read_videos: VIDEOS_SCHEMA}[read]
    assert list(table.columns) == schema.names


def test_readers_return_typed_columns(dataset: Path):
    poses = read_poses(str(dataset))
    assert poses["video"].dtype == "category"
    assert poses["nose_x"].dtype == np.float32
    assert poses["frame_index"].dtype == np.int64
    assert read_videos(str(dataset))["last_modified"].dt.tz is not None


def test_readers_choose_columns(dataset: Path):
    table = read_poses(str(dataset), columns=["video", "nose_x"])
    assert list(table.columns) == ["video", "nose_x"]
    assert list(read_poses(str(dataset), columns=["nose_x", "frame_index"]).columns) == ["nose_x", "frame_index"]


@pytest.mark.parametrize("read", [read_poses, read_frames, read_videos])
def test_readers_name_what_is_missing(dataset: Path, tmp_path: Path, read):
    with pytest.raises(InputError, match=r"no table of a video that matches '\*\.avi'"):
        read(str(dataset), "*.avi")
    with pytest.raises(InputError, match=str(tmp_path)):
        read(str(tmp_path))
    with pytest.raises(InputError, match=str(tmp_path)):
        read(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"no column is called 'nose_z'; did you mean 'nose_[xy]'"):
        read_poses(str(dataset), columns=["nose_z"])


def test_package_exports_the_readers():
    assert {posebatch.read_poses, posebatch.read_frames, posebatch.read_videos} == {
        read_poses,
        read_frames,
        read_videos,
    }
