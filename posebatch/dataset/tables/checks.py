"""Checks of published tables, for `posebatch verify`.

The first part reads only the columns that count and order the rows. The second part reads every value and all metadata.
Each check returns the problems that it finds as text, without the table's key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posebatch.core.frames import FrameStatus
from posebatch.core.records import PublishedObject, VideoRecord
from posebatch.core.skeleton import KEYPOINT_NAMES, SKELETON_EDGES
from posebatch.core.videos import SourceVideo
from posebatch.dataset.tables.movement_checks import check_motion_values, check_track_values
from posebatch.dataset.tables.parquet import open_parquet, read_counted, read_table, schema_version
from posebatch.dataset.tables.rows import provenance, seconds_of
from posebatch.dataset.tables.schemas import (
    FRAMES_SCHEMAS,
    KEYPOINT_COLUMNS,
    MOTION_SCHEMA,
    POSES_SCHEMAS,
    ROW_GROUP_ROWS,
    SCHEMA_VERSION,
    TRACKS_SCHEMA,
    Schema,
)


def _measures(schema: Schema) -> list[str]:
    """Columns of a table whose values may be unknown."""
    return [column.name for column in schema if pa.types.is_float32(column.type)]


NULLABLE: Final = frozenset(
    {
        ("poses", "track_id"),
        *(("tracks", name) for name in _measures(TRACKS_SCHEMA)),
        ("tracks", "grade_reason"),
        *(("motion", name) for name in ("person", "facing", *_measures(MOTION_SCHEMA))),
    }
)
"""Tables and their columns that may hold nulls."""


SCORE_RANGE: Final = (-0.5, 1.5)
"""Possible keypoint scores. A score is the peak of a heatmap that was trained to peak at 1, which it may miss a bit."""


# --- the columns that count and order the rows -------------------------------------------------------------------


def check_frames(content: bytes, rows: int) -> tuple[list[str], NDArray[np.int64]]:
    """Check a frames table of ``rows`` rows.

    Returns the problems, and (n, 2) frame_index and num_persons of its rows; (0, 2) if they cannot be read.
    """
    columns = ["frame_index", "pts", "num_persons"]
    table, problems = read_counted(content, FRAMES_SCHEMAS, rows, columns)
    sampling = _stated_sampling(table.schema.metadata or {})
    if not problems and sampling is None:
        problems = ["its metadata does not state which frames were to be processed"]
    if problems or sampling is None:
        return problems, np.zeros((0, 2), np.int64)
    stride, fps = sampling
    index, pts, persons = (column.to_numpy() for column in table.columns)
    if fps is None and not np.array_equal(index, np.arange(len(index)) * stride):
        problems.append(f"frame_index does not count 0, {stride}, ...: frames are missing, duplicated or out of order")
    elif (np.diff(index) <= 0).any():
        problems.append("frame_index does not rise from row to row: frames are duplicated or out of order")
    if (np.diff(pts) < 0).any():  # frames share a tick where ticks are coarser than the frame rate
        problems.append("pts falls from one row to the next")
    return problems, np.stack([index, persons.astype(np.int64)], axis=1)


def check_poses(content: bytes, rows: int, persons_by_frame: NDArray[np.int64]) -> list[str]:
    """Check a poses table of ``rows`` rows against the (n, 2) array that `check_frames` returned for the same video."""
    table, problems = read_counted(content, POSES_SCHEMAS, rows, ["frame_index", "person"])
    if problems:
        return problems
    index, person = (column.to_numpy() for column in table.columns)
    frames, counts = persons_by_frame[:, 0], persons_by_frame[:, 1]
    counts_agree = (counts >= 0).all() and counts.sum() == rows  # checked first: np.repeat could exhaust the memory
    if not counts_agree or not np.array_equal(index, np.repeat(frames, counts)):
        return ["its frames and persons are not those that the frames table counts"]
    ranks = np.concatenate([np.arange(count) for count in [0, *counts]])
    return [] if np.array_equal(person, ranks) else ["person does not count 0, 1, 2, ... within each frame"]


def check_rows(content: bytes, schemas: Sequence[pa.Schema], rows: int) -> list[str]:
    """Check the schema and the number of rows of any published table."""
    return read_counted(content, schemas, rows, [])[1]


def _stated_sampling(metadata: Mapping[bytes, bytes]) -> tuple[int, float | None] | None:
    """The stride and the rate in frames per second that a file states; None if they cannot be read."""
    try:
        stated = json.loads(metadata[b"posebatch.sampling"])
        return int(stated["stride"]), stated["fps"]
    except (KeyError, ValueError, TypeError):
        return None


# --- every value and all metadata --------------------------------------------------------------------------------


def check_values(content: bytes, published: PublishedObject, record: VideoRecord) -> list[str]:
    """Check all metadata of a table and, of a poses or frames table, every value.

    Call it for a table whose rows are in order. It holds one row group at a time. A problem of many row groups is
    returned once.
    """
    check = _VALUE_CHECKS.get(published.kind)
    problems: dict[str, None] = {}
    try:
        file = open_parquet(content)
        problems |= dict.fromkeys(_check_metadata(file.schema_arrow.metadata or {}, published, record))
        for batch in file.iter_batches(ROW_GROUP_ROWS):
            batch.validate(full=True)
            if check is not None:
                problems |= dict.fromkeys(_nulls(batch, published.kind) or check(batch, record))
    except (pa.ArrowException, OSError) as error:
        problems |= {f"not a readable Parquet file: {' '.join(str(error).split())}": None}
    return list(problems)


def _nulls(batch: pa.RecordBatch, kind: str) -> list[str]:
    with_nulls = [name for name in batch.schema.names if (kind, name) not in NULLABLE and batch[name].null_count]
    return [f"{name} is null in some rows" for name in with_nulls]


def check_agreement(frames_content: bytes, poses_content: bytes) -> list[str]:
    """Check that persons have the times of their frames. Call it for two tables without other problems."""
    frames = read_table(frames_content, FRAMES_SCHEMAS, ["pts", "num_persons"])
    poses = read_table(poses_content, POSES_SCHEMAS, ["pts"])
    expected = np.repeat(frames["pts"].to_numpy(), frames["num_persons"].to_numpy())
    return [] if np.array_equal(poses["pts"].to_numpy(), expected) else ["pts is not that of the frames table"]


def _check_metadata(metadata: Mapping[bytes, bytes], published: PublishedObject, record: VideoRecord) -> Iterator[str]:
    if schema_version(metadata) not in range(1, SCHEMA_VERSION + 1):
        yield "its metadata states no schema version"
    for name, expected in _expected_metadata(published, record).items():
        stated = metadata.get(name.encode(), b"").decode(errors="replace")
        if stated != expected:
            yield f"its metadata has {stated!r} as {name}, its record {expected!r}"


def _expected_metadata(published: PublishedObject, record: VideoRecord) -> dict[str, str]:
    names = {
        "posebatch.keypoint_names": json.dumps(KEYPOINT_NAMES),
        "posebatch.skeleton_edges": json.dumps(SKELETON_EDGES),
    }
    if record.info is None:
        return names
    video = SourceVideo(record.video, "", record.etag, record.size_bytes, record.last_modified)
    models = {"detector": record.detector, "pose": record.pose}
    origin = provenance(video, record.info, {}, models, published.fingerprint)
    del origin["posebatch.sampling"]  # not in the record
    return names | origin


def _check_frame_values(batch: pa.RecordBatch, record: VideoRecord) -> Iterator[str]:
    yield from _check_video_and_time(batch, record)
    status = np.array(batch["status"].to_pylist(), dtype=object)
    persons = batch["num_persons"].to_numpy()
    if not set(status) <= set(get_args(FrameStatus)):
        yield f"status is none of {', '.join(get_args(FrameStatus))} in some rows"
    if (persons < 0).any() or (persons[status != "ok"] > 0).any():
        yield "num_persons is below 0, or above 0 in a frame that could not be decoded"
    if record.status == "ok" and (status != "ok").any():
        yield "holds damaged frames, its record says that there are none"


def _check_pose_values(batch: pa.RecordBatch, record: VideoRecord) -> Iterator[str]:
    yield from _check_video_and_time(batch, record)
    columns = {name: batch[name].to_numpy() for name in batch.schema.names if pa.types.is_float32(batch[name].type)}
    not_finite = [name for name, values in columns.items() if not np.isfinite(values).all()]
    yield from (f"{name} is no finite number in some rows" for name in not_finite)
    keypoint_scores = {name: SCORE_RANGE for name in KEYPOINT_COLUMNS if name.endswith("_score")}
    ranges = {"bbox_score": (0.0, 1.0), "pose_score": (0.0, SCORE_RANGE[1]), **keypoint_scores}
    for name, (low, high) in ranges.items():
        if ((columns[name] < low) | (columns[name] > high)).any():
            yield f"{name} is outside {low:g} to {high:g} in some rows"
    if (columns["bbox_x1"] > columns["bbox_x2"]).any() or (columns["bbox_y1"] > columns["bbox_y2"]).any():
        yield "boxes end before they begin in some rows"
    same_frame = batch["person"].to_numpy()[1:] > 0
    if (np.diff(columns["pose_score"])[same_frame] > 0).any():
        yield "persons are not ranked by pose_score within each frame"


def _check_track_values(batch: pa.RecordBatch, record: VideoRecord) -> Iterator[str]:
    yield from _check_video(batch, record)
    yield from check_track_values(batch)


def _check_motion_values(batch: pa.RecordBatch, record: VideoRecord) -> Iterator[str]:
    yield from _check_video_and_time(batch, record)
    yield from check_motion_values(batch)


def _check_video_and_time(batch: pa.RecordBatch, record: VideoRecord) -> Iterator[str]:
    yield from _check_video(batch, record)
    if record.info is None:
        return
    if not np.array_equal(batch["time_s"].to_numpy(), seconds_of(batch["pts"].to_numpy(), record.info.time_base)):
        yield "time_s is not pts in units of the time base in some rows"


def _check_video(batch: pa.RecordBatch, record: VideoRecord) -> Iterator[str]:
    videos: set[Any] = set(batch["video"].unique().to_pylist())
    if not videos <= {record.video}:
        yield f"holds rows of another video: {', '.join(sorted(videos - {record.video}))}"


_VALUE_CHECKS: Final[Mapping[str, Callable[[pa.RecordBatch, VideoRecord], Iterator[str]]]] = {
    "poses": _check_pose_values,
    "frames": _check_frame_values,
    "tracks": _check_track_values,
    "motion": _check_motion_values,
}
"""Checks of a table's values by its kind; a kind that is not here is checked by its metadata and rows alone."""
