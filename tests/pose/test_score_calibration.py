"""Published scores: the calibration of a weight file, applied to the peaks of its heatmaps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from posebatch.core.presets import PRESETS
from posebatch.core.settings import EstimatorSettings
from posebatch.models.networks.engines import PLAIN
from posebatch.models.networks.pose_network import load_pose_network
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.score_calibration import calibrate_scores

CURVE = ((0.0, 0.0), (0.4, 0.8), (1.0, 1.0))


def test_calibrate_scores_follows_straight_lines_and_ends_at_the_outer_knots():
    peaks = np.array([[-0.2, 0.0, 0.1], [0.4, 0.7, 1.3]], np.float32)
    scores = calibrate_scores(peaks, CURVE)
    np.testing.assert_allclose(scores, [[0, 0, 0.2], [0.8, 0.9, 1]], atol=1e-6)
    assert scores.dtype == np.float32


def test_calibrate_scores_without_knots_returns_the_peaks():
    peaks = np.array([-0.2, 0.5, 1.3], np.float32)
    np.testing.assert_array_equal(calibrate_scores(peaks, ()), peaks)


def test_calibrate_scores_does_not_depend_on_the_batch():
    peaks = np.random.default_rng(0).random((5, 17, 1)).astype(np.float32)
    alone = [calibrate_scores(person[None], CURVE) for person in peaks]
    np.testing.assert_array_equal(calibrate_scores(peaks, CURVE), np.concatenate(alone))


@pytest.mark.parametrize("decoding", ["quarter", "dark"])
def test_estimator_publishes_calibrated_scores_at_the_same_places(decoding):
    network = load_pose_network(PRESETS["fast"][1])
    crops, regions = torch.rand(2, 3, 256, 192) * 255, np.array([[50.0, 60, 75, 100]] * 2)
    found = []
    for curve in ((), CURVE):
        network.record = replace(network.record, score_calibration=curve)
        estimator = PoseEstimator(None, network, EstimatorSettings(decoding=decoding), PLAIN)
        found.append(estimator.keypoints(list(crops), regions))
    np.testing.assert_array_equal(found[0][..., :2], found[1][..., :2])
    np.testing.assert_array_equal(calibrate_scores(found[0][..., 2], CURVE), found[1][..., 2])
    assert (found[0][..., 2] != found[1][..., 2]).any()
