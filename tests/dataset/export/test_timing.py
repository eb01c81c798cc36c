"""Frame rates of tracks, and even times from uneven ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posebatch.dataset.export.timing import Timing, resampled, timing_of


@pytest.mark.parametrize(
    ("time_s", "fps", "expected"),
    [
        ([], 0, Timing(30, True)),
        ([1.0], 25, Timing(25, True)),
        ([0, 0.5, 1.0], 0, Timing(2, True)),
        ([0, 0.033, 0.067, 0.1], 0, Timing(30, True)),  # milliseconds, as in Matroska
        ([0, 0.1, 0.2, 0.9], 0, Timing(10, False)),
    ],
)
def test_timing_tells_constant_from_variable_rates(time_s: list[float], fps: float, expected: Timing):
    found = timing_of(np.array(time_s), fps)
    assert found.is_constant == expected.is_constant
    assert found.rate_hz == pytest.approx(expected.rate_hz)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.sampled_from([10.0, 29.97, 100.0]))
def test_resampled_line_stays_a_line_within_its_time(steps: list[int], rate: float):
    time_s = np.cumsum([0, *steps]) / 100
    grid, values = resampled(time_s, np.stack([3 * time_s, -time_s], axis=1), rate)
    np.testing.assert_allclose(np.diff(grid)[:-1], 1 / rate)
    assert grid[0] == time_s[0]
    assert grid[-1] <= time_s[-1]
    np.testing.assert_allclose(values[:, 0], 3 * grid, atol=1e-9)


def test_resampled_keeps_gaps_and_the_values_of_frames_on_the_grid():
    time_s = np.array([0, 0.1, 0.2, 0.3])
    grid, values = resampled(time_s, np.array([1.0, np.nan, 3.0, 4.0]), 20)
    np.testing.assert_allclose(grid, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    np.testing.assert_allclose(values, [1, np.nan, np.nan, np.nan, 3, 3.5, 4], atol=1e-9)


def test_resampled_bridges_no_long_hole():
    values = resampled(np.array([0, 0.1, 1.1, 1.2]), np.array([0.0, 1, 11, 12]), 10)[1]
    assert np.isnan(values).tolist() == [False, False, *[True] * 9, False, False]
