"""Faults that the field brings: each has its right times, pictures and counts."""

import io
from itertools import chain

import numpy as np
import pytest
from support.factories import frame_number, numbered_image, video_bytes
from support.odd_videos import (
    avi_with_not_coded_slots,
    coded_stream,
    matroska,
    mp4_with_parameter_set_samples,
    two_tracks,
    with_display_matrix,
    with_late_picture,
)

from posebatch.core.errors import EncryptedVideoError, IndexDisagreesError, NoVideoStreamError
from posebatch.core.execution_settings import LimitSettings
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

HOUR = 3_600_000


def decoded(content, track="default", stride=1, **options):
    """The plan, all records, all images and the report of a video that is decoded whole."""
    file = io.BytesIO(content)
    info = probe(file, "clip", 1e9, video_track=track).info
    decoder = SegmentDecoder(file, "clip", Segment(), info, DecodeOptions(SamplingSettings(stride), **options))
    batches = list(decoder)
    records = [record for batch in batches for record in batch.records]
    return info, records, [image for batch in batches for image in batch.images], decoder.report


def seconds(info, records):
    return [round(float(record.pts * info.time_base), 6) for record in records]


# --- times -----------------------------------------------------------------------------------------------------------


def test_pictures_of_an_avi_with_not_coded_slots_keep_their_own_times():
    info, records, images, report = decoded(avi_with_not_coded_slots(25))
    assert seconds(info, records) == [round(0.08 * i, 6) for i in range(25)]
    assert [frame_number(image) for image in images] == list(range(25))
    assert {record.status for record in records} == {"ok"}
    assert report.frames_damaged == 0


@pytest.mark.parametrize("stride", [1, 3])
def test_samples_of_parameter_sets_are_no_frames(stride):
    info, records, images, _ = decoded(mp4_with_parameter_set_samples(20), stride=stride)
    numbers = list(range(0, 20, stride))
    assert [record.frame_index for record in records] == numbers
    assert [frame_number(image) for image in images] == numbers
    assert seconds(info, records) == [round(0.02 + 0.04 * number, 6) for number in numbers]
    assert {record.status for record in records} == {"ok"}


@pytest.mark.parametrize("place", [0, 5, 19])
@pytest.mark.parametrize("wrong", [HOUR, 100_000])
def test_one_wrong_timestamp_moves_one_frame(place, wrong):
    times = [40 * i for i in range(20)]
    info, records, images, report = decoded(
        matroska(coded_stream(frames=20).with_times([*times[:place], wrong, *times[place + 1 :]]))
    )
    assert seconds(info, records) == [time / 1000 for time in times]
    assert [record.time_status for record in records] == ["repaired" if i == place else "ok" for i in range(20)]
    assert [frame_number(image) for image in images] == list(range(20))
    assert report.timestamps_repaired == 1


def test_repeated_timestamps_move_their_own_frames_by_a_tick():
    times = [40 * (i - i // 10) for i in range(30)]  # every tenth frame repeats the time before it
    info, records, _, report = decoded(matroska(coded_stream(frames=30).with_times(times)))
    expected = [time + 1 if i and time == times[i - 1] else time for i, time in enumerate(times)]
    assert [round(1000 * second) for second in seconds(info, records)] == expected
    assert report.timestamps_repaired == 2


def test_a_wrong_timestamp_does_not_exceed_the_limit_of_hours():
    content = matroska(coded_stream(frames=20).with_times([*range(0, 400, 40), HOUR, *range(440, 800, 40)]))
    file = io.BytesIO(content)
    limits = LimitSettings(max_hours=0.5)
    info = probe(file, "clip", 20, limits).info
    assert info.duration_s < 1
    assert sum(len(batch.records) for batch in SegmentDecoder(file, "clip", Segment(), info, DecodeOptions())) == 20


def test_a_video_with_a_wrong_timestamp_is_not_cut_into_segments():
    """Neighbours on both sides decide on a timestamp, and a segment knows only its own."""
    content = with_late_picture(video_bytes(frames=40, gop=10, b_frames=2), entry=6)
    file = io.BytesIO(content)
    plan = probe(file, "clip", 0.3)
    assert len(plan.segments) > 1
    decoders = [SegmentDecoder(file, "clip", segment, plan.info, DecodeOptions()) for segment in plan.segments]
    with pytest.raises(IndexDisagreesError):
        list(chain.from_iterable(decoders))
    info, records, images, report = decoded(content)
    assert [frame_number(image) for image in images] == list(range(40))
    assert report.timestamps_repaired == 1
    assert seconds(info, records) == [round(0.04 * i, 6) for i in range(40)]


# --- pictures --------------------------------------------------------------------------------------------------------


def test_a_still_beside_a_video_is_not_chosen():
    info, _, images, _ = decoded(two_tracks(still_frames=1))
    assert (info.track, len(images)) == (1, 10)
    assert [text.split(",")[0] for text in info.tracks_in_file] == ["0: mjpeg 64x48", "1: h264 128x96"]


@pytest.mark.parametrize(("track", "frames", "size"), [("0", 4, (64, 48)), ("largest", 10, (128, 96))])
def test_video_track_chooses_a_track(track, frames, size):
    info, _, images, _ = decoded(two_tracks(still_frames=4), track)
    assert (len(images), (info.width, info.height)) == (frames, size)


def test_video_track_that_is_missing_is_named():
    with pytest.raises(NoVideoStreamError, match="no video track 7"):
        decoded(two_tracks(still_frames=4), "7")


EIGHT = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


@pytest.mark.parametrize("entries", EIGHT)
def test_pictures_are_displayed_as_the_matrix_says(entries):
    a, b, c, d = entries
    info, _, images, _ = decoded(with_display_matrix(video_bytes(frames=1), entries))
    stored = numbered_image(0)
    turned = stored if a else stored.swapaxes(0, 1)
    expected = turned[:: d or b, :: a or c]
    assert images[0].shape == expected.shape == (info.height, info.width, 3)
    assert np.abs(images[0].astype(int) - expected).mean() < 12
    assert info.mirrored == (a * d - b * c < 0)


def test_a_matrix_that_shears_is_noted():
    info, *_ = decoded(with_display_matrix(video_bytes(frames=1), (1, 0.3, 0, 1)))
    assert info.matrix_ignored


def test_wide_pixels_are_displayed_square():
    info, _, images, report = decoded(video_bytes(frames=3, options=(("x264-params", "sar=2/1:keyint=10"),)))
    assert (info.width, info.height, info.coded_width, info.sample_aspect_ratio) == (256, 96, 128, 2)
    assert images[0].shape == (96, 256, 3)
    assert [frame_number(image) for image in images] == [0, 1, 2]
    assert report.frames_resized == 0


def test_encrypted_video_is_no_noise():
    keys = ("encryption_scheme", "cenc-aes-ctr"), ("encryption_key", "76" * 16), ("encryption_kid", "a7" * 16)
    with pytest.raises(EncryptedVideoError, match="clip: its video is encrypted"):
        decoded(video_bytes(frames=10, muxer_options=keys))
