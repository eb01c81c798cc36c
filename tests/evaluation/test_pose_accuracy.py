"""Networks on labelled frames of the sample."""

import numpy as np
import pytest

from posebatch.core.frames import Detections
from posebatch.core.settings import EstimatorSettings
from posebatch.evaluation.contact_sheets import choose_persons
from posebatch.evaluation.detector_accuracy import detect_persons, evaluate_detector, inclusive_settings
from posebatch.evaluation.labels import true_boxes
from posebatch.evaluation.pose_accuracy import evaluate_keypoints, keypoints_for_boxes
from posebatch.evaluation.readers import read_dataset
from posebatch.models.networks.engines import Placement
from posebatch.models.networks.person_detector import load_detector
from posebatch.models.networks.pose_network import load_pose_network

SETTINGS = EstimatorSettings(oks_nms_thr=1.0)


@pytest.fixture(scope="module")
def dataset(labels):
    return read_dataset(labels, labels.parent)


@pytest.fixture(scope="module")
def network():
    return load_pose_network(SETTINGS.pose_name)


def test_evaluate_keypoints_of_drawn_persons_is_good(network, dataset):
    accuracy = evaluate_keypoints(network, dataset, SETTINGS)
    assert accuracy.images == 4
    assert accuracy.persons == accuracy.found == dataset.num_posed > 4
    assert accuracy.average_precision.ap50 > 0.5
    assert accuracy.joints[-1].median_px < 8


def test_evaluate_keypoints_without_boxes_finds_nobody(network, dataset):
    no_boxes = [Detections(boxes.bbox_xyxy[:0], boxes.scores[:0]) for boxes in true_boxes(dataset)]
    accuracy = evaluate_keypoints(network, dataset, SETTINGS, no_boxes)
    assert (accuracy.found, accuracy.average_precision.ap, accuracy.joints[-1].found) == (0, 0.0, 0)


def test_keypoints_for_boxes_do_not_depend_on_the_batch_size(network, dataset):
    runs = [
        list(keypoints_for_boxes(of_batch_size, dataset, true_boxes(dataset), SETTINGS))
        for of_batch_size in (
            *(load_pose_network(SETTINGS.pose_name, Placement(batch_size=size)) for size in (1, 3, 16)),
            network,
        )
    ]
    for run in runs[1:]:
        for image, same in zip(runs[0], run, strict=True):
            np.testing.assert_allclose(image.keypoints, same.keypoints, atol=1e-2)
            np.testing.assert_allclose(image.pose_scores, same.pose_scores, atol=1e-4)


def test_detect_persons_does_not_depend_on_the_batch_size(dataset):
    name = SETTINGS.detector_name
    placements = [Placement(batch_size=size) for size in (1, 4)]
    runs = [
        detect_persons(load_detector(name, inclusive_settings(placement=placement)), dataset)
        for placement in placements
    ]
    for image, same in zip(*runs, strict=True):
        np.testing.assert_allclose(image.bbox_xyxy[:5], same.bbox_xyxy[:5], atol=1e-2)
        np.testing.assert_allclose(image.scores[:5], same.scores[:5], atol=1e-4)


def test_evaluate_detector_covers_all_thresholds(dataset):
    accuracy = evaluate_detector(load_detector(SETTINGS.detector_name, inclusive_settings()), dataset)
    assert (accuracy.images, accuracy.persons) == (4, dataset.num_persons)
    assert accuracy.thresholds[0].recall >= accuracy.thresholds[-1].recall
    assert accuracy.ranked.scores.min() < 0.1


@pytest.mark.parametrize(
    ("oks", "count", "worst", "others"),
    [([], 3, [], 0), ([0.5], 3, [0], 0), ([0.5, 0.1, 0.9, 0.3], 2, [1, 3], 2), ([0.5, 0.1, 0.9, 0.3], 1, [1], 1)],
)
def test_choose_persons_takes_the_worst_and_others(oks, count, worst, others):
    chosen = choose_persons(np.array(oks), count)
    assert list(chosen[: len(worst)]) == worst
    assert len(chosen) == len(worst) + others == len(set(chosen))
