"""A video whose container lists no packets is cut by a scan of them; the cuts do not show in any frame."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from hypothesis import given, settings
from hypothesis import strategies as st
from support.decoding import BY_GOP, EVERY_FRAME, OPEN_GOPS, VFR, Decoded, assert_same_frames, decode_segments, plan_of
from support.factories import corrupt_middle, truncate, video_bytes
from support.odd_videos import (
    coded_stream,
    matroska,
    with_changed_size,
)

from posebatch.core.errors import IndexDisagreesError, StagedError, VideoError
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment
from posebatch.video.frame_images import FrameFormat
from posebatch.video.indexes.packet_index import NO_INDEX, PacketIndex
from posebatch.video.indexes.packet_scan import scan
from posebatch.video.indexes.start_rules import reader_of, sets_in_header
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
    "MKV, open GOPs, references given up": {
        "container": "mkv",
        "frames": 60,
        "options": (("x264-params", "keyint=7:min-keyint=7:scenecut=0:bframes=3:b-adapt=0:ref=3:open-gop=1"),),
    },
    "MKV, variable rate": {"container": "mkv", **VFR},
    "MKV, a gap": {"container": "mkv", "pts": (*range(30), *range(80, 110)), **H264},
    "MKV, starts late": {"container": "mkv", **LATE},
    "MKV, sound": {"container": "mkv", "audio": True, **H264},
    "MKV, MPEG-2": {"container": "mkv", "codec": "mpeg2video", **H264},
    "MKV, only keyframes": {"container": "mkv", "codec": "mjpeg", "pixel_format": "yuvj420p"},
    "WebM, VP9": {"container": "webm", "codec": "libvpx-vp9", "frames": 60},
    "AVI, H.264": {"container": "avi", "frames": 60},
    "AVI, H.264, B-frames": {"container": "avi", **H264},
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


CODECS = {
    "libx264": ("mkv", "mpegts", "avi", "mp4"),
    "libx265": ("mkv", "mpegts", "mp4"),
    "mpeg2video": ("mkv", "mpegts"),
    "libvpx-vp9": ("mkv", "webm", "mp4"),
}


@st.composite
def videos(draw: st.DrawFn) -> bytes:
    """Videos of random GOPs, B-frames, rates and containers."""
    codec = draw(st.sampled_from(sorted(CODECS)))
    container = draw(st.sampled_from(CODECS[codec]))
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 1, 2, 3, 7]), min_size=12, max_size=40))
    is_steady = codec == "mpeg2video" or container == "avi" or draw(st.booleans())
    pts = tuple(np.cumsum([draw(st.integers(0, 500)), *(1 if is_steady else step for step in steps)]).tolist())
    return video_bytes(
        codec=codec,
        container=container,
        fragmented=container == "mp4",
        frames=len(pts),
        pts=pts,
        gop=draw(st.integers(1, 13)),
        b_frames=0 if codec == "libvpx-vp9" else draw(st.integers(0, 3)),
        open_gop=draw(st.booleans()),
        audio=draw(st.booleans()) and container != "webm",
        size=(64, 48),
    )


@settings(max_examples=40, deadline=None)
@given(video=videos(), seconds=st.floats(0.04, 1.0), stride=st.integers(1, 5))
def test_random_video_has_the_same_frames_however_it_is_cut(video: bytes, seconds: float, stride: int) -> None:
    parts, whole = decode_both(video, seconds, SamplingSettings(stride=stride))
    assert_cut_does_not_show(parts, whole)


# --- doubtful streams are one segment --------------------------------------------------------------------------------

STREAM = {"frames": 40, "gop": 10}
PLACES = (0, 10, 20, 30)


def shifted(by: dict[int, int]) -> bytes:
    """Matroska of H.264 with the times of some pictures moved, by number, milliseconds."""
    stream = coded_stream(**STREAM)
    times = [picture.pts + by.get(number, 0) for number, picture in enumerate(stream.pictures)]
    return matroska(stream.with_times(times))


def flagged(keyframes: Iterable[int]) -> bytes:
    """Matroska of H.264 whose flags name these pictures as keyframes; true are 0, 10, 20 and 30."""
    stream = coded_stream(**STREAM)
    chosen = set(keyframes)
    pictures = [replace(picture, is_keyframe=number in chosen) for number, picture in enumerate(stream.pictures)]
    return matroska(replace(stream, pictures=tuple(pictures)))


def joined(container: str, *parts: dict[str, Any]) -> bytes:
    """Files one after the other, as a recorder that was started again leaves them in an MPEG-TS."""
    return b"".join(video_bytes(container=container, **part) for part in parts)


def without_beginning(video: bytes) -> bytes:
    """A recording of a running broadcast: it begins within a GOP. The first three packets are the tables."""
    with av.open(io.BytesIO(video)) as container:
        second = [packet.pos for packet in container.demux(video=0) if packet.size][1]
    return video[: 3 * 188] + video[second:]


REFRESH = (("x264-params", "keyint=10:min-keyint=10:scenecut=0:bframes=0:intra-refresh=1"),)
SMALL_AND_LATER = {"frames": 40, "size": (64, 48), "pts": tuple(range(40, 80))}

DOUBTFUL: dict[str, Callable[[], bytes]] = {
    "no packet": lambda: matroska(replace(coded_stream(**STREAM), pictures=coded_stream(**STREAM).pictures[:1])),
    "one time an hour ahead": lambda: shifted({15: 3_600_000}),
    "a repeated time": lambda: shifted({15: -40}),
    "a clock set back": lambda: shifted(dict.fromkeys(range(25, 40), -900)),
    "first time wrong": lambda: shifted({0: 100_000}),
    "VP8": lambda: video_bytes(container="webm", codec="libvpx", frames=40),
    "AVI, MPEG-4": lambda: video_bytes(codec="mpeg4", container="avi", frames=40),
    "AVI, open GOPs": lambda: video_bytes(container="avi", frames=60, **OPEN_GOPS),
    "TS, begins within a GOP": lambda: without_beginning(video_bytes(container="mpegts", frames=60)),
    "TS, clock begins anew": lambda: joined("mpegts", {"frames": 40}, {"frames": 40, "first_number": 40}),
    "TS, another size": lambda: joined("mpegts", {"frames": 40}, SMALL_AND_LATER),
    "MKV, another size": lambda: matroska(with_changed_size()),
    "intra refresh": lambda: video_bytes(container="mkv", frames=60, options=REFRESH),
    "codec without rules": lambda: video_bytes(container="avi", codec="msmpeg4", frames=40),
    "one GOP": lambda: video_bytes(container="mkv", gop=60, frames=60),
    "truncated AVI": lambda: truncate(video_bytes(container="avi", frames=40), 0.71),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_scan_of_a_doubtful_stream_proves_nothing(name: str) -> None:
    assert len(scanned(DOUBTFUL[name]())) == 0


@pytest.mark.parametrize("flags", [range(40), (0, 7, 10, 20, 30), (0, 20), (0, 3, 5)], ids=str)
def test_scan_believes_no_flag_that_the_picture_contradicts(flags: Iterable[int]) -> None:
    video = flagged(flags)
    assert set(scanned(video).starts.tolist()) <= set(PLACES)
    assert_same_frames(*decode_both(video))


@pytest.mark.parametrize("name", ["MKV", "AVI, H.264", "fragmented", "TS"])
def test_truncated_video_has_the_same_frames_however_it_is_cut(name: str) -> None:
    for share in (0.66, 0.81, 0.87, 0.95):
        parts, whole = decode_both(truncate(video_bytes(**{**SCANNED[name], "frames": 120}), share))
        assert_same_frames(parts, whole)
        assert reduce(add, parts.reports) == whole.reports[0]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["MKV", "WebM, VP9", "AVI, H.264", "TS", "TS, MPEG-2", "fragmented"]),
    at=st.floats(0.15, 1.0),
    share=st.floats(0.001, 0.05),
    seed=st.integers(0, 99),
    stride=st.integers(1, 4),
)
def test_damaged_video_has_the_same_frames_however_it_is_cut(
    name: str, at: float, share: float, seed: int, stride: int
) -> None:
    """Or a segment is refused, and the video is decoded as one.

    HEVC and JPEG are left out: in rare cases FFmpeg shows what an earlier picture has left in memory, without a sign.
    """
    video = corrupt_middle(video_bytes(**SCANNED[name]), share, at, seed)
    try:
        parts, whole = decode_both(video, sampling=SamplingSettings(stride=stride))
    except IndexDisagreesError:
        return
    assert parts.records == whole.records
    for number, (a, b) in enumerate(zip(parts.images, whole.images, strict=True)):
        assert (a is None) == (b is None)
        assert a is None or np.array_equal(a, b), number


def test_frame_whose_time_lies_in_another_segment_is_refused() -> None:
    """A sequential decode would put its time right."""
    video = shifted({25: 770 - 1000})
    index, segments = segments_of(video)
    assert len(segments) > 2
    with pytest.raises(IndexDisagreesError, match="another order"):
        decode_segments(video, plan_of(video), segments, EVERY_FRAME, index=index)


CODES = {
    "nothing": b"",
    "start code": b"\0\0\1",
    "empty unit": b"\0\0\1\0\0\0\0\1",
    "length": b"\0\0\0\2",
    "SEI": b"\0\0\1\6",
    "IDR": b"\0\0\1\x65",
    "sequence": b"\0\0\1\xb3",
    "picture": b"\0\0\1\0",
    "JPEG": b"\xff\xd8\xff\xc4",
    "OBU": b"\x0a\x0b",
}
"""Beginnings and ends of packets."""


@pytest.mark.parametrize("name", ["MKV", "MKV, MPEG-2", "AVI, H.264", "fragmented"])
def test_damaged_keyframe_at_a_cut_is_refused(name: str) -> None:
    """A sequential decode fills it from the pictures before it, a segment would not have them."""
    video = video_bytes(**SCANNED[name])
    index = scanned(video)
    position = int(index.positions[30]) + int(index.sizes[30]) // 3
    damaged = video[:position] + bytes(200) + video[position + 200 :]
    index, segments = segments_of(damaged)
    assert len(segments) > 2
    with pytest.raises(IndexDisagreesError, match="damaged"):
        decode_segments(damaged, plan_of(damaged), segments, EVERY_FRAME, index=index)


@given(content=st.binary(max_size=200), header=st.binary(max_size=60), start=st.sampled_from(sorted(CODES)))
def test_any_packet_can_be_read(content: bytes, header: bytes, start: str) -> None:
    for codec in ("h264", "hevc", "vp9", "av1", "mpeg2video", "mjpeg"):
        for first in (b"", b"\x01", b"\x81"):
            reader = reader_of(codec, first + header)
            assert reader is not None
            sets_in_header(codec, first + header)
            reader(CODES[start] + content)
            reader(content + CODES[start])
    assert reader_of("vp8", b"") is reader_of("mpeg4", b"") is None


# --- the index and its file ------------------------------------------------------------------------------------------


def test_index_is_the_same_after_it_was_written_and_read() -> None:
    for name in ("MKV, open GOPs", "AVI, H.264", "TS, clock wraps", "WebM, VP9"):
        index = scanned(video_bytes(**SCANNED[name]))
        again = PacketIndex.from_bytes(index.to_bytes("etag"), "etag")
        assert again.segments(5) == index.segments(5)
        for field in fields(PacketIndex):
            assert np.array_equal(getattr(again, field.name), getattr(index, field.name)), field.name
    empty = PacketIndex.from_bytes(NO_INDEX.to_bytes("etag"), "etag")
    assert empty.segments(5) == (Segment(),)


def test_index_of_another_video_or_a_damaged_one_is_refused() -> None:
    content = scanned(video_bytes(**SCANNED["MKV"])).to_bytes("etag")
    with pytest.raises(StagedError, match="another video"):
        PacketIndex.from_bytes(content, "another etag")
    for damaged in (b"", content[:-1], content[:50], content.replace(b"PK", b"KP"), corrupt_middle(content)):
        with pytest.raises(StagedError):
            PacketIndex.from_bytes(damaged, "etag")


def test_index_of_a_long_video_is_small() -> None:
    index = scanned(video_bytes(**SCANNED["MKV"]))
    assert len(index.to_bytes("etag")) < 40 * len(index)


@pytest.mark.parametrize("name", ["MKV", "AVI, H.264", "TS", "fragmented"])
def test_segment_is_refused_if_the_file_is_not_the_scanned_one(name: str) -> None:
    wanted = SCANNED[name]
    video, other = video_bytes(**wanted), video_bytes(**{**wanted, "first_number": 100})
    index, segments = segments_of(video)
    at = int(index.positions[20]) + 60  # within a keyframe
    one_byte = video[:at] + bytes([video[at] ^ 1]) + video[at + 1 :]
    for changed in (other, truncate(video, 0.7), one_byte):
        with pytest.raises(IndexDisagreesError, match=r"clip: segment .*: packet .* is not"):
            decode_segments(changed, plan_of(video), segments, EVERY_FRAME, index=index)


def test_segment_is_refused_if_the_index_does_not_list_it() -> None:
    video = video_bytes(**SCANNED["MKV"])
    plan, (index, segments) = plan_of(video), segments_of(video)
    good = segments[1]
    wrong = [
        replace(good, first_packet=good.first_packet + 1),
        replace(good, num_packets=10_000),
        replace(good, end_dts=(good.end_dts or 0) + 1),
    ]
    for segment in wrong:
        with pytest.raises(IndexDisagreesError):
            decode_segments(video, plan, (segment,), EVERY_FRAME, index=index)
    with pytest.raises(IndexDisagreesError):
        decode_segments(video, plan, (good,), EVERY_FRAME, index=NO_INDEX)


def test_probe_asks_for_a_scan_of_long_videos_without_an_index() -> None:
    wanted = {"MKV": True, "AVI, H.264": True, "TS": True, "fragmented": True, "MKV, no cues": True}
    assert {name: plan_of(video_bytes(**SCANNED[name]), 1.0).needs_scan for name in wanted} == wanted
    assert not plan_of(video_bytes(**H264), 1.0).needs_scan, "its container has an index"
    assert not plan_of(video_bytes(**SCANNED["MKV"]), 1.3).needs_scan, "two segments are not worth the reading"
    assert plan_of(video_bytes(**SCANNED["MKV, no cues"]), 100).needs_scan, "its duration is not known"
    assert not plan_of(video_bytes(**SCANNED["MKV, no cues"]), math.inf).needs_scan


# --- files of the field ----------------------------------------------------------------------------------------------

FIELD = os.environ.get("POSEBATCH_TEST_VIDEOS")
"""A folder of videos, which are not part of the repository."""


def remuxed(path: Path, container: str) -> bytes:
    """The same packets of the video and its sound in another container."""
    buffer = io.BytesIO()
    fragmented = {"movflags": "frag_keyframe+empty_moov+default_base_moof"} if container == "mp4" else {}
    with av.open(str(path)) as source, av.open(buffer, "w", format=container, options=fragmented) as output:
        kept = [*source.streams.video[:1], *source.streams.audio[:1]]
        targets = {stream.index: output.add_stream_from_template(stream) for stream in kept}
        to_avi = container == "avi" and kept[0].codec_context.name == "h264"  # which has start codes, not lengths
        units = BitStreamFilterContext("h264_mp4toannexb", kept[0]) if to_avi else None
        for packet in source.demux(kept):
            target = targets[packet.stream.index]
            for each in units.filter(packet) if units and packet.stream == kept[0] else [packet]:
                if each.dts is not None:
                    each.stream = target
                    output.mux(each)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(FIELD is None, reason="POSEBATCH_TEST_VIDEOS names no folder of videos")
@pytest.mark.parametrize("container", ["as it is", "matroska", "mpegts", "mp4", "avi"])
def test_videos_of_the_field_have_the_same_frames_however_they_are_cut(container: str) -> None:
    cut = []
    for path in sorted(Path(FIELD or "").rglob("*.*")):
        try:
            video = path.read_bytes() if container == "as it is" else remuxed(path, container)
            plan = plan_of(video)
        except (av.error.FFmpegError, ValueError, VideoError):
            continue  # the container does not take this codec, or it is no video
        index, segments = segments_of(video, 1.0)
        if len(segments) < 2:
            continue
        stride = 7 if plan.info.height > 1000 else 1
        sampling, options = SamplingSettings(stride=stride), {"frame_format": FrameFormat(scale=0.25)}
        parts = decode_segments(video, plan, segments, sampling, index=index, **options)
        whole = decode_segments(video, plan, (Segment(),), sampling, **options)
        assert_same_frames(parts, whole)
        assert reduce(add, parts.reports) == whole.reports[0]
        cut.append((path.name, len(segments)))
    print(container, cut)
    assert cut or container == "avi"
