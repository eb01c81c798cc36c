"""Exchanges of left and right, and jumps, on the rows of tracks."""

import numpy as np
import pytest
from support.motion_figures import TORSO, walking

from posebatch.core.skeleton import FLIP_ORDER
from posebatch.motion.movement.swaps import exchanged_joints, find_jumps, find_swaps

FRAMES = 120
TIME, ONE = np.arange(FRAMES) / 30, np.zeros(FRAMES, np.int64)
SIZE = np.full(FRAMES, TORSO)


def swapped(*spans, joints=slice(None)):
    xy = walking(FRAMES)
    for span in spans:
        other = xy[span][:, FLIP_ORDER]
        xy[span, joints] = other[:, joints]
    return find_swaps(TIME, ONE, xy, SIZE)


def test_walker_has_no_swap():
    found = swapped()
    assert not found.exchanges.any()
    assert not found.swapped.any()


def test_no_rows_have_no_swap_and_no_jump():
    empty = np.zeros(0)
    assert find_swaps(empty, np.zeros(0, np.int64), np.zeros((0, 17, 2)), empty).swapped.shape == (0, 2)
    assert find_jumps(empty, np.zeros((0, 17, 2)), empty).shape == (0,)


def test_swapped_legs_leave_arms_alone():
    found = swapped(slice(40, 45), joints=slice(11, 17))
    assert np.argwhere(found.swapped).tolist() == [[row, 1] for row in range(40, 45)]


def test_lone_exchange_is_one_suspect_that_is_not_repaired():
    found = swapped(slice(40, FRAMES))
    assert np.flatnonzero(found.swapped.any(axis=1)).tolist() == [40]
    assert not found.repairable.any()


def test_two_swaps_are_told_apart():
    found = swapped(slice(40, 43), slice(60, 64))
    assert np.flatnonzero(found.repairable.all(axis=1)).tolist() == [40, 41, 42, 60, 61, 62, 63]


def test_head_follows_arms_and_legs_together():
    joints = exchanged_joints(np.array([[True, False], [True, True]]))
    assert joints[0, :5].tolist() == [False] * 5
    assert joints[1].all()


@pytest.mark.parametrize(("pixels", "fps", "found"), [(40, 30, []), (95, 30, [10]), (95, 10, []), (260, 10, [10])])
def test_jump_is_too_long_and_too_fast_for_a_person(pixels, fps, found):
    xy = np.repeat(walking(1), 20, axis=0)
    xy[10:, :, 0] += pixels
    assert np.flatnonzero(find_jumps(np.arange(20) / fps, xy, np.full(20, TORSO))).tolist() == found
