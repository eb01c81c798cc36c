"""Angles: Sports2D's, and those of figures whose angles are known."""

from pathlib import Path

import numpy as np
import pytest
from support.motion_figures import side_view, walking

from posebatch.core.skeleton import FLIP_ORDER, KEYPOINT_NAMES
from posebatch.motion.movement.angles import ANGLE_NAMES, ANGLES, MIRROR, PERIODS, body_angles

GOLDEN = np.load(Path(__file__).with_name("sports2d_angles.npz"))
"""See make_sports2d_angles.py."""
RIGHT, LEFT = 1.0, -1.0


def angles_of(xy, side=RIGHT):
    return dict(zip(ANGLE_NAMES, body_angles(xy, np.full(len(xy), side)).T, strict=True))


def apart(a, b):
    return np.abs((a - b + PERIODS / 2) % PERIODS - PERIODS / 2)


@pytest.mark.parametrize(("side", "visible"), [(RIGHT, "right"), (LEFT, "left")])
def test_angles_equal_those_of_sports2d(side, visible):
    ours = body_angles(GOLDEN["keypoints"].astype(float), np.full(len(GOLDEN["keypoints"]), side))
    assert apart(ours, GOLDEN[visible]).max() < 0.01


def test_angles_of_no_pose_are_empty():
    assert body_angles(np.zeros((0, 17, 2)), np.zeros(0)).shape == (0, len(ANGLES))


@pytest.mark.parametrize(
    ("figure", "name", "degrees"),
    [
        ({}, "left_knee", 0),
        ({}, "left_elbow", 0),
        ({}, "left_hip", 0),
        ({}, "left_shoulder", 0),
        ({}, "left_thigh", -90),
        ({}, "right_shank", -90),
        ({}, "right_upper_arm", -90),
        ({}, "trunk", 90),
        ({"knee": (30, 60)}, "left_knee", 30),
        ({"knee": (30, 60)}, "right_knee", 60),
        ({"knee": (30, 60)}, "right_shank", -150),
        ({"thigh": (40, -20)}, "left_hip", 40),
        ({"thigh": (40, -20)}, "right_hip", -20),
        ({"thigh": (40, -20)}, "left_thigh", -50),
        ({"elbow": (45, 90)}, "left_elbow", 45),
        ({"elbow": (45, 90)}, "right_forearm", 0),
        ({"arm": (90, 170)}, "left_shoulder", 90),
        ({"arm": (90, 170)}, "right_shoulder", 170),
        ({"lean": 20}, "trunk", 70),
        ({"lean": 20}, "left_hip", 20),
    ],
)
def test_angle_has_its_zero_and_sign(figure, name, degrees):
    assert angles_of(side_view(1, **figure))[name] == pytest.approx(degrees, abs=1e-6)


@pytest.mark.parametrize("name", ["pelvis", "shoulders"])
def test_line_of_hips_and_of_shoulders_is_level_at_0_and_rises_to_the_right(name):
    xy = side_view(1)
    part = "hip" if name == "pelvis" else "shoulder"
    xy[0, KEYPOINT_NAMES.index(f"left_{part}")] += (10, -10)
    assert angles_of(xy)[name] == pytest.approx(45)
    xy[0, KEYPOINT_NAMES.index(f"left_{part}"), 1] += 10
    assert angles_of(xy)[name] == pytest.approx(0)


def test_mirrored_walker_has_the_same_angles():
    xy = walking(40)
    mirrored = (xy * [-1, 1])[:, FLIP_ORDER] + [1000, 0]
    same, other = angles_of(xy), angles_of(mirrored, LEFT)
    for name in ANGLE_NAMES[:16]:
        side, _, part = name.partition("_")
        partner = f"{'right' if side == 'left' else 'left'}_{part}"
        np.testing.assert_allclose(other[partner], same[name], atol=1e-6)
    np.testing.assert_allclose(other["trunk"], same["trunk"], atol=1e-6)


def test_mirror_tells_the_angle_of_the_other_side():
    xy = GOLDEN["keypoints"].astype(float)
    right, left = (body_angles(xy, np.full(len(xy), side)) for side in (RIGHT, LEFT))
    assert apart(left, MIRROR - right).max() < 1e-6


def test_rotated_picture_turns_segments_alone():
    xy, turn = walking(20), np.radians(25)
    rotated = xy @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    change = body_angles(rotated, np.ones(20)) - body_angles(xy, np.ones(20))
    segments = MIRROR == 180
    level = np.isin(ANGLE_NAMES, ["pelvis", "shoulders"])  # both ends of these lie together here
    np.testing.assert_allclose(change[:, ~segments], 0, atol=1e-6)
    np.testing.assert_allclose((change[:, segments & ~level] + 360) % 360, 25, atol=1e-6)


@pytest.mark.parametrize("joint", range(17))
def test_angle_is_unknown_where_one_of_its_joints_is(joint):
    xy = GOLDEN["keypoints"][:1].astype(float)
    xy[0, joint] = np.nan
    unknown = np.isnan(body_angles(xy, np.ones(1))[0])
    assert unknown.tolist() == [joint in angle.joints for angle in ANGLES]
