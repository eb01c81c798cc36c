"""The low-pass filter: SciPy's for each run, no delay, and what it does to short runs and uneven frames."""

import numpy as np
import pytest
from scipy.signal import butter, filtfilt

from posebatch.motion.movement.smoothing import low_pass, smooth


def smoothed(time_s, xy, cutoff_hz=6.0, runs=None):
    starts, stops = np.transpose(runs or [(0, len(xy))]) if len(xy) else (np.zeros(0, int), np.zeros(0, int))
    return smooth(time_s, xy, starts, stops, low_pass(time_s, cutoff_hz))


def wave(time_s, hertz):
    return np.column_stack([np.sin(2 * np.pi * hertz * time_s), np.cos(2 * np.pi * hertz * time_s)])


def test_no_frames_are_smooth():
    xy, done = smoothed(np.zeros(0), np.zeros((0, 2)))
    assert xy.shape == (0, 2)
    assert not len(done)


@pytest.mark.parametrize("cutoff_hz", [1.0, 6.0, 12.0])
def test_each_run_is_filtered_as_scipy_does(cutoff_hz):
    time, xy = np.arange(400) / 30, np.random.default_rng(0).normal(size=(400, 2)).cumsum(axis=0)
    runs = [(0, 60), (60, 140), (150, 400)]
    result, done = smoothed(time, xy, cutoff_hz, runs)
    b, a = butter(2, cutoff_hz / 15)
    for start, stop in runs:
        expected = filtfilt(b, a, xy[start:stop], axis=0, padlen=low_pass(time, cutoff_hz).padding)
        np.testing.assert_allclose(result[start:stop], expected, atol=1e-9)
    assert done.all()
    np.testing.assert_array_equal(result[140:150], xy[140:150])


@pytest.mark.parametrize(("rows", "smooth_now"), [(1, False), (9, False), (10, True)])
def test_run_too_short_for_the_filter_stays_as_measured(rows, smooth_now):
    time, xy = np.arange(rows) / 30, np.random.default_rng(1).normal(size=(rows, 2))
    result, done = smoothed(np.arange(40) / 30, np.concatenate([xy, np.zeros((40 - rows, 2))]), runs=[(0, rows)])
    assert done.tolist() == [smooth_now]
    assert np.array_equal(result[: len(time)], xy) is not smooth_now


def test_frame_rate_too_low_for_the_cutoff_filters_nothing():
    xy = np.random.default_rng(2).normal(size=(50, 2))
    result, done = smoothed(np.arange(50) / 10, xy)
    np.testing.assert_array_equal(result, xy)
    assert done.all()


@pytest.mark.parametrize(("hertz", "share"), [(0.5, 1.0), (4.81, 0.707), (6.0, 0.5), (12.0, 0.06)])
def test_amplitude_falls_around_the_cutoff(hertz, share):
    """0.707 at 0.802 times the cut-off frequency of one pass, 0.5 at the cut-off itself."""
    time = np.arange(4000) / 240
    result, _ = smoothed(time, wave(time, hertz))
    assert np.abs(result[1000:3000]).max() == pytest.approx(share, abs=0.02)


def test_filter_does_not_delay():
    rng = np.random.default_rng(3)
    time = np.arange(600) / 60
    clean = wave(time, 1.3)
    result, _ = smoothed(time, clean + rng.normal(0, 0.2, clean.shape))
    lags = range(-10, 11)
    scores = [np.sum(np.roll(result[:, 0], lag)[20:-20] * clean[20:-20, 0]) for lag in lags]
    assert lags[int(np.argmax(scores))] == 0


def test_uneven_frames_give_what_even_frames_give():
    rng = np.random.default_rng(4)
    time = np.cumsum(rng.uniform(0.012, 0.022, 1200))
    even = np.arange(time[0], time[-1], 1 / 60)
    result, done = smoothed(time, wave(time, 2.0))
    expected, _ = smoothed(even, wave(even, 2.0))
    assert done.all()
    for axis in range(2):
        np.testing.assert_allclose(result[50:-50, axis], np.interp(time[50:-50], even, expected[:, axis]), atol=0.01)


def test_uneven_frames_lose_high_frequencies():
    time = np.cumsum(np.random.default_rng(5).uniform(0.012, 0.022, 1200))
    assert np.abs(smoothed(time, wave(time, 15.0))[0][50:-50]).max() < 0.08


@pytest.mark.parametrize(("seconds_before", "share"), [(0.05, 0.08), (0.17, 0.01)])
def test_step_rings_little_into_the_frames_before_it(seconds_before, share):
    """Of a step that is short enough to pass for a movement, at 6 Hz. docs/motion.md states these figures."""
    for fps in (30, 60, 120):
        time = np.arange(8 * fps) / fps
        step = np.where(time >= 4, 1.0, 0.0)
        result, _ = smoothed(time, np.column_stack([step, step]))
        assert np.abs(result[time <= 4 - seconds_before]).max() < share
