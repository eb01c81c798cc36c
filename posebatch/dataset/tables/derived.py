"""Rows of the tables that are derived from poses: ``tracks``, ``motion``, and the track ids of ``poses``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.dataset.tables.parquet import open_parquet
from posebatch.dataset.tables.rows import constant
from posebatch.dataset.tables.schemas import ANGLE_COLUMNS, MOTION_SCHEMA, POSES_SCHEMA, ROW_GROUP_ROWS, TRACKS_SCHEMA
from posebatch.motion.movement.motion_block import MotionBlock
from posebatch.motion.movement.quality import TrackSummary

_TRACK_ID: Final = POSES_SCHEMA.get_field_index("track_id")


_PROVENANCE: Final = (
    *("video", "etag", "sampling", "models", "settings_fingerprint", "time_base", "frame_width", "frame_height"),
)
"""Names of the metadata that `provenance` makes, in its order."""


_FACING: Final = pa.array(["left", None, "right"])
"""The column ``facing`` for -1, 0 and 1."""


def tracks_table(summaries: Sequence[TrackSummary], video: str) -> pa.Table:
    """Rows of the table ``tracks``."""
    columns: list[Any] = [constant(video, len(summaries))]
    for name in ("track_id", "first_frame", "last_frame", "start_s", "end_s", "frames_seen", "frames_gap"):
        columns.append([getattr(summary, name) for summary in summaries])
    for name in ("mean_pose_score", "median_height_px", "torso_px"):
        columns.append([getattr(summary, name) for summary in summaries])
    columns += [[summary.joint_seen[joint] for summary in summaries] for joint in range(NUM_KEYPOINTS)]
    after = TRACKS_SCHEMA.names[len(columns) :]
    columns += [[getattr(summary, name) for summary in summaries] for name in after]
    arrays = [
        column if isinstance(column, pa.Array) else _known(column, field.type)
        for column, field in zip(columns, TRACKS_SCHEMA, strict=True)
    ]
    return pa.table(arrays, schema=TRACKS_SCHEMA)


def motion_table(block: MotionBlock, video: str) -> pa.Table:
    """Rows of the table ``motion``."""
    rows = len(block.track_id)
    joints = block.joints.reshape(rows, NUM_KEYPOINTS * 3)
    angles = np.stack([block.angles, block.rates], axis=2).reshape(rows, len(ANGLE_COLUMNS))
    columns = [
        constant(video, rows),
        block.track_id,
        block.frame_index,
        block.pts,
        block.time_s,
        pa.array(block.person, pa.int32(), mask=block.person < 0),
        _FACING.take(pa.array(block.facing + 1)),
        *_columns_of(joints),
        *_columns_of(angles),
        *_columns_of(block.hip_xy),
        _known(block.hip_height_torso),
        _known(block.speed_torso_per_s),
    ]
    return pa.table(columns, schema=MOTION_SCHEMA)


def _columns_of(values: NDArray[np.float32]) -> Iterator[pa.Array]:
    yield from map(_known, np.ascontiguousarray(values.T))


def _known(values: Sequence[Any] | NDArray[np.float32], wanted: pa.DataType | None = None) -> pa.Array:
    """A column that is null where a value is not known: SQL takes NaN for a number, the largest of all."""
    return pa.array(values, wanted, from_pandas=True)


def track_id_column(track_ids: NDArray[np.int32]) -> pa.Array:
    """The column ``track_id`` of poses: null where a person belongs to no track (-1)."""
    return pa.array(track_ids, pa.int32(), mask=track_ids < 0)


def with_track_ids(rows: pa.Table, track_ids: NDArray[np.int32]) -> pa.Table:
    """Rows of the table ``poses`` with these track ids, -1 for none."""
    return rows.set_column(_TRACK_ID, POSES_SCHEMA.field(_TRACK_ID), track_id_column(track_ids))


def stored_track_ids(poses_file: IO[bytes]) -> NDArray[np.int32]:
    """(rows,) The track ids of a stored poses table, -1 for none."""
    column = open_parquet(poses_file).read(["track_id"])["track_id"]
    return column.fill_null(-1).to_numpy().astype(np.int32)


def stored_poses(poses_file: IO[bytes], track_ids: NDArray[np.int32]) -> Iterator[pa.Table]:
    """The rows of a stored poses table with other track ids, a row group at a time."""
    start = 0
    for batch in open_parquet(poses_file).iter_batches(ROW_GROUP_ROWS):
        yield with_track_ids(pa.Table.from_batches([batch]), track_ids[start : start + batch.num_rows])
        start += batch.num_rows


def stored_provenance(file: IO[bytes]) -> dict[str, str]:
    """What a stored table says of its origin, as `provenance` made it."""
    metadata: Mapping[bytes, bytes] = open_parquet(file).schema_arrow.metadata or {}
    stated = {f"posebatch.{name}": metadata.get(f"posebatch.{name}".encode()) for name in _PROVENANCE}
    return {name: value.decode() for name, value in stated.items() if value is not None}
