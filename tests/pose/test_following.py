"""Who is followed from one frame to the next, where to look for them, and when to detect again."""

import numpy as np
import pytest

from posebatch.core.frames import Detections, FramePoses, FrameRecord
from posebatch.pose.following import (
    KEPT_CONFIDENCE,
    WIDENING,
    FollowedPersons,
    follow,
    joint_confidence,
    needs_redetection,
)

FRAME = (200, 160)
KPT_THR = 0.2
SHAPE = np.random.default_rng(0).uniform(0, 1, (17, 2)).astype(np.float32)
SHAPE[0], SHAPE[16] = 0, 1  # opposite corners: a person's joints enclose a box of 1 x 1


def person(box, score=0.8, mirrored=False):
    """The joints (17, 3) of a person who fills a box."""
    corner, size = np.array(box[:2]), np.array(box[2:]) - np.array(box[:2])
    shape = np.abs(np.array([mirrored, 0]) - SHAPE)
    return np.concatenate([corner + shape * size, np.full((17, 1), score)], axis=1).astype(np.float32)


def poses(*persons, scores=None):
    keypoints = np.array(persons, np.float32).reshape(-1, 17, 3)
    low, high = keypoints[:, :, :2].min(axis=1), keypoints[:, :, :2].max(axis=1)
    found = np.array(scores or [0.9] * len(keypoints), np.float32)
    ranked = found * joint_confidence(keypoints)
    return FramePoses(FrameRecord(0, 0, True, "ok"), np.concatenate([low, high], axis=1), found, ranked, keypoints)


def followed(found):
    return follow(found, joint_confidence(found.keypoints), FRAME, KPT_THR)


def looked_for(*boxes, confidences=None):
    return FollowedPersons(
        Detections(np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32)),
        np.array(confidences or [0.8] * len(boxes), np.float32),
    )


LEFT, RIGHT = (20.0, 30.0, 60.0, 110.0), (120.0, 30.0, 160.0, 110.0)


def test_nobody_is_followed_by_nobody():
    nobody = followed(poses())
    assert len(nobody.detections) == len(nobody.confidences) == 0
    assert not needs_redetection(np.zeros((0, 17, 3), np.float32), nobody)


def test_the_box_encloses_the_joints_and_is_widened_around_its_centre():
    next_frame = followed(poses(person(LEFT), person(RIGHT, score=0.5), scores=[0.9, 0.7]))
    margin = np.array([-40, -80, 40, 80]) * (WIDENING - 1) / 2
    np.testing.assert_allclose(next_frame.detections.bbox_xyxy, np.array([LEFT, RIGHT]) + margin, atol=1e-4)
    assert next_frame.detections.scores.tolist() == pytest.approx([0.9, 0.7])
    assert next_frame.confidences.tolist() == pytest.approx([0.8, 0.5])


def test_the_best_box_comes_first():
    """Persons are ranked by pose score, boxes by their own."""
    found = poses(person(LEFT, score=0.9), person(RIGHT, score=0.3), scores=[0.5, 0.8])
    assert followed(found).detections.scores.tolist() == pytest.approx([0.8, 0.5])
    assert followed(found).confidences.tolist() == pytest.approx([0.3, 0.9])


@pytest.mark.parametrize(
    ("seen", "corners"),
    [
        pytest.param(range(17), (20, 30, 60, 110), id="all"),
        pytest.param([3, 7], None, id="two"),
        pytest.param([3], (20, 30, 60, 110), id="one says nothing of the size"),
        pytest.param([], (20, 30, 60, 110), id="none"),
    ],
)
def test_joints_that_are_seen_count(seen, corners):
    one = person(LEFT, score=0.1)
    one[list(seen), 2] = 0.8
    if corners is None:
        both = one[list(seen), :2]
        corners = (*both.min(axis=0), *both.max(axis=0))
    box = followed(poses(one)).detections.bbox_xyxy[0]
    np.testing.assert_allclose((box[:2] + box[2:]) / 2, (np.array(corners[:2]) + corners[2:]) / 2, atol=1e-4)
    np.testing.assert_allclose(box[2:] - box[:2], (np.array(corners[2:]) - corners[:2]) * WIDENING, rtol=1e-4)


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        pytest.param((-10.0, 30.0, 30.0, 110.0), (-0.5, 30, 30, 110), id="half outside"),
        pytest.param((180.0, 100.0, 220.0, 180.0), (180, 100, 199.5, 159.5), id="in the corner"),
        pytest.param((-60.0, 30.0, -20.0, 110.0), None, id="left"),
        pytest.param((198.0, 30.0, 238.0, 110.0), (198, 30, 199.5, 110), id="almost gone"),
        pytest.param((202.0, 30.0, 242.0, 110.0), None, id="a strip of it by the widening alone"),
        pytest.param((60.0, 60.0, 60.0, 60.0), None, id="a point"),
    ],
)
def test_boxes_end_with_the_frame(box, kept):
    boxes = followed(poses(person(box))).detections.bbox_xyxy
    if kept is None:
        assert len(boxes) == 0
        return
    (found,) = boxes
    margin = np.array([-(box[2] - box[0]), -(box[3] - box[1]), box[2] - box[0], box[3] - box[1]]) * (WIDENING - 1) / 2
    inside = [abs(edge - whole) < 1e-3 for edge, whole in zip(kept, box, strict=True)]
    np.testing.assert_allclose(found, np.array(kept) + margin * inside, atol=1e-3)


def test_of_two_that_are_one_the_better_is_followed():
    again = person((20.5, 30.0, 60.5, 110.0), score=0.7)
    other = person(LEFT, mirrored=True)  # the same box, another pose
    next_frame = followed(poses(person(LEFT), again, other))
    assert next_frame.confidences.tolist() == pytest.approx([0.8, 0.8])


@pytest.mark.parametrize(
    ("scores", "lost"),
    [
        pytest.param([0.8, 0.8], False, id="as before"),
        pytest.param([1.0, 1.0], False, id="better"),
        pytest.param([0.8 * KEPT_CONFIDENCE + 0.01, 0.8], False, id="somewhat worse"),
        pytest.param([0.8, 0.8 * KEPT_CONFIDENCE - 0.01], True, id="one much worse"),
        pytest.param([0, 0], True, id="both gone"),
    ],
)
def test_who_is_seen_much_worse_than_when_detected_is_lost(scores, lost):
    keypoints = np.stack([person(LEFT, scores[0]), person(RIGHT, scores[1])])
    assert needs_redetection(keypoints, looked_for(LEFT, RIGHT)) is lost


def test_who_was_seen_badly_when_detected_may_go_on_so():
    assert not needs_redetection(person(LEFT, score=0.1)[None], looked_for(LEFT, confidences=[0.1]))


@pytest.mark.parametrize(
    ("second", "lost"),
    [
        pytest.param(person(RIGHT), False, id="apart"),
        pytest.param(person(LEFT, mirrored=True), False, id="two poses in one place"),
        pytest.param(person((20.5, 30.0, 60.5, 110.0)), True, id="one pose"),
    ],
)
def test_two_who_become_one_are_lost(second, lost):
    assert needs_redetection(np.stack([person(LEFT), second]), looked_for(LEFT, RIGHT)) is lost
