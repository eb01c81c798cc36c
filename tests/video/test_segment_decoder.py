"""What a frame is must not depend on how a video is cut, and no damage may move, lose or double one."""

from __future__ import annotations

import io
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.factories import audio_only, corrupt_middle, frame_number, numbered_image, truncate, video_bytes

from posebatch.core.errors import DamagedVideoError, IndexDisagreesError, NotAVideoError, NoVideoStreamError, VideoError
from posebatch.core.frames import FrameRecord
from posebatch.core.images import FrameBatch
from posebatch.core.records import DecodeReport
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment, VideoPlan
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.video.frame_images import FrameFormat
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

EVERY_FRAME = SamplingSettings()
WHOLE = 1e9
"""Segment length that leaves a video in one piece."""

BY_GOP = 0.1
"""Segment length that cuts at every keyframe of the videos here."""


@dataclass
class Decoded:
    records: list[FrameRecord]
    images: list[NDArray[np.uint8] | None]
    """One for each record; None unless it is ok."""
    reports: list[DecodeReport]

    @property
    def numbers(self) -> list[int | None]:
        """The numbers in the pictures."""
        return [None if image is None else frame_number(image) for image in self.images]

    @property
    def pts(self) -> list[int]:
        return [record.pts for record in self.records]

    def part(self, begin: int, end: int) -> Decoded:
        return Decoded(self.records[begin:end], self.images[begin:end], [])

    def is_same(self, other: Decoded) -> bool:
        pairs = zip(self.images, other.images, strict=False)
        return self.records == other.records and all(
            (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b)) for a, b in pairs
        )


def plan_of(video: bytes, segment_seconds: float = WHOLE) -> VideoPlan:
    return probe(io.BytesIO(video), "clip", segment_seconds)


def batches_of(
    video: bytes, plan: VideoPlan, segment: Segment, sampling: SamplingSettings = EVERY_FRAME, **how: Any
) -> tuple[list[FrameBatch], DecodeReport]:
    decoder = SegmentDecoder(
        io.BytesIO(video),
        "clip",
        segment,
        plan.info,
        DecodeOptions(sampling=sampling, batch_frames=how.pop("batch_frames", 7), **how),
    )
    return list(decoder), decoder.report


def put_together(batches: list[FrameBatch]) -> Decoded:
    result = Decoded([], [], [])
    for batch in batches:
        images = iter(batch.images)
        result.records += batch.records
        result.images += [next(images) if record.status == "ok" else None for record in batch.records]
    return result


def decoded(
    video: bytes, segment_seconds: float = WHOLE, sampling: SamplingSettings = EVERY_FRAME, **how: Any
) -> Decoded:
    """All segments of a video, one after the other."""
    plan = plan_of(video, segment_seconds)
    result = Decoded([], [], [])
    for segment in plan.segments:
        batches, report = batches_of(video, plan, segment, sampling, **how)
        part = put_together(batches)
        result.records += part.records
        result.images += part.images
        result.reports.append(report)
    return result


@lru_cache(maxsize=64)
def whole(video: bytes) -> Decoded:
    return decoded(video)


VFR_PTS = (0, 20, 41, 100, 101, 160, 250, 251, 252, 400, 420, 500, 501, 640, 700, 720, 800, 801, 900, 1000)
VFR = {"frames": 20, "gop": 6, "pts": VFR_PTS, "time_base": Fraction(1, 600), "b_frames": 2}
LEADING = {"gop": 12, "b_frames": 2, "open_gop": True}
"""Keyframes with two B-frames behind them in the file that are shown before them."""

CUTTABLE: dict[str, dict[str, Any]] = {
    "no B-frames": {},
    "B-frames": {"b_frames": 2},
    "open GOPs": LEADING,
    "HEVC": {"codec": "libx265", **LEADING},
    "HEVC, 10 bits": {"codec": "libx265", "pixel_format": "yuv420p10le"},
    "VP9": {"codec": "libvpx-vp9"},
    "MPEG-4": {"codec": "mpeg4", "b_frames": 2},
    "only keyframes": {"codec": "mjpeg", "container": "mov", "pixel_format": "yuvj420p"},
    "MOV": {"container": "mov", "b_frames": 2},
    "index first": {"faststart": True, "b_frames": 2},
    "sound": {"audio": True, "b_frames": 2},
    "variable rate": VFR,
    "a gap": {"pts": (*range(10), *range(40, 60)), "b_frames": 2},
    "starts late": {"pts": tuple(range(50, 80)), "b_frames": 2},
    "no edit list": {"b_frames": 2, "muxer_options": (("use_editlist", "0"),)},
    "negative offsets": {"b_frames": 2, "muxer_options": (("movflags", "negative_cts_offsets"),)},
}
"""Videos whose index lists every frame."""

CUT_START: dict[str, dict[str, Any]] = {
    "edit list hides 5": {"pts": tuple(range(-5, 25))},
    "edit list hides 5, B-frames": {"pts": tuple(range(-5, 25)), "b_frames": 2},
}

ONE_PIECE: dict[str, dict[str, Any]] = {
    "one frame": {"frames": 1},
    "one GOP": {"gop": 30, "b_frames": 2},
    "MKV": {"container": "mkv", "b_frames": 2},
    "WebM": {"container": "webm", "codec": "libvpx-vp9"},
    "AVI": {"container": "avi", "codec": "mpeg4"},
    "AVI, B-frames": {"container": "avi", "b_frames": 2},
    "TS": {"container": "mpegts", "b_frames": 2},
    "MPEG": {"container": "mpeg", "codec": "mpeg2video", "b_frames": 2},
    "FLV": {"container": "flv", "b_frames": 2},
    "ASF": {"container": "asf", "codec": "mpeg4"},
    "MXF": {"container": "mxf", "codec": "mpeg2video", "b_frames": 2},
    "fragmented": {"fragmented": True, "b_frames": 2},
}
"""Videos without an index that could be trusted to cut them by."""

ALL = CUTTABLE | CUT_START | ONE_PIECE


def made(wanted: dict[str, Any]) -> bytes:
    return video_bytes(**wanted)


# --- the law of segments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ALL.values(), ids=ALL)
def test_one_sequential_decode_gives_every_frame_once_in_order(wanted: dict[str, Any]) -> None:
    video = made(wanted)
    result = whole(video)
    hidden = 5 if wanted in CUT_START.values() else 0
    assert result.numbers == list(range(hidden, wanted.get("frames", 30)))
    assert [record.frame_index for record in result.records] == list(range(len(result.records)))
    assert {record.status for record in result.records} == {"ok"}
    assert result.pts == sorted(set(result.pts))
    [report] = result.reports
    assert (report.frames_decoded, report.frames_damaged, report.ends_early) == (len(result.records), 0, False)
    assert batches_of(video, plan_of(video), Segment())[1] == report  # with no word of how many there should be
    assert (report.first_pts, report.last_pts) == (result.pts[0], result.pts[-1])


@settings(max_examples=12, deadline=None)
@given(name=st.sampled_from(sorted(CUTTABLE | CUT_START)), seconds=st.floats(0.04, 2.0))
def test_segments_together_are_one_sequential_decode(name: str, seconds: float) -> None:
    video = made(ALL[name])
    assert decoded(video, seconds).is_same(whole(video))


@pytest.mark.parametrize("wanted", (CUTTABLE | CUT_START).values(), ids=CUTTABLE | CUT_START)
def test_cut_at_every_keyframe_the_segments_are_one_sequential_decode(wanted: dict[str, Any]) -> None:
    video = made(wanted)
    plan = plan_of(video, BY_GOP)
    assert len(plan.segments) >= 3
    assert [segment.index for segment in plan.segments] == list(range(len(plan.segments)))
    assert decoded(video, BY_GOP).is_same(whole(video))


@pytest.mark.parametrize("wanted", ONE_PIECE.values(), ids=ONE_PIECE)
def test_videos_without_a_trustworthy_index_are_one_segment(wanted: dict[str, Any]) -> None:
    plan = plan_of(made(wanted), BY_GOP)
    assert len(plan.segments) == 1
    assert plan.segments[0].start_dts is plan.segments[0].end_dts is None


def test_open_gops_here_have_frames_shown_before_their_keyframe() -> None:
    # otherwise the cases above would prove nothing of open GOPs
    for codec in ("libx264", "libx265"):
        with av.open(io.BytesIO(video_bytes(codec=codec, **LEADING))) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
        second = next(i for i, packet in enumerate(packets) if packet.is_keyframe and i)
        assert min(packet.pts or 0 for packet in packets[second:]) < (packets[second].pts or 0)


def test_a_frame_has_the_same_interval_to_its_neighbour_across_a_cut() -> None:
    video = made(CUTTABLE["a gap"])
    [one] = whole(video).reports
    parts = decoded(video, BY_GOP).reports
    assert min(part.min_interval or 0 for part in parts) == one.min_interval == 512
    assert max(part.max_interval or 0 for part in parts) == one.max_interval == 31 * 512


def test_more_threads_change_nothing() -> None:
    for wanted in (CUTTABLE["open GOPs"], CUTTABLE["HEVC"], CUTTABLE["VP9"]):
        video = made(wanted)
        assert decoded(video, BY_GOP, threads=4).is_same(whole(video))


# --- an index that lies ----------------------------------------------------------------------------------------------

LIES: dict[str, Callable[[Segment], Segment]] = {
    "one frame less": lambda segment: replace(segment, num_packets=(segment.num_packets or 0) - 1),
    "starts between packets": lambda segment: replace(segment, start_dts=(segment.start_dts or 0) + 1),
    "starts at no keyframe": lambda segment: replace(segment, start_dts=(segment.start_dts or 0) + 512),
    "ends between packets": lambda segment: replace(segment, end_dts=(segment.end_dts or 0) - 1),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_an_index_that_lies_is_refused(lie: Callable[[Segment], Segment]) -> None:
    video = made(CUTTABLE["open GOPs"])
    plan = plan_of(video, BY_GOP)
    batches_of(video, plan, plan.segments[1])  # the truth passes
    with pytest.raises(IndexDisagreesError, match="clip: segment 1"):
        batches_of(video, plan, lie(plan.segments[1]))


def test_a_refused_video_can_be_read_as_one_segment() -> None:
    video = made(CUTTABLE["open GOPs"])
    plan = plan_of(video)
    batches, report = batches_of(video, plan, Segment())
    assert [record for batch in batches for record in batch.records] == whole(video).records
    assert not report.ends_early


REFRESH = {"options": (("x264-params", "keyint=10:min-keyint=10:scenecut=0:bframes=0:intra-refresh=1"),)}
HIDDEN_OPEN = {"pts": tuple(range(-11, 19)), **LEADING}


@pytest.mark.parametrize("wanted", [REFRESH, HIDDEN_OPEN], ids=["intra refresh", "edit list within an open GOP"])
def test_keyframes_that_cannot_be_started_from_are_noticed(wanted: dict[str, Any]) -> None:
    video = made(wanted)
    with pytest.raises(IndexDisagreesError):
        decoded(video, BY_GOP)


# --- which frames are wanted -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3, 7, 29, 30, 1000])
@pytest.mark.parametrize("seconds", [BY_GOP, WHOLE])
def test_a_stride_takes_every_nth_frame_of_the_video(stride: int, seconds: float) -> None:
    result = decoded(made(CUTTABLE["open GOPs"]), seconds, SamplingSettings(stride=stride))
    assert [record.frame_index for record in result.records] == list(range(0, 30, stride))
    assert result.numbers == list(range(0, 30, stride))
    assert sum(report.frames_decoded for report in result.reports) == 30


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (0.001, [0]),
        (1.0, [0, 25]),
        (5.0, [0, 5, 10, 15, 20, 25]),
        (10.0, [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27]),
        (25.0, list(range(30))),
        (60.0, list(range(30))),
        (1000.0, list(range(30))),
    ],
)
@pytest.mark.parametrize("seconds", [BY_GOP, WHOLE])
@pytest.mark.parametrize("name", ["B-frames", "starts late", "no edit list"])
def test_a_rate_takes_the_frame_on_screen_at_each_tick(
    name: str, seconds: float, fps: float, expected: list[int]
) -> None:
    assert decoded(made(CUTTABLE[name]), seconds, SamplingSettings(fps=fps)).numbers == expected


@settings(max_examples=10, deadline=None)
@given(fps=st.floats(0.1, 100), seconds=st.floats(0.05, 1.5))
def test_a_rate_means_the_same_in_a_video_of_variable_rate_however_it_is_cut(fps: float, seconds: float) -> None:
    video = made(VFR)
    taken = decoded(video, seconds, SamplingSettings(fps=fps))
    step, end = 600 / Fraction(fps).limit_denominator(1_000_000), VFR_PTS[-1] + 30
    ticks = [k * step for k in range(int(end / step) + 2) if k * step < VFR_PTS[-1] + 1]
    on_screen = sorted({max(i for i, pts in enumerate(VFR_PTS) if pts <= tick) for tick in ticks})
    assert taken.numbers == [record.frame_index for record in taken.records]
    # the last frame's own length is the container's affair: whether it is hit by a tick inside it may vary
    assert [n for n in taken.numbers if n != 19] == [n for n in on_screen if n != 19]


# --- what leads up to a segment that begins amid a group of frames ---------------------------------------------------

LED = CUTTABLE | CUT_START | {"GOPs of 2": {"gop": 2}, "open GOPs of 5": {**LEADING, "gop": 5, "b_frames": 3}}


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(LED)),
    seconds=st.floats(0.04, 1.0),
    detect_every=st.integers(1, 35),
    sampling=st.one_of(
        st.builds(SamplingSettings, stride=st.integers(1, 9)), st.builds(SamplingSettings, fps=st.floats(0.5, 40))
    ),
)
def test_a_segment_is_led_in_from_its_groups_first_wanted_frame(
    name: str, seconds: float, detect_every: int, sampling: SamplingSettings
) -> None:
    video = made(LED[name])
    plan, sequential = plan_of(video, seconds), decoded(video, WHOLE, sampling)
    for segment in plan.segments:
        plain, plain_report = batches_of(video, plan, segment, sampling)
        batches, report = batches_of(video, plan, segment, sampling, detect_every=detect_every)
        own = put_together([batch for batch in batches if not batch.lead_in])
        assert report == plain_report
        assert own.is_same(put_together(plain))
        indices = [record.frame_index for record in sequential.records]
        if own.records:
            group = own.records[0].frame_index // detect_every
            begin = next(i for i, index in enumerate(indices) if index // detect_every == group)
            end = indices.index(own.records[-1].frame_index) + 1
            assert put_together(batches).is_same(sequential.part(begin, end))
        else:
            assert not batches


@pytest.mark.parametrize(
    ("name", "sampling", "detect_every", "lead_in"),
    [
        ("no B-frames", EVERY_FRAME, 1, []),
        ("no B-frames", EVERY_FRAME, 10, []),  # begins with its group
        ("no B-frames", EVERY_FRAME, 9, [9]),
        ("no B-frames", EVERY_FRAME, 11, list(range(10))),  # from the beginning of the stream
        ("open GOPs", EVERY_FRAME, 12, []),
        ("open GOPs", EVERY_FRAME, 5, [10, 11]),  # after the segment's keyframe in the file, shown before it
        ("no B-frames", SamplingSettings(stride=3), 4, []),  # 12 is its group's first
        ("no B-frames", SamplingSettings(stride=3), 20, [0, 3, 6, 9]),
        ("no B-frames", SamplingSettings(fps=5), 9, []),  # 10 is its group's first on screen at a tick
        ("no B-frames", SamplingSettings(fps=5), 20, [0, 5]),
    ],
)
def test_what_leads_up_to_the_second_segment(
    name: str, sampling: SamplingSettings, detect_every: int, lead_in: list[int]
) -> None:
    video = made(CUTTABLE[name])
    plan = plan_of(video, BY_GOP)
    batches, report = batches_of(video, plan, plan.segments[1], sampling, detect_every=detect_every, batch_frames=3)
    assert [record.frame_index for batch in batches if batch.lead_in for record in batch.records] == lead_in
    assert report == batches_of(video, plan, plan.segments[1])[1]


def test_a_lead_in_goes_back_past_a_keyframe_that_is_shown_too_late() -> None:
    # the keyframe shown as frame 24 lies before frames 22 and 23 in the file, but alone it does not lead to them
    video = made({"frames": 48, **LEADING})
    plan = plan_of(video, BY_GOP)
    assert [segment.first_packet for segment in plan.segments] == [0, 10, 22, 34]
    batches, _ = batches_of(video, plan, plan.segments[3], detect_every=22)
    assert put_together(batches).is_same(whole(video).part(22, 48))


def test_a_segment_and_what_leads_up_to_it_read_one_file_in_turn() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    video = made({**CUTTABLE["only keyframes"], "options": (("qmax", "2"),), "draw": lambda number: noise + number})
    assert len(video) > 8 * 32768  # FFmpeg reads so many bytes at a time
    plan = plan_of(video, 0.6)
    batches, _ = batches_of(video, plan, plan.segments[1], detect_every=30)
    assert put_together(batches).is_same(whole(video))


def test_the_frames_before_a_segment_do_not_show_in_its_report() -> None:
    video = corrupt_middle(made(CUTTABLE["no B-frames"]), 0.05, 0.5)  # within the second of three GOPs
    plan = plan_of(video, BY_GOP)
    batches, report = batches_of(video, plan, plan.segments[2], detect_every=30)
    statuses = [record.status for batch in batches if batch.lead_in for record in batch.records]
    assert len(statuses) == 20
    assert set(statuses) > {"ok"}
    assert (report.frames_decoded, report.frames_damaged) == (10, 0)


# --- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ALL.values(), ids=ALL)
def test_times_are_the_streams_own(wanted: dict[str, Any]) -> None:
    video = made(wanted)
    with av.open(io.BytesIO(video)) as container:
        time_base = container.streams.video[0].time_base
        independent = [frame.pts for frame in container.decode(video=0)]
    if wanted.get("container") == "avi":  # has no presentation times: the frames take its time slots in turn
        independent = list(range(30))
    plan = plan_of(video)
    assert whole(video).pts == independent
    assert (plan.info.time_base, plan.info.start_pts) == (time_base, independent[0])


def test_times_and_rate_are_exact_for_ntsc() -> None:
    video = video_bytes(fps=Fraction(30000, 1001), frames=4)
    plan = plan_of(video)
    assert [pts * plan.info.time_base for pts in decoded(video).pts] == [Fraction(1001 * i, 30000) for i in range(4)]
    assert plan.info.avg_fps == 30000 / 1001
    assert plan.info.duration_s == pytest.approx(4 * 1001 / 30000)


def test_times_go_on_where_the_clock_of_a_recording_was_set_back() -> None:
    clip = video_bytes(frames=10, container="mpegts")
    result = decoded(clip + clip)
    assert result.numbers == [*range(10), *range(10)]
    assert set(np.diff(result.pts)) == {3600}


def test_the_probe_says_what_the_header_promises() -> None:
    info = plan_of(made(CUTTABLE["sound"])).info
    assert (info.codec, info.pixel_format, info.width, info.height, info.rotation) == ("h264", "yuv420p", 128, 96, 0)
    assert (info.duration_s, info.avg_fps, info.frames_in_header) == (1.2, 25.0, 30)


# --- pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
def test_pictures_come_upright(container: str, rotation: int) -> None:
    video = video_bytes(frames=12, rotation=rotation, container=container, gop=6)
    info = plan_of(video).info
    result = decoded(video, BY_GOP)
    assert (info.rotation, info.width, info.height) == (rotation, 128, 96)
    assert {image.shape for image in result.images if image is not None} == {(96, 128, 3)}
    assert result.numbers == list(range(12))


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (128, 128, 128), (16, 16, 16), (255, 255, 255)]
BT709, BT601, BT2020 = (0.2126, 0.0722), (0.299, 0.114), (0.2627, 0.0593)
LIMITED, FULL = 1, 2


def solid(rgb: tuple[int, int, int], weights: tuple[float, float], full: bool, size: tuple[int, int]) -> VideoFrame:
    """One colour, coded by the standard's own formula, so that encoding shares no code with what is tested."""
    (kr, kb), (r, g, b) = weights, np.array(rgb) / 255
    y = kr * r + (1 - kr - kb) * g + kb * b
    pb, pr = (b - y) / (1 - kb) / 2, (r - y) / (1 - kr) / 2
    levels = (255 * y, 128 + 255 * pb, 128 + 255 * pr) if full else (16 + 219 * y, 128 + 224 * pb, 128 + 224 * pr)
    width, height = size
    planes = [np.full((height, width), round(levels[0])), np.full((height // 2, width), round(levels[1]))]
    planes[1][height // 4 :] = round(levels[2])  # the chroma planes lie one behind the other
    return VideoFrame.from_ndarray(np.clip(np.concatenate(planes), 0, 255).astype(np.uint8), format="yuv420p")


SD, HD = (64, 96), (64, 720)
COLOUR_CASES: dict[str, tuple[tuple[float, float], int | None, int | None, tuple[int, int], str]] = {
    "untagged SD is 601": (BT601, None, None, SD, "libx264"),
    "untagged HD is 709": (BT709, None, None, HD, "libx264"),
    "709": (BT709, 1, LIMITED, SD, "libx264"),
    "709, full": (BT709, 1, FULL, SD, "libx264"),
    "601 (PAL)": (BT601, 5, LIMITED, HD, "libx264"),
    "601 (NTSC)": (BT601, 6, LIMITED, HD, "libx264"),
    "601, full": (BT601, 6, FULL, HD, "libx264"),
    "2020": (BT2020, 9, LIMITED, SD, "libx264"),
    "709 in HEVC": (BT709, 1, FULL, SD, "libx265"),
}


@pytest.mark.parametrize("case", COLOUR_CASES.values(), ids=COLOUR_CASES)
def test_colours_are_right(case: tuple[tuple[float, float], int | None, int | None, tuple[int, int], str]) -> None:
    weights, matrix, color_range, size, codec = case
    video = video_bytes(
        frames=len(COLOURS),
        codec=codec,
        gop=1,
        size=size,
        matrix=matrix,
        color_range=color_range,
        options=(("crf", "1"),),
        draw=lambda number: solid(COLOURS[number], weights, color_range == FULL, size),
    )
    for image, colour in zip(decoded(video).images, COLOURS, strict=True):
        assert image is not None
        centre = image[size[1] // 4 : -size[1] // 4, 16:-16].astype(int)
        assert np.abs(centre - colour).max() <= 4, (colour, centre[0, 0])


def test_a_scale_shrinks_the_pictures() -> None:
    result = decoded(video_bytes(frames=3, rotation=90), frame_format=FrameFormat(scale=0.5))
    assert {image.shape for image in result.images if image is not None} == {(48, 64, 3)}
    assert result.numbers == [0, 1, 2]


def test_a_change_of_size_within_a_stream_begins_a_new_batch() -> None:
    small = video_bytes(frames=10, container="mpegts")
    large = video_bytes(frames=10, container="mpegts", size=(192, 112), pts=tuple(range(10, 20)), first_number=10)
    plan = plan_of(small + large)
    batches, _ = batches_of(small + large, plan, plan.segments[0], batch_frames=8)
    assert [(len(batch.records), batch.images.shape[1:3]) for batch in batches] == [
        (8, (96, 128)),
        (2, (96, 128)),
        (8, (112, 192)),
        (2, (112, 192)),
    ]
    assert [frame_number(image) for batch in batches for image in batch.images] == list(range(20))


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_frames", [1, 4, 10, 29, 30, 31])
def test_a_batch_holds_no_more_than_it_may_and_keeps_the_order(batch_frames: int) -> None:
    video = corrupt_middle(video_bytes(b_frames=2), 0.05)
    plan = plan_of(video)
    batches, _ = batches_of(video, plan, plan.segments[0], batch_frames=batch_frames)
    full, rest = divmod(30, batch_frames)
    assert [len(batch.records) for batch in batches] == [batch_frames] * full + [rest] * (rest > 0)
    assert [record.frame_index for batch in batches for record in batch.records] == list(range(30))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory in use from /proc")
def test_a_decoder_keeps_no_frames() -> None:
    video = video_bytes(frames=400, size=(320, 240), gop=50, b_frames=2)
    plan = plan_of(video)
    decoder = SegmentDecoder(
        io.BytesIO(video), "clip", plan.segments[0], plan.info, DecodeOptions(sampling=EVERY_FRAME, batch_frames=4)
    )
    used = [int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() for _ in decoder]
    assert decoder.report.frames_decoded == 400
    assert max(used[20:]) - used[20] < 80 * 320 * 240 * 1.5  # all 320 frames after that, coded, are four times as much


def test_a_decoder_waits_for_nobody_when_it_is_left_amid_damage() -> None:
    # several threads were still reporting the damage when the decoder was freed, and both waited for ever
    video = corrupt_middle(video_bytes(frames=60), 0.3)
    plan = plan_of(video)
    for _ in range(5):
        for taken in (1, 10, 20):
            decoder = SegmentDecoder(
                io.BytesIO(video),
                "clip",
                Segment(),
                plan.info,
                DecodeOptions(sampling=EVERY_FRAME, batch_frames=1, threads=4),
            )
            with closing(iter(decoder)) as batches:
                for _ in range(taken):
                    next(batches)


# --- damage ----------------------------------------------------------------------------------------------------------

DAMAGED: dict[str, dict[str, Any]] = {
    "H.264": {"frames": 60},
    "H.264, B-frames": {"frames": 60, "b_frames": 2},
    "HEVC": {"frames": 60, "codec": "libx265", "b_frames": 2},
    "MPEG-4": {"frames": 60, "codec": "mpeg4"},
    "VP9": {"frames": 60, "codec": "libvpx-vp9"},
}
HITS = [(0.1, 0.5, 0), (0.02, 0.45, 1), (0.03, 0.8, 2), (0.005, 1.0, 3)]


@pytest.mark.parametrize("wanted", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize(("share", "at", "seed"), HITS)
def test_damage_moves_loses_and_doubles_no_frame(wanted: dict[str, Any], share: float, at: float, seed: int) -> None:
    good = whole(video_bytes(**wanted))
    result = decoded(corrupt_middle(video_bytes(**wanted), share, at, seed))
    assert [record.frame_index for record in result.records] == list(range(60))
    assert result.pts == good.pts
    [report] = result.reports
    assert report.frames_decoded + report.frames_damaged == 60
    assert report.frames_damaged == sum(record.status != "ok" for record in result.records)
    # before the damage, and from the next keyframe but one after it, nothing is lost
    for i in (*range(10), *range(50, 60)) if at < 0.6 else range(30 if at < 1 else 50):
        assert result.images[i] is not None
        assert np.array_equal(result.images[i], good.images[i])  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize(("share", "at", "seed"), HITS)
def test_a_damaged_video_is_the_same_for_any_number_of_threads(
    wanted: dict[str, Any], share: float, at: float, seed: int
) -> None:
    video = corrupt_middle(video_bytes(**wanted), share, at, seed)
    assert decoded(video, threads=3).is_same(decoded(video))


def test_a_frame_that_comes_out_after_its_turn_shifts_no_other() -> None:
    # amid this damage the decoder gives a frame when later ones have been shown; it once took the next one's place
    good, result = whole(video_bytes(b_frames=2)), decoded(corrupt_middle(video_bytes(b_frames=2), 0.05))
    assert result.pts == good.pts
    assert [frame_number(image) for image in result.images[20:] if image is not None] == list(range(20, 30))


def test_damage_is_marked_by_kind() -> None:
    kinds = set()
    for share, at, seed in HITS:
        video = corrupt_middle(video_bytes(frames=60, b_frames=2), share, at, seed)
        kinds |= {record.status for record in decoded(video).records}
    assert kinds == {"ok", "corrupt", "missing"}


def test_damage_is_marked() -> None:
    for wanted in DAMAGED.values():
        marked = [r.status for r in decoded(corrupt_middle(video_bytes(**wanted), 0.1, 0.5)).records]
        assert 0 < marked.count("corrupt") + marked.count("missing") < 30, wanted


@pytest.mark.parametrize("wanted", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize(("share", "at", "seed"), HITS)
def test_a_damaged_video_in_segments_has_every_frame_once(
    wanted: dict[str, Any], share: float, at: float, seed: int
) -> None:
    video = corrupt_middle(video_bytes(**wanted), share, at, seed)
    try:
        result = decoded(video, BY_GOP)
    except IndexDisagreesError:
        return  # a keyframe was hit: the runner decodes it as one segment
    assert [record.frame_index for record in result.records] == list(range(60))
    assert result.pts == whole(video_bytes(**wanted)).pts


def test_the_segments_beside_a_damaged_one_are_whole() -> None:
    good = video_bytes(frames=60, b_frames=2)
    bad = corrupt_middle(good, 0.1, 0.5)
    plan = plan_of(good, BY_GOP)
    for segment in (*plan.segments[:2], *plan.segments[-2:]):
        (got, report), (expected, _) = batches_of(bad, plan, segment), batches_of(good, plan, segment)
        assert report.frames_damaged == 0
        for a, b in zip(got, expected, strict=True):
            assert a.records == b.records
            assert np.array_equal(a.images, b.images)


@pytest.mark.parametrize("share", [0.5, 0.65, 0.9])
def test_a_cut_off_video_ends_early(share: float) -> None:
    video = truncate(video_bytes(frames=60, faststart=True), share)
    result = decoded(video)
    assert result.reports[0].ends_early
    last = max(record.frame_index for record in result.records if record.status == "ok")
    assert 5 <= last < 59
    assert result.numbers[: last + 1] == list(range(last + 1))
    assert len(result.records) <= last + 2  # the one cut in two, and no more


@pytest.mark.parametrize("share", [0.5, 0.65, 0.9])
def test_a_cut_off_video_ends_early_in_segments_too(share: float) -> None:
    video = truncate(video_bytes(frames=60, faststart=True), share)
    plan, good = plan_of(video, BY_GOP), whole(video)
    early = []
    for segment in plan.segments:
        try:
            early.append(batches_of(video, plan, segment)[1].ends_early)
        except IndexDisagreesError:  # its keyframe was cut in two: the runner decodes the video as one segment
            assert batches_of(video, plan, Segment())[1].ends_early
            return
    assert early == sorted(early)
    assert early[-1]
    assert decoded(video, BY_GOP).is_same(good)


def test_a_recording_that_was_begun_within_a_gop_begins_with_its_first_keyframe() -> None:
    result = decoded(video_bytes(container="mpegts")[188 * 8 :])
    assert result.numbers == list(range(10, 30))
    assert [record.frame_index for record in result.records] == list(range(20))


CUT_OFF: list[dict[str, Any]] = [
    {"container": "mkv"},
    {"container": "mpegts"},
    {"container": "avi", "codec": "mpeg4"},
    {"fragmented": True},
]


@pytest.mark.parametrize("wanted", CUT_OFF, ids=["MKV", "TS", "AVI", "fragmented"])
def test_a_cut_off_video_without_an_index_gives_what_there_is(wanted: dict[str, Any]) -> None:
    numbers = decoded(truncate(video_bytes(frames=60, **wanted), 0.6)).numbers
    assert 10 <= len(numbers) < 60
    assert numbers[:-1] == list(range(len(numbers) - 1))
    assert numbers[-1] in (None, len(numbers) - 1)  # it may have been cut in two


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n{uri}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile '{uri}'\n"
SDP = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1" width="128" height="96">'
    "<BaseURL>{uri}</BaseURL></Representation></AdaptationSet></Period></MPD>"
)
PLAYLISTS = {"HLS": HLS, "ffconcat": CONCAT, "SDP": SDP, "DASH": DASH}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that answers nobody, but knows whether somebody came."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("playlist", PLAYLISTS.values(), ids=PLAYLISTS)
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.mpd", "list.sdp", "list.ffconcat", "list"])
def test_a_playlist_is_no_video_and_opens_nothing(
    tmp_path: Path, listener: socket.socket, playlist: str, name: str
) -> None:
    (tmp_path / "real.mp4").write_bytes(video_bytes())
    port = listener.getsockname()[1]
    for uri in ("real.mp4", str(tmp_path / "real.mp4"), f"http://127.0.0.1:{port}/a.mp4", f"tcp://127.0.0.1:{port}"):
        path = tmp_path / name
        path.write_text(playlist.format(uri=uri, port=port))
        recognised = "playlist" if playlist in (HLS, CONCAT) else "format"
        with path.open("rb") as file, pytest.raises(NotAVideoError, match=f"clip: .*{recognised}"):
            probe(file, "clip", WHOLE)
    with pytest.raises(BlockingIOError):  # nobody came
        listener.accept()


def with_external_data(video: bytes, path: str) -> bytes:
    """A MOV whose video track says that its data lie in another file."""
    entry = b"\x00\x00\x00\x0curl \x00\x00\x00\x01"
    assert video.count(entry) == 1
    location = path.encode() + b"\x00"
    other = struct.pack(">I4sI", 12 + len(location), b"url ", 0) + location
    grown = len(other) - len(entry)
    changed = video.replace(entry, other)
    for box in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        at = changed.index(box) - 4
        size = struct.unpack(">I", changed[at : at + 4])[0] + grown
        changed = changed[:at] + struct.pack(">I", size) + changed[at + 4 :]
    return changed


def test_a_movie_that_refers_to_another_file_does_not_open_it(tmp_path: Path, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    for path in (str(tmp_path / "real.mov"), f"http://127.0.0.1:{port}/real.mov"):
        video = with_external_data(video_bytes(container="mov", frames=5), path)
        assert decoded(video).numbers == list(range(5))  # its own bytes, at the same offsets
    with pytest.raises(BlockingIOError):
        listener.accept()


BROKEN: dict[str, tuple[bytes, type[VideoError], str]] = {
    "empty": (b"", NotAVideoError, "empty"),
    "one byte": (b"\x00", NotAVideoError, "not a video"),
    "text": (b"Dear diary,\n" * 100, NotAVideoError, "not a video"),
    "zeros": (bytes(10_000), NotAVideoError, "not a video"),
    "noise": (np.random.default_rng(0).bytes(5_000), NotAVideoError, "not a video"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(500), NotAVideoError, "format that is not read"),
    "MP4 without its index": (truncate(video_bytes(frames=60), 0.5), DamagedVideoError, "moov"),
    "only sound": (audio_only(), NoVideoStreamError, "only audio$"),
    "only sound, MKV": (audio_only("mkv"), NoVideoStreamError, "only audio$"),
    "sound and a cover picture": (audio_only(cover=True), NoVideoStreamError, "only audio, cover picture$"),
    "pictures all noise": (corrupt_middle(video_bytes(frames=5), 1.0), DamagedVideoError, "no frame can be decoded"),
}


@pytest.mark.parametrize(("content", "kind", "says"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_video_is_told_by_name(tmp_path: Path, content: bytes, kind: type[VideoError], says: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    for file in (io.BytesIO(content), path.open("rb")):
        with file, pytest.raises(kind, match=says) as raised:
            probe(file, "s3://archive/a clip.mp4", WHOLE)
        assert str(raised.value).startswith("s3://archive/a clip.mp4: ")
        assert not raised.value.retryable


def test_every_cut_of_a_file_is_a_video_or_a_video_error() -> None:
    for wanted in ({"frames": 12, "faststart": True}, {"frames": 12, "container": "mkv"}, {"frames": 12}):
        video = video_bytes(**wanted)
        for length in range(0, len(video), len(video) // 23):
            try:
                result = decoded(video[:length], BY_GOP)
            except VideoError:
                continue
            assert [record.frame_index for record in result.records] == list(range(len(result.records)))


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10**6), noise=st.binary(min_size=1, max_size=12), threads=st.sampled_from([1, 2]))
def test_any_noise_gives_frames_in_order_or_a_video_error(position: int, noise: bytes, threads: int) -> None:
    good = video_bytes(frames=20, b_frames=2, gop=5, faststart=True)
    position %= len(good)
    bad = (good[:position] + noise + good[position + len(noise) :])[: len(good)]
    try:
        result = decoded(bad, BY_GOP, threads=threads)
    except VideoError:
        return
    indices = [record.frame_index for record in result.records]
    assert indices == list(range(len(indices)))


# --- the factory itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 255, 256, 12345, 65535])
@pytest.mark.parametrize("size", [(128, 96), (64, 48), (96, 128), (1280, 720)])
def test_a_drawn_number_is_read_back_only_upright(size: tuple[int, int], number: int) -> None:
    image = numbered_image(number, size)
    assert frame_number(image) == number
    for turned in (image[::-1], image[:, ::-1], np.rot90(image), np.rot90(image, 2), np.rot90(image, 3)):
        with pytest.raises(ValueError, match="no frame number"):
            frame_number(turned)


def test_the_watch_over_the_process_hears_of_every_frame():
    """Of those that nobody wants too: `--max-seconds-per-frame` is for one frame, not for a batch."""
    content = video_bytes(frames=30)
    plan = probe(io.BytesIO(content), "a.mp4", 10)
    before = heartbeat.activity
    decoder = SegmentDecoder(
        io.BytesIO(content),
        "a.mp4",
        Segment(),
        plan.info,
        DecodeOptions(sampling=SamplingSettings(stride=10), batch_frames=8),
    )
    assert sum(len(batch.records) for batch in decoder) == 3
    assert heartbeat.activity - before >= decoder.frames_out > 0
