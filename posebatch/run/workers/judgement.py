"""What the commit record of a published video says of its decoding: is it whole, how long is it, what is wrong."""

from __future__ import annotations

from posebatch.core.records import DecodeReport
from posebatch.core.videos import VideoInfo


def presented_frames(decode: DecodeReport) -> int:
    """Frames of the stream, damaged ones included."""
    return decode.frames_decoded + decode.frames_damaged


def problems_of(info: VideoInfo, decode: DecodeReport) -> list[str]:
    """Why a video is published as ``partial``; empty if it is ``ok``."""
    problems = []
    if decode.frames_damaged:
        problems.append(f"{decode.frames_damaged} frames are damaged; see the column status of its frames table")
    if info.missing_bytes:
        problems.append(f"the file is cut off: it lacks {info.missing_bytes} of the bytes that its header states")
    elif decode.ends_early:
        promised = f", {info.frames_in_header} promised by its header" if info.frames_in_header else ""
        problems.append(f"the file ends early: {decode.frames_decoded} frames decoded{promised}")
    if info.matrix_ignored:
        problems.append("its display matrix shears or zooms the picture, which was not done")
    return problems


def span_s(info: VideoInfo, decode: DecodeReport) -> float:
    """Seconds from the first to the last frame."""
    if decode.first_pts is None or decode.last_pts is None:
        return 0.0
    return float((decode.last_pts - decode.first_pts) * info.time_base)


def avg_fps(info: VideoInfo, decode: DecodeReport) -> float:
    """Frames per second between the first and the last frame; that of the header for a single frame."""
    seconds = span_s(info, decode)
    return (presented_frames(decode) - 1) / seconds if seconds else info.avg_fps


def duration_s(info: VideoInfo, decode: DecodeReport) -> float:
    """The duration in seconds: that of the header, but not where the header may come from a wrong timestamp."""
    seconds, presented = span_s(info, decode), presented_frames(decode)
    if decode.timestamps_repaired and presented > 1:
        return seconds * presented / (presented - 1)  # the last frame is shown as long as the others on average
    return info.duration_s or seconds


def is_vfr(decode: DecodeReport) -> bool | None:
    """Whether the frame rate varies: frame intervals differ by more than 2 ticks and 10 %.

    Smaller differences come from rounding to ticks. None with fewer than 3 frames, and with damaged frames.
    """
    if decode.min_interval is None or decode.max_interval is None or decode.frames_damaged:
        return None
    if presented_frames(decode) < 3:
        return None
    spread = decode.max_interval - decode.min_interval
    return spread > 2 and spread > 0.1 * decode.min_interval
