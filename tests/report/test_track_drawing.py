"""Tracks in previews: colours, numbers and trails, checked on pixels."""

import numpy as np
import pytest

from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.core.skeleton import KEYPOINT_NAMES, SKELETON_EDGES
from posebatch.report.drawing import DRAWING_THRESHOLDS, EDGE_COLOURS, JOINT_COLOURS, draw_skeletons
from posebatch.report.track_drawing import (
    NO_TRACK_COLOUR,
    TRACK_COLOURS,
    TRAIL_SECONDS,
    ClipPainter,
    Trail,
    draw_numbers,
    draw_trails,
    track_colour,
)

GREY = 90
WRIST = KEYPOINT_NAMES.index("left_wrist")
EDGE = SKELETON_EDGES.index((5, 7))
RED = (255, 0, 0)


def blank(width=160, height=120):
    return np.full((height, width, 3), GREY, np.uint8)


def poses(*persons, ids=None):
    """A frame of persons, each given as {joint: (x, y)}; their joints score 0.9, the others 0."""
    keypoints = np.zeros((len(persons), 17, 3), np.float32)
    for number, joints in enumerate(persons):
        for joint, position in joints.items():
            keypoints[number, joint] = (*position, 0.9)
    boxes, ones = np.zeros((len(persons), 4), np.float32), np.ones(len(persons), np.float32)
    track_ids = None if ids is None else np.array(ids, np.int32)
    return FramePoses(FrameRecord(0, 0, True, "ok"), boxes, ones, ones, keypoints, track_ids=track_ids)


def has_colour(pixels, colour, tolerance=12):
    """Whether a pixel of (..., 3) has the colour."""
    return bool((np.abs(pixels.astype(int) - colour).max(axis=-1) < tolerance).any())


def changed_box(drawn):
    """Left, top, right, bottom of the pixels that are not blank."""
    y, x = np.nonzero((drawn != GREY).any(axis=2))
    return x.min(), y.min(), x.max(), y.max()


def trail(*points, ages=None, frames=None, colour=RED):
    n = len(points)
    frames = np.array(range(n) if frames is None else frames, np.int64)
    return Trail(colour, frames, np.array(ages or [0.0] * n), np.array(points, np.float32).reshape(n, 2))


# --- colours -------------------------------------------------------------------------------------------------------


def test_track_colours_differ_and_repeat():
    assert len(set(TRACK_COLOURS)) == len(TRACK_COLOURS)
    assert not set(TRACK_COLOURS) & {NO_TRACK_COLOUR, *EDGE_COLOURS}
    assert track_colour(0) == track_colour(len(TRACK_COLOURS)) == TRACK_COLOURS[0]
    assert track_colour(-1) == NO_TRACK_COLOUR


def test_draw_skeletons_gives_each_person_one_colour_and_keeps_those_of_joints():
    left = {5: (20, 40), 7: (60, 40), 6: (20, 80), 8: (60, 80)}
    frame = poses(left, {joint: (x + 80, y) for joint, (x, y) in left.items()})
    drawn = draw_skeletons(blank(), frame.keypoints, 0.2, person_colours=[(255, 0, 255), (0, 255, 0)])
    for y in (40, 80):
        assert has_colour(drawn[y, 40], (255, 0, 255))
        assert has_colour(drawn[y, 120], (0, 255, 0))
    assert has_colour(drawn[40, 20], JOINT_COLOURS[5])
    assert has_colour(drawn[80, 100], JOINT_COLOURS[6])


# --- numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(poses(ids=[]), id="no persons"),
        pytest.param(poses({0: (50, 50)}, ids=[-1]), id="no track"),
        pytest.param(poses({}, ids=[3]), id="no joint is drawn"),
    ],
)
def test_draw_numbers_without_a_number_changes_nothing(frame):
    np.testing.assert_array_equal(draw_numbers(blank(), frame.keypoints, frame.track_ids, 0.2), blank())


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_draw_numbers_writes_above_the_person_in_the_colour_of_the_track(scale):
    frame = poses({0: (80 / scale, 60 / scale), 15: (80 / scale, 110 / scale)}, ids=[2])
    drawn = draw_numbers(blank(), frame.keypoints, frame.track_ids, 0.2, scale)
    left, top, right, bottom = changed_box(drawn)
    assert left < 80 < right
    assert right - left < 20
    assert 30 < top < bottom < 60
    assert has_colour(drawn, TRACK_COLOURS[2], 60)


def test_draw_numbers_writes_the_digits_of_the_track():
    one, same, other = (
        draw_numbers(blank(), frame.keypoints, frame.track_ids, 0.2)
        for frame in (poses({0: (80, 60)}, ids=[track_id]) for track_id in (1, 1, 11))
    )
    np.testing.assert_array_equal(one, same)
    assert changed_box(other)[2] - changed_box(other)[0] > changed_box(one)[2] - changed_box(one)[0]


@pytest.mark.parametrize("at", [(0, 0), (159, 0), (0, 119), (159, 119)])
def test_draw_numbers_stays_inside_the_image(at):
    """The number drawn at a corner has all the ink of one in the middle."""

    def ink(position):
        frame = poses({0: position}, ids=[44])
        drawn = draw_numbers(blank(), frame.keypoints, frame.track_ids, 0.2)
        return int((drawn.astype(int) - GREY).clip(0).sum())

    assert ink(at) == pytest.approx(ink((80, 60)), rel=0.15)


# --- trails --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trails", [[], [trail()], [trail((10, 10))]])
def test_draw_trails_without_a_line_changes_nothing(trails):
    np.testing.assert_array_equal(draw_trails(blank(), trails), blank())


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_draw_trails_draws_a_line_from_point_to_point(scale):
    drawn = draw_trails(blank(), [trail((20 / scale, 30 / scale), (100 / scale, 30 / scale))], scale)
    left, top, right, bottom = changed_box(drawn)
    assert (left, right) == pytest.approx((20, 100), abs=2)
    assert (top, bottom) == pytest.approx((30, 30), abs=2)
    assert has_colour(drawn[28:33, 60], RED, 60)


def test_draw_trails_fades_with_age():
    ages = [TRAIL_SECONDS, TRAIL_SECONDS, 0.5 * TRAIL_SECONDS, 0]
    drawn = draw_trails(blank(), [trail((10, 30), (50, 30), (90, 30), (130, 30), ages=ages)]).astype(int)
    redness = [int((drawn[28:33, x, 0] - GREY).max()) for x in (30, 70, 110)]
    assert redness[0] == 0
    assert 0 < redness[1] < redness[2]


def test_draw_trails_is_interrupted_where_the_joint_was_not_seen():
    drawn = draw_trails(blank(), [trail((10, 30), (50, 30), (90, 30), frames=[0, 1, 3])])
    assert (drawn[:, 70] == GREY).all()
    assert (drawn[:, 30] != GREY).any()


# --- a clip --------------------------------------------------------------------------------------------------------


def painted(frames, **arguments):
    """The last frame of a clip at ten frames a second, drawn on a blank image."""
    painter = ClipPainter(**arguments)
    for number, frame in enumerate(frames):
        painter.remember(frame, number / 10)
    return painter.draw(frames[-1], blank())


@pytest.mark.parametrize("by_track", [False, True])
def test_painter_draws_sides_where_there_are_no_tracks(by_track):
    frame = poses({5: (40, 60), 7: (100, 60)})
    drawn = painted([frame], by_track=by_track, trail_joints=["left_elbow"])
    np.testing.assert_array_equal(drawn, draw_skeletons(blank(), frame.keypoints, DRAWING_THRESHOLDS))


def test_painter_by_edge_writes_no_number():
    frame = poses({5: (40, 60), 7: (100, 60)}, ids=[0])
    drawn = painted([frame], by_track=False)
    np.testing.assert_array_equal(drawn, draw_skeletons(blank(), frame.keypoints, DRAWING_THRESHOLDS))


def test_painter_keeps_the_colour_of_a_person_over_the_clip():
    """Persons exchange their ranks and places between two frames."""
    here, there = {5: (20, 60), 7: (60, 60)}, {5: (100, 60), 7: (140, 60)}
    first = painted([poses(here, there, ids=[4, 7])], by_track=True)
    second = painted([poses(here, there, ids=[4, 7]), poses(here, there, ids=[7, 4])], by_track=True)
    for x, before, after in ((40, 4, 7), (120, 7, 4)):
        assert has_colour(first[60, x], TRACK_COLOURS[before])
        assert has_colour(second[60, x], TRACK_COLOURS[after])


def test_painter_draws_persons_without_a_track_grey():
    drawn = painted([poses({5: (40, 60), 7: (100, 60)}, ids=[-1])], by_track=True, trail_joints=["left_elbow"])
    assert has_colour(drawn[60, 70], NO_TRACK_COLOUR)


@pytest.mark.parametrize(("by_track", "colour"), [(True, TRACK_COLOURS[1]), (False, JOINT_COLOURS[WRIST])])
def test_painter_draws_the_trail_of_a_chosen_joint(by_track, colour):
    frames = [poses({WRIST: (20 + 10 * n, 60), 15: (20 + 10 * n, 100)}, ids=[1]) for n in range(8)]
    drawn = painted(frames, by_track=by_track, trail_joints=["left_wrist"])
    assert has_colour(drawn[58:63, 75], colour, 60)
    assert (drawn[100, 20:70] == GREY).all(), "the ankle has no trail"


def test_painter_forgets_trails_after_a_second():
    moving = [poses({WRIST: (20 + 10 * n, 60)}, ids=[1]) for n in range(4)]
    drawn = painted([*moving, *[poses(ids=[])] * 10], by_track=True, trail_joints=["left_wrist"])
    np.testing.assert_array_equal(drawn, blank())


def test_painter_connects_no_two_persons():
    frames = [poses({WRIST: (20, 60)}, ids=[1]), poses({WRIST: (120, 60)}, ids=[2])]
    drawn = painted(frames, by_track=True, trail_joints=["left_wrist"])
    assert (drawn[:, 60:80] == GREY).all()
