"""The rows of the table motion."""

from __future__ import annotations

import duckdb
import numpy as np

from posebatch.dataset.tables.derived import motion_table
from posebatch.motion.movement.motion_block import ANGLE_NAMES, MotionBlock


def block(facing: list[int], knee: list[float]) -> MotionBlock:
    rows = len(facing)
    angles = np.full((rows, len(ANGLE_NAMES)), np.nan, np.float32)
    angles[:, ANGLE_NAMES.index("left_knee")] = knee
    return MotionBlock(
        track_id=np.zeros(rows, np.int32),
        frame_index=np.arange(rows),
        pts=np.arange(rows),
        time_s=np.arange(rows) / 25,
        person=np.full(rows, -1, np.int32),
        facing=np.array(facing, np.int8),
        joints=np.full((rows, 17, 3), np.nan, np.float32),
        angles=angles,
        rates=np.full_like(angles, np.nan),
        hip_xy=np.full((rows, 2), np.nan, np.float32),
        hip_height_torso=np.full(rows, np.nan, np.float32),
        speed_torso_per_s=np.full(rows, np.nan, np.float32),
    )


def test_motion_table_of_no_rows_has_all_columns():
    assert motion_table(block([], []), "a.mp4").num_rows == 0


def test_motion_table_is_null_where_nothing_is_known():
    motion = motion_table(block([1, 0, -1], [30.0, np.nan, 60.0]), "a.mp4")
    assert motion["facing"].to_pylist() == ["right", None, "left"]
    assert motion["left_knee_deg"].to_pylist() == [30.0, None, 60.0]
    unknown = ("person", "nose_x", "trunk_deg", "left_knee_deg_per_s", "hip_x", "hip_height_torso", "speed_torso_per_s")
    assert {name: motion[name].null_count for name in unknown} == dict.fromkeys(unknown, 3)
    assert motion["left_knee_deg"].to_pandas().isna().tolist() == [False, True, False]
    # DuckDB takes NaN for the largest number
    said = duckdb.sql(
        "SELECT max(left_knee_deg), avg(left_knee_deg), count(*) FILTER (left_knee_deg > 100) FROM motion"
    )
    assert said.fetchall() == [(60.0, 45.0, 0)]
