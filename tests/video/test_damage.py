"""Damage moves, loses and doubles no frame, and is reported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.decoding import (
    BY_GOP,
    DAMAGED,
    HITS,
    assert_same_frames,
    batches_of,
    decode,
    decode_whole,
    plan_of,
)
from support.factories import corrupt_middle, truncate, video_bytes

from posebatch.core.errors import IndexDisagreesError, VideoError
from posebatch.core.videos import Segment


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize(("share", "at", "seed"), HITS)
def test_damage_moves_no_frame_with_any_number_of_threads(name: str, share: float, at: float, seed: int) -> None:
    video = video_bytes(**DAMAGED[name])
    bad = corrupt_middle(video, share, at, seed)
    good, result = decode_whole(video), decode(bad)
    assert_same_frames(decode(bad, threads=3), result)
    assert result.indices == list(range(60))
    assert result.pts == good.pts
    [report] = result.reports
    assert report.frames_decoded + report.frames_damaged == 60
    assert report.frames_damaged == sum(status != "ok" for status in result.statuses)
    # before the damage, and from the second keyframe after it, all frames are whole
    for i in (*range(10), *range(50, 60)) if at < 0.6 else range(30 if at < 1 else 50):
        assert result.images[i] is not None
        assert np.array_equal(result.images[i], good.images[i])  # type: ignore[arg-type]


def test_damage_shifts_no_frame_when_one_comes_out_late() -> None:
    """The decoder yields a frame when later ones have been presented. It once took the next one's place."""
    video = video_bytes(b_frames=2)
    good, result = decode_whole(video), decode(corrupt_middle(video, 0.05))
    assert result.pts == good.pts
    assert [number for number in result.part(20, 30).numbers if number is not None] == list(range(20, 30))


def test_damage_is_marked_by_kind() -> None:
    video, statuses = video_bytes(frames=60, b_frames=2), set[str]()
    for hit in HITS:
        statuses.update(decode(corrupt_middle(video, *hit)).statuses)
    assert statuses == {"ok", "corrupt", "missing"}


def test_damage_is_marked_in_every_codec() -> None:
    for name, wanted in DAMAGED.items():
        statuses = decode(corrupt_middle(video_bytes(**wanted), 0.1, 0.5)).statuses
        assert 0 < statuses.count("corrupt") + statuses.count("missing") < 30, name


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_video_in_segments_has_every_frame_once(name: str) -> None:
    video, cut = video_bytes(**DAMAGED[name]), 0
    for hit in HITS:
        try:
            result = decode(corrupt_middle(video, *hit), BY_GOP)
        except IndexDisagreesError:
            continue  # a keyframe was hit: the scheduler decodes the video as one segment
        assert result.indices == list(range(60))
        assert result.pts == decode_whole(video).pts
        cut += 1
    assert cut, "some damage leaves the keyframes alone"


def test_damage_leaves_other_segments_whole() -> None:
    good = video_bytes(frames=60, b_frames=2)
    bad = corrupt_middle(good, 0.1, 0.5)
    plan = plan_of(good, BY_GOP)
    for segment in (*plan.segments[:2], *plan.segments[-2:]):
        (batches, report), (expected, _) = batches_of(bad, plan, segment), batches_of(good, plan, segment)
        assert report.frames_damaged == 0
        for a, b in zip(batches, expected, strict=True):
            assert a.records == b.records
            assert np.array_equal(a.images, b.images)


# --- files that are cut off ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 0.65, 0.9])
def test_truncated_video_ends_early(share: float) -> None:
    result = decode(truncate(video_bytes(frames=60, faststart=True), share))
    assert result.reports[0].ends_early
    last = max(record.frame_index for record in result.records if record.status == "ok")
    assert 5 <= last < 59
    assert result.numbers[: last + 1] == list(range(last + 1))
    assert len(result.records) <= last + 2  # the frame that was cut in two, and no more


@pytest.mark.parametrize("share", [0.5, 0.65, 0.9])
def test_truncated_video_ends_early_in_segments(share: float) -> None:
    video = truncate(video_bytes(frames=60, faststart=True), share)
    plan = plan_of(video, BY_GOP)
    early = []
    for segment in plan.segments:
        try:
            early.append(batches_of(video, plan, segment)[1].ends_early)
        except IndexDisagreesError:  # its keyframe was cut in two: the scheduler decodes the video as one segment
            assert batches_of(video, plan, Segment())[1].ends_early
            return
    assert early == sorted(early)
    assert early[-1]
    assert_same_frames(decode(video, BY_GOP), decode_whole(video))


def test_recording_that_begins_within_a_gop_begins_with_its_first_keyframe() -> None:
    result = decode(video_bytes(container="mpegts")[188 * 8 :])
    assert result.numbers == list(range(10, 30))
    assert result.indices == list(range(20))


TRUNCATED: dict[str, dict[str, Any]] = {
    "MKV": {"container": "mkv"},
    "TS": {"container": "mpegts"},
    "AVI": {"container": "avi", "codec": "mpeg4"},
    "fragmented": {"fragmented": True},
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_truncated_video_without_an_index_yields_the_frames_it_has(name: str) -> None:
    numbers = decode(truncate(video_bytes(frames=60, **TRUNCATED[name]), 0.6)).numbers
    assert 10 <= len(numbers) < 60
    assert numbers[:-1] == list(range(len(numbers) - 1))
    assert numbers[-1] in (None, len(numbers) - 1)  # it may have been cut in two


def test_truncated_video_of_any_length_decodes_or_raises_a_video_error() -> None:
    for wanted in ({"frames": 12, "faststart": True}, {"frames": 12, "container": "mkv"}, {"frames": 12}):
        video = video_bytes(**wanted)
        for length in range(0, len(video), len(video) // 23):
            try:
                result = decode(video[:length], BY_GOP)
            except VideoError:
                continue
            assert result.indices == list(range(len(result.records)))


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10**6), noise=st.binary(min_size=1, max_size=12), threads=st.sampled_from([1, 2]))
def test_noise_anywhere_decodes_in_order_or_raises_a_video_error(position: int, noise: bytes, threads: int) -> None:
    good = video_bytes(frames=20, b_frames=2, gop=5, faststart=True)
    position %= len(good)
    bad = (good[:position] + noise + good[position + len(noise) :])[: len(good)]
    try:
        result = decode(bad, BY_GOP, threads=threads)
    except VideoError:
        return
    assert result.indices == list(range(len(result.records)))
