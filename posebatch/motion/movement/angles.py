"""Joint and segment angles in the picture, with the names, zeros and signs of Sports2D.

Source: ``angle_dict``, ``points_to_angles`` and ``fixed_angles`` of Pose2Sim 0.10.49, which Sports2D 0.8.34 calls. As
there, x is mirrored for a person who faces left, so that a flexed knee is positive on either side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import KEYPOINT_NAMES, NUM_KEYPOINTS

Array = NDArray[np.float64]

NECK: Final = NUM_KEYPOINTS
"""Point after the joints: the middle of the shoulders."""
HIP: Final = NUM_KEYPOINTS + 1
"""Point after the joints: the middle of the hips."""

_PARTS: Final = {
    NECK: (KEYPOINT_NAMES.index("left_shoulder"), KEYPOINT_NAMES.index("right_shoulder")),
    HIP: (KEYPOINT_NAMES.index("left_hip"), KEYPOINT_NAMES.index("right_hip")),
}


@dataclass(frozen=True)
class Angle:
    """The directed angle between the vectors from ``u[0]`` to ``u[1]`` and from ``v[0]`` to ``v[1]``."""

    name: str
    u: tuple[int, int]
    """Points: joints, `NECK` or `HIP`."""
    v: tuple[int, int] | None
    """None is the horizontal, to where the person faces."""
    sign: int = 1
    """+1: anticlockwise from ``u`` to ``v`` as seen; for a person who faces right."""
    offset: float = 0.0
    """Degrees, added last."""
    period: float = 360.0
    """Degrees after which the angle repeats. It lies in ``-period / 2 <= angle < period / 2``."""

    @property
    def joints(self) -> tuple[int, ...]:
        """The joints that the angle depends on."""
        points = self.u + (self.v or ())
        return tuple(sorted({joint for point in points for joint in _PARTS.get(point, (point,))}))


def _of_side(side: str) -> tuple[Angle, ...]:
    shoulder, elbow, wrist, hip, knee, ankle = (
        KEYPOINT_NAMES.index(f"{side}_{part}") for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    )
    return (
        Angle(f"{side}_knee", (knee, ankle), (knee, hip), 1, -180.0),
        Angle(f"{side}_elbow", (elbow, wrist), (elbow, shoulder), -1, 180.0),
        Angle(f"{side}_hip", (knee, hip), (HIP, NECK), -1),
        Angle(f"{side}_shoulder", (elbow, shoulder), (HIP, NECK), -1),
        Angle(f"{side}_thigh", (hip, knee), None),
        Angle(f"{side}_shank", (knee, ankle), None),
        Angle(f"{side}_upper_arm", (shoulder, elbow), None),
        Angle(f"{side}_forearm", (elbow, wrist), None),
    )


ANGLES: Final[tuple[Angle, ...]] = (
    *_of_side("left"),
    *_of_side("right"),
    Angle("trunk", (HIP, NECK), None),
    Angle("pelvis", (_PARTS[HIP][1], _PARTS[HIP][0]), None, period=180.0),
    Angle("shoulders", (_PARTS[NECK][1], _PARTS[NECK][0]), None, period=180.0),
)

ANGLE_NAMES: Final[tuple[str, ...]] = tuple(angle.name for angle in ANGLES)
"""In the order of the columns of `posebatch.motion.movement.motion_block.MotionBlock`."""

PERIODS: Final[Array] = np.array([angle.period for angle in ANGLES])
"""(A,) degrees after which each angle repeats."""

MIRROR: Final[Array] = np.array([180.0 if angle.v is None else 0.0 for angle in ANGLES])
"""(A,) degrees: a mirrored picture shows ``MIRROR - angle``."""


def body_angles(xy: NDArray[np.floating[Any]], facing: NDArray[np.floating[Any]]) -> Array:
    """Angles (n, A) in degrees of joints (n, 17, 2) in pixels, y down; NaN where a joint is NaN.

    ``facing`` (n,) is +1 where the person faces right in the picture and -1 where it faces left.
    """
    points: list[NDArray[np.floating[Any]]] = [xy[:, joint] for joint in range(NUM_KEYPOINTS)]
    points += [(xy[:, left] + xy[:, right]) / 2 for left, right in _PARTS.values()]
    angles = np.stack([_angle(angle, points, facing) for angle in ANGLES], axis=1)
    half = PERIODS / 2
    wrapped: Array = (angles + half) % PERIODS - half
    return wrapped


def _angle(angle: Angle, points: list[NDArray[np.floating[Any]]], facing: NDArray[np.floating[Any]]) -> Array:
    u = points[angle.u[1]] - points[angle.u[0]]
    if angle.v is None:
        upright: Array = np.degrees(np.arctan2(-u[:, 1], u[:, 0] * facing))
        return upright
    v = points[angle.v[1]] - points[angle.v[0]]
    cross = (u[:, 1] * v[:, 0] - u[:, 0] * v[:, 1]) * facing
    turn: Array = np.degrees(np.arctan2(cross, (u * v).sum(axis=1)))
    return angle.sign * turn + angle.offset
