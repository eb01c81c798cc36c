"""The progress of a run in words."""

from __future__ import annotations

from typing import Final

from posebatch.core.records import VideoRecord
from posebatch.core.wording import counted
from posebatch.run.speed import SpeedMeter
from posebatch.run.tally import Tally

ESTIMATE_AFTER_S: Final = 60.0
"""Seconds of work before the time left is stated. The first videos say little about the others."""

ESTIMATE_AFTER_SHARE: Final = 0.1
"""Share of the work after which it is stated earlier, in short runs."""


def describe(tally: Tally, elapsed_s: float, speed: SpeedMeter, stage: str = "") -> str:
    """One line: videos done, failures, and the stage or, once there are frames, their rate and the time left.

    Rate and time left are of the steady state.
    """
    return " | ".join([videos_text(tally), *work_parts(tally, elapsed_s, speed, stage)])


def videos_text(tally: Tally) -> str:
    """Videos done of all, and those among them that failed or were derived."""
    text = f"{tally.videos_done}/{counted(tally.videos_total, 'video')}"
    if tally.failed:
        text += f", {tally.failed} failed"
    if tally.derived:
        text += f", {tally.derived} derived"
    return text


def work_parts(tally: Tally, elapsed_s: float, speed: SpeedMeter, stage: str = "") -> list[str]:
    """Frames and their rate, seconds of video, and the stage or the time: left, or in all. Empty if nothing is known.

    ``stage`` names what the run does before it has frames.
    """
    parts = []
    if tally.frames:
        rate = "" if speed.frames_per_second is None else f", {speed.frames_per_second:.1f} frames/s"
        parts += [f"{counted(tally.frames, 'frame')}{rate}", f"{duration_text(tally.video_seconds)} of video"]
    left_s = seconds_left(tally, speed)
    if stage:
        parts.append(stage)
    elif tally.videos_done >= tally.videos_total:
        start = "" if speed.start_s is None else f", {duration_text(speed.start_s)} of it to start"
        parts.append(f"{duration_text(elapsed_s)} in all{start}")
    elif left_s is not None:
        parts.append(f"about {duration_text(left_s)} left")
    return parts


def seconds_left(tally: Tally, speed: SpeedMeter) -> float | None:
    """Seconds that the rest takes in the steady state; None while too little is done to tell."""
    if speed.steady_s is None or tally.bytes_done <= 0:
        return None
    remaining = max(0.0, tally.bytes_total - tally.bytes_passed - tally.bytes_done)
    share = tally.bytes_done / (tally.bytes_done + remaining)
    if speed.worked_s < ESTIMATE_AFTER_S and share < ESTIMATE_AFTER_SHARE:
        return None
    return speed.steady_s * remaining / tally.bytes_done


def published_text(record: VideoRecord) -> str:
    """A video that was published: the end of its address, and what is in the tables."""
    path = "/".join(record.video.split("/")[-2:])
    partial = ", partial" if record.status == "partial" else ""
    return f"{path}: {counted(record.frames_processed, 'frame')}, {counted(record.persons, 'person')}{partial}"


def complaint(video: str, reason: str) -> str:
    """What is wrong with a video, and its address, unless the reason states that."""
    return reason if video in reason else f"{video}: {reason}"


def duration_text(seconds: float) -> str:
    """A duration as text: ``42 s``, ``3 min 05 s``, ``7 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
