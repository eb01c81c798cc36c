"""The share of right joints above each score."""

import math

import numpy as np

from posebatch.evaluation.drawn_joints import SCORES, drawn_joints

TRUTH = np.zeros((1, 17, 3))
TRUTH[0, :, :2] = 50
TRUTH[0, [5, 6], 1], TRUTH[0, [11, 12], 1] = 0, 100
TRUTH[0, :, 2] = 2


def figures(truth, estimate):
    return {(row.joint, row.score): row for row in drawn_joints(np.array(truth), np.array(estimate))}


def test_drawn_joints_without_persons_are_unknown():
    rows = drawn_joints(np.zeros((0, 17, 3)), np.zeros((0, 17, 3)))
    assert len(rows) == 10 * len(SCORES)
    assert all(math.isnan(row.right) and math.isnan(row.kept) for row in rows)


def test_drawn_joints_counts_both_sides_above_the_score():
    estimate = TRUTH.copy()
    estimate[0, :, 2] = 0.9
    estimate[0, 9] = (50, 90, 0.42)  # a wrong wrist
    estimate[0, 10, 2] = 0.22  # a right one of low score
    rows = figures(TRUTH, estimate)
    assert (rows["wrist", 0.2].right, rows["wrist", 0.2].kept) == (0.5, 1.0)
    assert (rows["wrist", 0.4].right, rows["wrist", 0.4].kept) == (0.0, 0.0)
    assert math.isnan(rows["wrist", 0.45].right)
    assert (rows["ankle", 0.5].right, rows["ankle", 0.5].kept) == (1.0, 1.0)
    assert rows["all joints", 0.2].right == 16 / 17


def test_drawn_joints_leaves_out_joints_without_a_label():
    truth, estimate = TRUTH.copy(), TRUTH.copy()
    estimate[0, :, 2] = 0.9
    truth[0, 9, 2] = 0
    estimate[0, 9, :2] = 500
    assert figures(truth, estimate)["wrist", 0.2].right == 1.0


def test_drawn_joints_leaves_out_persons_without_a_pose_or_a_torso():
    without_torso = TRUTH.copy()
    without_torso[0, [5, 6], 2] = 0
    truth = np.concatenate([TRUTH, TRUTH, without_torso])
    estimate = np.concatenate([TRUTH, np.full((1, 17, 3), np.nan), np.full((1, 17, 3), 500.0)])
    assert figures(truth, estimate)["all joints", 0.2].right == 1.0
