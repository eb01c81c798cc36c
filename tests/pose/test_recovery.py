"""Persons whom the detector misses: who is carried, which boxes they get, which of them count."""

import numpy as np
import pytest

from posebatch.core.frames import Detections, FramePoses, FrameRecord
from posebatch.core.settings import EstimatorSettings
from posebatch.pose.following import KEPT_CONFIDENCE, WIDENING
from posebatch.pose.recovery import (
    CARRIED_SCORE,
    MIN_CONFIDENCE,
    MergedPersons,
    carried_persons,
    merge_persons,
    missed_persons,
    still_seen,
)

FRAME = (200, 160)
LEFT, RIGHT = (20.0, 30.0, 60.0, 110.0), (120.0, 30.0, 160.0, 110.0)
NEAR_LEFT = (24.0, 30.0, 64.0, 110.0)  # IoU with LEFT .82
SETTINGS = EstimatorSettings()


def detections(*boxes, scores=None, left_out=0):
    values = np.array(scores or [0.9] * len(boxes), np.float32)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), values, left_out)


def poses(*boxes, scores=None):
    """Persons whose joints enclose these boxes; each person's joints have a pattern of their own."""
    rng = np.random.default_rng(0)
    keypoints = np.full((len(boxes), 17, 3), 0.8, np.float32)
    for person, box in zip(keypoints, boxes, strict=True):
        shares = rng.uniform(0, 1, (17, 2))
        shares[0], shares[1] = 0, 1
        person[:, :2] = np.array(box[:2]) + shares * (np.array(box[2:]) - box[:2])
    values = np.array(scores or [0.9] * len(boxes), np.float32)
    return FramePoses(FrameRecord(0, 0, True, "ok"), detections(*boxes).bbox_xyxy, values, values * 0.8, keypoints)


def carried(*boxes, scores=None, confidences=None):
    values = np.array(confidences or [0.8] * len(boxes), np.float32)
    return MergedPersons(detections(*boxes, scores=scores), values)


@pytest.mark.parametrize(
    ("before", "now", "missed"),
    [
        pytest.param([], [], [], id="nobody"),
        pytest.param([], [LEFT], [], id="a new person"),
        pytest.param([LEFT, RIGHT], [], [0, 1], id="all"),
        pytest.param([LEFT, RIGHT], [NEAR_LEFT], [1], id="one"),
        pytest.param([LEFT, NEAR_LEFT], [LEFT], [], id="two in one place"),
    ],
)
def test_missed_persons_are_those_without_a_box_in_their_place(before, now, missed):
    assert missed_persons(poses(*before), detections(*now), 0.5).tolist() == missed


def test_carried_persons_get_the_box_of_their_carried_joints():
    frame = poses(LEFT, RIGHT)
    steps = np.array([[[10, 5]], [[-10, 0]]])
    persons = carried_persons(
        frame, np.array([0.8, 0.7], np.float32), frame.keypoints[:, :, :2] + steps, FRAME, SETTINGS
    )
    size = np.array([40, 80])
    for box, source, step in zip(persons.detections.bbox_xyxy, (LEFT, RIGHT), steps[:, 0], strict=True):
        np.testing.assert_allclose((box[:2] + box[2:]) / 2, np.array(source[:2]) + size / 2 + step, atol=1e-3)
        np.testing.assert_allclose(box[2:] - box[:2], size * WIDENING, atol=1e-3)
    assert persons.confidences.tolist() == pytest.approx([0.8, 0.7])


@pytest.mark.parametrize("score", [1.0, 0.5, 0.31, 0.3])
def test_carried_persons_lose_score_and_stay_above_the_threshold_of_the_detector(score):
    frame = poses(LEFT, scores=[score])
    persons = carried_persons(
        frame, np.array([0.8], np.float32), frame.keypoints[:, :, :2].astype(float), FRAME, SETTINGS
    )
    (carried_score,) = persons.detections.scores
    assert np.float32(SETTINGS.bbox_thr) <= carried_score <= np.float32(score)
    assert carried_score == pytest.approx(0.3 + CARRIED_SCORE * (score - 0.3))


def test_carried_persons_who_left_the_frame_are_dropped():
    frame = poses(LEFT, RIGHT)
    outside = frame.keypoints[:, :, :2] + np.array([[[300, 0]], [[0, 0]]])
    persons = carried_persons(frame, np.array([0.8, 0.7], np.float32), outside, FRAME, SETTINGS)
    assert persons.confidences.tolist() == pytest.approx([0.7])


@pytest.mark.parametrize(
    ("found", "expected", "boxes"),
    [
        pytest.param(detections(), carried(), [], id="nobody"),
        pytest.param(detections(LEFT), carried(), [LEFT], id="detected"),
        pytest.param(detections(), carried(LEFT), [LEFT], id="carried"),
        pytest.param(detections(LEFT), carried(RIGHT), [LEFT, RIGHT], id="both, far apart"),
        pytest.param(
            detections(LEFT, scores=[0.4]), carried(NEAR_LEFT), [LEFT], id="a detection wins, however sure it is"
        ),
        pytest.param(detections(), carried(LEFT, NEAR_LEFT), [LEFT], id="of two carried the better wins"),
    ],
)
def test_merge_persons_drops_carried_boxes_in_the_place_of_others(found, expected, boxes):
    merged = merge_persons(found, expected, 0.5, 20)
    assert merged.detections.bbox_xyxy.tolist() == [list(box) for box in boxes]
    assert np.isnan(merged.confidences).sum() == len(found)


def test_merge_persons_ranks_by_score_and_keeps_the_best():
    found = detections(LEFT, scores=[0.5], left_out=2)
    merged = merge_persons(found, carried(RIGHT, scores=[0.7], confidences=[0.6]), 0.5, 20)
    assert merged.detections.scores.tolist() == pytest.approx([0.7, 0.5])
    assert merged.confidences[0] == pytest.approx(0.6)
    assert merged.detections.left_out == 2
    best = merge_persons(found, carried(RIGHT, scores=[0.7]), 0.5, 1).detections
    assert (best.bbox_xyxy.tolist(), best.left_out) == ([list(RIGHT)], 3)


@pytest.mark.parametrize(
    ("confidence", "at_detection", "seen"),
    [
        pytest.param(0.01, np.nan, True, id="detected here"),
        pytest.param(0.9, 0.9, True, id="as before"),
        pytest.param(0.9 * KEPT_CONFIDENCE + 0.01, 0.9, True, id="somewhat less"),
        pytest.param(0.9 * KEPT_CONFIDENCE - 0.01, 0.9, False, id="much less"),
        pytest.param(MIN_CONFIDENCE + 0.01, 0.3, True, id="sure enough"),
        pytest.param(MIN_CONFIDENCE - 0.01, 0.3, False, id="never sure"),
    ],
)
def test_still_seen_compares_with_the_confidence_at_detection(confidence, at_detection, seen):
    keypoints = np.full((1, 17, 3), confidence, np.float32)
    assert len(still_seen(keypoints, np.array([at_detection], np.float32))) == seen


def test_still_seen_accepts_nobody():
    assert len(still_seen(np.zeros((0, 17, 3), np.float32), np.zeros(0, np.float32))) == 0
