"""Checks of the tables ``tracks`` and ``motion``, for `posebatch verify`: how they count, and how they join to poses.

Memory holds a few columns of whole numbers: some 16 bytes for each row of poses and motion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posebatch.dataset.tables.parquet import read_counted, read_table
from posebatch.dataset.tables.schemas import ANGLE_COLUMNS, MOTION_SCHEMAS, POSES_SCHEMAS, TRACKS_SCHEMAS

GRADES: Final = frozenset("ABCD")


def check_untracked(poses_content: bytes) -> list[str]:
    """Check that the poses of a video without tracks have no track ids."""
    try:
        ids = read_table(poses_content, POSES_SCHEMAS, ["track_id"])["track_id"]
    except ValueError as error:
        return [str(error)]
    return [] if ids.null_count == len(ids) else ["track_id is filled, but its record lists no tracks"]


def check_tracks(content: bytes, rows: int) -> list[str]:
    """Check a tracks table of ``rows`` rows: its order, and that its numbers are possible."""
    columns = ["track_id", "first_frame", "last_frame", "frames_seen", "frames_gap", "is_main"]
    table, problems = read_counted(content, TRACKS_SCHEMAS, rows, columns)
    if problems:
        return problems
    ids, first, last, seen, gap, is_main = (column.to_numpy() for column in table.columns)
    if not np.array_equal(ids, np.arange(rows)):
        problems.append("track_id does not count 0, 1, 2, ...")
    if (np.diff(first) < 0).any():
        problems.append("tracks are not numbered in the order of their first appearance")
    if (last < first).any() or (seen < 1).any() or (gap < 0).any():
        problems.append("tracks end before they begin, or have no row in poses")
    if is_main.sum() > 1:
        problems.append("more than one track is the main one")
    return problems


def check_motion(
    content: bytes, rows: int, tracks_content: bytes, poses_content: bytes, frames: NDArray[np.int64]
) -> list[str]:
    """Check a motion table of ``rows`` rows against tracks and poses without other problems.

    ``frames``: (n,) frame_index of all processed frames. Each track must have one row in each of them from its first to
    its last, and each row of poses with a track id must be joined by exactly one row of motion.
    """
    table, problems = read_counted(content, MOTION_SCHEMAS, rows, ["track_id", "frame_index"])
    if problems:
        return problems
    try:
        return _check_joins(content, table, tracks_content, poses_content, frames)
    except ValueError as error:
        return [f"it cannot be compared with tracks and poses: {error}"]


def _check_joins(
    content: bytes, table: pa.Table, tracks_content: bytes, poses_content: bytes, frames: NDArray[np.int64]
) -> list[str]:
    """Check ``table``, two columns of the motion table in ``content``. Raises ``ValueError`` for a damaged table."""
    track, index = (column.to_numpy() for column in table.columns)
    table = read_table(tracks_content, TRACKS_SCHEMAS, ["first_frame", "last_frame", "frames_seen", "frames_gap"])
    first, last, seen, gap = (column.to_numpy() for column in table.columns)
    if (np.diff(index) < 0).any() or (np.diff(track)[np.diff(index) == 0] <= 0).any():
        return ["rows are not ordered by frame_index and track_id, or are duplicated"]
    if not _covers(track, index, first, last, frames):
        return ["tracks do not have one row in each processed frame from their first to their last"]
    person = read_table(content, MOTION_SCHEMAS, ["person"])["person"].fill_null(-1).to_numpy()
    poses = read_table(poses_content, POSES_SCHEMAS, ["frame_index", "person", "track_id"])
    joined, tracked = person >= 0, poses["track_id"].is_valid().to_numpy(zero_copy_only=False)
    of_motion = np.stack([index, person, track])[:, joined]
    of_poses = np.stack([column.fill_null(-1).to_numpy() for column in poses.columns])[:, tracked]
    if not np.array_equal(_sorted(of_motion), _sorted(of_poses)):
        return ["frame_index, person and track_id are not those of the poses table"]
    counted = np.bincount(track[joined], minlength=len(seen))
    spans = np.bincount(track, minlength=len(seen))
    if not np.array_equal(counted, seen) or not np.array_equal(spans - counted, gap):
        return ["frames_seen and frames_gap of the tracks table are not those that it counts"]
    return []


def _covers(
    track: NDArray[np.int32],
    index: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    frames: NDArray[np.int64],
) -> bool:
    """Whether rows ordered by frame are exactly those of all tracks in all frames from their first to their last."""
    begin, end = np.searchsorted(frames, first), np.searchsorted(frames, last, side="right")
    if not np.isin(first, frames).all() or not np.isin(last, frames).all() or (end - begin).sum() != len(track):
        return False
    if (track < 0).any() or (track >= len(first)).any():
        return False
    position = np.searchsorted(frames, index)
    inside = (position >= begin[track]) & (position < end[track])
    # rows are distinct and as many as there should be, so all are there if each is one of them
    return bool(inside.all() and (frames[np.minimum(position, len(frames) - 1)] == index).all())


def _sorted(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(3, n) columns in the order of frame_index, then person."""
    return rows[:, np.lexsort((rows[1], rows[0]))]


# --- every value -------------------------------------------------------------------------------------------------


def check_track_values(batch: pa.RecordBatch) -> Iterator[str]:
    """Check the values of a tracks table."""
    shares = [name for name in batch.schema.names if name.endswith(("_seen", "side_view")) and name != "frames_seen"]
    for name in shares:
        values = batch[name].to_numpy()
        if not ((values >= 0) & (values <= 1)).all():
            yield f"{name} is outside 0 to 1 in some rows"
    if not set(batch["grade"].to_pylist()) <= GRADES:
        yield "grade is none of A, B, C, D in some rows"
    if (batch["end_s"].to_numpy() < batch["start_s"].to_numpy()).any():
        yield "tracks end before they begin"


def check_motion_values(batch: pa.RecordBatch) -> Iterator[str]:
    """Check the values of a motion table: numbers or null, never infinite; angles within half a turn or a turn."""
    for field in batch.schema:
        if pa.types.is_float32(field.type) and np.isinf(_numbers(batch[field.name])).any():
            yield f"{field.name} is infinite in some rows"
    for name in ANGLE_COLUMNS:
        if name.endswith("_deg") and (np.abs(_numbers(batch[name])) > 360).any():
            yield f"{name} is outside -360 to 360 in some rows"
    if "facing" in batch.schema.names and not set(batch["facing"].to_pylist()) <= {"left", "right", None}:
        yield "facing is none of left, right and null in some rows"


def _numbers(column: pa.Array) -> NDArray[np.float32]:
    """Values with NaN for null."""
    values: NDArray[np.float32] = column.to_numpy(zero_copy_only=False)
    return values
