"""A frame has the same number however a video is cut, sampled or led in; damage is in `test_damage`."""

from __future__ import annotations

import io
import resource
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.decoding import (
    BY_GOP,
    CUT_START,
    CUTTABLE,
    EVERY_FRAME,
    ONE_SEGMENT,
    OPEN_GOPS,
    VFR,
    VFR_PTS,
    WHOLE,
    Decoded,
    assert_same_frames,
    batches_of,
    decode,
    decode_whole,
    decoder_of,
    plan_of,
)
from support.factories import corrupt_middle, frame_number, video_bytes

from posebatch.core.errors import IndexDisagreesError
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment

# --- the law of segments ---------------------------------------------------------------------------------------------

ALL = CUTTABLE | CUT_START | ONE_SEGMENT


def independent_pts(video: bytes) -> list[int | None]:
    with av.open(io.BytesIO(video)) as container:
        return [frame.pts for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", ALL)
def test_segment_decoder_yields_every_frame_once_whole_and_cut_at_keyframes(name: str) -> None:
    video = video_bytes(**ALL[name])
    plan, result = plan_of(video), decode_whole(video)
    assert result.numbers == list(range(5 if name in CUT_START else 0, ALL[name].get("frames", 30)))
    assert result.indices == list(range(len(result.records)))
    assert set(result.statuses) == {"ok"}
    assert result.pts == sorted(set(result.pts))
    # AVI has no presentation times: its frames take the time slots in turn
    assert result.pts == (list(range(30)) if ALL[name].get("container") == "avi" else independent_pts(video))
    assert plan.info.start_pts == result.pts[0]
    [report] = result.reports
    assert (report.frames_decoded, report.frames_damaged, report.ends_early) == (len(result.records), 0, False)
    assert batches_of(video, plan, Segment())[1] == report, "without the number of frames by the index"
    assert (report.first_pts, report.last_pts) == (result.pts[0], result.pts[-1])
    segments = plan_of(video, BY_GOP).segments
    assert [segment.index for segment in segments] == list(range(len(segments)))
    if name in ONE_SEGMENT:
        assert [(segment.start_dts, segment.end_dts) for segment in segments] == [(None, None)]
    else:
        assert len(segments) >= 3
        assert_same_frames(decode(video, BY_GOP), result)


@settings(max_examples=12, deadline=None)
@given(name=st.sampled_from(sorted(CUTTABLE | CUT_START)), seconds=st.floats(0.04, 2.0))
def test_segments_of_any_length_join_to_one_sequential_decode(name: str, seconds: float) -> None:
    video = video_bytes(**ALL[name])
    assert_same_frames(decode(video, seconds), decode_whole(video))


def test_videos_with_open_gops_have_frames_presented_before_their_keyframe() -> None:
    """Otherwise the cases above would prove nothing of open GOPs."""
    for codec in ("libx264", "libx265"):
        with av.open(io.BytesIO(video_bytes(codec=codec, **OPEN_GOPS))) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
        second = next(i for i, packet in enumerate(packets) if packet.is_keyframe and i)
        assert min(packet.pts or 0 for packet in packets[second:]) < (packets[second].pts or 0)


def test_decode_report_measures_intervals_across_cuts() -> None:
    video = video_bytes(**CUTTABLE["a gap"])
    [report] = decode_whole(video).reports
    parts = decode(video, BY_GOP).reports
    assert min(part.min_interval or 0 for part in parts) == report.min_interval == 512
    assert max(part.max_interval or 0 for part in parts) == report.max_interval == 31 * 512


def test_segment_decoder_gives_the_same_frames_with_more_threads() -> None:
    for wanted in (CUTTABLE["open GOPs"], CUTTABLE["HEVC"], CUTTABLE["VP9"]):
        video = video_bytes(**wanted)
        assert_same_frames(decode(video, BY_GOP, threads=4), decode_whole(video))


# --- an index that disagrees with the stream -------------------------------------------------------------------------

WRONG_SEGMENTS: dict[str, Callable[[Segment], Segment]] = {
    "one frame less": lambda segment: replace(segment, num_packets=(segment.num_packets or 0) - 1),
    "starts between packets": lambda segment: replace(segment, start_dts=(segment.start_dts or 0) + 1),
    "starts at no keyframe": lambda segment: replace(segment, start_dts=(segment.start_dts or 0) + 512),
    "ends between packets": lambda segment: replace(segment, end_dts=(segment.end_dts or 0) - 1),
}


@pytest.mark.parametrize("change", WRONG_SEGMENTS.values(), ids=WRONG_SEGMENTS)
def test_segment_decoder_refuses_a_segment_that_the_stream_contradicts(change: Callable[[Segment], Segment]) -> None:
    video = video_bytes(**CUTTABLE["open GOPs"])
    plan = plan_of(video, BY_GOP)
    batches_of(video, plan, plan.segments[1])  # the unchanged segment passes
    with pytest.raises(IndexDisagreesError, match="clip: segment 1"):
        batches_of(video, plan, change(plan.segments[1]))


def test_segment_decoder_reads_a_refused_video_as_one_segment() -> None:
    video = video_bytes(**CUTTABLE["open GOPs"])
    batches, report = batches_of(video, plan_of(video), Segment())
    assert Decoded().add(batches).records == decode_whole(video).records
    assert not report.ends_early


REFRESH = {"options": (("x264-params", "keyint=10:min-keyint=10:scenecut=0:bframes=0:intra-refresh=1"),)}
HIDDEN_OPEN = {"pts": tuple(range(-11, 19)), **OPEN_GOPS}


@pytest.mark.parametrize("wanted", [REFRESH, HIDDEN_OPEN], ids=["intra refresh", "edit list within an open GOP"])
def test_segment_decoder_refuses_keyframes_at_which_decoding_cannot_start(wanted: dict[str, Any]) -> None:
    with pytest.raises(IndexDisagreesError):
        decode(video_bytes(**wanted), BY_GOP)


# --- sampling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stride", "seconds"),
    [(1, BY_GOP), (2, BY_GOP), (7, BY_GOP), (7, WHOLE), (30, BY_GOP), (1000, WHOLE)],
)
def test_stride_takes_every_nth_frame_of_the_video(stride: int, seconds: float) -> None:
    result = decode(video_bytes(**CUTTABLE["open GOPs"]), seconds, SamplingSettings(stride=stride))
    assert result.indices == result.numbers == list(range(0, 30, stride))
    assert sum(report.frames_decoded for report in result.reports) == 30


@pytest.mark.parametrize(
    ("fps", "name", "seconds", "expected"),
    [
        (0.001, "B-frames", BY_GOP, [0]),
        (1.0, "starts late", BY_GOP, [0, 25]),
        (5.0, "no edit list", BY_GOP, [0, 5, 10, 15, 20, 25]),
        (5.0, "B-frames", WHOLE, [0, 5, 10, 15, 20, 25]),
        (10.0, "B-frames", BY_GOP, [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27]),
        (10.0, "starts late", WHOLE, [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27]),
        (25.0, "no edit list", BY_GOP, list(range(30))),
        (60.0, "B-frames", BY_GOP, list(range(30))),
        (1000.0, "starts late", WHOLE, list(range(30))),
    ],
)
def test_fps_takes_the_frame_on_screen_at_each_tick(fps: float, name: str, seconds: float, expected: list[int]) -> None:
    assert decode(video_bytes(**CUTTABLE[name]), seconds, SamplingSettings(fps=fps)).numbers == expected


@settings(max_examples=10, deadline=None)
@given(fps=st.floats(0.1, 100), seconds=st.floats(0.05, 1.5))
def test_fps_in_a_video_of_variable_rate_is_the_same_however_it_is_cut(fps: float, seconds: float) -> None:
    sampled = decode(video_bytes(**VFR), seconds, SamplingSettings(fps=fps))
    step, end = 600 / Fraction(fps).limit_denominator(1_000_000), VFR_PTS[-1] + 30
    ticks = [k * step for k in range(int(end / step) + 2) if k * step < VFR_PTS[-1] + 1]
    on_screen = sorted({max(i for i, pts in enumerate(VFR_PTS) if pts <= tick) for tick in ticks})
    assert sampled.numbers == sampled.indices
    # the container decides how long the last frame is shown, and so whether a tick falls into it
    assert [n for n in sampled.numbers if n != 19] == [n for n in on_screen if n != 19]


# --- the lead-in of a segment that begins inside a group of frames ---------------------------------------------------

LED_IN = CUTTABLE | CUT_START | {"GOPs of 2": {"gop": 2}, "open GOPs of 5": {**OPEN_GOPS, "gop": 5, "b_frames": 3}}


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(LED_IN)),
    seconds=st.floats(0.04, 1.0),
    group_frames=st.integers(1, 35),
    sampling=st.one_of(
        st.builds(SamplingSettings, stride=st.integers(1, 9)), st.builds(SamplingSettings, fps=st.floats(0.5, 40))
    ),
)
def test_lead_in_begins_with_the_first_sampled_frame_of_the_group(
    name: str, seconds: float, group_frames: int, sampling: SamplingSettings
) -> None:
    video = video_bytes(**LED_IN[name])
    plan, sequential = plan_of(video, seconds), decode(video, WHOLE, sampling)
    for segment in plan.segments:
        plain, plain_report = batches_of(video, plan, segment, sampling)
        batches, report = batches_of(video, plan, segment, sampling, group_frames=group_frames)
        own = Decoded().add([batch for batch in batches if not batch.lead_in])
        assert report == plain_report
        assert_same_frames(own, Decoded().add(plain))
        if own.records:
            group = own.records[0].frame_index // group_frames
            begin = next(i for i, index in enumerate(sequential.indices) if index // group_frames == group)
            end = sequential.indices.index(own.records[-1].frame_index) + 1
            assert_same_frames(Decoded().add(batches), sequential.part(begin, end))
        else:
            assert not batches


@pytest.mark.parametrize(
    ("name", "sampling", "group_frames", "lead_in"),
    [
        ("no B-frames", EVERY_FRAME, 1, []),
        ("no B-frames", EVERY_FRAME, 10, []),  # begins with its group
        ("no B-frames", EVERY_FRAME, 9, [9]),
        ("no B-frames", EVERY_FRAME, 11, list(range(10))),  # from the beginning of the stream
        ("open GOPs", EVERY_FRAME, 12, []),
        ("open GOPs", EVERY_FRAME, 5, [10, 11]),  # after the segment's keyframe in the file, presented before it
        ("no B-frames", SamplingSettings(stride=3), 4, []),  # 12 is its group's first
        ("no B-frames", SamplingSettings(stride=3), 20, [0, 3, 6, 9]),
        ("no B-frames", SamplingSettings(fps=5), 9, []),  # 10 is its group's first on screen at a tick
        ("no B-frames", SamplingSettings(fps=5), 20, [0, 5]),
    ],
)
def test_lead_in_of_the_second_segment(
    name: str, sampling: SamplingSettings, group_frames: int, lead_in: list[int]
) -> None:
    video = video_bytes(**CUTTABLE[name])
    plan = plan_of(video, BY_GOP)
    batches, report = batches_of(video, plan, plan.segments[1], sampling, group_frames=group_frames, batch_frames=3)
    assert Decoded().add([batch for batch in batches if batch.lead_in]).indices == lead_in
    assert report == batches_of(video, plan, plan.segments[1])[1]


def test_lead_in_goes_back_past_a_keyframe_that_is_presented_too_late() -> None:
    """The keyframe of frame 24 lies before frames 22 and 23 in the file, but they depend on an earlier one."""
    video = video_bytes(frames=48, **OPEN_GOPS)
    plan = plan_of(video, BY_GOP)
    assert [segment.first_packet for segment in plan.segments] == [0, 10, 22, 34]
    batches, _ = batches_of(video, plan, plan.segments[3], group_frames=22)
    assert_same_frames(Decoded().add(batches), decode_whole(video).part(22, 48))


def test_lead_in_and_segment_read_one_file_in_turn() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    wanted = {**CUTTABLE["only keyframes"], "options": (("qmax", "2"),)}
    video = video_bytes(**wanted, draw=lambda number: noise + number)
    assert len(video) > 8 * 32768  # FFmpeg reads so many bytes at a time
    plan = plan_of(video, 0.6)
    batches, _ = batches_of(video, plan, plan.segments[1], group_frames=30)
    assert_same_frames(Decoded().add(batches), decode_whole(video))


def test_lead_in_is_not_part_of_the_report() -> None:
    video = corrupt_middle(video_bytes(**CUTTABLE["no B-frames"]), 0.05, 0.5)  # within the second of three GOPs
    plan = plan_of(video, BY_GOP)
    batches, report = batches_of(video, plan, plan.segments[2], group_frames=30)
    lead_in = Decoded().add([batch for batch in batches if batch.lead_in])
    assert len(lead_in.records) == 20
    assert set(lead_in.statuses) > {"ok"}
    assert (report.frames_decoded, report.frames_damaged) == (10, 0)


# --- times and the header --------------------------------------------------------------------------------------------


def test_times_and_rate_are_exact_for_ntsc() -> None:
    video = video_bytes(fps=Fraction(30000, 1001), frames=4)
    plan = plan_of(video)
    assert [pts * plan.info.time_base for pts in decode(video).pts] == [Fraction(1001 * i, 30000) for i in range(4)]
    assert plan.info.avg_fps == 30000 / 1001
    assert plan.info.duration_s == pytest.approx(4 * 1001 / 30000)


def test_times_go_on_where_the_clock_of_a_recording_was_set_back() -> None:
    clip = video_bytes(frames=10, container="mpegts")
    result = decode(clip + clip)
    assert result.numbers == [*range(10), *range(10)]
    assert set(np.diff(result.pts)) == {3600}


def test_probe_reads_the_header() -> None:
    info = plan_of(video_bytes(**CUTTABLE["sound"])).info
    assert (info.codec, info.pixel_format, info.width, info.height, info.rotation) == ("h264", "yuv420p", 128, 96, 0)
    assert (info.duration_s, info.avg_fps, info.frames_in_header) == (1.2, 25.0, 30)
    assert info.time_base == Fraction(1, 12800)


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_frames", [1, 4, 30, 31])
def test_batch_holds_at_most_batch_frames_in_order(batch_frames: int) -> None:
    video = corrupt_middle(video_bytes(b_frames=2), 0.05)
    plan = plan_of(video)
    batches, _ = batches_of(video, plan, plan.segments[0], batch_frames=batch_frames)
    full, rest = divmod(30, batch_frames)
    assert [len(batch.records) for batch in batches] == [batch_frames] * full + [rest] * (rest > 0)
    assert Decoded().add(batches).indices == list(range(30))


def test_frames_of_another_size_are_scaled_to_that_of_the_first() -> None:
    small = video_bytes(frames=10, container="mpegts")
    large = video_bytes(frames=10, container="mpegts", size=(192, 112), pts=tuple(range(10, 20)), first_number=10)
    plan = plan_of(small + large)
    batches, report = batches_of(small + large, plan, plan.segments[0], batch_frames=8)
    assert [(len(batch.records), batch.images.shape[1:3]) for batch in batches] == [
        (8, (96, 128)),
        (8, (96, 128)),
        (4, (96, 128)),
    ]
    assert report.frames_resized == 10
    assert [frame_number(image) for batch in batches for image in batch.images] == list(range(20))


# --- the process -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory in use from /proc")
def test_segment_decoder_keeps_no_frames_in_memory() -> None:
    video = video_bytes(frames=400, size=(320, 240), gop=50, b_frames=2)
    plan = plan_of(video)
    decoder = decoder_of(video, plan, plan.segments[0], batch_frames=4)
    used = [int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() for _ in decoder]
    assert decoder.report.frames_decoded == 400
    assert max(used[20:]) - used[20] < 80 * 320 * 240 * 1.5  # the 320 frames after that take four times as much


def test_segment_decoder_can_be_closed_amid_damage() -> None:
    """Threads that still logged the damage once waited for ever for the thread that freed the decoder."""
    video = corrupt_middle(video_bytes(frames=60), 0.3)
    plan = plan_of(video)
    for _ in range(5):
        for taken in (1, 10, 20):
            decoder = decoder_of(video, plan, Segment(), batch_frames=1, threads=4)
            with closing(iter(decoder)) as batches:
                for _ in range(taken):
                    next(batches)


def test_segment_decoder_reports_every_decoded_frame_to_the_heartbeat() -> None:
    """Frames that are not sampled count too: `--max-seconds-per-frame` is for one frame, not for a batch."""
    video, calls = video_bytes(frames=30), list[None]()
    plan, sampling = plan_of(video), SamplingSettings(stride=14)
    decoder = decoder_of(video, plan, plan.segments[0], sampling, on_frame=lambda: calls.append(None))
    assert sum(len(batch.records) for batch in decoder) == 3
    assert len(calls) == decoder.frames_out > 3
