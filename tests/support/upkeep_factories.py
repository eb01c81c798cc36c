"""Datasets for the tests of `verify` and `gc`, as this version and as earlier versions publish them."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.core.records import DecodeReport, SegmentReport, StageSeconds, VideoRecord
from posebatch.core.settings import settings_from
from posebatch.core.videos import Segment, SourceVideo, VideoInfo, VideoPlan
from posebatch.dataset.layout import PREVIEW, record_key
from posebatch.dataset.publication import read_record
from posebatch.dataset.staging import StagingArea
from posebatch.dataset.tables.records import record_to_row
from posebatch.report.gif import AnnotatedFrame, encode_gif
from posebatch.run.context import RunContext
from posebatch.run.tasks import DeriveTask, FinalizeTask, PreviewOutcome
from posebatch.run.workers.derive import derive_video
from posebatch.run.workers.finalize import finalize_video
from posebatch.storage.local import LocalStore
from posebatch.storage.open import open_store
from posebatch.storage.store import Store
from support.factories import staged_file

INFO = VideoInfo("h264", "yuv420p", 64, 48, 0, Fraction(1, 100), 0, 1.0, 10.0, 4)
PLAN = VideoPlan(INFO, (Segment(0, 0, 2, None, 20), Segment(1, 2, 2, 20, None)))

# --- of this version -------------------------------------------------------------------------------------------------


def source(name: str) -> SourceVideo:
    return SourceVideo(f"/in/{name}", name, "etag-1", 10, 1.5)


def context_of(root: str | Path, **chosen) -> RunContext:
    return RunContext("run-1", settings_from(chosen), str(root), "d@1", "p@1")


def possible_poses(index: int, persons: int, rng: np.random.Generator) -> FramePoses:
    """A frame with persons whose values an estimator could have returned."""
    corners = np.sort(rng.uniform(0, 40, (persons, 2, 2)), axis=1).astype(np.float32)
    scores, pose_scores = (np.sort(rng.random((2, persons)).astype(np.float32))[:, ::-1]).copy()
    return FramePoses(
        FrameRecord(index, 10 * index, False, "ok"),
        corners.reshape(persons, 4),
        scores,
        pose_scores,
        rng.random((persons, 17, 3)).astype(np.float32),
    )


def stage(store: Store, name: str, context: RunContext, persons: int = 2) -> StagingArea:
    """Stage both segments of a video of four frames."""
    work = StagingArea.of(store, source(name), context.data_fingerprint)
    rng = np.random.default_rng(len(name))
    stride = context.settings.sampling.stride
    for segment in PLAN.segments:
        frames = [
            possible_poses(i * stride, persons, rng) for i in range(segment.first_packet, segment.first_packet + 2)
        ]
        work.stage(segment, staged_file(frames, SegmentReport(DecodeReport(2))))
    return work


def publish(root: str | Path, name: str, persons: int = 2, endpoint_url: str | None = None, **chosen) -> VideoRecord:
    """Publish a video of four frames in two segments with `finalize_video`."""
    store = open_store(str(root), endpoint_url)
    context = context_of(root, **chosen, **({"endpoint_url": endpoint_url} if endpoint_url else {}))
    work = stage(store, name, context, persons)
    preview = None
    if context.settings.preview.formats:
        images = [np.full((12, 16, 3), 60 * i, np.uint8) for i in range(4)]
        gif, frames = encode_gif(AnnotatedFrame(i / 10, image) for i, image in enumerate(images))
        store.put(work.preview_key(PREVIEW), gif)
        preview = PreviewOutcome({"preview": frames})
    return finalize_video(FinalizeTask(source(name), PLAN, 1, preview), context).record


# --- of earlier versions -----------------------------------------------------------------------------------------

_TEXT, _INT, _LONG, _FLOAT = pa.string(), pa.int32(), pa.int64(), pa.float64()

FIRST_VIDEOS: dict[str, pa.DataType] = {
    "video": _TEXT,
    "etag": _TEXT,
    "size_bytes": _LONG,
    "last_modified": pa.timestamp("us", tz="UTC"),
    "status": _TEXT,
    "error_kind": _TEXT,
    "error": _TEXT,
    "attempts": _INT,
    "width": _INT,
    "height": _INT,
    "rotation": _INT,
    "codec": _TEXT,
    "pixel_format": _TEXT,
    "time_base": _TEXT,
    "start_pts": _LONG,
    "duration_s": _FLOAT,
    "avg_fps": _FLOAT,
    "is_vfr": pa.bool_(),
    "frames_in_header": _LONG,
    "frames_decoded": _LONG,
    "frames_processed": _LONG,
    "persons": _LONG,
    "detector": _TEXT,
    "pose": _TEXT,
    "settings_fingerprint": _TEXT,
    "posebatch_version": _TEXT,
    "run_id": _TEXT,
    "decode_seconds": _FLOAT,
    "detect_seconds": _FLOAT,
    "pose_seconds": _FLOAT,
    "total_seconds": _FLOAT,
    "device": _TEXT,
    "objects": pa.list_(
        pa.struct([("kind", _TEXT), ("key", _TEXT), ("rows", _LONG), ("size_bytes", _LONG), ("fingerprint", _TEXT)])
    ),
}
"""The videos table of the first version. Never change it: outputs of users have it."""

_ITEMS = list(FIRST_VIDEOS.items())
SECOND_VIDEOS = dict([*_ITEMS[:31], ("wait_seconds", _FLOAT), *_ITEMS[31:]])
"""The videos table of the second version."""

_SECOND = list(SECOND_VIDEOS.items())
THIRD_VIDEOS = dict(
    [
        *_SECOND[:11],
        ("mirrored", pa.bool_()),
        ("sample_aspect_ratio", _TEXT),
        *(("coded_width", _INT), ("coded_height", _INT), ("track", _INT), ("tracks_in_file", _TEXT)),
        *_SECOND[11:21],
        *(("timestamps_repaired", _LONG), ("frames_resized", _LONG)),
        *_SECOND[21:-1],
        (
            "objects",
            pa.list_(
                pa.struct(
                    [
                        *(("kind", _TEXT), ("key", _TEXT), ("rows", _LONG), ("size_bytes", _LONG)),
                        *(("fingerprint", _TEXT), ("sha256", _TEXT)),
                    ]
                )
            ),
        ),
    ]
)
"""The videos table of version 3."""

EARLIER_VIDEOS = {"first": FIRST_VIDEOS, "second": SECOND_VIDEOS}


def earlier_record(record: VideoRecord, columns: dict[str, pa.DataType], version: int = 1) -> bytes:
    """A commit record as an earlier version wrote it."""
    schema = pa.schema(list(columns.items()), metadata={"posebatch.schema_version": str(version)})
    return parquet_of(pa.Table.from_pylist([record_to_row(record)], schema=schema))


def as_remembered(record: VideoRecord, columns: dict[str, pa.DataType]) -> VideoRecord:
    """The record as it is read from a file with these columns."""
    seconds = record.seconds if "wait_seconds" in columns else replace(record.seconds, wait=StageSeconds().wait)
    objects = tuple(replace(published, sha256=None) for published in record.objects)
    return replace(record, seconds=seconds, objects=objects)


def parquet_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def with_version(content: bytes, version: int) -> bytes:
    """The same table with another schema version in its metadata."""
    table = pq.read_table(io.BytesIO(content))
    metadata = {**(table.schema.metadata or {}), b"posebatch.schema_version": str(version).encode()}
    return parquet_of(table.replace_schema_metadata(metadata))


def publish_earlier(root: Path, name: str, columns: dict[str, pa.DataType], **chosen) -> VideoRecord:
    """Publish a video as an earlier version did."""
    publish(root, name, **chosen)
    return make_earlier(LocalStore(root), name, columns)


def _without_tracks(store: Store, name: str) -> VideoRecord:
    """Remove what versions before 4 did not publish."""
    context = replace(context_of(store.root, track=False), only_derives=True)
    return derive_video(DeriveTask(source(name)), context).record


def make_version_3(store: Store, name: str) -> VideoRecord:
    """Rewrite what is published of a video as version 3 published it."""
    record = read_record(store, name)
    assert record is not None
    if record.tracks is not None:
        context = replace(context_of(store.root, track=False), only_derives=True)
        record = derive_video(DeriveTask(SourceVideo(record.video, name, record.etag, 0, 0.0)), context).record
    objects = []
    for published in record.objects:
        content = store.read(published.key)
        content = content if published.kind == "preview" else with_version(content, 3)
        sha256 = hashlib.sha256(content).hexdigest()
        objects.append(replace(published, size_bytes=store.put(published.key, content).size_bytes, sha256=sha256))
    earlier = replace(record, objects=tuple(objects))
    store.put(record_key(name), earlier_record(earlier, THIRD_VIDEOS, version=3))
    return earlier


def make_earlier(store: Store, name: str, columns: dict[str, pa.DataType]) -> VideoRecord:
    """Rewrite what is published of a video as an earlier version published it."""
    record = _without_tracks(store, name)
    objects = []
    for published in record.objects:
        content = store.read(published.key)
        content = content if published.kind == "preview" else with_version(content, 1)
        objects.append(replace(published, size_bytes=store.put(published.key, content).size_bytes))
    earlier = replace(record, objects=tuple(objects))
    store.put(record_key(name), earlier_record(earlier, columns))
    return as_remembered(earlier, columns)
