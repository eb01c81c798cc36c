"""Made-up people for tests of tracks: a standing figure that is moved over the picture, frame by frame."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from posebatch.motion.blocks import FrameBlock

SIZE_WH = (1280, 720)
STANDING = np.array(  # x and y of the joints in heights of the person, from the middle of the box
    [
        *((0, -0.43), (0.02, -0.45), (-0.02, -0.45), (0.04, -0.44), (-0.04, -0.44)),
        *((0.1, -0.31), (-0.1, -0.31), (0.14, -0.14), (-0.14, -0.14), (0.15, 0.01), (-0.15, 0.01)),
        *((0.07, 0.02), (-0.07, 0.02), (0.08, 0.25), (-0.08, 0.25), (0.08, 0.46), (-0.08, 0.46)),
    ]
)


@dataclass(frozen=True)
class Person:
    """Somebody who is seen in the frames in which ``place`` says where: the middle of the box, or None."""

    place: Callable[[float], tuple[float, float] | None]
    height: float = 200.0
    score: float = 0.9
    joint_score: float = 0.8
    width: float = 0.4


def scene(
    people: list[Person], seconds: float, fps: float = 25.0, noise: float = 0.01, seed: int = 0
) -> tuple[FrameBlock, np.ndarray]:
    """All frames of a scene as one block, and whose the rows are (n,). Noise is in heights of the person."""
    random = np.random.default_rng(seed)
    frames = round(seconds * fps)
    rows = []
    for frame in range(frames):
        seen = [(number, person.place(frame / fps)) for number, person in enumerate(people)]
        here = [(number, place) for number, place in seen if place is not None]
        random.shuffle(here)
        for rank, (number, place) in enumerate(here):
            person = people[number]
            size = np.array([person.width, 1.0]) * person.height / 2
            box = np.concatenate([place - size, place + size])
            box += random.normal(size=4) * noise * person.height
            joints = np.array(place) + STANDING * person.height
            joints += random.normal(size=joints.shape) * noise * person.height
            rows.append((frame, rank, number, box, person.score, joints, person.joint_score))
    times = np.arange(frames) / fps
    block = FrameBlock(
        frame_index=np.arange(frames),
        pts=np.arange(frames),
        time_s=times,
        frame=np.array([row[0] for row in rows], np.int64),
        person=np.array([row[1] for row in rows], np.int32),
        bbox_xyxy=np.array([row[3] for row in rows], np.float32).reshape(-1, 4),
        bbox_scores=np.array([row[4] for row in rows], np.float32),
        pose_scores=np.array([row[4] * row[6] for row in rows], np.float32),
        keypoints=np.array([np.column_stack([row[5], np.full(17, row[6])]) for row in rows], np.float32).reshape(
            -1, 17, 3
        ),
    )
    return block, np.array([row[2] for row in rows], np.int64)


def walking(
    start: tuple[float, float],
    speed: tuple[float, float],
    hidden: tuple[tuple[float, float], ...] = (),
    seen: tuple[float, float] = (0.0, np.inf),
) -> Callable[[float], tuple[float, float] | None]:
    """A straight way. Nobody is seen outside of ``seen``, nor within one of the times ``hidden``, seconds."""

    def place(time_s: float) -> tuple[float, float] | None:
        if not seen[0] <= time_s < seen[1] or any(first <= time_s < last for first, last in hidden):
            return None
        return start[0] + speed[0] * time_s, start[1] + speed[1] * time_s

    return place


def in_blocks(block: FrameBlock, ends: list[int]) -> list[FrameBlock]:
    """The same frames in several blocks, cut before the frames ``ends``, ascending."""
    bounds = [0, *ends, len(block.frame_index)]
    return [frames_of(block, np.arange(first, last)) for first, last in pairwise(bounds)]


def frames_of(block: FrameBlock, frames: np.ndarray) -> FrameBlock:
    """Some frames of a block, by position."""
    rows = np.isin(block.frame, frames)
    return FrameBlock(
        block.frame_index[frames],
        block.pts[frames],
        block.time_s[frames],
        np.searchsorted(frames, block.frame[rows]).astype(np.int64),
        block.person[rows],
        block.bbox_xyxy[rows],
        block.bbox_scores[rows],
        block.pose_scores[rows],
        block.keypoints[rows],
    )


def switches(track_ids: np.ndarray, who: np.ndarray) -> int:
    """How often a person's track changes. Rows without a track do not count."""
    total = 0
    for person in np.unique(who):
        tracks = track_ids[(who == person) & (track_ids >= 0)]
        total += int((np.diff(tracks) != 0).sum())
    return total
