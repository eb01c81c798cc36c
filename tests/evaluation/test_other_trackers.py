"""The trackers that the linker is compared with, where their library is installed."""

from dataclasses import replace

import numpy as np
import pytest

from posebatch.core.errors import UsageError
from posebatch.evaluation.other_trackers import OTHER_TRACKERS, track_with
from posebatch.motion.blocks import FrameBlock


def two_people(frames: int) -> FrameBlock:
    """Two people side by side, who stand still."""
    count = 2 * frames
    boxes = np.array([[10, 10, 50, 110], [200, 10, 240, 110]], np.float32)
    return FrameBlock(
        frame_index=np.arange(frames),
        pts=np.arange(frames),
        time_s=np.arange(frames) / 25,
        frame=np.repeat(np.arange(frames), 2),
        person=np.tile(np.arange(2, dtype=np.int32), frames),
        bbox_xyxy=np.tile(boxes, (frames, 1)),
        bbox_scores=np.full(count, 0.9, np.float32),
        pose_scores=np.zeros(count, np.float32),
        keypoints=np.zeros((count, 17, 3), np.float32),
    )


@pytest.mark.parametrize("name", OTHER_TRACKERS)
def test_two_people_apart_have_a_track_each(name: str) -> None:
    pytest.importorskip("trackers")
    track = track_with(name, two_people(20)).reshape(-1, 2)[5:]
    assert (track >= 0).all()
    assert (track == track[0]).all()
    assert track[0, 0] != track[0, 1]


@pytest.mark.parametrize("name", OTHER_TRACKERS)
def test_frame_without_a_person_gives_no_track(name: str) -> None:
    pytest.importorskip("trackers")
    block = two_people(20)
    later = replace(
        block, frame_index=np.arange(25), pts=np.arange(25), time_s=np.arange(25) / 25, frame=block.frame + 5
    )
    assert len(track_with(name, later)) == 40


def test_trackers_without_their_library_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"posebatch\[trackers\]"):
        track_with("bytetrack", two_people(1))
