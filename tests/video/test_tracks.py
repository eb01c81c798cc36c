import pytest

from posebatch.core.errors import NoVideoStreamError
from posebatch.video.tracks import VideoTrack, choose_track


def track(number, width=640, frames=50, default=False, cover=False):
    return VideoTrack(number, "h264", width, width * 3 // 4, 25.0, frames, default, cover)


@pytest.mark.parametrize(
    ("tracks", "wanted", "chosen"),
    [
        ([], "default", None),
        ([track(0, cover=True)], "default", None),
        ([track(0)], "default", 0),
        ([track(0, frames=1), track(1)], "default", 1),
        ([track(0, frames=1, default=True), track(1)], "default", 1),
        ([track(0, frames=1)], "default", 0),
        ([track(0, width=1920), track(1, default=True)], "default", 1),
        ([track(0, width=160), track(1)], "default", 1),
        ([track(0), track(1)], "default", 0),
        ([track(0, width=160, default=True), track(1)], "largest", 1),
        ([track(0), track(3, width=160)], "3", 3),
        ([track(0), track(1, cover=True)], "1", 1),
    ],
)
def test_choose_track(tracks, wanted, chosen):
    found = choose_track(tracks, wanted, "clip.mp4")
    assert (found and found.number) == chosen


def test_choose_track_names_the_tracks_that_there_are():
    with pytest.raises(
        NoVideoStreamError, match=r"clip.mp4: no video track 7 .*; the tracks are 0: h264 640x480, 25 fps"
    ):
        choose_track([track(0)], "7", "clip.mp4")
