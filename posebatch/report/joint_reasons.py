"""Why a joint is not drawn: a sentence from its score and its heatmap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import KEYPOINT_NAMES

RIVAL_DISTANCE: Final = 6.0
"""Pixels of the heatmap between two peaks that are two places: three standard deviations of the target Gaussian."""


RIVAL_SHARE: Final = 0.7
"""A second peak this high relative to the first one competes with it."""


FAINT: Final = 0.1
"""A peak below this is noise."""


@dataclass(frozen=True)
class JointVerdict:
    """Whether a joint is drawn, and why not."""

    name: str
    score: float
    threshold: float
    reason: str
    """A sentence; empty for a joint that is drawn."""

    @property
    def drawn(self) -> bool:
        """Whether its score is above the threshold."""
        return self.score > self.threshold


def judge_joints(
    keypoints: NDArray[np.float32],
    heatmaps: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    size_wh: tuple[int, int],
) -> tuple[JointVerdict, ...]:
    """The verdicts on the joints (17, 3) of one person, from their heatmaps (17, h, w) in a frame of ``size_wh``."""
    return tuple(
        JointVerdict(name, float(joint[2]), float(threshold), _reason(joint, heatmap, float(threshold), size_wh))
        for name, joint, heatmap, threshold in zip(KEYPOINT_NAMES, keypoints, heatmaps, thresholds, strict=True)
    )


def _reason(
    joint: NDArray[np.float32], heatmap: NDArray[np.float32], threshold: float, size_wh: tuple[int, int]
) -> str:
    x, y, score = (float(value) for value in joint)
    if score > threshold:
        return ""
    below = f"its score {score:.2f} is not above {threshold:.2f}"
    if not (-0.5 <= x < size_wh[0] - 0.5 and -0.5 <= y < size_wh[1] - 0.5):
        return f"{below}, and its place ({x:.0f}, {y:.0f}) lies outside the picture"
    peak, rival = float(heatmap.max()), _second_peak(heatmap)  # the score may be calibrated, so it is no peak
    if peak >= FAINT and rival >= RIVAL_SHARE * peak:
        return f"{below}: two places compete, the second peak has {rival / peak:.0%} of the first one"
    return f"{below}: the network sees no clear place for it"


def _second_peak(heatmap: NDArray[np.float32]) -> float:
    """The highest value of a heatmap (h, w) at least `RIVAL_DISTANCE` away from its maximum."""
    top_y, top_x = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    y, x = np.ogrid[: heatmap.shape[0], : heatmap.shape[1]]
    away = (y - top_y) ** 2 + (x - top_x) ** 2 >= RIVAL_DISTANCE**2
    return float(heatmap[away].max(initial=0.0))
