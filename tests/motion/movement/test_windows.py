"""Windows at fixed times, however frames come in."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.motion_figures import frame_block, scored, walking

from posebatch.motion.movement.windows import FrameWindows, frames_between


def windows(blocks):
    cutter = FrameWindows(10.0, 2.0)
    found = []
    for block in blocks:
        found += cutter.add(block, np.zeros(len(block.frame), np.int32))
    return found + list(cutter.finish())


def block_at(times):
    return frame_block(np.array(times, float), [scored(walking(1)) for _ in times])


def test_no_frames_give_no_window():
    assert windows([]) == []


def test_windows_have_fixed_times_and_context():
    found = windows([block_at(np.arange(5.0, 31.0))])
    assert [window.block.time_s[[0, window.start, window.stop - 1, -1]].tolist() for window in found] == [
        [5, 5, 14, 16],
        [13, 15, 24, 26],
        [23, 25, 30, 30],
    ]


def test_pause_of_the_video_has_no_windows():
    found = windows([block_at([0.0, 1.0, 1000.0])])
    assert [window.block.time_s[window.start : window.stop].tolist() for window in found] == [[0, 1], [1000]]


@settings(max_examples=30)
@given(st.integers(0, 1000), st.lists(st.integers(0, 60), max_size=10))
def test_windows_do_not_depend_on_blocks(seed, cuts):
    block = block_at(np.cumsum(np.random.default_rng(seed).choice([0.3, 1.0, 14.0], 60, p=[0.6, 0.3, 0.1])))
    edges = [0, *sorted(cuts), 60]
    pieces = [frames_between(block, low, high)[0] for low, high in itertools.pairwise(edges)]
    for one, other in zip(windows([block]), windows(pieces), strict=True):
        assert (one.start, one.stop) == (other.start, other.stop)
        np.testing.assert_array_equal(one.block.frame_index, other.block.frame_index)
        np.testing.assert_array_equal(one.block.frame, other.block.frame)
        np.testing.assert_array_equal(one.block.keypoints, other.block.keypoints)
