"""Made-up motion: the demo's walker with its true joints and angles, at any speed, as performances and as an output."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from posebatch.core.skeleton import FLIP_ORDER, KEYPOINT_NAMES
from posebatch.dataset.tables.schemas import MOTION_SCHEMA, TRACKS_SCHEMA, VIDEOS_SCHEMA
from posebatch.demo.walker import _pose
from posebatch.motion.comparing.performance import Performance
from posebatch.motion.movement.motion_block import ANGLE_NAMES

FPS = 25
PX_PER_M = 200.0
TABLE_STEPS = 240


@cache
def _cycle(heading: float) -> np.ndarray:
    """Joints (TABLE_STEPS + 1, 17, 2) of one cycle of two steps, pixels around the ground, y down."""
    poses = [_pose(step / TABLE_STEPS, heading) for step in range(TABLE_STEPS + 1)]
    points = np.array([[pose[name][:2] for name in KEYPOINT_NAMES] for pose in poses])
    return points * np.array([PX_PER_M, -PX_PER_M])


def joints_of_walker(cycles: np.ndarray, heading: float = 0.0) -> np.ndarray:
    """Joints (n, 17, 3) after ``cycles`` (n,) of walking on the spot, to the viewer's right."""
    table, at = _cycle(heading), (cycles % 1.0) * TABLE_STEPS
    low = np.floor(at).astype(int)
    share = (at - low)[:, None, None]
    xy = (1 - share) * table[low] + share * table[np.minimum(low + 1, TABLE_STEPS)] + np.array([320.0, 400.0])
    return np.concatenate([xy, np.full((*xy.shape[:2], 1), 0.9)], axis=2)


def angles_of(joints: np.ndarray, facing: int = 1) -> np.ndarray:
    """Angles (n, A) of joints (n, 17, 3), with the definitions of the table ``motion``, in this file's own words."""
    at = {name: joints[:, i, :2] for i, name in enumerate(KEYPOINT_NAMES)}
    for part in ("hip", "shoulder"):
        at[part] = (at[f"left_{part}"] + at[f"right_{part}"]) / 2

    def direction(start: str, end: str) -> np.ndarray:
        x, y = (at[end] - at[start]).T
        return np.degrees(np.arctan2(-y, x * facing))

    columns = {}
    for side in ("left", "right"):
        thigh, shank = direction(f"{side}_hip", f"{side}_knee"), direction(f"{side}_knee", f"{side}_ankle")
        upper, fore = direction(f"{side}_shoulder", f"{side}_elbow"), direction(f"{side}_elbow", f"{side}_wrist")
        trunk = direction("hip", "shoulder")
        columns |= {f"{side}_knee": thigh - shank, f"{side}_elbow": fore - upper}
        columns |= {f"{side}_hip": thigh + 180 - trunk, f"{side}_shoulder": upper + 180 - trunk}
        columns |= {f"{side}_thigh": thigh, f"{side}_shank": shank}
        columns |= {f"{side}_upper_arm": upper, f"{side}_forearm": fore, "trunk": trunk}
    columns["pelvis"] = direction("right_hip", "left_hip")
    columns["shoulders"] = direction("right_shoulder", "left_shoulder")
    period = np.array([180.0 if name in ("pelvis", "shoulders") else 360.0 for name in ANGLE_NAMES])
    stacked = np.stack([columns[name] for name in ANGLE_NAMES], axis=1)
    return (stacked + period / 2) % period - period / 2


def walk(
    cycles: Callable[[np.ndarray], np.ndarray], seconds: float, heading: float = 0.0, label: str = "walk.mp4#0"
) -> Performance:
    """A walker that is ``cycles(share)`` cycles far after that share (n,) of its time."""
    time_s = np.arange(round(seconds * FPS) + 1) / FPS
    joints = joints_of_walker(cycles(time_s / time_s[-1]), heading)
    return performance_of(joints, time_s, label)


def performance_of(joints: np.ndarray, time_s: np.ndarray, label: str = "walk.mp4#0", facing: int = 1) -> Performance:
    """Joints (n, 17, 3) with their angles."""
    return Performance(label, tuple(ANGLE_NAMES), time_s, angles_of(joints, facing), joints)


def seen_in_a_mirror(joints: np.ndarray) -> np.ndarray:
    """Joints (n, 17, 3) as the mirrored picture shows them: labels go by the body that is seen."""
    seen = joints[:, FLIP_ORDER].copy()
    seen[:, :, 0] = 640 - seen[:, :, 0]
    return seen


def publish_motion(
    root: Path, video: str, *performances: Performance, main: int | None = 0, source: str | None = None
) -> None:
    """Write tables videos, tracks and motion of a made-up video with one track per performance."""
    root, source = Path(root), source or f"/archive/{video}"
    motion, tracks = [], []
    for track, one in enumerate(performances):
        rows = len(one.time_s)
        columns = {
            "track_id": np.full(rows, track),
            "frame_index": np.round(one.time_s * FPS).astype(int),
            "pts": np.round(one.time_s * FPS).astype(int),
            "time_s": one.time_s,
            "person": np.full(rows, track),
        }
        for i, joint in enumerate(KEYPOINT_NAMES):
            columns |= {f"{joint}_{part}": one.joints[:, i, j] for j, part in enumerate(("x", "y", "score"))}
        columns |= {f"{name}_deg": one.angles[:, i] for i, name in enumerate(one.angle_names)}
        motion.append(_table(MOTION_SCHEMA, columns, rows, source))
        row = {"track_id": [track], "is_main": [track == main], "grade": ["A"]}
        row |= {"start_s": [one.time_s[0]], "end_s": [one.time_s[-1]]}
        tracks.append(_table(TRACKS_SCHEMA, row, 1, source))
    _write(root / "motion" / f"{video}.parquet", pa.concat_tables([MOTION_SCHEMA.empty_table(), *motion]))
    _write(root / "tracks" / f"{video}.parquet", pa.concat_tables([TRACKS_SCHEMA.empty_table(), *tracks]))
    publish_record(root, video)


def publish_record(root: Path, video: str, error: str | None = None) -> None:
    """Write a table videos of one row, most of whose columns are null."""
    columns = {"video": [f"/archive/{video}"], "status": ["failed" if error else "ok"], "error": [error]}
    _write(root / "videos" / f"{video}.parquet", _table(VIDEOS_SCHEMA, columns, 1, f"/archive/{video}"))


def _table(schema: pa.Schema, columns: dict, rows: int, video: str) -> pa.Table:
    arrays = []
    for field in schema:
        values = [video] * rows if field.name == "video" else columns.get(field.name)
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        array = pa.nulls(rows, plain) if values is None else pa.array(list(values), plain)
        arrays.append(array.dictionary_encode() if plain is not field.type else array)
    return pa.table(arrays, schema=schema)


def _write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    path.write_bytes(sink.getvalue())
