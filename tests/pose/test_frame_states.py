"""The states of a frame: when it is finished, when it goes back to the detector, and how images are joined."""

import numpy as np
import pytest

from posebatch.core.frames import Detections, FrameRecord
from posebatch.core.settings import EstimatorSettings
from posebatch.pose.following import FollowedPersons
from posebatch.pose.frame_states import (
    Finished,
    Frame,
    FrameGroup,
    HeldImages,
    Located,
    Posed,
    consecutive_runs,
    finish,
)

RECORD = FrameRecord(7, 7, False, "ok")
BOXES = np.array([[0, 0, 40, 80], [100, 0, 140, 80]], np.float32)
REGIONS = np.array([[20, 40, 80, 100], [120, 40, 80, 100]], np.float64)


def located(followed_confidences=None):
    detections = Detections(BOXES, np.array([0.9, 0.8], np.float32), left_out=3)
    followed = None
    if followed_confidences is not None:
        followed = FollowedPersons(detections, np.array(followed_confidences, np.float32))
    frame = Frame(RECORD, HeldImages(None, 0), 0, FrameGroup((0, (200, 100))), 0)
    return Located(frame, detections, followed, REGIONS)


def keypoints(*scores):
    """One person in each box, all joints with the same score."""
    points = np.random.default_rng(0).uniform(0, 40, (17, 2))
    persons = [np.c_[points + np.array([100 * number, 0]), np.full(17, score)] for number, score in enumerate(scores)]
    return np.array(persons, np.float32)


def test_finish_ranks_persons_and_keeps_their_confidence_at_detection():
    finished = finish(Posed(located(), keypoints(0.5, 0.9)), EstimatorSettings())
    assert finished.poses.record == RECORD
    assert finished.poses.left_out == 3
    np.testing.assert_array_equal(finished.poses.bbox_xyxy, BOXES[::-1])
    np.testing.assert_allclose(finished.poses.pose_scores, [0.9 * 0.8, 0.5 * 0.9], rtol=1e-6)
    np.testing.assert_allclose(finished.confidences, [0.9, 0.5], rtol=1e-6)


def test_finish_keeps_the_confidence_of_the_first_detection_of_followed_persons():
    finished = finish(Posed(located([0.95, 0.6]), keypoints(0.8, 0.5)), EstimatorSettings())
    np.testing.assert_allclose(finished.confidences, [0.95, 0.6], rtol=1e-6)


def test_finish_asks_for_detection_when_a_followed_person_is_lost():
    assert finish(Posed(located([0.9, 0.9]), keypoints(0.9, 0.5)), EstimatorSettings()) is None


def test_states_check_the_number_of_persons():
    with pytest.raises(ValueError, match="regions"):
        Located(located().frame, located().detections, None, REGIONS[:1])
    with pytest.raises(ValueError, match="keypoints"):
        Posed(located(), keypoints(0.9))
    with pytest.raises(ValueError, match="confidences"):
        Finished(finish(Posed(located(), keypoints(0.9, 0.9)), EstimatorSettings()).poses, np.zeros(1, np.float32))


@pytest.mark.parametrize(
    ("positions", "runs"),
    [
        ([], []),
        ([("a", 3)], [("a", range(3, 4))]),
        ([("a", 3), ("a", 4), ("a", 5)], [("a", range(3, 6))]),
        ([("a", 3), ("b", 4)], [("a", range(3, 4)), ("b", range(4, 5))]),
        ([("a", 3), ("a", 5), ("a", 6)], [("a", range(3, 4)), ("a", range(5, 7))]),
        ([("a", 4), ("a", 3)], [("a", range(4, 5)), ("a", range(3, 4))]),
    ],
)
def test_consecutive_runs_merge_neighbours_of_one_source(positions, runs):
    assert consecutive_runs(positions) == runs
