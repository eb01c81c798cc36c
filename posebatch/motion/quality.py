"""What is known of each track (stand-in)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TrackSummary:
    """A row of the table ``tracks`` without its video."""

    track_id: int
    first_frame: int
    last_frame: int
    start_s: float
    end_s: float
    frames_seen: int
    frames_gap: int
    mean_pose_score: float
    median_height_px: float
    torso_px: float
    joint_seen: tuple[float, ...]
    jitter_torso: float
    bone_length_cv_worst: float
    bone_length_cv_mean: float
    swap_suspects: int
    jump_suspects: int
    is_main: bool
    grade: str
    grade_reason: str


def video_grade(summaries: Sequence[TrackSummary]) -> str | None:
    """The grade of the main person."""
    return next((summary.grade for summary in summaries if summary.is_main), None)
