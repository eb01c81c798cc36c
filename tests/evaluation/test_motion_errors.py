"""Errors of movement against a known figure."""

import numpy as np
import pytest
from support.motion_figures import walking

from posebatch.core.motion_settings import MotionSettings
from posebatch.evaluation.motion_errors import Noise, compare, delay_frames, noisy

WAVE = np.sin(np.arange(200) / 5)


@pytest.mark.parametrize("frames", [-3, 0, 4])
def test_delay_is_positive_where_values_come_late(frames):
    assert delay_frames(np.roll(WAVE, frames), WAVE) == frames


@pytest.mark.parametrize("kept", [0.0, 0.7])
def test_noise_has_its_median(kept):
    truth = walking(2000)
    keypoints = noisy(truth, Noise(4.0, kept, outliers=0.0), np.random.default_rng(0))
    distance = np.hypot(*np.moveaxis(keypoints[..., :2] - truth, -1, 0))
    assert np.median(distance) == pytest.approx(4.0, rel=0.03)
    assert (keypoints[..., 2] < 0.3).mean() == pytest.approx(0.03, abs=0.005)


def test_comparison_tells_errors_and_delay():
    truth = walking(300)
    keypoints = noisy(truth, Noise(3.0, 0.0), np.random.default_rng(0))
    text = compare(np.arange(300) / 30, truth, keypoints, MotionSettings())
    assert "knee, degrees" in text
    assert "delay of the left knee's angle: 0 frames" in text
