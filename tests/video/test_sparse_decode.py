"""Frames that nobody wants may stay undecoded, but nothing else may differ from decoding everything."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from benchmarks.decoding import decoding_rates
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.factories import corrupt_middle, frame_number, truncate, video_bytes

import posebatch.video.sparse_decode
from posebatch.core.frames import FrameRecord
from posebatch.core.records import DecodeReport
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment, VideoInfo
from posebatch.video.container import open_video
from posebatch.video.frame_images import to_rgb
from posebatch.video.frame_numbers import NumberedPacket, Sampler
from posebatch.video.full_decode import FullDecode
from posebatch.video.limits import Limits
from posebatch.video.options import DecodeOptions
from posebatch.video.packet_kinds import UNREADABLE, PacketKind, kind_reader
from posebatch.video.packets import NeedsFullDecodeError
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder
from posebatch.video.sparse_decode import PACKET_BYTES, needed_packets

B_FRAME = 3
"""``AV_PICTURE_TYPE_B``."""

WHOLE, BY_GOP = 1e9, 0.1
"""Segment lengths: the video in one piece, and cut at every keyframe."""

X264 = "keyint={0}:min-keyint={0}:scenecut=0:b-adapt=0:".format
X265 = X264(10) + "log-level=none:pools=none:frame-threads=1:"
LAYERS = {"codec": "libx265", "options": (("x265-params", X265 + "bframes=3:temporal-layers=3"),)}
"""B-frames of three temporal layers: the middle one's are needed by the highest's, and not by their own."""

VFR_PTS = (0, 20, 41, 100, 101, 160, 250, 251, 252, 400, 420, 500, 501, 640, 700, 720, 800, 801, 900, 1000)

VIDEOS: dict[str, dict[str, Any]] = {
    "H.264": {},
    "H.264, B-frames": {"b_frames": 2},
    "H.264, pyramid": {"options": (("x264-params", X264(20) + "bframes=3:b-pyramid=normal:ref=4"),)},
    "H.264, open GOPs": {"b_frames": 2, "gop": 12, "open_gop": True},
    "H.264, long GOPs": {"b_frames": 3, "gop": 60, "frames": 60},
    "H.264, 10 bits": {"b_frames": 2, "pixel_format": "yuv420p10le"},
    "HEVC": {"codec": "libx265", "b_frames": 3},
    "HEVC, open GOPs": {"codec": "libx265", "b_frames": 2, "gop": 12, "open_gop": True},
    "HEVC, layers": LAYERS,
    "MPEG-4": {"codec": "mpeg4", "b_frames": 2},
    "MPEG-2": {"codec": "mpeg2video", "b_frames": 2, "container": "mov"},
    "VP9": {"codec": "libvpx-vp9"},
    "AV1": {"codec": "libsvtav1"},
    "only keyframes": {"codec": "mjpeg", "container": "mov", "pixel_format": "yuvj420p"},
    "variable rate": {"pts": VFR_PTS, "time_base": Fraction(1, 600), "gop": 6, "b_frames": 2},
    "a gap": {"pts": (*range(10), *range(40, 60)), "b_frames": 2},
    "starts late": {"pts": tuple(range(50, 80)), "b_frames": 2},
    "no edit list": {"b_frames": 2, "muxer_options": (("use_editlist", "0"),)},
    "negative offsets": {"b_frames": 2, "muxer_options": (("movflags", "negative_cts_offsets"),)},
    "edit list hides 5": {"pts": tuple(range(-5, 25)), "b_frames": 2},
    "turned": {"rotation": 90, "b_frames": 2},
    "MKV": {"container": "mkv", "b_frames": 2},
    "AVI": {"container": "avi", "codec": "mpeg4"},
    "TS": {"container": "mpegts", "b_frames": 2},
    "fragmented": {"fragmented": True, "b_frames": 2},
}


@dataclass
class Decoded:
    records: list[FrameRecord]
    images: list[NDArray[np.uint8] | None]
    report: DecodeReport
    frames_out: int


def decoded(video: bytes, info: VideoInfo, segment: Segment, sampling: SamplingSettings, threads: int = 1) -> Decoded:
    """As a worker does it."""
    decoder = SegmentDecoder(
        io.BytesIO(video), "clip", segment, info, DecodeOptions(sampling=sampling, batch_frames=7, threads=threads)
    )
    result = Decoded([], [], DecodeReport(), 0)
    for batch in decoder:
        images = iter(batch.images)
        result.records += batch.records
        result.images += [next(images) if record.status == "ok" else None for record in batch.records]
    result.report, result.frames_out = decoder.report, decoder.frames_out
    return result


def fully_decoded(video: bytes, info: VideoInfo, segment: Segment, sampling: SamplingSettings) -> Decoded:
    """The same by decoding every packet."""
    with open_video(io.BytesIO(video), Limits("clip")) as opened:
        opened.stream.codec_context.thread_count = 1
        presentation = FullDecode(opened, segment, Sampler.of(sampling, info))
        shown = [(one.record, one.frame and to_rgb(one.frame)) for one in presentation]
        report, frames_out = presentation.report(), presentation.frames_out
    return Decoded([record for record, _ in shown], [image for _, image in shown], report, frames_out)


def assert_same(one: Decoded, other: Decoded) -> None:
    assert one.records == other.records
    assert one.report == other.report
    for a, b in zip(one.images, other.images, strict=True):
        assert (a is None) == (b is None)
        assert a is None or np.array_equal(a, b)  # type: ignore[arg-type]


def samplings() -> st.SearchStrategy[SamplingSettings]:
    strides = st.builds(SamplingSettings, stride=st.integers(1, 40))
    return st.one_of(strides, st.builds(SamplingSettings, fps=st.floats(0.3, 60)))


# --- the law ---------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(sorted(VIDEOS)), seconds=st.floats(0.04, 1.5), sampling=samplings(), threads=st.integers(1, 3)
)
def test_wanted_frames_are_those_of_a_full_decode(
    name: str, seconds: float, sampling: SamplingSettings, threads: int
) -> None:
    video = video_bytes(**VIDEOS[name])
    plan = probe(io.BytesIO(video), "clip", seconds)
    for segment in plan.segments:
        full = fully_decoded(video, plan.info, segment, sampling)
        assert_same(decoded(video, plan.info, segment, sampling, threads), full)


@pytest.mark.parametrize("wanted", VIDEOS.values(), ids=VIDEOS)
@pytest.mark.parametrize("sampling", [SamplingSettings(stride=4), SamplingSettings(fps=3)], ids=["stride", "fps"])
def test_wanted_frames_are_those_of_a_full_decode_in_each_kind_of_video(
    wanted: dict[str, Any], sampling: SamplingSettings
) -> None:
    video = video_bytes(**wanted)
    for seconds in (WHOLE, BY_GOP):
        plan = probe(io.BytesIO(video), "clip", seconds)
        for segment in plan.segments:
            full = fully_decoded(video, plan.info, segment, sampling)
            assert_same(decoded(video, plan.info, segment, sampling), full)


# --- that less is decoded --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stride", "frames_out"),
    [
        ("H.264", 1, 30),
        ("H.264", 2, 27),  # the last frame of each GOP of 10 is needed by no other
        ("H.264", 15, 1 + 6),  # frame 0, and from the keyframe 10 to frame 15
        ("H.264", 50, 1),
        ("H.264, B-frames", 3, 23),
        ("H.264, B-frames", 15, 7),
        ("H.264, pyramid", 2, 17),  # half of the B-frames are needed by others
        ("H.264, open GOPs", 3, 18),
        ("HEVC", 2, 15),
        ("HEVC", 29, 7),
        ("HEVC, open GOPs", 3, 14),
        ("HEVC, layers", 29, 7),
        ("MPEG-4", 3, 10),
        ("MPEG-4", 15, 3),
        ("MPEG-2", 15, 3),
        ("VP9", 15, 7),
        ("AV1", 15, 7),
        ("only keyframes", 7, 5),
        ("edit list hides 5", 29, 2),
    ],
)
def test_what_nobody_wants_or_needs_is_not_decoded(name: str, stride: int, frames_out: int) -> None:
    video = video_bytes(**VIDEOS[name])
    plan = probe(io.BytesIO(video), "clip", WHOLE)
    result = decoded(video, plan.info, plan.segments[0], SamplingSettings(stride=stride))
    assert result.frames_out == frames_out
    assert result.report.frames_decoded == len(VIDEOS[name].get("pts", range(VIDEOS[name].get("frames", 30)))) - (
        5 if "hides" in name else 0
    )


@pytest.mark.parametrize("name", ["MKV", "AVI", "TS", "fragmented"])
def test_everything_is_decoded_where_the_container_lists_no_frames(name: str) -> None:
    video = video_bytes(**VIDEOS[name])
    plan = probe(io.BytesIO(video), "clip", WHOLE)
    assert decoded(video, plan.info, plan.segments[0], SamplingSettings(stride=15)).frames_out == 30


def test_a_rate_spares_frames_too() -> None:
    video = video_bytes(**VIDEOS["MPEG-4"])
    plan = probe(io.BytesIO(video), "clip", WHOLE)
    result = decoded(video, plan.info, plan.segments[0], SamplingSettings(fps=25 / 3))
    assert [frame_number(image) for image in result.images if image is not None] == list(range(0, 30, 3))
    assert result.frames_out == 10


def test_rates_say_how_much_was_decoded(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(video_bytes(**VIDEOS["MPEG-4"]))
    rates = decoding_rates(path, strides=(1, 3, 15), repeats=2)
    assert [(rate.stride, rate.frames, rate.frames_out) for rate in rates] == [(1, 30, 30), (3, 30, 10), (15, 30, 3)]
    assert all(rate.frames_per_second == rate.frames / rate.seconds > 0 for rate in rates)


# --- damage ----------------------------------------------------------------------------------------------------------

DAMAGED: dict[str, dict[str, Any]] = {
    "H.264": {"frames": 60},
    "H.264, B-frames": {"frames": 60, "b_frames": 2},
    "HEVC": {"frames": 60, "codec": "libx265", "b_frames": 2},
    "MPEG-4": {"frames": 60, "codec": "mpeg4", "b_frames": 2},
    "VP9": {"frames": 60, "codec": "libvpx-vp9"},
}
TOLERANT: dict[str, dict[str, Any]] = {
    "VP8": {"frames": 60, "codec": "libvpx", "container": "mkv"},
    "VP9": {"frames": 60, "codec": "libvpx-vp9"},
    "MJPEG": {"frames": 60, "codec": "mjpeg", "container": "mov", "pixel_format": "yuvj420p"},
    "MPEG-2": {"frames": 60, "codec": "mpeg2video", "b_frames": 2, "container": "mov"},
}
"""Whose damage several threads pass over in silence, or crash at."""
HITS = [(0.1, 0.5, 0), (0.02, 0.45, 1), (0.03, 0.8, 2), (0.005, 1.0, 3)]


@pytest.mark.parametrize("wanted", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize(("share", "at", "seed"), HITS)
@pytest.mark.parametrize("stride", [2, 7])
def test_damage_is_told_as_by_a_full_decode(
    wanted: dict[str, Any], share: float, at: float, seed: int, stride: int
) -> None:
    video = corrupt_middle(video_bytes(**wanted), share, at, seed)
    plan = probe(io.BytesIO(video), "clip", WHOLE)
    sampling = SamplingSettings(stride=stride)
    for threads in (1, 3):
        result = decoded(video, plan.info, plan.segments[0], sampling, threads)
        assert_same(result, fully_decoded(video, plan.info, plan.segments[0], sampling))
        assert result.report.frames_damaged == sum(record.status != "ok" for record in result.records)
        assert result.report.frames_decoded + result.report.frames_damaged == 60


@pytest.mark.parametrize("wanted", TOLERANT.values(), ids=TOLERANT)
@pytest.mark.parametrize("seed", range(12))
def test_damage_that_no_decoder_tells_of_looks_the_same_by_any_number_of_threads(
    wanted: dict[str, Any], seed: int
) -> None:
    video = corrupt_middle(video_bytes(**wanted), 0.02, 0.2 + 0.06 * seed, seed)
    plan = probe(io.BytesIO(video), "clip", WHOLE)
    one = decoded(video, plan.info, plan.segments[0], SamplingSettings())
    assert_same(decoded(video, plan.info, plan.segments[0], SamplingSettings(), threads=3), one)


def test_damaged_frames_that_nobody_wants_are_not_reported_whether_they_are_decoded_or_not() -> None:
    video = corrupt_middle(video_bytes(frames=60), 0.02, 0.42)
    plan = probe(io.BytesIO(video), "clip", WHOLE)
    damaged = [
        one.frame_index
        for one in decoded(video, plan.info, Segment(), SamplingSettings()).records
        if one.status != "ok"
    ]
    assert damaged
    for stride in (59, 20):
        result = decoded(video, plan.info, plan.segments[0], SamplingSettings(stride=stride))
        assert result.report.frames_damaged == 0 == sum(index % stride == 0 for index in damaged)


@pytest.mark.parametrize("share", [0.5, 0.65, 0.9])
def test_a_cut_off_video_ends_early_for_those_who_want_few_frames(share: float) -> None:
    video = truncate(video_bytes(frames=60, b_frames=2, faststart=True), share)
    plan = probe(io.BytesIO(video), "clip", WHOLE)
    for stride in (2, 7, 60):
        result = decoded(video, plan.info, plan.segments[0], SamplingSettings(stride=stride))
        assert result.report.ends_early
        assert_same(result, fully_decoded(video, plan.info, plan.segments[0], SamplingSettings(stride=stride)))


def packets_of(video: bytes) -> list[Any]:
    with av.open(io.BytesIO(video)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def test_a_video_cut_off_between_two_frames_ends_early_too() -> None:
    video = video_bytes(frames=60, b_frames=2, faststart=True)
    video = video[: max(packet.pos for packet in packets_of(video)[:40])]
    plan = probe(io.BytesIO(video), "clip", WHOLE)
    result = decoded(video, plan.info, plan.segments[0], SamplingSettings(stride=30))
    assert result.report.ends_early
    assert_same(result, fully_decoded(video, plan.info, plan.segments[0], SamplingSettings(stride=30)))


def without_first_gop(video: bytes) -> bytes:
    """From the second keyframe on, with the frames behind it that cannot be decoded any more."""
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


def test_frames_that_never_come_out_at_the_beginning_have_no_number() -> None:
    video = without_first_gop(video_bytes(**VIDEOS["HEVC, open GOPs"]))
    plan = probe(io.BytesIO(video), "clip", WHOLE)
    for segment in (Segment(), *plan.segments):
        for sampling in (SamplingSettings(stride=5), SamplingSettings(fps=5)):
            result = decoded(video, plan.info, segment, sampling)
            assert [frame_number(image) for image in result.images if image is not None] == [12, 17, 22, 27]
            assert [record.frame_index for record in result.records] == [0, 5, 10, 15]
            assert_same(result, fully_decoded(video, plan.info, segment, sampling))


# --- which packets are needed ----------------------------------------------------------------------------------------


@dataclass
class Coded:
    """A packet that says what it is: K can be started from, P is a reference, b is not."""

    kind: str
    size: int = 1

    @property
    def is_keyframe(self) -> bool:
        return self.kind == "K"

    def __bytes__(self) -> bytes:
        return self.kind.encode()


def kind_of(content: bytes, is_keyframe: bool) -> PacketKind:
    return PacketKind(is_keyframe, content != b"b")


def foreseen(story: str) -> Iterator[NumberedPacket]:
    """``K0 P3 b1 b2*``: kind, time, and a star for those that are wanted."""
    for word in story.split():
        pts = int(word[1:].rstrip("*"))
        yield NumberedPacket(Coded(word[0]), pts, pts, word.endswith("*"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        ("", ""),
        ("K0 P1 P2", ""),
        ("K0* P1 P2", "K0"),
        ("K0 P1 P2* P3", "K0 P1 P2"),
        ("K0 P3 b1 b2* P6 b4 b5", "K0 P3 b2"),
        ("K0* P1 K2* P3", "K0 | K2"),
        ("K0* P1 K2 P3*", "K0 | K2 P3"),
        ("K0 P1 K2 P3 K4 P5*", "| K4 P5"),
        ("K0* P1* K2* P3*", "K0 P1 K2 P3"),  # nothing is left out, so nothing begins anew
        ("K0* K1 K2 K3*", "K0 | K3"),
        ("K0* P1 K4 P2* P3 P5", "K0 P1 K4 P2"),  # shown before the keyframe, and built on what comes before it
        ("K0* P1 K4* P2 P3 P5*", "K0 | K4 P5"),  # what leads up to the keyframe is not wanted
        ("K0* P1 K4* b2* P5", "K0 P1 K4 b2"),
        ("K0* P1 K4*", "K0 | K4"),
        ("K3* P1 P4*", "K3 P4"),  # the segment begins at 3
    ],
)
def test_the_packets_that_wanted_frames_need(story: str, expected: str) -> None:
    needed = [
        f"{'| ' * one.afresh}{one.foreseen.packet.kind}{one.foreseen.pts}"  # type: ignore[attr-defined]
        for one in needed_packets(foreseen(story), kind_of)
    ]
    assert " ".join(needed) == expected


@pytest.mark.parametrize("story", ["P0* P1", "K3* P1*", "K0* P1 K4 P5* P2*"])
def test_what_cannot_be_decoded_is_left_to_a_full_decode(story: str) -> None:
    with pytest.raises(NeedsFullDecodeError):
        list(needed_packets(foreseen(story), kind_of))


def test_what_waits_to_be_needed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posebatch.video.sparse_decode, "MAX_HELD_BYTES", 3 * (1 + PACKET_BYTES))
    given_so_far = needed_packets(foreseen("K0 P1 P2 P3 P4 K5 P6"), kind_of)
    assert [one.foreseen.pts for one in given_so_far] == [0, 1, 2, 3]


# --- what a packet's bytes say ---------------------------------------------------------------------------------------

AVCC, HVCC_3_LAYERS = b"\x01\x64\x00\x1f\xff", bytes([1] + 20 * [0] + [3 << 3 | 3])
SEI, IDR, SLICE, IDLE_SLICE = b"\x06\x05", b"\x65\x88", b"\x41\x9a", b"\x01\x9e"
HEVC_IDR, HEVC_CRA = bytes([19 << 1, 1]), bytes([21 << 1, 1])
TRAIL, IDLE_0, IDLE_2, OTHER_VIEW = bytes([1 << 1, 1]), bytes([0, 1]), bytes([0, 3]), bytes([1 << 1, 1 << 3 | 1])


def packed(*units: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


@pytest.mark.parametrize(
    ("codec", "header", "content", "keyframe", "expected"),
    [
        ("h264", AVCC, b"", True, UNREADABLE),
        ("h264", AVCC, packed(SEI), True, UNREADABLE),
        ("h264", AVCC, packed(SEI, IDR, IDR), True, PacketKind(True, True)),
        ("h264", AVCC, packed(IDR), False, PacketKind(False, True)),
        ("h264", AVCC, packed(SLICE), True, PacketKind(False, True)),  # a keyframe of an open GOP
        ("h264", AVCC, packed(SEI, IDLE_SLICE), False, PacketKind(False, False)),
        ("h264", AVCC, packed(SLICE, IDLE_SLICE), False, PacketKind(False, True)),
        ("h264", AVCC, packed(IDLE_SLICE)[:-1], False, UNREADABLE),
        ("h264", AVCC, packed(IDLE_SLICE, b"\x01"), False, UNREADABLE),
        ("hevc", HVCC_3_LAYERS, packed(), True, UNREADABLE),
        ("hevc", HVCC_3_LAYERS, packed(HEVC_IDR), True, PacketKind(True, True)),
        ("hevc", HVCC_3_LAYERS, packed(HEVC_CRA), True, PacketKind(True, True)),
        ("hevc", HVCC_3_LAYERS, packed(TRAIL), True, PacketKind(False, True)),
        ("hevc", HVCC_3_LAYERS, packed(IDLE_0), False, PacketKind(False, True)),  # of the lowest layer
        ("hevc", HVCC_3_LAYERS, packed(IDLE_2), False, PacketKind(False, False)),
        ("hevc", HVCC_3_LAYERS, packed(IDLE_2, OTHER_VIEW), False, PacketKind(False, False)),
        ("mpeg4", b"", b"", True, UNREADABLE),
        ("mpeg4", b"", b"\x00\x00\x01\xb6", True, UNREADABLE),
        ("mpeg4", b"", b"\x00\x00\x01\xb6\x10", True, PacketKind(True, True)),
        ("mpeg4", b"", b"\x00\x00\x01\xb6\x50", False, PacketKind(False, True)),
        ("mpeg4", b"", b"\x00\x00\x01\xb6\x90", False, PacketKind(False, False)),
        ("mpeg4", b"", b"\x00\x00\x01\xb6\x50\x00\x00\x01\xb6\x90", False, UNREADABLE),  # two frames in one packet
        ("vp9", b"", b"", True, PacketKind(True, True)),
        ("vp9", b"", b"", False, PacketKind(False, True)),
    ],
)
def test_what_a_packet_says_of_its_frame(
    codec: str, header: bytes, content: bytes, keyframe: bool, expected: PacketKind
) -> None:
    read = kind_reader(codec, header)
    assert read is not None
    assert read(content, keyframe) == expected


@pytest.mark.parametrize(
    ("codec", "header"), [("h264", b""), ("h264", b"\x00\x00\x00\x01\x67"), ("hevc", AVCC), ("ffv1", b"")]
)
def test_streams_that_are_packed_in_other_ways_are_not_read(codec: str, header: bytes) -> None:
    assert kind_reader(codec, header) is None


@pytest.mark.parametrize("name", ["H.264, B-frames", "HEVC", "MPEG-4"])
def test_the_bytes_agree_with_the_decoder_on_what_is_a_b_frame(name: str) -> None:
    with av.open(io.BytesIO(video_bytes(**VIDEOS[name]))) as container:
        stream = container.streams.video[0]
        read = kind_reader(stream.codec_context.codec.canonical_name, stream.codec_context.extradata or b"")
        assert read is not None
        packets = [packet for packet in container.demux(stream) if packet.size]
        idle = {packet.pts for packet in packets if not read(bytes(packet), packet.is_keyframe).is_reference}
        starts = {packet.pts for packet in packets if read(bytes(packet), packet.is_keyframe).can_start}
    with av.open(io.BytesIO(video_bytes(**VIDEOS[name]))) as container:
        frames = list(container.decode(video=0))
    assert {frame.pts for frame in frames if frame.pict_type == B_FRAME} >= idle != set()
    assert {frame.pts for frame in frames if frame.key_frame} == starts
