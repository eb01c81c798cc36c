"""What a page about one video shows: its tables as NumPy arrays, thinned while they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.dataset.tables.parquet import open_parquet
from posebatch.dataset.tables.schemas import KEYPOINT_COLUMNS
from posebatch.motion.movement.motion_block import ANGLE_NAMES

DEGREE_COLUMNS: Final = tuple(f"{name}_deg" for name in ANGLE_NAMES)


@dataclass(frozen=True)
class FrameLine:
    """The processed frames of a video."""

    index: NDArray[np.int64]
    """(n,) ascending."""
    time_s: NDArray[np.float64]
    persons: NDArray[np.int32]
    """(n,) persons found in each frame."""
    decoded: NDArray[np.bool_]
    """(n,) whether the frame could be decoded."""

    def __post_init__(self) -> None:
        if len({self.index.shape, self.time_s.shape, self.persons.shape, self.decoded.shape}) != 1:
            raise ValueError("the arrays of a FrameLine differ in length")

    def __len__(self) -> int:
        return len(self.index)

    def every(self, step: int) -> FrameLine:
        """Every ``step``-th frame, from the first on."""
        return FrameLine(self.index[::step], self.time_s[::step], self.persons[::step], self.decoded[::step])


@dataclass(frozen=True)
class MovementRows:
    """Rows of a motion table, ordered by track and frame."""

    track_id: NDArray[np.int32]
    frame_index: NDArray[np.int64]
    gap: NDArray[np.bool_]
    """(m,) whether the person was not found in the frame."""
    joints: NDArray[np.float32]
    """(m, 17, 3) smoothed x, y, score; score 0 where interpolated, NaN where not known."""
    angles: NDArray[np.float32]
    """(m, angles) degrees, in the order of `ANGLE_NAMES`; NaN where not known."""
    hip_height_torso: NDArray[np.float32]
    speed_torso_per_s: NDArray[np.float32]

    def __post_init__(self) -> None:
        rows = len(self.track_id)
        if self.joints.shape != (rows, NUM_KEYPOINTS, 3) or self.angles.shape != (rows, len(ANGLE_NAMES)):
            raise ValueError(f"joints {self.joints.shape} and angles {self.angles.shape} do not fit {rows} rows")

    def __len__(self) -> int:
        return len(self.track_id)


def read_frame_line(content: bytes) -> FrameLine:
    """The frames of a frames table. Raises `NewerOutputError` if a later version wrote it."""
    table = open_parquet(content).read(columns=["frame_index", "time_s", "num_persons", "status"])
    return FrameLine(
        table["frame_index"].to_numpy(),
        table["time_s"].to_numpy().astype(np.float64),
        table["num_persons"].to_numpy().astype(np.int32),
        np.array([status == "ok" for status in table["status"].to_pylist()], bool),
    )


def read_track_rows(content: bytes) -> list[dict[str, Any]]:
    """The rows of a tracks table. Raises `NewerOutputError` if a later version wrote it."""
    table = open_parquet(content).read()
    return table.drop_columns(["video"]).to_pylist()


def no_rows() -> MovementRows:
    """A motion table without rows."""
    none = np.zeros(0, np.float32)
    joints, angles = np.zeros((0, NUM_KEYPOINTS, 3), np.float32), np.zeros((0, len(ANGLE_NAMES)), np.float32)
    return MovementRows(none.astype(np.int32), none.astype(np.int64), none.astype(bool), joints, angles, none, none)


def read_movement_rows(content: bytes | IO[bytes], kept_frames: NDArray[np.int64]) -> MovementRows:
    """The rows of a motion table that belong to ``kept_frames`` (ascending), one row group in memory at a time.

    Raises `NewerOutputError` if a later version wrote the table.
    """
    file = open_parquet(content)
    columns = ["track_id", "frame_index", "person", *KEYPOINT_COLUMNS, *DEGREE_COLUMNS]
    columns += ["hip_height_torso", "speed_torso_per_s"]
    pieces = [_kept(file.read_row_group(group, columns), kept_frames) for group in range(file.num_row_groups)]
    table = pa.concat_tables(pieces) if pieces else file.schema_arrow.empty_table().select(columns)
    order = np.lexsort((table["frame_index"].to_numpy(), table["track_id"].to_numpy()))
    return MovementRows(
        table["track_id"].to_numpy()[order],
        table["frame_index"].to_numpy()[order],
        table["person"].is_null().to_numpy()[order],
        _matrix(table, KEYPOINT_COLUMNS)[order].reshape(-1, NUM_KEYPOINTS, 3),
        _matrix(table, DEGREE_COLUMNS)[order],
        _matrix(table, ("hip_height_torso",))[order, 0],
        _matrix(table, ("speed_torso_per_s",))[order, 0],
    )


def _kept(group: pa.Table, kept_frames: NDArray[np.int64]) -> pa.Table:
    return group.filter(pa.array(np.isin(group["frame_index"].to_numpy(), kept_frames)))


def _matrix(table: pa.Table, names: tuple[str, ...]) -> NDArray[np.float32]:
    """Columns as (rows, columns); null becomes NaN."""
    matrix = np.empty((table.num_rows, len(names)), np.float32)
    for number, name in enumerate(names):
        matrix[:, number] = table[name].to_numpy()
    return matrix
