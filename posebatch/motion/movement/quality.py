"""What a track is worth: the row of a track in the table ``tracks``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.motion.movement.grades import Measures, grade


@dataclass(frozen=True)
class TrackSummary:
    """One track of a video. Times are those of its first and last row; NaN is a value that is not known."""

    track_id: int
    first_frame: int
    """``frame_index``."""
    last_frame: int
    start_s: float
    end_s: float
    frames_seen: int
    """Processed frames with a row of this track."""
    frames_gap: int
    """Processed frames between the first and the last without one."""
    mean_pose_score: float
    median_height_px: float
    """Of the box."""
    torso_px: float
    """Median length from the middle of the shoulders to the middle of the hips."""
    joint_seen: tuple[float, ...]
    """(17,) share of its frames, gaps included, in which each joint scores above the threshold."""
    side_view: float
    """Share of its frames, gaps included, that show the person from the side, so that angles are those of the body."""
    jitter_torso: float
    """Median distance of measured from smoothed joints, in torso lengths; NaN where nothing was filtered."""
    bone_length_cv_worst: float
    """Standard deviation over mean of the length in torso lengths, of the bone of arms and legs that varies most."""
    bone_length_cv_mean: float
    """The mean over these bones."""
    swap_suspects: int
    """Frames in which left and right of arms or legs seem exchanged."""
    jump_suspects: int
    """Steps from a frame to the next that are too long for a person."""
    is_main: bool
    """Whether the video is about this person."""
    grade: str
    """A to D."""
    grade_reason: str
    """The rules that it misses; empty for A."""

    def __post_init__(self) -> None:
        if len(self.joint_seen) != NUM_KEYPOINTS:
            raise ValueError(f"joint_seen must have {NUM_KEYPOINTS} values, got {len(self.joint_seen)}")


def graded(summary: TrackSummary) -> TrackSummary:
    """``summary`` with its grade by `posebatch.motion.movement.grades.RULES`."""
    frames = summary.frames_seen + summary.frames_gap
    measures = Measures(
        seconds=summary.end_s - summary.start_s,
        height_px=summary.median_height_px,
        gap_share=summary.frames_gap / frames,
        joints_seen=sum(summary.joint_seen[5:]) / len(summary.joint_seen[5:]),
        jitter_torso=summary.jitter_torso,
        bone_length_cv=summary.bone_length_cv_mean,
        suspect_share=(summary.swap_suspects + summary.jump_suspects) / frames,
    )
    letter, reason = grade(measures)
    return replace(summary, grade=letter, grade_reason=reason)


def video_grade(summaries: Sequence[TrackSummary]) -> str | None:
    """The grade of the main person, D without one, None without tracks."""
    if not summaries:
        return None
    return next((summary.grade for summary in summaries if summary.is_main), "D")
