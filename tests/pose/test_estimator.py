"""The estimator with fake networks: a detector with given boxes, and joints at the brightest point of the crop."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from posebatch.core.frames import Detections, FrameRecord
from posebatch.core.images import FrameBatch
from posebatch.core.settings import EstimatorSettings
from posebatch.models.networks.engines import PLAIN
from posebatch.pose.decoding import DECODINGS
from posebatch.pose.estimator import PoseEstimator

WIDTH, HEIGHT = 200, 160
BOX = (60.0, 30.0, 120.0, 120.0)
DOT = (100, 70)
RECORD = SimpleNamespace(input_size_wh=(96, 128), box_padding=1.25, grid_alignment="edges", score_calibration=())


class GivenBoxes:
    """A detector with given boxes: one list of (box, score) for each frame."""

    batch_size = 4

    def __init__(self, frames):
        self.frames = frames

    def detect(self, images):
        assert len(images) == len(self.frames)
        return [
            Detections(
                np.array([box for box, _ in persons], np.float32).reshape(-1, 4),
                np.array([score for _, score in persons], np.float32),
            )
            for persons in self.frames
        ]


class BrightestPoint:
    """A pose network whose 17 heatmaps are the crop, four times smaller, so all joints are at the brightest point."""

    batch_size = 3
    heatmap_size_wh = (24, 32)

    def __init__(self, record=RECORD):
        self.record = record
        self.batches = []

    def heatmaps(self, crops, flip_test=False):
        self.batches.append(len(crops))
        grey = crops.mean(dim=1, keepdim=True) / 255
        pooled = (
            torch.nn.functional.avg_pool2d(grey, 4) if self.record.grid_alignment == "edges" else grey[..., ::4, ::4]
        )
        return pooled.expand(-1, 17, -1, -1)


def frame_with(*dots):
    """A frame (height, width, 3) uint8 with soft bright dots on black."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    light = sum((np.exp(-((x - dot_x) ** 2 + (y - dot_y) ** 2) / (2 * 9**2)) for dot_x, dot_y in dots), np.zeros(()))
    return np.repeat((250 * np.clip(light, 0, 1) * np.ones((HEIGHT, WIDTH))).astype(np.uint8)[:, :, None], 3, axis=2)


def estimate(frames, boxes, pose=None, **settings):
    estimator = PoseEstimator(GivenBoxes(boxes), pose or BrightestPoint(), EstimatorSettings(**settings), PLAIN)
    records = tuple(FrameRecord(number, number, True, "ok") for number in range(len(frames)))
    images = np.stack(frames) if frames else np.zeros((0, HEIGHT, WIDTH, 3), np.uint8)
    return list(estimator.estimate([FrameBatch(records, images)]))


def test_estimator_accepts_no_frames():
    assert estimate([], []) == []


def test_estimator_gives_no_person_without_a_detection():
    poses = estimate([frame_with(DOT), frame_with(DOT)], [[], [(BOX, 0.9)]])
    assert [len(frame) for frame in poses] == [0, 1]


def test_estimator_keeps_the_place_of_an_undecodable_frame():
    estimator = PoseEstimator(GivenBoxes([[(BOX, 0.9)]]), BrightestPoint(), EstimatorSettings(), PLAIN)
    records = (FrameRecord(0, 0, True, "corrupt"), FrameRecord(1, 1, False, "ok"))
    poses = list(estimator.estimate([FrameBatch(records, frame_with(DOT)[None])]))
    assert [(frame.record.frame_index, len(frame)) for frame in poses] == [(0, 0), (1, 1)]


def test_estimator_shares_pose_batches_between_frames():
    dots = [(80, 60), (90, 75), (100, 90)]
    pose = BrightestPoint()
    boxes = [[(BOX, 0.9), (BOX, 0.8)], [(BOX, 0.9)], [(BOX, 0.9)]]
    poses = estimate([frame_with(dot) for dot in dots], boxes, pose, oks_nms_thr=1)
    assert pose.batches == [3, 1]
    assert [len(frame) for frame in poses] == [2, 1, 1]
    for frame, dot in zip(poses, dots, strict=True):
        assert np.abs(frame.keypoints[:, :, :2] - dot).max() < 2


@pytest.mark.parametrize("alignment", ["edges", "origin"])
@pytest.mark.parametrize(("decoding", "pixels"), [("quarter", 1.3), ("dark", 0.3)])
def test_estimator_finds_the_joint(decoding, alignment, pixels):
    """A heatmap pixel is 4.7 pixels of the frame, and a quarter of it is 1.2."""
    pose = BrightestPoint(SimpleNamespace(**{**vars(RECORD), "grid_alignment": alignment}))
    (frame,) = estimate([frame_with(DOT)], [[(BOX, 0.9)]], pose, decoding=decoding)
    assert np.abs(frame.keypoints[0, :, :2] - DOT).max() < pixels


def test_estimator_shows_the_offset_of_matlab_demo(monkeypatch):
    """The offset is three crop pixels on the paper's grid, and 1.5 on this one: 1.2 pixels of the frame."""
    (demo,) = estimate([frame_with(DOT)], [[(BOX, 0.9)]], decoding="matlab-demo")
    monkeypatch.setitem(DECODINGS, "matlab-demo", replace(DECODINGS["matlab-demo"], alignment="edges"))
    (aligned,) = estimate([frame_with(DOT)], [[(BOX, 0.9)]], decoding="matlab-demo")
    step = 90 / 0.9 / 128  # pixels of the frame in one of the crop
    assert np.abs(aligned.keypoints[0, :, :2] - DOT).max() <= 2 * step + 0.5
    assert demo.keypoints[0, 0, 0] != aligned.keypoints[0, 0, 0]
    assert np.abs(demo.keypoints[0, :, :2] - DOT).max() <= 3.5 * step + 0.5


def test_estimator_ranks_persons_by_box_and_keypoint_scores():
    dim = frame_with(DOT) // 2
    dim[:, :30] = frame_with((10, 80))[:, :30]
    elsewhere = (-20.0, 35.0, 40.0, 125.0)
    (frame,) = estimate([dim], [[(BOX, 0.9), (elsewhere, 0.6)]])
    assert frame.bbox_scores.tolist() == pytest.approx([0.6, 0.9])
    scores = frame.keypoints[:, :, 2].mean(axis=1)
    np.testing.assert_allclose(frame.pose_scores, frame.bbox_scores * scores, rtol=1e-5)


def test_estimator_ignores_keypoint_scores_below_the_threshold():
    (frame,) = estimate([frame_with(DOT) // 3], [[(BOX, 0.9)]], kpt_thr=0.5)
    assert frame.pose_scores.tolist() == [0]


@pytest.mark.parametrize(("oks_nms_thr", "kept"), [(1.0, [0.9, 0.8, 0.7]), (0.9, [0.9, 0.7]), (None, [0.9, 0.7])])
def test_estimator_removes_duplicate_persons_by_oks_threshold(oks_nms_thr, kept):
    same_person, other_person = (58.0, 28.0, 124.0, 124.0), (140.0, 30.0, 200.0, 120.0)
    boxes = [(BOX, 0.9), (same_person, 0.8), (other_person, 0.7)]
    (frame,) = estimate([frame_with(DOT, (170, 75))], [boxes], oks_nms_thr=oks_nms_thr, decoding="dark")
    assert frame.bbox_scores.tolist() == pytest.approx(kept)


def test_estimator_passes_on_the_count_of_persons_left_out():
    class Crowd(GivenBoxes):
        def detect(self, images):
            return [replace(persons, left_out=number) for number, persons in enumerate(super().detect(images))]

    estimator = PoseEstimator(Crowd([[(BOX, 0.9)], [(BOX, 0.9)]]), BrightestPoint(), EstimatorSettings(), PLAIN)
    records = tuple(FrameRecord(number, number, True, "ok") for number in range(2))
    frames = estimator.estimate([FrameBatch(records, np.stack([frame_with(DOT)] * 2))])
    assert [frame.left_out for frame in frames] == [0, 1]
