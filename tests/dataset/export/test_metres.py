"""Metres from pixels by the height of a person."""

import numpy as np
import pytest
from support.motion_factories import HEIGHT, STATURE_PX, walker

from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.dataset.export.metres import Scale, body_heights_px, scale_of
from posebatch.dataset.export.video_motion import BodyHeight

TIMES = np.arange(25) / 25
KNEES = [KEYPOINT_NAMES.index(f"{side}_knee") for side in ("left", "right")]
HIPS = [KEYPOINT_NAMES.index(f"{side}_hip") for side in ("left", "right")]


def scale(xy: np.ndarray, height_cm: float = 180) -> Scale | None:
    return scale_of(xy, BodyHeight(height_cm, is_assumed=False), HEIGHT)


@pytest.mark.parametrize("frames", [0, 3])
def test_scale_of_nobody_is_unknown(frames: int):
    assert scale(np.full((frames, 17, 2), np.nan)) is None


def test_scale_of_a_standing_person_is_the_stated_height_over_its_pixels():
    found = scale(walker(TIMES))
    assert found is not None
    assert found.height_px == pytest.approx(STATURE_PX)
    assert found.metres_per_px == pytest.approx(1.80 / STATURE_PX)
    assert found.standing_frames == 25


def test_scale_does_not_need_the_side_that_is_hidden():
    xy = walker(TIMES)
    xy[:, [joint for joint, name in enumerate(KEYPOINT_NAMES) if name.startswith("right_")]] = np.nan
    found = scale(xy)
    assert found is not None
    assert found.height_px == pytest.approx(STATURE_PX)


def test_scale_comes_from_the_frames_in_which_the_person_stands():
    xy = walker(TIMES)
    xy[5:] = 0.5 * xy[5:]  # further away in most frames
    xy[5:, KNEES, 0] += 40  # and sitting there
    found = scale(xy)
    assert found is not None
    assert found.standing_frames == 5
    assert found.height_px == pytest.approx(STATURE_PX)


def test_scale_of_who_lies_counts_all_frames_and_says_so():
    found = scale(walker(TIMES)[:, :, ::-1])
    assert found is not None
    assert found.standing_frames == 0
    assert found.height_px == pytest.approx(STATURE_PX, rel=0.02)


@pytest.mark.parametrize("joints", [KNEES, HIPS])
def test_scale_needs_trunk_and_a_leg(joints: list[int]):
    xy = walker(TIMES)
    xy[:, joints] = np.nan
    assert scale(xy) is None


def test_scale_of_joints_in_one_point_is_unknown():
    assert scale(np.zeros((3, 17, 2))) is None


def test_heights_are_unknown_in_frames_without_the_person():
    xy = walker(TIMES)
    xy[3] = np.nan
    heights, standing = body_heights_px(xy)
    assert np.flatnonzero(np.isnan(heights)).tolist() == [3]
    assert not standing[3]


def test_metres_have_y_up_from_the_lower_left_pixel():
    scale = Scale(0.01, 170, 1, frame_height=100)
    points = scale.metres(np.array([[0.0, 99.0], [50.0, 0.0], [np.nan, np.nan]]))
    np.testing.assert_allclose(points, [[0, 0, 0], [0.5, 0.99, 0], [np.nan] * 3])
