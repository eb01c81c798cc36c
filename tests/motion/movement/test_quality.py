"""Grades, summaries and the histogram that medians come from."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.motion_figures import movement_of, scored, side_view, walking

from posebatch.motion.movement.grades import RULES, Measures, grade
from posebatch.motion.movement.histogram import LogHistogram
from posebatch.motion.movement.quality import video_grade

GOOD = Measures(
    seconds=10,
    height_px=300,
    gap_share=0,
    joints_seen=1,
    jitter_torso=0.01,
    bone_length_cv=0.1,
    suspect_share=0,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.measure)
def test_each_rule_gives_each_grade(rule):
    step = -1e-6 if rule.at_least else 1e-6
    for letter, worse, limit in zip("ABC", "BCD", rule.limits, strict=True):
        assert grade(replace(GOOD, **{rule.measure: limit}))[0] == letter
        bad, reason = grade(replace(GOOD, **{rule.measure: limit + step}))
        assert bad == worse
        assert reason == rule.text.format(limit + step)


def test_grade_is_the_worst_of_all_rules_and_names_those_that_give_it():
    assert grade(GOOD) == ("A", "")
    assert grade(replace(GOOD, gap_share=0.1, seconds=0.6, height_px=50)) == ("C", "0.6 s long; 50 px high")


def test_figure_that_is_not_known_is_not_judged():
    assert grade(replace(GOOD, jitter_torso=float("nan"))) == ("A", "")


def test_grade_of_a_video_is_that_of_its_main_person():
    _, main = movement_of(scored(walking(90)))
    other = replace(main, is_main=False, grade="C")
    assert video_grade([]) is None
    assert video_grade([other]) == "D"
    assert video_grade([other, main]) == main.grade == "A"


def test_summary_counts_what_it_saw():
    keypoints = scored(side_view(60))
    keypoints[:30, 9, 2] = 0.1
    _, summary = movement_of(keypoints)
    assert (summary.first_frame, summary.last_frame, summary.frames_seen, summary.frames_gap) == (0, 59, 60, 0)
    assert (summary.start_s, summary.end_s) == (0.0, pytest.approx(59 / 30))
    assert summary.joint_seen[9] == 0.5
    assert summary.joint_seen[10] == 1.0
    assert summary.torso_px == pytest.approx(100, rel=0.005)
    assert summary.mean_pose_score == pytest.approx(0.9)
    assert summary.bone_length_cv_worst < 1e-3
    assert summary.jitter_torso < 1e-3


def test_jitter_grows_with_noise():
    noise = np.random.default_rng(0).normal(0, 1, (300, 17, 2))
    low, high = (movement_of(scored(walking(300) + scale * noise))[1].jitter_torso for scale in (2, 6))
    assert 2 < high / low < 4


def test_jitter_is_not_known_where_nothing_was_filtered():
    assert np.isnan(movement_of(scored(walking(60)), fps=10)[1].jitter_torso)


def test_bone_that_changes_its_length_is_the_worst():
    xy = side_view(200)
    xy[:, 9] = xy[:, 7] + (xy[:, 9] - xy[:, 7]) * (1 + 0.5 * np.sin(np.arange(200) / 10))[:, None]
    _, summary = movement_of(scored(xy))
    assert summary.bone_length_cv_worst == pytest.approx(0.5 / 2**0.5, rel=0.1)
    assert summary.bone_length_cv_mean == pytest.approx(summary.bone_length_cv_worst / 8, rel=0.05)


def test_median_of_nothing_is_not_known():
    assert np.isnan(LogHistogram().median())


@given(st.lists(st.floats(1e-4, 1e5), min_size=1, max_size=200), st.integers(0, 200))
def test_histogram_has_the_median_however_values_are_given(values, cut):
    histogram = LogHistogram()
    histogram.add(np.array([*values[:cut], np.nan]))
    histogram.add(np.array(values[cut:]))
    assert histogram.median() == pytest.approx(sorted(values)[(len(values) - 1) // 2], rel=0.0026)
