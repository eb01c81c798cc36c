"""The frame that a player shows at an instant."""

import io
from fractions import Fraction

import pytest
from support.factories import frame_number, video_bytes

from posebatch.core.errors import InputError
from posebatch.video.instant import Instant, frame_at

VIDEOS = {
    "mp4": video_bytes(frames=40, gop=8),
    "B frames": video_bytes(frames=40, gop=8, b_frames=2, open_gop=True),
    "mkv": video_bytes(frames=40, gop=8, container="mkv"),
    "turned": video_bytes(frames=40, gop=8, rotation=90, size=(96, 128)),
}


@pytest.mark.parametrize("kind", VIDEOS)
@pytest.mark.parametrize("number", [0, 1, 7, 8, 9, 23, 24, 39])
def test_frame_at_finds_each_frame_by_number_and_by_time(kind, number):
    for instant in (Instant(frame_index=number), Instant(time_s=number / 25 + 0.001)):
        info, batch = frame_at(io.BytesIO(VIDEOS[kind]), "v", instant)
        assert batch.records[0].frame_index == frame_number(batch.images[0]) == number
        assert batch.images.shape[1:3] == (info.height, info.width)


def test_frame_at_shows_the_earlier_of_two_frames_until_the_later_begins():
    content = video_bytes(frames=3, pts=(0, 10, 50), time_base=Fraction(1, 50))
    shown = {t: frame_at(io.BytesIO(content), "v", Instant(t))[1].records[0].frame_index for t in (0.19, 0.21, 0.99)}
    assert shown == {0.19: 0, 0.21: 1, 0.99: 1}


@pytest.mark.parametrize(
    ("instant", "message"),
    [
        (Instant(-1.0), "nothing is shown at -1 s"),
        (Instant(99.0), r"it ends with frame 39 at 1\.60 s, before 99 s"),
        (Instant(frame_index=40), "before frame 40"),
    ],
)
def test_frame_at_names_an_instant_outside_the_video(instant, message):
    with pytest.raises(InputError, match=message):
        frame_at(io.BytesIO(VIDEOS["mp4"]), "v", instant)
