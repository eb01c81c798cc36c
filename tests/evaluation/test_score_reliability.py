"""Scores against right joints: the reliability table, and the curve that is fitted to it."""

import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from posebatch.core.errors import InputError
from posebatch.core.presets import PRESETS
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.evaluation.calibration import calibrated_record, write_calibration
from posebatch.evaluation.labels import LabelledDataset, half_of
from posebatch.evaluation.readers import read_dataset
from posebatch.evaluation.score_reliability import fit_calibration, right_joints, score_reliability
from posebatch.models.networks.engines import PLAIN
from posebatch.models.weights.names import resolve, weight_file
from posebatch.models.weights.quantized import load_quantized, quantized_file
from posebatch.pose.score_calibration import calibrate_scores

SMALL = PRESETS["fast"][1]


def persons(count, wrong_joint="nose", by=11.0, score=0.9):
    """Labelled persons (n, 17, 3) with a torso of 100 pixels, and poses in which one joint is ``by`` pixels off."""
    truth = np.zeros((count, 17, 3))
    truth[..., 2] = 2
    for side in ("left", "right"):
        truth[:, KEYPOINT_NAMES.index(f"{side}_hip"), 1] = 100
    estimate = truth.copy()
    estimate[..., 2] = score
    estimate[:, KEYPOINT_NAMES.index(wrong_joint), 0] += by
    return truth, estimate


@pytest.mark.parametrize(("by", "right"), [(9.9, 17), (10.1, 16)])
def test_right_joints_lie_within_a_tenth_of_the_torso(by, right):
    scores, correct = right_joints(*persons(1, by=by))
    assert (len(scores), correct.sum()) == (17, right)


def test_right_joints_leaves_out_unlabelled_joints_and_persons_without_pose_or_torso():
    truth, estimate = persons(3)
    truth[0, 0, 2] = 0
    estimate[1] = np.nan
    truth[2, [KEYPOINT_NAMES.index("left_hip"), KEYPOINT_NAMES.index("right_hip")], 2] = 0
    assert len(right_joints(truth, estimate)[0]) == 16


def test_score_reliability_weights_bins_by_their_joints():
    truth, estimate = persons(1)  # 16 of 17 are right
    estimate[0, 0, 2] = 0.25  # the nose, which is wrong
    measured = score_reliability(truth, estimate)
    low, high = measured.bins
    assert (low.low, low.joints, low.mean_score, low.right) == (0.2, 1, 0.25, 0.0)
    assert (high.low, high.joints, high.mean_score, high.right) == (0.9, 16, pytest.approx(0.9), 1.0)
    assert measured.calibration_error == pytest.approx((1 * 0.25 + 16 * 0.1) / 17)


def test_score_reliability_without_joints_is_unknown():
    truth, estimate = persons(0)
    measured = score_reliability(truth, estimate)
    assert measured.bins == ()
    assert np.isnan(measured.calibration_error)


@pytest.mark.parametrize("top", [0.5, 1.0])
def test_fitted_curve_makes_scores_the_share_of_right_joints(top):
    random = np.random.default_rng(0)
    peaks = random.random(20_000) * top
    right = random.random(20_000) < (peaks / top) ** 2
    knots = fit_calibration(peaks, right)
    assert knots[0] == (0, 0)
    assert knots[-1] == (1, 1)
    assert all(a < b for low, high in pairwise(knots) for a, b in zip(low, high, strict=True))
    scores = calibrate_scores(peaks.astype(np.float32), knots)
    assert np.abs(scores - (peaks / top) ** 2).mean() < 0.015


def test_fitted_curve_rises_where_the_share_falls():
    peaks, right = np.linspace(0.1, 0.9, 90), np.arange(90) % 9 < 4
    right[60:75] = False  # higher peaks, fewer right
    scores = calibrate_scores(np.linspace(0, 1, 50, dtype=np.float32), fit_calibration(peaks, right))
    assert (np.diff(scores) > 0).all()


@pytest.mark.parametrize("right", [False, True])
def test_fitted_curve_of_joints_all_alike_still_rises(right):
    knots = fit_calibration(np.linspace(0.1, 0.9, 50), np.full(50, right))
    assert (knots[0], knots[-1]) == ((0, 0), (1, 1))
    assert all(a < b for low, high in pairwise(knots) for a, b in zip(low, high, strict=True))


def test_fit_calibration_needs_joints():
    with pytest.raises(ValueError, match="no labelled joint"):
        fit_calibration(np.zeros(0), np.zeros(0, bool))


def test_halves_share_no_image(labels):
    whole = read_dataset(labels, labels.parent)
    even, odd = half_of(whole, "even"), half_of(whole, "odd")
    assert [image.name for image in even.images] == [image.name for image in whole.images[::2]]
    assert {image.name for image in even.images}.isdisjoint(image.name for image in odd.images)
    assert len(even.images) + len(odd.images) == len(whole.images)


def with_all_joints(whole):
    """The same images, with a label for every joint; those of hidden joints are wrong."""
    images = [
        replace(image, persons=replace(image.persons, keypoints=np.maximum(image.persons.keypoints, [0, 0, 1])))
        for image in whole.images
    ]
    return replace(whole, images=tuple(images))


def test_calibration_is_written_into_the_file_and_the_8_bit_version_follows(tmp_path, labels):
    mine = tmp_path / f"{SMALL}.safetensors"
    shutil.copy(weight_file("pose", SMALL), mine)
    shutil.copy(quantized_file("pose", SMALL), quantized_file("pose", str(mine)))
    before = load_quantized("pose", str(mine))
    record = calibrated_record(str(mine), with_all_joints(read_dataset(labels, labels.parent)), PLAIN)
    assert record.score_calibration != resolve("pose", SMALL).score_calibration
    written = write_calibration(str(mine), record)
    assert resolve("pose", str(mine)) == written
    assert written.identity != resolve("pose", SMALL).identity
    after = load_quantized("pose", str(mine))
    assert after.record.original == written.identity
    assert (after.graph, after.weights) == (before.graph, before.weights)


def test_calibration_needs_labelled_persons():
    with pytest.raises(InputError, match="nothing can be fitted"):
        calibrated_record(SMALL, LabelledDataset("empty", (), True), PLAIN)
