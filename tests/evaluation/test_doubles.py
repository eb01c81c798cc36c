"""Right poses, and poses too many on one person."""

import numpy as np
import pytest

from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.evaluation.doubles import PoseCounts, count_poses
from posebatch.evaluation.labels import LabelledDataset, LabelledImage, LabelledPersons

RNG = np.random.default_rng(0)
POSE = RNG.uniform(0, 100, (17, 2))
BOX = np.array([[0.0, 0], [100, 100]])


def shifted(points: np.ndarray, left: float) -> np.ndarray:
    return points + np.array([left, 0])


def image_with(*lefts: float) -> LabelledImage:
    """An image with a person at each of these distances from the left."""
    keypoints = np.stack([np.column_stack([shifted(POSE, left), np.full(17, 2)]) for left in lefts])
    boxes = np.stack([shifted(BOX, left).ravel() for left in lefts])
    n = len(lefts)
    persons = LabelledPersons(boxes, keypoints, np.full(n, 5300.0), np.zeros(n, bool))
    return LabelledImage("a.jpg", 1, 1000, 100, b"", persons)


def poses_at(*lefts: float) -> FramePoses:
    n = len(lefts)
    keypoints = np.array([np.column_stack([shifted(POSE, left), np.ones(17)]) for left in lefts], np.float32)
    boxes = np.array([shifted(BOX, left) for left in lefts], np.float32)
    ones = np.ones(n, np.float32)
    record = FrameRecord(0, 0, True, "ok")
    return FramePoses(record, boxes.reshape(n, 4), ones, ones, keypoints.reshape(n, 17, 3))


@pytest.mark.parametrize(
    ("found", "counts"),
    [
        pytest.param((), PoseCounts(0, 0, 0), id="none"),
        pytest.param((0,), PoseCounts(1, 1, 0), id="right"),
        pytest.param((500,), PoseCounts(1, 0, 0), id="far from anybody"),
        pytest.param((0, 2), PoseCounts(2, 1, 1), id="double"),
        pytest.param((0, 1, 2), PoseCounts(3, 1, 2), id="two doubles"),
        pytest.param((0, 200), PoseCounts(2, 2, 0), id="two persons"),
        pytest.param((0, 2, 200, 500), PoseCounts(4, 2, 1), id="all kinds"),
    ],
)
def test_count_poses_tells_right_ones_from_doubles(found, counts):
    dataset = LabelledDataset("d", (image_with(0, 200),), True)
    assert count_poses(dataset, [poses_at(*found)]) == counts
