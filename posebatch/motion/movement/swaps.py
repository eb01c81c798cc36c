"""Left and right taken for each other, and persons that jump: suspects, found from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import FLIP_ORDER, KEYPOINT_NAMES, NUM_KEYPOINTS

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

LONGEST_SWAP_S: Final = 1.0
"""Two exchanges within this time are the begin and the end of a swap."""
LEAST_STEP_TORSO: Final = 0.15
"""The joints of arms or legs move at least this far on average where an exchange is suspected."""
BETTER: Final = 0.5
"""And exchanged they move at most this share of it."""
JUMP_TORSO: Final = 0.5
"""A jump of a whole person is at least this long, in torso lengths,"""
JUMP_TORSO_PER_S: Final = 25.0
"""and at least this fast: about 12 m/s."""
_LEAST_JOINTS: Final = 4

_ARMS: Final = ("shoulder", "elbow", "wrist")
_LEGS: Final = ("hip", "knee", "ankle")
LIMBS: Final[tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]] = tuple(
    (
        np.array([KEYPOINT_NAMES.index(f"left_{part}") for part in parts]),
        np.array([KEYPOINT_NAMES.index(f"right_{part}") for part in parts]),
    )
    for parts in (_ARMS, _LEGS)
)
"""Left and right joints of the arms, and of the legs."""
_HEAD: Final = np.arange(KEYPOINT_NAMES.index("left_shoulder"))


@dataclass(frozen=True)
class Swaps:
    """Suspected exchanges of left and right in the arms and in the legs."""

    exchanges: Flags
    """(m, 2) rows from which on left and right seem exchanged against the row before."""
    swapped: Flags
    """(m, 2) rows between two exchanges that lie close together, and rows of an exchange that stays alone."""
    repairable: Flags
    """(m, 2) the rows between two exchanges."""


def find_swaps(time_s: Array, track: NDArray[np.int64], xy: Array, torso: Array) -> Swaps:
    """Find swaps in joints (m, 17, 2) of rows that are ordered by ``track`` (m,) and ``time_s`` (m,).

    A row is compared with the position in the row before, and with the position that the two rows before lead to:
    legs that cross in a side view are no exchange. Where arms are exchanged, legs that are just crossing count as
    exchanged too if they fit better so, and the reverse.
    """
    exchanges = _exchanges(xy, torso)
    repairable = np.zeros_like(exchanges)
    swapped = exchanges.copy()
    for limb in range(len(LIMBS)):
        rows = np.flatnonzero(exchanges[:, limb]).tolist()
        while rows:
            first, *rows = rows
            if rows and track[first] == track[rows[0]] and time_s[rows[0]] - time_s[first] <= LONGEST_SWAP_S:
                repairable[first : rows[0], limb] = True
                swapped[rows[0], limb] = False
                rows = rows[1:]
    swapped[repairable] = True
    return Swaps(exchanges, swapped, repairable)


def exchanged_joints(limbs: Flags) -> Flags:
    """The joints (m, 17) that an exchange of arms and legs (m, 2) concerns: the head where both are exchanged."""
    joints = np.zeros((len(limbs), NUM_KEYPOINTS), np.bool_)
    for limb, sides in enumerate(LIMBS):
        joints[:, np.concatenate(sides)] = limbs[:, [limb]]
    joints[:, _HEAD] = limbs.all(axis=1, keepdims=True)
    return joints


def repaired(keypoints: Array, swaps: Swaps) -> Array:
    """Keypoints (m, 17, 3) with left and right exchanged where they are found swapped."""
    joints = exchanged_joints(swaps.repairable)
    result: Array = np.where(joints[..., None], keypoints[:, FLIP_ORDER], keypoints)
    return result


def find_jumps(time_s: Array, xy: Array, torso: Array) -> Flags:
    """Rows (m,) that lie too far from the row before: the mean movement of the joints known in both counts."""
    steps = np.diff(xy, axis=0, prepend=np.nan)
    known: Flags = ~np.isnan(steps[..., 0])
    count = known.sum(axis=1)
    moved = np.hypot(*(np.where(known[..., None], steps, 0).sum(axis=1) / np.maximum(count, 1)[:, None]).T)
    limit = np.maximum(JUMP_TORSO, JUMP_TORSO_PER_S * np.diff(time_s, prepend=np.nan)) * torso
    jumps: Flags = (count >= _LEAST_JOINTS) & (moved > limit)
    return jumps


def _exchanges(xy: Array, torso: Array) -> Flags:
    distances = np.array([_kept_and_swapped(xy, *limbs) for limbs in LIMBS])
    keep, swap = distances[:, 0].T, distances[:, 1].T  # (m, 2)
    better = swap < BETTER * keep
    sure = better & (keep > LEAST_STEP_TORSO * torso[:, None])
    found: Flags = sure | (better & sure[:, ::-1])
    return found


def _kept_and_swapped(xy: Array, left: NDArray[np.intp], right: NDArray[np.intp]) -> tuple[Array, Array]:
    """How far (m,) each the joints lie from where they are expected: as they are, and exchanged."""
    now = xy[:, left], xy[:, right]
    before = tuple(_shifted(side) for side in now)
    expected = tuple(2 * side - _shifted(side) for side in before)
    keep = np.fmin(_distance(now, before), _distance(now, expected))
    return keep, np.fmin(_distance(now, before[::-1]), _distance(now, expected[::-1]))


def _shifted(values: Array) -> Array:
    return np.concatenate([np.full((1, *values.shape[1:]), np.nan), values[:-1]])


def _distance(a: tuple[Array, ...], b: tuple[Any, ...]) -> Array:
    """Mean distance (m,) of the pairs of joints (m, k, 2) known in both; NaN below two pairs."""
    apart = (np.hypot(*np.moveaxis(a[0] - b[0], -1, 0)) + np.hypot(*np.moveaxis(a[1] - b[1], -1, 0))) / 2
    known = ~np.isnan(apart)
    count = known.sum(axis=1)
    mean = np.where(known, apart, 0).sum(axis=1) / np.maximum(count, 1)
    distance: Array = np.where(count >= 2, mean, np.nan)
    return distance
