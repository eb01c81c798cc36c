"""A video whose container lists no packets is cut by a scan of them; the cuts do not show in any frame."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.decoding import BY_GOP, EVERY_FRAME, OPEN_GOPS, VFR, Decoded, assert_same_frames, decode_segments, plan_of
from support.factories import corrupt_middle, truncate, video_bytes
from support.odd_videos import avi_with_not_coded_slots, coded_stream, matroska

from posebatch.core.errors import IndexDisagreesError, StagedError
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment
from posebatch.video.indexes.packet_index import NO_INDEX, PacketIndex
from posebatch.video.indexes.packet_scan import scan
from posebatch.video.limits import Limits

H264 = {"frames": 60, "b_frames": 2}
LATE = {"pts": tuple(range(50, 110)), "frames": 60}
NO_CUES = (("live", "1"),)
WRAP = (("output_ts_offset", "95442"),)
"""Seconds, 1.7 s before the clock of 33 bits begins anew."""

SCANNED: dict[str, dict[str, Any]] = {
    "MKV": {"container": "mkv", **H264},
    "MKV, open GOPs": {"container": "mkv", "frames": 60, **OPEN_GOPS},
    "MKV, no cues": {"container": "mkv", "muxer_options": NO_CUES, **H264},
    "MKV, HEVC": {"container": "mkv", "codec": "libx265", **H264},
    "MKV, HEVC, open GOPs": {"container": "mkv", "codec": "libx265", "frames": 60, **OPEN_GOPS},
    "MKV, variable rate": {"container": "mkv", **VFR},
    "MKV, a gap": {"container": "mkv", "pts": (*range(30), *range(80, 110)), **H264},
    "MKV, starts late": {"container": "mkv", **LATE},
    "MKV, sound": {"container": "mkv", "audio": True, **H264},
    "MKV, MPEG-4": {"container": "mkv", "codec": "mpeg4", **H264},
    "MKV, MPEG-2": {"container": "mkv", "codec": "mpeg2video", **H264},
    "MKV, only keyframes": {"container": "mkv", "codec": "mjpeg", "pixel_format": "yuvj420p"},
    "WebM, VP9": {"container": "webm", "codec": "libvpx-vp9", "frames": 60},
    "WebM, VP8": {"container": "webm", "codec": "libvpx", "frames": 60},
    "WebM, VP8, hidden frames": {
        "container": "webm",
        "codec": "libvpx",
        "frames": 60,
        "options": (("auto-alt-ref", "1"), ("lag-in-frames", "12"), ("deadline", "good")),
    },
    "AVI, H.264": {"container": "avi", "frames": 60},
    "AVI, H.264, B-frames": {"container": "avi", **H264},
    "AVI, MPEG-4": {"container": "avi", "codec": "mpeg4", "frames": 60},
    "AVI, only keyframes": {"container": "avi", "codec": "mjpeg", "pixel_format": "yuvj420p"},
    "AVI, sound": {"container": "avi", "audio": True, "frames": 60},
    "TS": {"container": "mpegts", **H264},
    "TS, open GOPs": {"container": "mpegts", "frames": 60, **OPEN_GOPS},
    "TS, HEVC": {"container": "mpegts", "codec": "libx265", **H264},
    "TS, MPEG-2": {"container": "mpegts", "codec": "mpeg2video", **H264},
    "TS, sound": {"container": "mpegts", "audio": True, **H264},
    "TS, variable rate": {"container": "mpegts", **VFR},
    "TS, starts late": {"container": "mpegts", **LATE},
    "TS, clock wraps": {"container": "mpegts", "muxer_options": WRAP, **H264},
    "M2TS": {"container": "mpegts", "muxer_options": (("mpegts_m2ts_mode", "1"),), **H264},
    "fragmented": {"fragmented": True, **H264},
    "fragmented, open GOPs": {"fragmented": True, "frames": 60, **OPEN_GOPS},
    "fragmented, sound": {"fragmented": True, "audio": True, **H264},
    "fragmented, with sidx": {"muxer_options": (("movflags", "frag_keyframe+empty_moov+dash"),), **H264},
    "fragmented, starts late": {"fragmented": True, **LATE},
    "fragmented, moof by offset": {"muxer_options": (("movflags", "frag_keyframe+empty_moov"),), **H264},
}
"""Videos that a scan can cut."""


def scanned(video: bytes) -> PacketIndex:
    return scan(io.BytesIO(video), Limits("clip"))


def segments_of(video: bytes, seconds: float = BY_GOP) -> tuple[PacketIndex, tuple[Segment, ...]]:
    index = scanned(video)
    return index, index.segments(seconds / plan_of(video).info.time_base)


def decode_both(
    video: bytes, seconds: float = BY_GOP, sampling: SamplingSettings = EVERY_FRAME, **options: Any
) -> tuple[Decoded, Decoded]:
    """The video in segments of a scan, and in one sequential decode."""
    plan = plan_of(video)
    index, segments = segments_of(video, seconds)
    in_segments = decode_segments(video, plan, segments, sampling, index=index, **options)
    return in_segments, decode_segments(video, plan, (Segment(),), sampling, **options)


def assert_cut_does_not_show(parts: Decoded, whole: Decoded) -> None:
    assert_same_frames(parts, whole)
    [report] = whole.reports
    assert reduce(add, parts.reports) == report


# --- the law ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCANNED)
def test_scanned_video_has_the_same_frames_however_it_is_cut(name: str) -> None:
    video = video_bytes(**SCANNED[name])
    index, segments = segments_of(video)
    assert len(segments) >= 2
    assert index.segments(1 << 60) == (Segment(),)
    assert_cut_does_not_show(*decode_both(video))


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(SCANNED)),
    seconds=st.floats(0.04, 2.5),
    sampling=st.one_of(
        st.builds(SamplingSettings, stride=st.integers(1, 30)), st.builds(SamplingSettings, fps=st.floats(0.5, 60))
    ),
    group_frames=st.integers(1, 20),
    threads=st.integers(1, 3),
)
def test_scanned_video_is_sampled_the_same_however_it_is_cut(
    name: str, seconds: float, sampling: SamplingSettings, group_frames: int, threads: int
) -> None:
    video = video_bytes(**SCANNED[name])
    parts, whole = decode_both(video, seconds, sampling, threads=threads)
    assert_same_frames(parts, whole)
    index, segments = segments_of(video, seconds)
    plan, wanted = plan_of(video), {"group_frames": group_frames, "index": index}
    for segment in segments:
        led_in = decode_segments(video, plan, (segment,), sampling, **wanted)
        own = decode_segments(video, plan, (segment,), sampling, index=index)
        start = own.indices[0] - own.indices[0] % group_frames if own.indices else 0
        expected = [record for record in whole.records if start <= record.frame_index <= max(own.indices, default=-1)]
        assert led_in.records == expected
