"""A sparse decode yields the same as a full decode, and decodes less."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest
from benchmarks.decoding import decoding_rates
from hypothesis import given, settings
from hypothesis import strategies as st
from support.decoding import (
    BY_GOP,
    CUTTABLE,
    DAMAGED,
    HITS,
    OPEN_GOPS,
    VFR,
    WHOLE,
    Decoded,
    assert_same_frames,
    decode,
    decode_segments,
    plan_of,
)
from support.factories import corrupt_middle, truncate, video_bytes
from support.odd_videos import NOT_CODED_VOP

from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment, VideoPlan
from posebatch.video import sparse_decode
from posebatch.video.container import open_video
from posebatch.video.frame_images import to_rgb
from posebatch.video.frame_numbers import NumberedPacket, Sampler
from posebatch.video.full_decode import FullDecode
from posebatch.video.limits import Limits
from posebatch.video.packet_kinds import UNREADABLE, PacketKind, kind_reader
from posebatch.video.packets import NeedsFullDecodeError, SegmentPackets
from posebatch.video.sparse_decode import PACKET_BYTES, needed_packets

B_FRAME = 3
"""``AV_PICTURE_TYPE_B``."""

X264 = "keyint={0}:min-keyint={0}:scenecut=0:b-adapt=0:".format
X265 = X264(10) + "log-level=none:pools=none:frame-threads=1:"
LAYERS = {"codec": "libx265", "options": (("x265-params", X265 + "bframes=3:temporal-layers=3"),)}
"""B-frames of three temporal layers: the highest layer needs those of the middle one, their own layer does not."""

VIDEOS: dict[str, dict[str, Any]] = {
    "H.264": {},
    "H.264, B-frames": {"b_frames": 2},
    "H.264, pyramid": {"options": (("x264-params", X264(20) + "bframes=3:b-pyramid=normal:ref=4"),)},
    "H.264, open GOPs": OPEN_GOPS,
    "H.264, long GOPs": {"b_frames": 3, "gop": 60, "frames": 60},
    "H.264, 10 bits": {"b_frames": 2, "pixel_format": "yuv420p10le"},
    "HEVC": {"codec": "libx265", "b_frames": 3},
    "HEVC, open GOPs": CUTTABLE["HEVC"],
    "HEVC, layers": LAYERS,
    "MPEG-4": {"codec": "mpeg4", "b_frames": 2},
    "MPEG-2": {"codec": "mpeg2video", "b_frames": 2, "container": "mov"},
    "VP9": {"codec": "libvpx-vp9"},
    "AV1": {"codec": "libsvtav1"},
    "only keyframes": CUTTABLE["only keyframes"],
    "variable rate": VFR,
    "a gap": CUTTABLE["a gap"],
    "starts late": CUTTABLE["starts late"],
    "no edit list": CUTTABLE["no edit list"],
    "negative offsets": CUTTABLE["negative offsets"],
    "edit list hides 5": {"pts": tuple(range(-5, 25)), "b_frames": 2},
    "turned": {"rotation": 90, "b_frames": 2},
    "MKV": {"container": "mkv", "b_frames": 2},
    "AVI": {"container": "avi", "codec": "mpeg4"},
    "TS": {"container": "mpegts", "b_frames": 2},
    "fragmented": {"fragmented": True, "b_frames": 2},
}


def decode_fully(video: bytes, plan: VideoPlan, segment: Segment, sampling: SamplingSettings) -> Decoded:
    """The sampled frames by decoding every packet in one thread."""
    result = Decoded()
    with open_video(io.BytesIO(video), Limits("clip")) as opened:
        opened.stream.codec_context.thread_count = 1
        full_decode = FullDecode(opened, SegmentPackets(opened, segment), Sampler.of(sampling, plan.info))
        for frame in full_decode:
            result.records.append(frame.record)
            result.images.append(frame.frame and to_rgb(frame.frame))
        result.reports.append(full_decode.report())
    return result


def assert_equals_full_decode(
    video: bytes, plan: VideoPlan, segment: Segment, sampling: SamplingSettings, threads: int = 1
) -> Decoded:
    """Decode as a worker does, and compare with a full decode."""
    result = decode_segments(video, plan, (segment,), sampling, threads=threads)
    full = decode_fully(video, plan, segment, sampling)
    assert_same_frames(result, full)
    assert result.reports == full.reports
    return result


def samplings() -> st.SearchStrategy[SamplingSettings]:
    strides = st.builds(SamplingSettings, stride=st.integers(1, 40))
    return st.one_of(strides, st.builds(SamplingSettings, fps=st.floats(0.3, 60)))


# --- the law ---------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(sorted(VIDEOS)), seconds=st.floats(0.04, 1.5), sampling=samplings(), threads=st.integers(1, 3)
)
def test_sparse_decode_equals_a_full_decode(
    name: str, seconds: float, sampling: SamplingSettings, threads: int
) -> None:
    video = video_bytes(**VIDEOS[name])
    plan = plan_of(video, seconds)
    for segment in plan.segments:
        assert_equals_full_decode(video, plan, segment, sampling, threads)


@pytest.mark.parametrize("name", VIDEOS)
def test_sparse_decode_equals_a_full_decode_in_each_kind_of_video(name: str) -> None:
    video = video_bytes(**VIDEOS[name])
    for seconds in (WHOLE, BY_GOP):
        plan = plan_of(video, seconds)
        for segment in plan.segments:
            for sampling in (SamplingSettings(stride=4), SamplingSettings(fps=3)):
                assert_equals_full_decode(video, plan, segment, sampling)


# --- that less is decoded --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stride", "frames_out"),
    [
        ("H.264", 1, 30),
        ("H.264", 2, 27),  # the last frame of each GOP of 10 is needed by no other
        ("H.264", 15, 1 + 6),  # frame 0, and from the keyframe 10 to frame 15
        ("H.264, B-frames", 3, 23),
        ("H.264, pyramid", 2, 17),  # half of the B-frames are needed by others
        ("H.264, open GOPs", 3, 18),
        ("HEVC", 2, 15),
        ("HEVC, open GOPs", 3, 14),
        ("HEVC, layers", 29, 7),
        ("MPEG-4", 3, 10),
        ("MPEG-2", 15, 3),
        ("VP9", 15, 7),
        ("AV1", 15, 7),
        ("only keyframes", 7, 5),
        ("edit list hides 5", 29, 2),
    ],
)
def test_sparse_decode_skips_frames_that_no_sampled_frame_needs(name: str, stride: int, frames_out: int) -> None:
    result = decode(video_bytes(**VIDEOS[name]), WHOLE, SamplingSettings(stride=stride))
    assert result.frames_out == frames_out
    assert result.reports[0].frames_decoded == (25 if "hides" in name else 30)


def test_sparse_decode_needs_a_container_that_lists_the_frames() -> None:
    for name in ("MKV", "AVI", "TS", "fragmented"):
        assert decode(video_bytes(**VIDEOS[name]), WHOLE, SamplingSettings(stride=15)).frames_out == 30, name


def test_sparse_decode_skips_frames_with_fps_too() -> None:
    result = decode(video_bytes(**VIDEOS["MPEG-4"]), WHOLE, SamplingSettings(fps=25 / 3))
    assert result.numbers == list(range(0, 30, 3))
    assert result.frames_out == 10


def test_decoding_rates_count_decoded_frames(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(video_bytes(**VIDEOS["MPEG-4"]))
    rates = decoding_rates(path, strides=(1, 3, 15), repeats=2)
    assert [(rate.stride, rate.frames, rate.frames_out) for rate in rates] == [(1, 30, 30), (3, 30, 10), (15, 30, 3)]
    assert all(rate.frames_per_second == rate.frames / rate.seconds > 0 for rate in rates)


# --- damage ----------------------------------------------------------------------------------------------------------

TOLERANT: dict[str, dict[str, Any]] = {
    "VP8": {"frames": 60, "codec": "libvpx", "container": "mkv"},
    "VP9": {"frames": 60, "codec": "libvpx-vp9"},
    "MJPEG": {"frames": 60, "codec": "mjpeg", "container": "mov", "pixel_format": "yuvj420p"},
    "MPEG-2": {"frames": 60, "codec": "mpeg2video", "b_frames": 2, "container": "mov"},
}
"""Codecs whose damage several threads hide, or at which they crash."""


@pytest.mark.parametrize(
    ("name", "hit", "stride"), [(name, hit, (2, 7)[i % 2]) for name in DAMAGED for i, hit in enumerate(HITS)]
)
def test_sparse_decode_reports_damage_as_a_full_decode_does(
    name: str, hit: tuple[float, float, int], stride: int
) -> None:
    video = corrupt_middle(video_bytes(**DAMAGED[name]), *hit)
    plan = plan_of(video)
    for threads in (1, 3):
        result = assert_equals_full_decode(video, plan, plan.segments[0], SamplingSettings(stride=stride), threads)
        [report] = result.reports
        assert report.frames_damaged == sum(status != "ok" for status in result.statuses)
        assert report.frames_decoded + report.frames_damaged == 60


@pytest.mark.parametrize(
    ("name", "seed"), [("VP8", 2), ("VP8", 10), ("VP9", 7), ("MJPEG", 2), ("MJPEG", 7), ("MPEG-2", 10)]
)
def test_damage_that_no_decoder_reports_is_the_same_for_any_number_of_threads(name: str, seed: int) -> None:
    video = corrupt_middle(video_bytes(**TOLERANT[name]), 0.02, 0.2 + 0.06 * seed, seed)
    one, several = decode(video), decode(video, threads=3)
    assert_same_frames(several, one)
    assert several.reports == one.reports


def test_damaged_frames_that_are_not_sampled_are_not_reported() -> None:
    """Neither with a stride whose decoding skips them, nor with one that decodes them for others."""
    video = corrupt_middle(video_bytes(frames=60), 0.02, 0.42)
    damaged = [record.frame_index for record in decode(video).records if record.status != "ok"]
    assert damaged
    for stride in (59, 20):
        [report] = decode(video, WHOLE, SamplingSettings(stride=stride)).reports
        assert report.frames_damaged == 0 == sum(index % stride == 0 for index in damaged)


@pytest.mark.parametrize("share", [0.5, 0.65, 0.9])
def test_sparse_decode_of_a_truncated_video_ends_early(share: float) -> None:
    video = truncate(video_bytes(frames=60, b_frames=2, faststart=True), share)
    plan = plan_of(video)
    for stride in (2, 7, 60):
        result = assert_equals_full_decode(video, plan, plan.segments[0], SamplingSettings(stride=stride))
        assert result.reports[0].ends_early


def packets_of(video: bytes) -> list[Any]:
    with av.open(io.BytesIO(video)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def test_sparse_decode_of_a_video_truncated_between_two_frames_ends_early() -> None:
    video = video_bytes(frames=60, b_frames=2, faststart=True)
    video = video[: max(packet.pos for packet in packets_of(video)[:40])]
    plan = plan_of(video)
    result = assert_equals_full_decode(video, plan, plan.segments[0], SamplingSettings(stride=30))
    assert result.reports[0].ends_early


def without_first_gop(video: bytes) -> bytes:
    """From the second keyframe on, with the frames after it in the file that depend on the first GOP."""
    buffer = io.BytesIO()
    with (
        av.open(io.BytesIO(video)) as source,
        av.open(buffer, "w", format="mp4", options={"use_editlist": "0"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        second = next(i for i, packet in enumerate(packets) if packet.is_keyframe and i)
        for packet in packets[second:]:
            packet.stream = stream
            target.mux(packet)
    return buffer.getvalue()


def test_frames_before_the_first_keyframe_have_no_number() -> None:
    video = without_first_gop(video_bytes(**VIDEOS["HEVC, open GOPs"]))
    plan = plan_of(video)
    for segment in (Segment(), *plan.segments):
        for sampling in (SamplingSettings(stride=5), SamplingSettings(fps=5)):
            result = assert_equals_full_decode(video, plan, segment, sampling)
            assert result.numbers == [12, 17, 22, 27]
            assert result.indices == [0, 5, 10, 15]


# --- which packets are needed ----------------------------------------------------------------------------------------


@dataclass
class Coded:
    """A packet that names its kind: decoding can start at K, P is a reference, b is not."""

    kind: str
    size: int = 1

    @property
    def is_keyframe(self) -> bool:
        return self.kind == "K"

    def __bytes__(self) -> bytes:
        return self.kind.encode()


def kind_of(content: bytes, is_keyframe: bool) -> PacketKind:
    return PacketKind(is_keyframe, content != b"b")


def numbered_packets(stream: str) -> Iterator[NumberedPacket]:
    """``K0 P3 b1 b2*``: kind, pts, and a star for a sampled frame."""
    for word in stream.split():
        pts = int(word[1:].rstrip("*"))
        yield NumberedPacket(Coded(word[0]), pts, pts, word.endswith("*"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ("", ""),
        ("K0 P1 P2", ""),
        ("K0* P1 P2", "K0"),
        ("K0 P1 P2* P3", "K0 P1 P2"),
        ("K0 P3 b1 b2* P6 b4 b5", "K0 P3 b2"),
        ("K0* P1 K2* P3", "K0 | K2"),
        ("K0* P1 K2 P3*", "K0 | K2 P3"),
        ("K0 P1 K2 P3 K4 P5*", "| K4 P5"),
        ("K0* P1* K2* P3*", "K0 P1 K2 P3"),  # nothing is skipped, so nothing is flushed
        ("K0* K1 K2 K3*", "K0 | K3"),
        ("K0* P1 K4 P2* P3 P5", "K0 P1 K4 P2"),  # presented before the keyframe, and dependent on earlier packets
        ("K0* P1 K4* P2 P3 P5*", "K0 | K4 P5"),  # the frames before the keyframe are not sampled
        ("K0* P1 K4* b2* P5", "K0 P1 K4 b2"),
        ("K0* P1 K4*", "K0 | K4"),
        ("K3* P1 P4*", "K3 P4"),  # the segment begins at 3
    ],
)
def test_needed_packets(stream: str, expected: str) -> None:
    """A bar stands where the decoder is flushed."""
    needed = [
        f"{'| ' * packet.flush_before}{packet.numbered.packet.kind}{packet.numbered.pts}"  # type: ignore[attr-defined]
        for packet in needed_packets(numbered_packets(stream), kind_of)
    ]
    assert " ".join(needed) == expected


@pytest.mark.parametrize("stream", ["P0* P1", "K3* P1*", "K0* P1 K4 P5* P2*"])
def test_needed_packets_leave_to_a_full_decode_what_they_cannot_start(stream: str) -> None:
    with pytest.raises(NeedsFullDecodeError):
        list(needed_packets(numbered_packets(stream), kind_of))


def test_needed_packets_hold_back_a_limited_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_decode, "MAX_HELD_BYTES", 3 * (1 + PACKET_BYTES))
    needed = needed_packets(numbered_packets("K0 P1 P2 P3 P4 K5 P6"), kind_of)
    assert [packet.numbered.pts for packet in needed] == [0, 1, 2, 3]


# --- the kinds of packets --------------------------------------------------------------------------------------------

AVCC, HVCC_3_LAYERS = b"\x01\x64\x00\x1f\xff", bytes([1] + 20 * [0] + [3 << 3 | 3])
SEI, IDR, SLICE, UNNEEDED_SLICE = b"\x06\x05", b"\x65\x88", b"\x41\x9a", b"\x01\x9e"
HEVC_IDR, HEVC_CRA = bytes([19 << 1, 1]), bytes([21 << 1, 1])
TRAIL, UNNEEDED_0, UNNEEDED_2, OTHER_VIEW = (
    bytes([1 << 1, 1]),
    bytes([0, 1]),
    bytes([0, 3]),
    bytes([1 << 1, 1 << 3 | 1]),
)


def packed(*units: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


@pytest.mark.parametrize(
    ("codec", "header", "content", "keyframe", "expected"),
    [
        ("h264", AVCC, b"", True, UNREADABLE),
        ("h264", AVCC, packed(SEI), True, PacketKind(False, True, shows_picture=False)),
        ("h264", AVCC, packed(SEI, IDR, IDR), True, PacketKind(True, True)),
        ("h264", AVCC, packed(IDR), False, PacketKind(False, True)),
        ("h264", AVCC, packed(SLICE), True, PacketKind(False, True)),  # a keyframe of an open GOP
        ("h264", AVCC, packed(SEI, UNNEEDED_SLICE), False, PacketKind(False, False)),
        ("h264", AVCC, packed(SLICE, UNNEEDED_SLICE), False, PacketKind(False, True)),
        ("h264", AVCC, packed(UNNEEDED_SLICE)[:-1], False, UNREADABLE),
        ("h264", AVCC, packed(UNNEEDED_SLICE, b"\x01"), False, UNREADABLE),
        ("hevc", HVCC_3_LAYERS, packed(), True, UNREADABLE),
        ("hevc", HVCC_3_LAYERS, packed(HEVC_IDR), True, PacketKind(True, True)),
        ("hevc", HVCC_3_LAYERS, packed(HEVC_CRA), True, PacketKind(True, True)),
        ("hevc", HVCC_3_LAYERS, packed(TRAIL), True, PacketKind(False, True)),
        ("hevc", HVCC_3_LAYERS, packed(UNNEEDED_0), False, PacketKind(False, True)),  # of the lowest layer
        ("hevc", HVCC_3_LAYERS, packed(UNNEEDED_2), False, PacketKind(False, False)),
        ("hevc", HVCC_3_LAYERS, packed(UNNEEDED_2, OTHER_VIEW), False, PacketKind(False, False)),
        ("mpeg4", b"", b"", True, UNREADABLE),
        ("mpeg4", b"", b"\x00\x00\x01\xb6", True, UNREADABLE),
        ("mpeg4", b"", b"\x00\x00\x01\xb6\x10" + bytes(9), True, PacketKind(True, True)),
        ("mpeg4", b"", b"\x00\x00\x01\xb6\x50" + bytes(9), False, PacketKind(False, True)),
        ("mpeg4", b"", b"\x00\x00\x01\xb6\x90" + bytes(9), False, PacketKind(False, False)),
        ("mpeg4", b"", b"\x00\x00\x01\xb6\x50\x00\x00\x01\xb6\x90", False, UNREADABLE),  # two frames in one packet
        ("mpeg4", b"", NOT_CODED_VOP, False, PacketKind(False, True, shows_picture=False)),
        ("vp9", b"", b"", True, PacketKind(True, True)),
        ("vp9", b"", b"", False, PacketKind(False, True)),
    ],
)
def test_kind_reader_reads_the_header_of_a_packet(
    codec: str, header: bytes, content: bytes, keyframe: bool, expected: PacketKind
) -> None:
    read = kind_reader(codec, header)
    assert read is not None
    assert read(content, keyframe) == expected


@pytest.mark.parametrize(
    ("codec", "header"), [("h264", b""), ("h264", b"\x00\x00\x00\x01\x67"), ("hevc", AVCC), ("ffv1", b"")]
)
def test_kind_reader_knows_no_streams_that_are_packed_in_other_ways(codec: str, header: bytes) -> None:
    assert kind_reader(codec, header) is None


@pytest.mark.parametrize("name", ["H.264, B-frames", "HEVC", "MPEG-4"])
def test_kind_reader_agrees_with_the_decoder_on_b_frames(name: str) -> None:
    with av.open(io.BytesIO(video_bytes(**VIDEOS[name]))) as container:
        stream = container.streams.video[0]
        read = kind_reader(stream.codec_context.codec.canonical_name, stream.codec_context.extradata or b"")
        assert read is not None
        packets = [packet for packet in container.demux(stream) if packet.size]
        unneeded = {packet.pts for packet in packets if not read(bytes(packet), packet.is_keyframe).is_reference}
        starts = {packet.pts for packet in packets if read(bytes(packet), packet.is_keyframe).can_start}
    with av.open(io.BytesIO(video_bytes(**VIDEOS[name]))) as container:
        frames = list(container.decode(video=0))
    assert {frame.pts for frame in frames if frame.pict_type == B_FRAME} >= unneeded != set()
    assert {frame.pts for frame in frames if frame.key_frame} == starts
