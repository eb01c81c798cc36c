"""The figures, against what can be said by hand."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.evaluation_factories import box_of, dataset, detections, frame_poses, persons, standing

from posebatch.core.similarity import box_iou
from posebatch.core.skeleton import FLIP_ORDER, KEYPOINT_NAMES, OKS_SIGMAS
from posebatch.evaluation.average_precision import THRESHOLDS, box_average_precision, pose_average_precision
from posebatch.evaluation.detector_accuracy import measure_detections
from posebatch.evaluation.joints import joint_accuracy, pair_poses
from posebatch.evaluation.labels import best_boxes, true_boxes

LEFT, RIGHT = {"x": 20.0}, {"x": 250.0}
TWO = persons([box_of(**LEFT), box_of(**RIGHT)], [standing(**LEFT), standing(**RIGHT)])
RECALLS = 101
"""COCO takes precision at 0, 0.01, ... 1."""


def shifted(keypoints, dx):
    return keypoints + np.array([dx, 0, 0])


def one_pose(keypoints, score=0.9, **place):
    return frame_poses([box_of(**place)], [score], [keypoints])


def test_measures_without_labels_are_nan():
    for labels in ([], [persons()]):
        nothing = [frame_poses() for _ in labels]
        figures = pose_average_precision(dataset(*labels), nothing)
        assert all(math.isnan(value) for value in asdict(figures).values() if isinstance(value, float))
        boxes = measure_detections(dataset(*labels), [detections() for _ in labels])
        assert math.isnan(boxes.average_precision.ap50)
        assert (boxes.persons, boxes.recall_at_wanted_precision) == (0, 0.0)
        assert math.isnan(boxes.thresholds[0].recall)
        assert len(pair_poses(dataset(*labels), nothing)) == 0


@pytest.mark.parametrize(
    ("poses", "ap", "ar"),
    [
        ([], 0.0, 0.0),
        ([(LEFT, 0, 0.9), (RIGHT, 0, 0.8)], 1.0, 1.0),
        ([(LEFT, 0, 0.9)], 51 / RECALLS, 0.5),
        # a second pose for the same person is wrong, and costs when it comes before a right one
        ([(LEFT, 0, 0.9), (RIGHT, 0, 0.8), (LEFT, 0, 0.7)], 1.0, 1.0),
        ([(LEFT, 0, 0.9), (LEFT, 0, 0.85), (RIGHT, 0, 0.8)], (51 + 50 * 2 / 3) / RECALLS, 1.0),
        # far off everybody
        ([(LEFT, 100, 0.9), (RIGHT, 0, 0.8)], 51 / 2 / RECALLS, 0.5),
    ],
)
def test_pose_average_precision_of_two_persons(poses, ap, ar):
    image = frame_poses(
        [box_of(**place) for place, _, _ in poses],
        [score for _, _, score in poses],
        [shifted(standing(**place), dx) for place, dx, _ in poses],
    )
    figures = pose_average_precision(dataset(TWO), [image])
    assert figures.ap == pytest.approx(ap, abs=1e-9)
    assert figures.ar == pytest.approx(ar, abs=1e-9)
    assert figures.ap == pytest.approx(np.mean(figures.ap_by_threshold))


def test_pose_average_precision_separates_sizes():
    small, large = {"height": 80.0}, {"x": 200.0, "height": 190.0}  # 3200 and 18050 square pixels
    labels = persons([box_of(**small), box_of(**large)], [standing(**small), standing(**large)])
    figures = pose_average_precision(dataset(labels), [one_pose(standing(**large), **large)])
    assert (figures.ap_medium, figures.ap_large) == pytest.approx((0.0, 1.0))


def test_pose_average_precision_of_swapped_sides():
    """The nose is right; each other joint is as far off as its partner is."""
    labels = persons([box_of()], [standing()], area=[160.0**2])
    swapped = standing()[list(FLIP_ORDER)]
    distance = np.abs(swapped[:, 0] - standing()[:, 0])
    similarity = np.mean(np.exp(-(distance**2) / (2 * 160.0**2 * (2 * OKS_SIGMAS) ** 2)))
    assert 0.5 < similarity < 0.9
    figures = pose_average_precision(dataset(labels), [one_pose(swapped)])
    assert figures.ap == pytest.approx(sum(similarity >= threshold for threshold in THRESHOLDS) / 10)
    assert pair_poses(dataset(labels), [one_pose(swapped)]).oks == pytest.approx([similarity], abs=1e-6)


def test_pair_poses_gives_the_oks_of_pycocotools():
    rng = np.random.default_rng(7)
    truth = [np.append(rng.uniform(0, 60, (17, 2)), rng.integers(0, 3, (17, 1)), axis=1) for _ in range(8)]
    labels = [persons([box_of()], [keypoints], area=[rng.uniform(500, 5000)]) for keypoints in truth]
    guesses = [keypoints + np.array([*rng.normal(0, 4, 2), 0]) for keypoints in truth]
    poses = [one_pose(guess) for guess in guesses]

    def coco(entries):
        index = COCO()
        index.dataset = {"images": [{"id": i} for i in range(8)], "annotations": entries, "categories": [{"id": 1}]}
        index.createIndex()
        return index

    common = [{"id": i + 1, "image_id": i, "category_id": 1, "iscrowd": 0} for i in range(8)]
    evaluation = COCOeval(
        coco(
            [
                {
                    **entry,
                    "keypoints": labels[i].keypoints[0].ravel().tolist(),
                    "num_keypoints": int((labels[i].keypoints[0, :, 2] > 0).sum()),
                    "area": float(labels[i].area[0]),
                    "bbox": [0, 0, 1, 1],
                }
                for i, entry in enumerate(common)
            ]
        ),
        coco(
            [
                {**entry, "score": 1.0, "area": 1, "keypoints": poses[i].keypoints[0].astype(float).ravel().tolist()}
                for i, entry in enumerate(common)
            ]
        ),
        "keypoints",
    )
    evaluation.evaluate()
    theirs = [evaluation.ious[i, 1][0, 0] for i in range(8)]
    assert 0.01 < min(theirs) < 0.7 < max(theirs) < 1  # else equality would say little
    np.testing.assert_allclose(pair_poses(dataset(*labels), poses).oks, theirs, atol=1e-6)


@pytest.mark.parametrize(("ignored", "ap"), [(True, 1.0), (False, 51 / RECALLS / 2)])
def test_average_precision_skips_results_in_ignored_boxes(ignored, ap):
    """The surer pose lies in the crowd, where no joint is labelled; the other is right."""
    crowd, person = {"x": 250.0}, {"x": 20.0}
    someone = standing(**crowd)
    joints = np.zeros((17, 3)) if ignored else shifted(standing(**crowd), -100)
    labels = persons([box_of(**crowd), box_of(**person)], [joints, standing(**person)], ignored=[ignored, False])
    image = frame_poses([box_of(**crowd), box_of(**person)], [0.9, 0.8], [someone, standing(**person)])
    assert pose_average_precision(dataset(labels), [image]).ap == pytest.approx(ap, abs=1e-9)
    boxes = detections([box_of(**crowd), box_of(**person)], [0.9, 0.8])
    _, ranked = box_average_precision(dataset(labels), [boxes])
    assert len(ranked.scores) == (1 if ignored else 2)
    assert list(labels.posed) == ([1] if ignored else [0, 1])


@pytest.mark.parametrize(
    ("change", "posed"),
    [
        ({}, [0]),
        ({"keypoints": [np.zeros((17, 3))]}, []),
        ({"ignored": [True]}, []),
        ({"boxes": [[100.0, 100.0, 100.0, 200.0]]}, []),
    ],
)
def test_labelled_persons_posed_needs_joints_and_a_box(change, posed):
    labels = persons(**{"boxes": [box_of()], "keypoints": [standing()], **change})
    assert list(labels.posed) == posed
    (boxes,) = true_boxes(dataset(labels))
    assert len(boxes) == len(posed)


def test_pair_poses_takes_the_largest_overlap():
    near, nearer = [105.0, 100.0, 155.0, 200.0], [101.0, 100.0, 151.0, 200.0]
    labels = persons([box_of()], [standing()])
    poses = frame_poses(
        [near, nearer, box_of(x=300.0)], [0.9, 0.8, 0.7], [standing(), shifted(standing(), 3), standing()]
    )
    pairs = pair_poses(dataset(persons(), labels), [frame_poses(), poses])
    assert (list(pairs.image), list(pairs.person), list(pairs.found)) == ([1], [0], [True])
    np.testing.assert_allclose(pairs.estimate[0], shifted(standing(), 3), atol=1e-4)

    unpaired = pair_poses(dataset(labels), [frame_poses([[130.0, 100.0, 180.0, 200.0]], [0.9], [standing()])])
    assert (list(unpaired.found), list(unpaired.oks)) == ([False], [0.0])


def test_pair_poses_uses_each_pose_once():
    """Both boxes overlap it enough; it is the second person's."""
    behind, before = [110.0, 100.0, 160.0, 200.0], box_of()
    pairs = pair_poses(dataset(persons([behind, before], [standing()] * 2)), [one_pose(standing())])
    assert list(pairs.found) == [False, True]


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ([], [[0, 0, 1, 1]], []),
        ([[0, 0, 2, 2]], [[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]], [[1, 1 / 3, 0]]),
        ([[0, 0, 0, 0]], [[0, 0, 0, 0]], [[0]]),
    ],
)
def test_box_iou_of_pairs(a, b, iou):
    a, b = (np.array(boxes, float).reshape(-1, 4) for boxes in (a, b))
    np.testing.assert_allclose(box_iou(a, b), np.reshape(iou, (len(a), len(b))))


def test_joint_accuracy_equals_hand_computation():
    truth = np.zeros((3, 17, 3))
    truth[:, 5] = [0, 0, 2]  # left shoulder
    truth[:, 12] = [30, 40, 1]  # right hip: the torso is 50 px, a joint may be 10 px off
    truth[2, 12] = 0  # the third person has no torso
    estimate = truth.copy()
    estimate[0, 5, :2] = [6, 8]
    estimate[0, 12, :2] = [30, 51]
    estimate[1] = np.nan  # was not found
    estimate[2, 5, :2] = [0, 4]
    rows = {row.joint: row for row in joint_accuracy(truth, estimate, np.full(3, 2.0))}
    assert len(rows) == 18

    shoulder, hip, all_joints, nose = (rows[name] for name in ("left_shoulder", "right_hip", "all joints", "nose"))
    assert (shoulder.labelled, shoulder.found, shoulder.with_torso) == (3, 2, 2)
    assert (shoulder.median_px, shoulder.mean_px) == (7.0, 7.0)
    assert (shoulder.pck, shoulder.median_torso, shoulder.mean_torso) == (0.5, 0.2, 0.2)
    assert (hip.labelled, hip.found, hip.with_torso, hip.pck) == (2, 1, 2, 0.0)
    assert hip.mean_torso == pytest.approx(0.22)
    assert (all_joints.labelled, all_joints.found, all_joints.with_torso, all_joints.pck) == (5, 3, 4, 0.25)
    assert (all_joints.median_px, all_joints.mean_px) == (10.0, 25 / 3)
    assert (shoulder.bias_x_cells, shoulder.bias_y_cells) == (1.5, 3.0)
    assert (all_joints.bias_x_cells, all_joints.bias_y_cells) == (0.0, 4.0)
    assert (nose.labelled, nose.found) == (0, 0)
    assert all(math.isnan(value) for value in (nose.pck, nose.median_px, nose.mean_torso, nose.bias_y_cells))


@pytest.mark.parametrize(
    ("shown", "length"),
    [
        (("left_shoulder", "right_hip"), 50.0),
        (("right_shoulder", "left_hip"), 100.0),
        (("left_shoulder", "right_hip", "right_shoulder", "left_hip"), 75.0),
        (("left_shoulder", "left_hip"), math.nan),
    ],
)
def test_joint_accuracy_torso_length(shown, length):
    places = {"left_shoulder": (0, 0), "right_hip": (30, 40), "right_shoulder": (5, 0), "left_hip": (5, 100)}
    truth = np.zeros((1, 17, 3))
    for name in shown:
        truth[0, KEYPOINT_NAMES.index(name)] = [*places[name], 2]
    (*_, all_joints) = joint_accuracy(truth, truth + np.array([7.5, 0, 0]), np.array([2.5]))
    assert all_joints.mean_torso == pytest.approx(7.5 / length, nan_ok=True)
    assert all_joints.mean_px == 7.5
    assert (all_joints.bias_x_cells, all_joints.bias_y_cells) == (3.0, 0.0)


def test_joint_accuracy_of_no_persons():
    rows = joint_accuracy(np.zeros((0, 17, 3)), np.zeros((0, 17, 3)), np.zeros(0))
    assert {row.labelled for row in rows} == {0}


def test_measure_detections_equals_hand_computation():
    """Four persons in two images; right, right, wrong, right, wrong, wrong by falling score."""
    four = dataset(TWO, TWO)
    images = [
        detections([box_of(**LEFT), box_of(**RIGHT), [0, 300, 50, 390]], [0.95, 0.85, 0.75]),
        detections([box_of(**LEFT), [0, 300, 50, 390], [60, 300, 90, 390]], [0.65, 0.35, 0.05]),
    ]
    accuracy = measure_detections(four, images)
    assert (accuracy.images, accuracy.persons) == (2, 4)
    by_score = {at.bbox_thr: at for at in accuracy.thresholds}
    assert asdict(by_score[0.1]) == {
        "bbox_thr": 0.1,
        "recall": 0.75,
        "precision": 0.6,
        "false_per_image": 1.0,
        "boxes_per_image": 2.5,
    }
    assert (by_score[0.8].recall, by_score[0.8].precision) == (0.5, 1.0)
    assert (by_score[0.9].recall, by_score[0.9].precision) == (0.25, 1.0)
    # the fourth box has precision 3/4 only, so the first two are all that can be had at 0.8
    assert (accuracy.recall_at_wanted_precision, accuracy.wanted_precision_score) == (0.5, pytest.approx(0.85))
    assert accuracy.average_precision.ap50 == pytest.approx((51 + 25 * 0.75) / RECALLS)
    np.testing.assert_array_equal(accuracy.ranked.correct, [True, True, False, True, False, False])


def test_measure_detections_keeps_equal_scores_together():
    images = [detections([box_of(**LEFT), [0, 300, 50, 390]], [0.5, 0.5])]
    assert measure_detections(dataset(TWO), images).recall_at_wanted_precision == 0.0


def test_measure_detections_needs_an_iou_of_a_half():
    x1, y1, x2, y2 = box_of(**LEFT)
    half = [detections([[x1, y1, x2, y1 + (y2 - y1) * share]], [0.9]) for share in (0.51, 0.49)]
    assert [measure_detections(dataset(TWO), [boxes]).thresholds[0].recall for boxes in half] == [0.5, 0.0]


@pytest.mark.parametrize(
    ("bbox_thr", "max_persons", "kept"), [(0.0, 9, [3, 0]), (0.5, 9, [1, 0]), (0.0, 2, [2, 0]), (0.95, 9, [0, 0])]
)
def test_best_boxes_filters_by_score_and_count(bbox_thr, max_persons, kept):
    images = [detections([box_of()] * 3, [0.9, 0.5, 0.1]), detections()]
    assert [len(image) for image in best_boxes(images, bbox_thr, max_persons)] == kept


def test_average_precision_prints_nothing(capsys):
    pose_average_precision(dataset(TWO), [frame_poses()])
    box_average_precision(dataset(TWO), [detections()])
    assert capsys.readouterr().out == ""
