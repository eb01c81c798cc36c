"""How well the tracks and the knee angles of the demo's walkers are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.demo.sample import MATCH_DISTANCE, SampleTruth, TruePerson

if TYPE_CHECKING:
    import pandas as pd

SIDES: Final = ("left", "right")


_LEGS: Final = tuple(
    tuple(KEYPOINT_NAMES.index(f"{side}_{joint}") for joint in ("hip", "knee", "ankle")) for side in SIDES
)


@dataclass(frozen=True)
class WalkerMovement:
    """One walker against the table ``motion``."""

    name: str
    tracks: tuple[int, ...]
    """Tracks that follow the walker, the one of most frames first."""
    frames: int
    """Frames in which a track follows the walker."""
    knee_error_deg: float
    """Median error of the knee angles, degrees, where all joints of the leg are visible; nan without one."""


def walker_movements(truth: SampleTruth, motion: pd.DataFrame) -> tuple[WalkerMovement, ...]:
    """Compare the walkers of the sample with a table ``motion`` of it."""
    names = sorted({person.name for shown in truth.frames for person in shown if person.name.endswith("walker")})
    joints = _joints(motion)
    return tuple(_movement(name, truth, motion, joints) for name in names)


def _movement(name: str, truth: SampleTruth, motion: pd.DataFrame, joints: NDArray[np.float64]) -> WalkerMovement:
    followed: Counter[int] = Counter()
    errors: list[float] = []
    for person, row in _followed(name, truth, motion, joints):
        followed[int(motion.track_id.iloc[row])] += 1
        for side, leg in zip(SIDES, _LEGS, strict=True):
            error = float(motion[f"{side}_knee_deg"].iloc[row]) - _bent(person.joints[list(leg)])
            errors += [abs(error)] if np.isfinite(error) else []
    tracks = tuple(track for track, _ in followed.most_common())
    return WalkerMovement(name, tracks, followed.total(), float(np.median(errors)) if errors else float("nan"))


def _followed(
    name: str, truth: SampleTruth, motion: pd.DataFrame, joints: NDArray[np.float64]
) -> Iterator[tuple[TruePerson, int]]:
    """The walker in each frame, and the nearest row of the table, if one is near."""
    rows_of_frame = motion.groupby("frame_index").indices
    for index, shown in enumerate(truth.frames):
        for person in shown:
            rows = rows_of_frame.get(index, ())
            if person.name != name or not len(rows):
                continue
            distances = np.linalg.norm(joints[rows] - person.joints, axis=2)
            means = np.nanmean(np.where(np.isnan(distances).all(axis=1)[:, None], np.inf, distances), axis=1)
            nearest = int(means.argmin())
            if means[nearest] < MATCH_DISTANCE * person.height:
                yield person, int(rows[nearest])


def _joints(motion: pd.DataFrame) -> NDArray[np.float64]:
    """(rows, 17, 2) x, y."""
    columns = [f"{joint}_{axis}" for joint in KEYPOINT_NAMES for axis in ("x", "y")]
    return motion[columns].to_numpy(np.float64).reshape(-1, len(KEYPOINT_NAMES), 2)


def _bent(leg: NDArray[np.float64]) -> float:
    """How far a knee is bent, degrees: 0 for a straight leg. ``leg``: (3, 2) hip, knee, ankle; nan if one is nan."""
    up, down = leg[0] - leg[1], leg[2] - leg[1]
    cosine = up @ down / (np.linalg.norm(up) * np.linalg.norm(down))
    return float(180 - np.degrees(np.arccos(np.clip(cosine, -1, 1))))
