"""Which way a person faces in the picture: right or left."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import KEYPOINT_NAMES

Array = NDArray[np.float64]

HALF_WINDOW_S: Final = 0.5
"""Evidence is averaged over this time on both sides."""
SURE: Final = 0.5
"""Mean evidence, of 1 in a clear side view, from which on a side is believed. Below, the side before stays."""
FRONTAL: Final = 0.5
"""Shoulders that are this far apart, in torso lengths, are seen from the front or from behind: no evidence."""
STRAIGHT: Final = 0.1
"""Sine of the flexion up to which a knee is straight, 6 degrees: it tells no side."""
HEAD_TORSO: Final = 0.23
"""The nose lies this far before the ears in a side view, in torso lengths."""

_NOSE, _EARS = KEYPOINT_NAMES.index("nose"), [KEYPOINT_NAMES.index(f"{side}_ear") for side in ("left", "right")]
_SHOULDERS: Final = [KEYPOINT_NAMES.index(f"{side}_shoulder") for side in ("left", "right")]
_HIPS: Final = [KEYPOINT_NAMES.index(f"{side}_hip") for side in ("left", "right")]
_LEGS: Final = [
    [KEYPOINT_NAMES.index(f"{side}_{part}") for part in ("hip", "knee", "ankle")] for side in ("left", "right")
]


def side_evidence(xy: Array, torso: Array) -> Array:
    """Evidence (m,) of joints (m, 17, 2), positive for a person who faces right; NaN where there is none.

    The nose lies before the ears, across the trunk, and a bent knee has the shank behind the thigh. Both hold for a
    person who lies or stands on the hands too: right is where a person would face who is turned upright.
    """
    up = _up(xy)
    ears = xy[:, _EARS]
    ears = np.where(np.isnan(ears), ears[:, ::-1], ears).mean(axis=1)
    head = _across(up, xy[:, _NOSE] - ears) / (HEAD_TORSO * torso)
    knees = np.stack([_knee_bend(xy, leg) for leg in _LEGS], axis=1)
    knees = np.where(np.abs(knees) < STRAIGHT, np.nan, knees)
    evidence = np.column_stack([head.clip(-1, 1), 2 * knees.clip(-0.5, 0.5)])
    known = ~np.isnan(evidence)
    mean = np.where(known, evidence, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    apart = np.abs(_across(up, xy[:, _SHOULDERS[1]] - xy[:, _SHOULDERS[0]])) / torso
    result: Array = np.where(known.any(axis=1) & ~(apart > FRONTAL), mean, np.nan)
    return result


class Facing(NamedTuple):
    """Which way the person of each row faces."""

    side: Array
    """(m,) +1 right, -1 left: the last side that was sure."""
    is_side_view: NDArray[np.bool_]
    """(m,) whether this row and those around it show the side. Elsewhere angles are those of the picture alone."""


def facing(evidence: Array, begins: NDArray[np.int64], ends: NDArray[np.int64], half: int, before: Array) -> Facing:
    """Which way each row faces. Rows of a track lie from ``begins`` to ``ends`` (k,).

    ``half`` rows on both sides are averaged. The last sure side counts; at first ``before`` (k,), and where that is 0
    the first sure side; where nothing is sure, right (as in Sports2D). A row is a side view if it has evidence itself
    and its side is sure.
    """
    sides, is_side_view = np.ones(len(evidence)), np.zeros(len(evidence), bool)
    known = ~np.isnan(evidence)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, evidence, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    for begin, end, side in zip(begins.tolist(), ends.tolist(), before.tolist(), strict=True):
        rows = np.arange(begin, end)
        low, high = np.maximum(rows - half, begin), np.minimum(rows + half + 1, end)
        mean = (sums[high] - sums[low]) / np.maximum(counts[high] - counts[low], 1)
        sure = np.abs(mean) > SURE
        last = np.maximum.accumulate(np.where(sure, np.arange(len(rows)), -1))
        first = side or (np.sign(mean[np.argmax(sure)]) if sure.any() else 1.0)
        sides[begin:end] = np.where(last >= 0, np.sign(mean[last]), first)
        is_side_view[begin:end] = sure & known[begin:end]
    return Facing(sides, is_side_view)


def _up(xy: Array) -> Array:
    """Unit vectors (m, 2) along the trunk from the hips to the shoulders; upright where the trunk is not known."""
    trunk = (xy[:, _SHOULDERS] - xy[:, _HIPS]).mean(axis=1)
    length = np.hypot(*trunk.T)[:, None]
    up: Array = np.where(length > 0, trunk / np.where(length > 0, length, 1), [0.0, -1.0])
    return up


def _across(up: Array, vector: Array) -> Array:
    """The part (m,) of vectors (m, 2) that lies to the right of ``up``."""
    part: Array = up[:, 0] * vector[:, 1] - up[:, 1] * vector[:, 0]
    return part


def _knee_bend(xy: Array, leg: list[int]) -> Array:
    """Sine of the flexion of a knee, positive for a person who faces right."""
    hip, knee, ankle = (xy[:, joint] for joint in leg)
    thigh, shank = knee - hip, ankle - knee
    cross = thigh[:, 0] * shank[:, 1] - thigh[:, 1] * shank[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        bend: Array = cross / (np.hypot(*thigh.T) * np.hypot(*shank.T))
    return bend
