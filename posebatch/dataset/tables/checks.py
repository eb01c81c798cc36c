"""What a published table must hold: by the columns that count and order its rows, or by every value and metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posebatch.core.errors import NewerOutputError
from posebatch.core.frames import FrameStatus
from posebatch.core.records import PublishedObject, VideoRecord
from posebatch.core.skeleton import KEYPOINT_NAMES, SKELETON_EDGES
from posebatch.core.videos import SourceVideo
from posebatch.dataset.tables.parquet import open_parquet, read_table, schema_version
from posebatch.dataset.tables.rows import provenance, seconds_of
from posebatch.dataset.tables.schemas import KEYPOINT_COLUMNS, KNOWN_SCHEMAS, ROW_GROUP_ROWS, SCHEMA_VERSION

NULLABLE: Final = frozenset({"track_id"})
"""Columns of the data tables that may hold nulls."""


JOINT_SCORES: Final = (-0.5, 1.5)
"""A joint's score is the peak of a map that was taught to peak at 1: it may miss that, but not by this much."""


# --- the columns that count and order the rows -------------------------------------------------------------------


def check_frames(content: bytes, rows: int) -> tuple[list[str], NDArray[np.int64]]:
    """What is wrong with a frames table, and (n, 2) frame_index and num_persons of its rows."""
    table, problems = _checked(content, "frames", rows, ["frame_index", "pts", "num_persons"])
    sampling = _stated_sampling(table.schema.metadata or {})
    if not problems and sampling is None:
        problems = ["its metadata says nothing of the frames that were to be processed"]
    if problems or sampling is None:
        return problems, np.zeros((0, 2), np.int64)
    stride, fps = sampling
    index, pts, persons = (column.to_numpy() for column in table.columns)
    if fps is None and not np.array_equal(index, np.arange(len(index)) * stride):
        problems.append(f"frame_index does not count 0, {stride}, ...: frames are lost, doubled or out of order")
    elif (np.diff(index) <= 0).any():
        problems.append("frame_index does not rise from row to row: frames are doubled or out of order")
    if (np.diff(pts) <= 0).any():
        problems.append("pts does not rise from row to row")
    return problems, np.stack([index, persons.astype(np.int64)], axis=1)


def check_poses(content: bytes, rows: int, persons_by_frame: NDArray[np.int64]) -> list[str]:
    """What is wrong with a poses table, given what `check_frames` found in the frames table of the same video."""
    table, problems = _checked(content, "poses", rows, ["frame_index", "person"])
    if problems:
        return problems
    index, person = (column.to_numpy() for column in table.columns)
    frames, counts = persons_by_frame[:, 0], persons_by_frame[:, 1]
    agreed = (counts >= 0).all() and counts.sum() == rows  # else repeating could take memory without end
    if not agreed or not np.array_equal(index, np.repeat(frames, counts)):
        return ["its frames and persons are not those that the frames table counts"]
    ranks = np.concatenate([np.arange(count) for count in [0, *counts]])
    return [] if np.array_equal(person, ranks) else ["person does not count 0, 1, 2, ... within each frame"]


def _checked(content: bytes, folder: str, rows: int, columns: Sequence[str]) -> tuple[pa.Table, list[str]]:
    try:
        table = read_table(content, folder, columns)
    except (ValueError, NewerOutputError) as error:
        return KNOWN_SCHEMAS[folder][0].empty_table(), [str(error)]
    if table.num_rows != rows:
        return table, [f"{table.num_rows} rows, its record says {rows}"]
    return table, [f"{name} is null in some rows" for name in columns if table[name].null_count]


def _stated_sampling(metadata: Mapping[bytes, bytes]) -> tuple[int, float | None] | None:
    """The stride and the rate that a file states; None when it states nothing that can be read."""
    try:
        stated = json.loads(metadata[b"posebatch.sampling"])
        return int(stated["stride"]), stated["fps"]
    except (KeyError, ValueError, TypeError):
        return None


# --- every value and all metadata --------------------------------------------------------------------------------


def check_values(content: bytes, published: PublishedObject, record: VideoRecord) -> list[str]:
    """What is wrong with the values and the metadata of a table that `check_frames` or `check_poses` found in order.

    Holds one row group at a time; what is wrong in many of them is said once.
    """
    check = _wrong_in_poses if published.kind == "poses" else _wrong_in_frames
    problems: dict[str, None] = {}
    try:
        file = open_parquet(content)
        problems |= dict.fromkeys(_wrong_metadata(file.schema_arrow.metadata or {}, published, record))
        for batch in file.iter_batches(ROW_GROUP_ROWS):
            batch.validate(full=True)
            problems |= dict.fromkeys(_nulls(batch) or check(batch, record))
    except (pa.ArrowException, OSError) as error:
        problems |= {f"not a readable Parquet file: {' '.join(str(error).split())}": None}
    return list(problems)


def _nulls(batch: pa.RecordBatch) -> list[str]:
    holed = [name for name in batch.schema.names if name not in NULLABLE and batch[name].null_count]
    return [f"{name} is null in some rows" for name in holed]


def check_agreement(frames_content: bytes, poses_content: bytes) -> list[str]:
    """Whether persons have the times of their frames; for two tables in which nothing else is wrong."""
    frames = read_table(frames_content, "frames", ["pts", "num_persons"])
    poses = read_table(poses_content, "poses", ["pts"])
    expected = np.repeat(frames["pts"].to_numpy(), frames["num_persons"].to_numpy())
    return [] if np.array_equal(poses["pts"].to_numpy(), expected) else ["pts is not that of the frames table"]


def _wrong_metadata(metadata: Mapping[bytes, bytes], published: PublishedObject, record: VideoRecord) -> Iterator[str]:
    if schema_version(metadata) not in range(1, SCHEMA_VERSION + 1):
        yield "its metadata states no schema version"
    for name, wanted in _expected_metadata(published, record).items():
        found = metadata.get(name.encode(), b"").decode(errors="replace")
        if found != wanted:
            yield f"its metadata has {found!r} as {name}, its record {wanted!r}"
    if published.fingerprint != record.settings_fingerprint:
        yield "its record states one fingerprint of the settings for it and another for the video"


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
    del origin["posebatch.sampling"]  # the record does not know it
    return names | origin


def _wrong_in_frames(batch: pa.RecordBatch, record: VideoRecord) -> Iterator[str]:
    yield from _wrong_in_both(batch, record)
    status = np.array(batch["status"].to_pylist(), dtype=object)
    persons = batch["num_persons"].to_numpy()
    if not set(status) <= set(get_args(FrameStatus)):
        yield f"status is none of {', '.join(get_args(FrameStatus))} in some rows"
    if (persons < 0).any() or (persons[status != "ok"] > 0).any():
        yield "num_persons is below 0, or above 0 in a frame that could not be decoded"
    if record.status == "ok" and (status != "ok").any():
        yield "holds damaged frames, its record says that there are none"


def _wrong_in_poses(batch: pa.RecordBatch, record: VideoRecord) -> Iterator[str]:
    yield from _wrong_in_both(batch, record)
    columns = {name: batch[name].to_numpy() for name in batch.schema.names if pa.types.is_float32(batch[name].type)}
    unfit = [name for name, values in columns.items() if not np.isfinite(values).all()]
    yield from (f"{name} is no finite number in some rows" for name in unfit)
    scores = {name: JOINT_SCORES for name in KEYPOINT_COLUMNS if name.endswith("_score")}
    for name, (least, most) in {"bbox_score": (0.0, 1.0), "pose_score": (0.0, JOINT_SCORES[1]), **scores}.items():
        if ((columns[name] < least) | (columns[name] > most)).any():
            yield f"{name} lies outside of {least:g} to {most:g} in some rows"
    if (columns["bbox_x1"] > columns["bbox_x2"]).any() or (columns["bbox_y1"] > columns["bbox_y2"]).any():
        yield "boxes end before they begin in some rows"
    same_frame = batch["person"].to_numpy()[1:] > 0
    if (np.diff(columns["pose_score"])[same_frame] > 0).any():
        yield "persons are not ranked by pose_score within each frame"


def _wrong_in_both(batch: pa.RecordBatch, record: VideoRecord) -> Iterator[str]:
    videos: set[Any] = set(batch["video"].unique().to_pylist())
    if not videos <= {record.video}:
        yield f"holds rows of another video: {', '.join(sorted(videos - {record.video}))}"
    if record.info is None:
        return
    if not np.array_equal(batch["time_s"].to_numpy(), seconds_of(batch["pts"].to_numpy(), record.info.time_base)):
        yield "time_s is not pts in units of the time base in some rows"
