"""Whether joint scores mean what they say: scores against the share of right joints, and the fit of a calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.evaluation.joints import torso_lengths

RIGHT_TORSO: Final = 0.1
"""A joint is right within this distance of its label, torso lengths."""


RELIABILITY_BINS: Final = 10
"""Bins of equal width between the scores 0 and 1."""


FIT_BINS: Final = 12
"""Most knots of a fit. Each covers an equal share of the joints, so that each rests on a hundred or more."""


@dataclass(frozen=True)
class ScoreBin:
    """The labelled joints whose score lies in one interval."""

    low: float
    """Least score; the interval ends at the next bin, the last one at infinity."""
    joints: int
    mean_score: float
    right: float
    """Share within `RIGHT_TORSO`, 0..1."""


@dataclass(frozen=True)
class ScoreReliability:
    """How well scores agree with the share of right joints."""

    bins: tuple[ScoreBin, ...]
    """Those that hold a joint."""
    calibration_error: float
    """Expected calibration error: mean distance of score and share of right joints over the bins, weighted by their
    joints (Naeini et al., AAAI 2015). nan without joints."""


def right_joints(
    truth: NDArray[np.float64], estimate: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores (m,) of all labelled joints of persons with a pose and a labelled torso, and which (m,) are right.

    ``truth`` (n, 17, 3): x, y, visibility. ``estimate`` (n, 17, 3): x, y, score; nan for a person without a pose.
    """
    labelled = truth[:, :, 2] > 0
    distance = np.linalg.norm(estimate[:, :, :2] - truth[:, :, :2], axis=2) / torso_lengths(truth, labelled)[:, None]
    measured = labelled & ~np.isnan(distance)
    return estimate[:, :, 2][measured], distance[measured] <= RIGHT_TORSO


def score_reliability(truth: NDArray[np.float64], estimate: NDArray[np.float64]) -> ScoreReliability:
    """Compare scores with labels; arguments as in `right_joints`."""
    scores, right = right_joints(truth, estimate)
    numbers = np.clip((scores * RELIABILITY_BINS).astype(int), 0, RELIABILITY_BINS - 1)
    parts = {number: numbers == number for number in sorted(set(numbers.tolist()))}
    bins = tuple(
        ScoreBin(number / RELIABILITY_BINS, int(part.sum()), float(scores[part].mean()), float(right[part].mean()))
        for number, part in parts.items()
    )
    weighted = sum(entry.joints * abs(entry.mean_score - entry.right) for entry in bins)
    return ScoreReliability(bins, weighted / len(scores) if len(scores) else float("nan"))


def fit_calibration(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Knots (score of the network, share of right joints) of a rising curve, from (0, 0) to (1, 1).

    Isotonic regression on `FIT_BINS` bins of equal counts: neighbours whose shares fall are merged (Zadrozny and Elkan,
    KDD 2002). Every bin becomes a knot at its mean score. A share of none or all is taken as one in a thousand less
    extreme, so the curve rises everywhere and the order of any two scores stays. Raises ``ValueError`` without joints.
    """
    if not len(scores):
        raise ValueError("no labelled joint to fit a calibration to")
    order = np.argsort(scores, kind="stable")
    merged: list[tuple[float, float, int]] = []  # sum of scores, right joints, joints
    for part in np.array_split(order, min(FIT_BINS, len(order))):
        merged.append((float(scores[part].sum()), float(right[part].sum()), len(part)))
        while len(merged) > 1 and merged[-2][1] * merged[-1][2] >= merged[-1][1] * merged[-2][2]:
            last, before = merged.pop(), merged.pop()
            merged.append((last[0] + before[0], last[1] + before[1], last[2] + before[2]))
    inner = [(round(total / count, 4), round(min(max(hits / count, 0.001), 0.999), 4)) for total, hits, count in merged]
    knots = [(0.0, 0.0)]
    for knot in [*inner, (1.0, 1.0)]:
        if all(value > before for value, before in zip(knot, knots[-1], strict=True)):
            knots.append(knot)
    return tuple(knots)
