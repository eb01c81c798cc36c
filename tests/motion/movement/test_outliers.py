"""Outliers against a local median."""

import numpy as np
import pytest

from posebatch.motion.movement.outliers import half_window, outliers

TORSO = np.full(30, 100.0)


def line(frames=30):
    return np.column_stack([np.arange(frames) * 8.0, np.full(frames, 50.0)])[:, None]


def test_no_rows_have_no_outliers():
    assert outliers(np.zeros((0, 17, 2)), np.zeros(0), 3).shape == (0, 17)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_joint_that_is_elsewhere_for_a_few_frames_is_an_outlier(frames):
    xy = line()
    xy[12 : 12 + frames, 0, 1] += 60
    assert np.flatnonzero(outliers(xy, TORSO, 3)).tolist() == list(range(12, 12 + frames))


@pytest.mark.parametrize(
    "xy",
    [
        line(),
        line() + np.random.default_rng(0).normal(0, 1.5, (30, 1, 2)),  # the network's noise
        np.cumsum(line(), axis=0),  # accelerates
        np.full((30, 1, 2), np.nan),
    ],
)
def test_plain_movement_has_no_outlier(xy):
    assert not outliers(xy, TORSO, 3).any()


def test_fast_swing_is_no_outlier():
    """A wrist that turns back, three times a second over a torso length."""
    time = np.arange(30) / 30
    swing = np.column_stack([50 * np.sin(2 * np.pi * 3 * time), np.zeros(30)])[:, None]
    assert not outliers(swing, TORSO, 3).any()


@pytest.mark.parametrize(("fps", "half"), [(10, 3), (30, 3), (60, 6), (240, 12)])
def test_window_has_a_length_in_time_within_bounds(fps, half):
    assert half_window(1 / fps) == half


def test_missing_frames_leave_the_median_to_the_others():
    xy = line()
    xy[[9, 10, 15], 0] = np.nan
    xy[12, 0, 1] += 60
    assert np.flatnonzero(outliers(xy, TORSO, 3)).tolist() == [12]
