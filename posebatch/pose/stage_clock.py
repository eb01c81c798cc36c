"""Seconds that the networks take, by stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["detect_seconds", "pose_seconds"]


@dataclass
class StageClock:
    """Adds up the seconds of one call of `PoseEstimator.estimate`::

    clock = StageClock()
    frames = list(estimator.estimate(batches, clock))
    clock.detect_seconds, clock.pose_seconds
    """

    detect_seconds: float = 0.0
    """Seconds of uploading frames and detecting persons."""
    pose_seconds: float = 0.0
    """Seconds of cropping persons and estimating their keypoints."""

    def add(self, stage: Stage, seconds: float) -> None:
        """Add seconds to a stage."""
        if stage == "detect_seconds":
            self.detect_seconds += seconds
        else:
            self.pose_seconds += seconds
