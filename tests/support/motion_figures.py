"""Figures with known joints and angles, and their movement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posebatch.core.motion_settings import MotionSettings
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.motion.blocks import FrameBlock
from posebatch.motion.movement.motion_block import MotionBlock
from posebatch.motion.movement.quality import TrackSummary
from posebatch.motion.movement.series import Movement
from posebatch.motion.tracking.links import Links

Array = NDArray[np.float64]

TORSO = 100.0
"""Pixels."""
KPT_THR = 0.3


def side_view(
    frames: int,
    *,
    thigh: Any = (0.0, 0.0),
    knee: Any = (0.0, 0.0),
    arm: Any = (0.0, 0.0),
    elbow: Any = (0.0, 0.0),
    lean: Any = 0.0,
    hip_xy: Any = (500.0, 400.0),
) -> Array:
    """Joints (f, 17, 2) in pixels of a figure that faces right.

    Thighs and arms swing forward, knees and elbows bend, and the trunk leans forward by degrees: (f,) or a number;
    pairs are left and right.
    """
    points = np.zeros((frames, 17, 2))
    hip = np.broadcast_to(np.asarray(hip_xy, float), (frames, 2))
    up = _down(180.0 - np.broadcast_to(lean, frames), TORSO)
    for side, name in enumerate(("left", "right")):
        place = {part: KEYPOINT_NAMES.index(f"{name}_{part}") for part in ("hip", "knee", "ankle")}
        swing, bend = (np.broadcast_to(np.asarray(value[side], float), frames) for value in (thigh, knee))
        points[:, place["hip"]] = hip
        points[:, place["knee"]] = hip + _down(swing, 0.8 * TORSO)
        points[:, place["ankle"]] = points[:, place["knee"]] + _down(swing - bend, 0.8 * TORSO)
        place = {part: KEYPOINT_NAMES.index(f"{name}_{part}") for part in ("shoulder", "elbow", "wrist")}
        swing, bend = (np.broadcast_to(np.asarray(value[side], float), frames) for value in (arm, elbow))
        points[:, place["shoulder"]] = hip + up
        points[:, place["elbow"]] = hip + up + _down(swing, 0.6 * TORSO)
        points[:, place["wrist"]] = points[:, place["elbow"]] + _down(swing + bend, 0.5 * TORSO)
    points[:, :5] = (hip + 1.4 * up)[:, None] + np.array([[23.0, 5], [18, -3], [18, -3], [0, 0], [0, 0]])
    return points


def walking(frames: int, fps: float = 30.0, cycle_s: float = 1.1) -> Array:
    """A figure (f, 17, 2) that walks to the right, side view."""
    phase = 2 * np.pi * np.arange(frames) / fps / cycle_s
    legs = [phase, phase + np.pi]
    return side_view(
        frames,
        thigh=[25 * np.sin(leg) for leg in legs],
        knee=[25 - 20 * np.cos(leg) for leg in legs],
        arm=[-20 * np.sin(leg) for leg in legs],
        elbow=[20 - 10 * np.sin(leg) for leg in legs],
        hip_xy=np.column_stack([300 + np.arange(frames) * 200 / fps, np.full(frames, 400.0)]),
    )


def scored(xy: NDArray[Any], score: float = 0.8) -> NDArray[np.float32]:
    """Keypoints (f, 17, 3) of joints (f, 17, 2)."""
    return np.concatenate([xy, np.full((*xy.shape[:2], 1), score)], axis=2).astype(np.float32)


def frame_block(time_s: NDArray[Any], persons: Sequence[NDArray[np.float32] | None]) -> FrameBlock:
    """Frames at ``time_s`` with the keypoints (n, 17, 3) of the persons in each; None is nobody."""
    found = [np.zeros((0, 17, 3), np.float32) if person is None else person for person in persons]
    keypoints = np.concatenate(found)
    counts = [len(person) for person in found]
    boxes = np.concatenate([keypoints[..., :2].min(axis=1), keypoints[..., :2].max(axis=1)], axis=1)
    scores = np.full(len(keypoints), 0.9, np.float32)
    frames = np.arange(len(found))
    return FrameBlock(
        frame_index=frames,
        pts=np.round(np.asarray(time_s) * 90_000).astype(np.int64),
        time_s=np.asarray(time_s, float),
        frame=np.repeat(frames, counts),
        person=np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        bbox_xyxy=boxes,
        bbox_scores=scores,
        pose_scores=scores,
        keypoints=keypoints,
    )


def links_of(block: FrameBlock, track_ids: Iterable[int]) -> Links:
    """Links of the rows of a block."""
    ids = np.array([*track_ids], np.int32)
    rows = [np.flatnonzero(ids == track) for track in range(ids.max(initial=-1) + 1)]
    ends = np.array([block.frame_index[block.frame[row[[0, -1]]]] for row in rows], np.int64).reshape(-1, 2)
    return Links(ids, ends[:, 0].copy(), ends[:, 1].copy())


def movement(
    blocks: Sequence[FrameBlock], links: Links, settings: MotionSettings | None = None
) -> tuple[MotionBlock, tuple[TrackSummary, ...]]:
    """All rows, and the summaries."""
    series = Movement(links, settings or MotionSettings(), (1920, 1080), KPT_THR)
    rows = [row for block in blocks for row in series.add(block)] + list(series.finish())
    names = MotionBlock.__dataclass_fields__
    return MotionBlock(**{name: np.concatenate([getattr(row, name) for row in rows]) for name in names}), (
        series.summaries()
    )


def movement_of(
    keypoints: NDArray[np.float32], fps: float = 30.0, time_s: NDArray[Any] | None = None, **settings: Any
) -> tuple[MotionBlock, TrackSummary]:
    """The movement of one person (f, 17, 3), seen in each frame."""
    time = np.arange(len(keypoints)) / fps if time_s is None else time_s
    block = frame_block(time, [pose[None] for pose in keypoints])
    rows, summaries = movement([block], links_of(block, [0] * len(keypoints)), MotionSettings(**settings))
    return rows, summaries[0]


def _down(angle: Any, length: float) -> Array:
    """Vectors (f, 2) that hang down, swung forward by degrees."""
    radians = np.radians(angle)
    return length * np.stack([np.sin(radians), np.cos(radians)], axis=-1)
