"""Probe a video, and cut it into segments at the keyframes of its container's index."""

from __future__ import annotations

import contextlib
from typing import IO, Final

import av
import av.container
import av.error
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from posebatch.errors import DamagedVideoError
from posebatch.types import Segment, VideoInfo, VideoPlan
from posebatch.video.container import INDEXED_FORMATS, UNTIMED_FORMATS, format_name, open_video, starts, time_base
from posebatch.video.packets import SegmentPackets
from posebatch.video.rgb import quarter_turns

MAX_PROBE_PACKETS: Final = 1000
"""How far the probe looks for a first frame that can be decoded."""


def probe(file: IO[bytes], name: str, segment_seconds: float) -> VideoPlan:
    """Read a video's header and first frame, and cut it at keyframes into pieces of about ``segment_seconds``.

    Reads the header and the first frames, not the whole file. Raises `NotAVideoError`, `NoVideoStreamError`,
    `DamagedVideoError`; ``name`` stands in their messages.
    """
    with open_video(file, name) as (container, stream):
        segments = _cut(container, stream, segment_seconds)
        frame = _first_frame(container, stream, name)
        rotation = -quarter_turns(frame) % 4 * 90
        width, height = (frame.width, frame.height)[:: -1 if rotation in (90, 270) else 1]
        rate, duration, tick = stream.average_rate, stream.duration, time_base(stream)
        duration_s = float(duration * tick) if duration else (container.duration or 0) / av.time_base
        info = VideoInfo(
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=frame.format.name,
            width=width,
            height=height,
            rotation=rotation,
            time_base=tick,
            start_pts=0 if format_name(container) in UNTIMED_FORMATS else (frame.pts or 0),
            duration_s=duration_s,
            avg_fps=float(rate) if rate else 0.0,
            frames_in_header=stream.frames,
        )
        return VideoPlan(info, segments)


def stretches_before(file: IO[bytes], name: str, segment: Segment, frame_index: int) -> list[Segment]:
    """What may hold a frame and lead up to a segment behind it: from each keyframe that can come before it, the last
    one first, and from the beginning.
    """
    with open_video(file, name) as (_, stream):
        keyframes = [(first, dts) for first, dts in starts(stream.index_entries) if first <= frame_index]
    return [
        Segment(segment.index, first, segment.first_packet - first, dts if first else None, segment.start_dts)
        for first, dts in reversed(keyframes)
        if first < segment.first_packet
    ]


def _cut(container: av.container.InputContainer, stream: VideoStream, segment_seconds: float) -> tuple[Segment, ...]:
    """Segments of about ``segment_seconds`` that start on keyframes of the container's index."""
    entries = stream.index_entries
    if format_name(container) not in INDEXED_FORMATS or len(entries) != stream.frames or not len(entries):
        return (Segment(),)
    step = segment_seconds / time_base(stream)
    begins: list[tuple[int, int]] = []
    for first, dts in starts(entries):
        if not begins or dts >= begins[-1][1] + step:
            begins.append((first, dts))
    ends = [*begins[1:], (sum(not entry.is_discard for entry in entries), None)]
    return tuple(
        Segment(i, first, end - first, dts if i else None, end_dts)
        for i, ((first, dts), (end, end_dts)) in enumerate(zip(begins, ends, strict=True))
    )


def _first_frame(container: av.container.InputContainer, stream: VideoStream, name: str) -> VideoFrame:
    stream.codec_context.thread_count = 1
    for packets, packet in enumerate(SegmentPackets(container, stream, Segment(), name)):
        with contextlib.suppress(av.error.FFmpegError):
            for frame in stream.codec_context.decode(packet):
                return frame
        if packets > MAX_PROBE_PACKETS:
            break
    with contextlib.suppress(av.error.FFmpegError):
        for frame in stream.codec_context.decode(None):
            return frame
    raise DamagedVideoError(
        f"{name}: no frame can be decoded; the video stream ({stream.codec_context.name}) is damaged"
    )
