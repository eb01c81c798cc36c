"""Gaps: which are filled, and that the fill is SciPy's PCHIP."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from posebatch.motion.movement.gaps import fill_gaps

_ = np.nan


def filled(values, breaks=(0,), max_gap_s=3.0):
    xy = np.column_stack([values, values]).astype(float).reshape(-1, 2)
    marks = np.isin(np.arange(len(xy)), breaks)
    return fill_gaps(np.arange(len(xy), dtype=float), xy, marks, max_gap_s)


@pytest.mark.parametrize(
    ("values", "breaks", "expected", "run"),
    [
        ([], [], [], []),
        ([_, _], [0], [_, _], [-1, -1]),
        ([_, 1, _], [0], [_, 1, _], [-1, 0, -1]),
        ([1, _, 3], [0], [1, 2, 3], [0, 0, 0]),
        ([1, _, _, 4], [0], [1, 2, 3, 4], [0, 0, 0, 0]),
        ([1, _, _, _, 5], [0], [1, _, _, _, 5], [0, -1, -1, -1, 1]),
        ([1, 2, 3], [0, 1], [1, 2, 3], [0, 1, 1]),
        ([1, _, 3], [0, 1], [1, _, 3], [0, -1, 1]),
        ([1, _, 3], [0, 2], [1, _, 3], [0, -1, 1]),
    ],
)
def test_short_gaps_are_filled_and_long_ones_and_breaks_end_runs(values, breaks, expected, run):
    series = filled(values, breaks)
    np.testing.assert_allclose(series.xy[:, 0], expected)
    assert series.run.tolist() == run
    assert series.interpolated.tolist() == [bool(np.isnan(v) and e == e) for v, e in zip(values, expected, strict=True)]


@given(st.lists(st.one_of(st.just(None), st.floats(-100, 100)), min_size=2, max_size=30), st.integers(0, 1000))
def test_filled_values_are_those_of_scipy(values, seed):
    known = [i for i, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return
    time = np.cumsum(np.random.default_rng(seed).uniform(0.01, 0.1, len(values)))
    xy = np.array([[_, _] if value is None else [value, -value] for value in values], float)
    series = fill_gaps(time, xy, np.arange(len(xy)) == 0, 100.0)
    inside = slice(known[0], known[-1] + 1)
    np.testing.assert_allclose(series.xy[inside], PchipInterpolator(time[known], xy[known])(time[inside]), atol=1e-6)


def test_what_lies_beyond_a_long_gap_changes_nothing():
    near, far = [0, 1, _, 3, _, _, _, _, 4], [0, 1, _, 3, _, _, _, _, 400]
    np.testing.assert_array_equal(filled(near).xy[:4], filled(far).xy[:4])
