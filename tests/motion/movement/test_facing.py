"""Which way a person faces."""

import numpy as np
import pytest
from support.motion_figures import TORSO, side_view

from posebatch.motion.movement.facing import facing, side_evidence

NOTHING = np.nan


def sides(evidence, before=0.0, half=0):
    values = np.array(evidence, float)
    return facing(values, np.array([0]), np.array([len(values)]), half, np.array([before]))


@pytest.mark.parametrize(
    ("evidence", "before", "expected"),
    [
        ([], 0, []),
        ([NOTHING, 0.1], 0, [1, 1]),
        ([NOTHING, 0.1], -1, [-1, -1]),
        ([0.9, 0.1, -0.9, -0.1], 0, [1, 1, -1, -1]),
        ([0.1, -0.9, NOTHING, 0.9], 0, [-1, -1, -1, 1]),
        ([0.1, -0.9], 1, [1, -1]),
    ],
)
def test_last_sure_side_counts(evidence, before, expected):
    assert sides(evidence, before).side.tolist() == expected


def test_one_odd_frame_turns_nobody():
    assert sides([1.0, 1, 1, -1, 1, 1, 1], half=1).side.tolist() == [1.0] * 7


@pytest.mark.parametrize(
    ("evidence", "half", "expected"),
    [
        ([], 0, []),
        ([0.9, -0.9, 0.1, NOTHING], 0, [True, True, False, False]),
        ([0.9, NOTHING, 0.9], 1, [True, False, True]),  # the rows beside it do not make it a side view
        ([0.9, -0.9, 0.9], 1, [False, False, False]),
    ],
)
def test_side_view_needs_evidence_of_its_own_and_a_sure_side(evidence, half, expected):
    assert sides(evidence, half=half).is_side_view.tolist() == expected


@pytest.mark.parametrize(("mirror", "sign"), [(1, 1), (-1, -1)])
@pytest.mark.parametrize("hidden", [[], [0, 1, 2, 3, 4], [13, 14]])
def test_head_and_knees_tell_the_side(mirror, sign, hidden):
    xy = side_view(1, knee=(40.0, 40.0)) * [mirror, 1]
    xy[:, hidden] = np.nan
    assert sign * side_evidence(xy, np.full(1, TORSO))[0] > 0.5


def test_straight_knees_leave_the_side_to_the_head():
    assert side_evidence(side_view(1, knee=(0.0, 5.0)), np.full(1, TORSO))[0] > 0.9


def test_frontal_view_tells_nothing():
    xy = side_view(1, knee=(40.0, 40.0))
    xy[:, 5, 0] += 60
    assert np.isnan(side_evidence(xy, np.full(1, TORSO))[0])
