"""Following persons between frames: which persons, their boxes, and when to detect again."""

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
SHAPE[0], SHAPE[16] = 0, 1  # opposite corners, so the joints of a person enclose a box of 1 x 1


def person(box, score=0.8, mirrored=False):
    """The joints (17, 3) of a person whose joints enclose the box."""
    corner, size = np.array(box[:2]), np.array(box[2:]) - np.array(box[:2])
    shape = np.abs(np.array([mirrored, 0]) - SHAPE)
    return np.concatenate([corner + shape * size, np.full((17, 1), score)], axis=1).astype(np.float32)


def poses(*persons, scores=None):
    """One frame with these persons and box scores."""
    keypoints = np.array(persons, np.float32).reshape(-1, 17, 3)
    low, high = keypoints[:, :, :2].min(axis=1), keypoints[:, :, :2].max(axis=1)
    box_scores = np.array(scores or [0.9] * len(keypoints), np.float32)
    pose_scores = box_scores * joint_confidence(keypoints)
    return FramePoses(
        FrameRecord(0, 0, True, "ok"), np.concatenate([low, high], axis=1), box_scores, pose_scores, keypoints
    )


def follow_all(frame):
    return follow(frame, joint_confidence(frame.keypoints), FRAME, KPT_THR)


def expected_persons(*boxes, confidences=None):
    return FollowedPersons(
        Detections(np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32)),
        np.array(confidences or [0.8] * len(boxes), np.float32),
    )


LEFT, RIGHT = (20.0, 30.0, 60.0, 110.0), (120.0, 30.0, 160.0, 110.0)


def test_follow_accepts_no_persons():
    no_persons = follow_all(poses())
    assert len(no_persons.detections) == len(no_persons.confidences) == 0
    assert not needs_redetection(np.zeros((0, 17, 3), np.float32), no_persons)


def test_follow_widens_the_box_of_the_joints_around_its_centre():
    next_frame = follow_all(poses(person(LEFT), person(RIGHT, score=0.5), scores=[0.9, 0.7]))
    margin = np.array([-40, -80, 40, 80]) * (WIDENING - 1) / 2
    np.testing.assert_allclose(next_frame.detections.bbox_xyxy, np.array([LEFT, RIGHT]) + margin, atol=1e-4)
    assert next_frame.detections.scores.tolist() == pytest.approx([0.9, 0.7])
    assert next_frame.confidences.tolist() == pytest.approx([0.8, 0.5])


def test_follow_sorts_persons_by_box_score():
    """The persons of a frame are sorted by pose score, but the followed ones by box score."""
    frame = poses(person(LEFT, score=0.9), person(RIGHT, score=0.3), scores=[0.5, 0.8])
    assert follow_all(frame).detections.scores.tolist() == pytest.approx([0.8, 0.5])
    assert follow_all(frame).confidences.tolist() == pytest.approx([0.3, 0.9])


@pytest.mark.parametrize(
    ("seen", "corners"),
    [
        pytest.param(range(17), (20, 30, 60, 110), id="all"),
        pytest.param([3, 7], None, id="two"),
        pytest.param([3], (20, 30, 60, 110), id="one is too few"),
        pytest.param([], (20, 30, 60, 110), id="none"),
    ],
)
def test_follow_encloses_the_confident_joints(seen, corners):
    joints = person(LEFT, score=0.1)
    joints[list(seen), 2] = 0.8
    if corners is None:
        both = joints[list(seen), :2]
        corners = (*both.min(axis=0), *both.max(axis=0))
    box = follow_all(poses(joints)).detections.bbox_xyxy[0]
    np.testing.assert_allclose((box[:2] + box[2:]) / 2, (np.array(corners[:2]) + corners[2:]) / 2, atol=1e-4)
    np.testing.assert_allclose(box[2:] - box[:2], (np.array(corners[2:]) - corners[:2]) * WIDENING, rtol=1e-4)


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        pytest.param((-10.0, 30.0, 30.0, 110.0), (-0.5, 30, 30, 110), id="half outside"),
        pytest.param((180.0, 100.0, 220.0, 180.0), (180, 100, 199.5, 159.5), id="in the corner"),
        pytest.param((-60.0, 30.0, -20.0, 110.0), None, id="gone"),
        pytest.param((198.0, 30.0, 238.0, 110.0), (198, 30, 199.5, 110), id="almost gone"),
        pytest.param((202.0, 30.0, 242.0, 110.0), None, id="inside only after widening"),
        pytest.param((60.0, 60.0, 60.0, 60.0), None, id="a point"),
    ],
)
def test_follow_clips_boxes_to_the_frame(box, kept):
    boxes = follow_all(poses(person(box))).detections.bbox_xyxy
    if kept is None:
        assert len(boxes) == 0
        return
    (box_in_frame,) = boxes
    margin = np.array([-(box[2] - box[0]), -(box[3] - box[1]), box[2] - box[0], box[3] - box[1]]) * (WIDENING - 1) / 2
    inside = [abs(edge - whole) < 1e-3 for edge, whole in zip(kept, box, strict=True)]
    np.testing.assert_allclose(box_in_frame, np.array(kept) + margin * inside, atol=1e-3)


def test_follow_drops_duplicate_persons():
    duplicate = person((20.5, 30.0, 60.5, 110.0), score=0.7)
    other_pose = person(LEFT, mirrored=True)
    next_frame = follow_all(poses(person(LEFT), duplicate, other_pose))
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
def test_needs_redetection_when_confidence_drops(scores, lost):
    keypoints = np.stack([person(LEFT, scores[0]), person(RIGHT, scores[1])])
    assert needs_redetection(keypoints, expected_persons(LEFT, RIGHT)) is lost


def test_needs_redetection_compares_with_the_confidence_at_detection():
    assert not needs_redetection(person(LEFT, score=0.1)[None], expected_persons(LEFT, confidences=[0.1]))


@pytest.mark.parametrize(
    ("second", "lost"),
    [
        pytest.param(person(RIGHT), False, id="apart"),
        pytest.param(person(LEFT, mirrored=True), False, id="two poses in one place"),
        pytest.param(person((20.5, 30.0, 60.5, 110.0)), True, id="one pose"),
    ],
)
def test_needs_redetection_when_two_persons_become_one(second, lost):
    assert needs_redetection(np.stack([person(LEFT), second]), expected_persons(LEFT, RIGHT)) is lost
