"""Probe a video, and cut it into segments at the keyframes of its container's index."""

from __future__ import annotations

import contextlib
import math
from fractions import Fraction
from itertools import chain, islice
from typing import IO, Final

import av
import av.error
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from posebatch.core.errors import DamagedVideoError
from posebatch.core.execution_settings import LimitSettings
from posebatch.core.videos import Segment, VideoInfo, VideoPlan
from posebatch.video.container import INDEXED_FORMATS, UNTIMED_FORMATS, OpenVideo, keyframes, open_video
from posebatch.video.frame_images import orientation_of
from posebatch.video.indexes.packet_scan import is_scannable
from posebatch.video.limits import DEFAULT_LIMITS, Limits
from posebatch.video.packets import SegmentPackets

AV_TICK: Final = Fraction(1, av.time_base)
"""Seconds per tick of a container's own duration."""


MAX_ASPECT_RATIO: Final = 10
"""A more extreme shape of pixels is an error of the header."""


MIN_BYTES_PER_SECOND: Final = 500
"""A video of fewer bytes a second has a wrong duration. Stills of 320x240 take more."""


MAX_PROBE_PACKETS: Final = 1000
"""Packets in which the probe looks for a first frame that can be decoded."""


SCANNED_SEGMENTS: Final = 2
"""Lengths of a segment from which on a video without an index is scanned, which reads the whole file."""


def probe(
    file: IO[bytes],
    name: str,
    segment_seconds: float,
    limits: LimitSettings = DEFAULT_LIMITS,
    video_track: str = "default",
) -> VideoPlan:
    """Read a video's header and first frame, and cut it at keyframes into segments of about ``segment_seconds``.

    Reads only the header and the first frames. Raises `NotAVideoError`, `NoVideoStreamError`, `LimitError` or
    `DamagedVideoError`, with ``name`` in the message::

        with open("clip.mp4", "rb") as file:
            plan = probe(file, "clip.mp4", segment_seconds=60)
    """
    with open_video(file, Limits(name, limits), video_track=video_track) as video:
        stream, tick = video.stream, video.time_base
        duration_s = _duration_in_header(video)
        segments = _segments(video, segment_seconds)
        frame = _first_frame(video)
        orientation, matrix_fits = orientation_of(frame)
        aspect_ratio = _sample_aspect_ratio(stream)
        width, height = max(1, round(frame.width * aspect_ratio)), frame.height
        video.limits.check_picture(width, height)
        if orientation.transposed:
            width, height = height, width
        rate = stream.average_rate
        info = VideoInfo(
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=frame.format.name,
            width=width,
            height=height,
            rotation=orientation.rotation,
            time_base=tick,
            start_pts=0 if video.format in UNTIMED_FORMATS else (frame.pts or 0),
            duration_s=duration_s,
            avg_fps=float(rate) if rate else 0.0,
            frames_in_header=stream.frames,
            mirrored=orientation.is_mirrored,
            sample_aspect_ratio=aspect_ratio,
            coded_width=frame.width,
            coded_height=frame.height,
            track=stream.index,
            tracks_in_file=tuple(map(str, video.tracks)),
            matrix_ignored=not matrix_fits,
            missing_bytes=video.missing_bytes,
        )
        is_long = duration_s == 0 or duration_s > SCANNED_SEGMENTS * segment_seconds
        is_cut = len(segments) > 1 or math.isinf(segment_seconds)
        return VideoPlan(
            info, segments, needs_scan=is_long and not is_cut and not video.lists_packets and is_scannable(video)
        )


def lead_in_candidates(
    file: IO[bytes], limits: Limits, segment: Segment, frame_index: int, video_track: str = "default"
) -> list[Segment]:
    """Segments that end at ``segment`` and may contain frame ``frame_index``: one per earlier keyframe, nearest first.

    The last one begins at the beginning of the video.
    """
    with open_video(file, limits, video_track=video_track) as video:
        starts = [(first, dts) for first, dts in keyframes(video.stream.index_entries) if first <= frame_index]
    return [
        Segment(segment.index, first, segment.first_packet - first, dts if first else None, segment.start_dts)
        for first, dts in reversed(starts)
        if first < segment.first_packet
    ]


def _sample_aspect_ratio(stream: VideoStream) -> Fraction:
    """Width of a stored pixel relative to its height; 1 where the stream states none, or nonsense."""
    stated = stream.sample_aspect_ratio
    return stated if stated and 1 / MAX_ASPECT_RATIO <= stated <= MAX_ASPECT_RATIO else Fraction(1)


def _duration_in_header(video: OpenVideo) -> float:
    """The video's duration by its header, seconds; 0 without one. Raises `LimitError` for one beyond the limits.

    A container without an index takes its duration from its timestamps, of which one may be wrong. So a duration that
    the size of the file cannot fill counts as unknown.
    """
    stream, tick = video.stream, video.time_base
    duration, tick = (stream.duration, tick) if stream.duration else (video.container.duration or 0, AV_TICK)
    video.limits.check_frames(stream.frames)
    if video.format not in INDEXED_FORMATS and video.container.size < MIN_BYTES_PER_SECOND * duration * tick:
        return 0.0
    video.limits.check_time(duration, tick)
    return max(0.0, float(duration * tick))


def _segments(video: OpenVideo, segment_seconds: float) -> tuple[Segment, ...]:
    """Segments of about ``segment_seconds`` from keyframe to keyframe; a single one without a complete index."""
    if not video.lists_packets:
        return (Segment(),)
    entries = video.stream.index_entries
    step = segment_seconds / video.time_base
    starts: list[tuple[int, int]] = []
    for first_packet, dts in keyframes(entries):
        if not starts or dts >= starts[-1][1] + step:
            starts.append((first_packet, dts))
            video.limits.check_time(dts, video.time_base, since=starts[0][1])
    ends = [*starts[1:], (sum(not entry.is_discard for entry in entries), None)]
    return tuple(
        Segment(i, first_packet, end_packet - first_packet, dts if i else None, end_dts)
        for i, ((first_packet, dts), (end_packet, end_dts)) in enumerate(zip(starts, ends, strict=True))
    )


def _first_frame(video: OpenVideo) -> VideoFrame:
    stream = video.stream
    stream.codec_context.thread_count = 1
    for packet in chain(islice(SegmentPackets(video, Segment()), MAX_PROBE_PACKETS), [None]):
        with contextlib.suppress(av.error.FFmpegError):
            for frame in video.decode(packet):
                return frame
    video.limits.check_picture(stream.width, stream.height)
    raise DamagedVideoError(
        f"{video.name}: no frame can be decoded; the video stream ({stream.codec_context.name}) is damaged"
    )
