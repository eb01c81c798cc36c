"""Outputs with tracks and motion as real ones have them: walkers whose knees swing, with gaps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from posebatch.core.records import PublishedObject, VideoRecord
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.core.videos import VideoInfo
from posebatch.dataset.layout import FRAMES, MOTION, POSES, TRACKS, Artifact
from posebatch.dataset.tables.schemas import (
    ANGLE_COLUMNS,
    BBOX,
    FRAMES_SCHEMA,
    KEYPOINT_COLUMNS,
    MOTION_SCHEMA,
    POSES_SCHEMA,
    TRACKS_SCHEMA,
)
from posebatch.storage.open import open_store
from support.factories import publish_record
from support.upkeep_factories import parquet_of

WIDTH, HEIGHT = 320, 240
STATURE_PX = 150.0
"""Height of the walker, pixels, in each frame."""

_ABOVE_FLOOR = {  # shares of the stature; Drillis and Contini
    **{"nose": 0.92, "eye": 0.936, "ear": 0.936, "shoulder": 0.818, "elbow": 0.63, "wrist": 0.485},
    **{"hip": 0.53, "knee": 0.285, "ankle": 0.039},
}


def walker(time_s: np.ndarray, start_x: float = 60.0) -> np.ndarray:
    """Joints (n, 17, 2) of a person who walks to the right; the left leg stays straight, the right knee swings."""
    xy = np.empty((len(time_s), 17, 2))
    for joint, name in enumerate(KEYPOINT_NAMES):
        share = _ABOVE_FLOOR[name.rpartition("_")[2]]
        xy[:, joint] = np.stack([start_x + 30 * time_s, np.full(len(time_s), HEIGHT - 10 - share * STATURE_PX)], axis=1)
    shank = (0.285 - 0.039) * STATURE_PX
    bend = 0.6 * (1 - np.cos(2 * np.pi * time_s)) / 2
    knee = xy[:, KEYPOINT_NAMES.index("right_knee")]
    xy[:, KEYPOINT_NAMES.index("right_ankle")] = knee + shank * np.stack([-np.sin(bend), np.cos(bend)], axis=1)
    return xy


def motion_rows(track_id: int, time_s: np.ndarray, stride: int = 1, gap: slice = slice(0, 0)) -> pd.DataFrame:
    """Rows of motion of one track. In ``gap`` nobody is found; the first half of it is interpolated."""
    count = len(time_s)
    joints = np.concatenate([walker(time_s, 60 + 40 * track_id), np.full((count, 17, 1), 0.9)], axis=2)
    joints[:, 3, :] = np.nan  # an ear that is never seen
    hole = np.arange(count)[gap]
    joints[hole[: len(hole) // 2], :, 2] = 0
    joints[hole[len(hole) // 2 :]] = np.nan
    person = np.full(count, float(track_id))
    person[hole] = np.nan
    rows = pd.DataFrame(joints.reshape(count, 51), columns=list(KEYPOINT_COLUMNS))
    rows = rows.assign(track_id=track_id, frame_index=stride * np.arange(count), time_s=time_s, person=person)
    rows["facing"] = np.where(np.isnan(person), None, "right")
    rows["pts"] = np.round(time_s * 1000).astype(int)
    swing = 180 - np.degrees(0.6 * (1 - np.cos(2 * np.pi * time_s)) / 2)
    for name in ANGLE_COLUMNS:
        rows[name] = swing if name.endswith("knee_deg") else np.nan
    hips = joints[:, 11:13, :2].mean(axis=1)
    return rows.assign(hip_x=hips[:, 0], hip_y=hips[:, 1], hip_height_torso=1.7, speed_torso_per_s=0.5)


def publish_motion(
    root: str | Path,
    path: str = "a.mp4",
    tracks: int = 2,
    time_s: np.ndarray | None = None,
    gap: slice = slice(4, 8),
    stride: int = 1,
    with_motion: bool = True,
    endpoint_url: str | None = None,
) -> VideoRecord:
    """Publish a video of 20 frames, by default at 25 frames per second, with walkers; track 1 has no gap."""
    time_s = np.arange(20) / 25 if time_s is None else time_s
    found = [motion_rows(track, time_s, stride, gap if track == 0 else slice(0, 0)) for track in range(tracks)]
    motion = pd.concat(found) if found else motion_rows(0, time_s[:0])
    motion = motion.sort_values(["frame_index", "track_id"], ignore_index=True).assign(video=path)
    frames = pd.DataFrame({"frame_index": stride * np.arange(len(time_s)), "time_s": time_s})
    frames = frames.assign(video=path, pts=0, is_keyframe=False, status="ok", time_status="ok", num_persons=tracks)
    tables = {
        POSES: (POSES_SCHEMA, _poses(motion)),
        FRAMES: (FRAMES_SCHEMA, frames),
        TRACKS: (TRACKS_SCHEMA, _tracks(path, found)),
        MOTION: (MOTION_SCHEMA, motion),
    }
    wanted = {kind: table for kind, table in tables.items() if with_motion or kind not in (TRACKS, MOTION)}
    return _publish(root, path, wanted, tracks, endpoint_url)


def _poses(motion: pd.DataFrame) -> pd.DataFrame:
    """What the networks found: joints beside the smoothed ones, of a larger person; nothing in gaps."""
    poses = motion[motion.person.notna()].copy()
    joints = [name for name in KEYPOINT_COLUMNS if not name.endswith("_score")]
    poses[joints] = 1.01 * poses[joints].fillna(5.0) + 0.25
    scores = [name for name in KEYPOINT_COLUMNS if name.endswith("_score")]
    poses[scores] = poses[scores].fillna(0.01)
    for name, column in zip(BBOX, ("nose_x", "nose_y", "left_ankle_x", "left_ankle_y"), strict=True):
        poses[name] = poses[column] + (20.125 if "2" in name else -20.125)
    return poses.assign(bbox_score=0.875, pose_score=0.8125)


def _tracks(path: str, found: list[pd.DataFrame]) -> pd.DataFrame:
    rows = [
        {
            **dict.fromkeys(TRACKS_SCHEMA.names, 0),
            **{"video": path, "track_id": track, "is_main": track == 0, "grade": "A", "grade_reason": "=1+1"},
            **{"first_frame": rows.frame_index.min(), "last_frame": rows.frame_index.max()},
            **{"jitter_torso": np.nan, "mean_pose_score": 0.8},
        }
        for track, rows in enumerate(found)
    ]
    return pd.DataFrame(rows, columns=TRACKS_SCHEMA.names)


def _publish(
    root: str | Path,
    path: str,
    tables: dict[Artifact, tuple[pa.Schema, pd.DataFrame]],
    tracks: int,
    endpoint_url: str | None,
) -> VideoRecord:
    store, objects = open_store(str(root), endpoint_url), []
    for artifact, (schema, table) in tables.items():
        arrow = pa.table([_column(table[field.name], field) for field in schema], schema=schema)
        stored = store.put(artifact.key(path), parquet_of(arrow))
        objects.append(PublishedObject(artifact.kind, artifact.key(path), len(table), stored.size_bytes, "f", "s"))
    info = VideoInfo("h264", "yuv420p", WIDTH, HEIGHT, 0, Fraction(1, 1000), 0, 1.0, 25.0, 20)
    record = VideoRecord(
        path, "etag", 10, 1.5, "ok", "fingerprint", "run-1", "0.1", info=info, tracks=tracks, objects=tuple(objects)
    )
    publish_record(store, path, record)
    return record


def _column(values: pd.Series, field: pa.Field) -> pa.Array:
    if pa.types.is_floating(field.type):
        return pa.array(values.to_numpy(np.float64), field.type, from_pandas=False)
    return pa.array(values.tolist(), from_pandas=True).cast(field.type)
