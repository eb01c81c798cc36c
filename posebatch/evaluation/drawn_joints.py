"""How many of the joints above a score are right: the base of `posebatch.report.drawing.DRAWING_THRESHOLDS`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import FLIP_PAIRS, KEYPOINT_NAMES, NUM_KEYPOINTS
from posebatch.evaluation.joints import PCK_TORSO, torso_lengths

SCORES: Final = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
"""Thresholds to measure."""


@dataclass(frozen=True)
class DrawnJoints:
    """The joints of one kind that score more than a threshold, over labelled persons with a pose. Shares are 0..1."""

    joint: str
    """``wrist`` for both wrists, or ``all joints``."""
    score: float
    right: float
    """Share of right ones among those with a label."""
    kept: float
    """Share of the right joints of any score that score more."""


def drawn_joints(truth: NDArray[np.float64], estimate: NDArray[np.float64]) -> tuple[DrawnJoints, ...]:
    """Measure each kind of joint, then all joints together, at all of `SCORES`.

    ``truth`` (n, 17, 3): x, y, visibility. ``estimate`` (n, 17, 3): x, y, score; nan for a person without a pose. A
    joint is right within `PCK_TORSO`. Persons without a pose or without a labelled torso are left out.
    """
    labelled = truth[:, :, 2] > 0
    torso = torso_lengths(truth, labelled)
    known = ~np.isnan(torso) & ~np.isnan(estimate[:, 0, 0])
    distance = np.linalg.norm(estimate[:, :, :2] - truth[:, :, :2], axis=2)[known] / torso[known, None]
    labelled, scores = labelled[known], estimate[known, :, 2]
    right = labelled & (distance <= PCK_TORSO)
    return tuple(
        DrawnJoints(
            name,
            score,
            _share(right[:, joints] & drawn, labelled[:, joints] & drawn),
            _share(right[:, joints] & drawn, right[:, joints]),
        )
        for name, joints in _kinds().items()
        for score in SCORES
        for drawn in (scores[:, joints] > score,)
    )


def _kinds() -> dict[str, list[int]]:
    """Zero-based joints by name; left and right together."""
    pairs = {KEYPOINT_NAMES[left].removeprefix("left_"): [left, right] for left, right in FLIP_PAIRS}
    return {KEYPOINT_NAMES[0]: [0], **pairs, "all joints": list(range(NUM_KEYPOINTS))}


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else float("nan")
