"""Frames to persons, with networks that are a few lines: boxes as given, and a joint where the crop is brightest."""

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
RECORD = SimpleNamespace(input_size_wh=(96, 128), box_padding=1.25, grid_alignment="edges")


class GivenBoxes:
    """One list of (box, score) for each frame."""

    batch_size = 4

    def __init__(self, frames):
        self.frames = frames

    def detect(self, images):
        assert len(images) == len(self.frames)
        return [
            Detections(
                np.array([box for box, _ in found], np.float32).reshape(-1, 4),
                np.array([score for _, score in found], np.float32),
            )
            for found in self.frames
        ]


class BrightestPoint:
    """All 17 joints lie where the crop is brightest; the heatmaps are the crop, four times smaller."""

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
    """Soft bright dots on black: (height, width, 3) uint8."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    light = sum((np.exp(-((x - dot_x) ** 2 + (y - dot_y) ** 2) / (2 * 9**2)) for dot_x, dot_y in dots), np.zeros(()))
    return np.repeat((250 * np.clip(light, 0, 1) * np.ones((HEIGHT, WIDTH))).astype(np.uint8)[:, :, None], 3, axis=2)


def estimate(frames, boxes, pose=None, **settings):
    estimator = PoseEstimator(GivenBoxes(boxes), pose or BrightestPoint(), EstimatorSettings(**settings), PLAIN)
    records = tuple(FrameRecord(number, number, True, "ok") for number in range(len(frames)))
    images = np.stack(frames) if frames else np.zeros((0, HEIGHT, WIDTH, 3), np.uint8)
    return list(estimator.estimate([FrameBatch(records, images)]))


def test_no_frames_no_poses():
    assert estimate([], []) == []


def test_a_frame_without_a_person_has_none():
    poses = estimate([frame_with(DOT), frame_with(DOT)], [[], [(BOX, 0.9)]])
    assert [len(frame) for frame in poses] == [0, 1]


def test_a_frame_that_could_not_be_decoded_keeps_its_place():
    estimator = PoseEstimator(GivenBoxes([[(BOX, 0.9)]]), BrightestPoint(), EstimatorSettings(), PLAIN)
    records = (FrameRecord(0, 0, True, "corrupt"), FrameRecord(1, 1, False, "ok"))
    poses = list(estimator.estimate([FrameBatch(records, frame_with(DOT)[None])]))
    assert [(frame.record.frame_index, len(frame)) for frame in poses] == [(0, 0), (1, 1)]


def test_persons_of_several_frames_share_batches_and_come_back_to_their_frames():
    dots = [(80, 60), (90, 75), (100, 90)]
    pose = BrightestPoint()
    poses = estimate([frame_with(dot) for dot in dots], [[(BOX, 0.9), (BOX, 0.8)], [(BOX, 0.9)], [(BOX, 0.9)]], pose)
    assert pose.batches == [3, 1]
    assert [len(frame) for frame in poses] == [2, 1, 1]
    for frame, dot in zip(poses, dots, strict=True):
        assert np.abs(frame.keypoints[:, :, :2] - dot).max() < 2


@pytest.mark.parametrize("alignment", ["edges", "origin"])
@pytest.mark.parametrize(("decoding", "pixels"), [("quarter", 1.3), ("dark", 0.3)])
def test_the_joint_is_found_where_it_is(decoding, alignment, pixels):
    """A heatmap pixel is 4.7 pixels of the frame: a quarter of it 1.2."""
    pose = BrightestPoint(SimpleNamespace(**{**vars(RECORD), "grid_alignment": alignment}))
    (frame,) = estimate([frame_with(DOT)], [[(BOX, 0.9)]], pose, decoding=decoding)
    assert np.abs(frame.keypoints[0, :, :2] - DOT).max() < pixels


def test_matlab_demo_crops_and_reads_otherwise(monkeypatch):
    """Of three crop pixels that it is off on the paper's grid, 1.5 are left on the other: 1.2 pixels of the frame."""
    (demo,) = estimate([frame_with(DOT)], [[(BOX, 0.9)]], decoding="matlab-demo")
    monkeypatch.setitem(DECODINGS, "matlab-demo", replace(DECODINGS["matlab-demo"], alignment="edges"))
    (aligned,) = estimate([frame_with(DOT)], [[(BOX, 0.9)]], decoding="matlab-demo")
    step = 90 / 0.9 / 128  # pixels of the frame in one of the crop
    assert np.abs(aligned.keypoints[0, :, :2] - DOT).max() <= 2 * step + 0.5
    assert demo.keypoints[0, 0, 0] != aligned.keypoints[0, 0, 0]
    assert np.abs(demo.keypoints[0, :, :2] - DOT).max() <= 3.5 * step + 0.5


def test_persons_are_ranked_by_box_and_keypoint_scores():
    dim = frame_with(DOT) // 2
    dim[:, :30] = frame_with((10, 80))[:, :30]
    elsewhere = (-20.0, 35.0, 40.0, 125.0)
    (frame,) = estimate([dim], [[(BOX, 0.9), (elsewhere, 0.6)]])
    assert frame.bbox_scores.tolist() == pytest.approx([0.6, 0.9])
    scores = frame.keypoints[:, :, 2].mean(axis=1)
    np.testing.assert_allclose(frame.pose_scores, frame.bbox_scores * scores, rtol=1e-5)


def test_keypoints_below_the_threshold_do_not_count():
    (frame,) = estimate([frame_with(DOT) // 3], [[(BOX, 0.9)]], kpt_thr=0.5)
    assert frame.pose_scores.tolist() == [0]


@pytest.mark.parametrize(("oks_nms_thr", "kept"), [(1.0, [0.9, 0.8, 0.7]), (0.9, [0.9, 0.7])])
def test_one_person_in_two_boxes_is_two_or_one_as_asked(oks_nms_thr, kept):
    again, other = (58.0, 28.0, 124.0, 124.0), (140.0, 30.0, 200.0, 120.0)
    boxes = [(BOX, 0.9), (again, 0.8), (other, 0.7)]
    (frame,) = estimate([frame_with(DOT, (170, 75))], [boxes], oks_nms_thr=oks_nms_thr, decoding="dark")
    assert frame.bbox_scores.tolist() == pytest.approx(kept)


def test_persons_beyond_the_most_are_known_of_their_frame():
    class Crowd(GivenBoxes):
        def detect(self, images):
            return [replace(found, left_out=number) for number, found in enumerate(super().detect(images))]

    estimator = PoseEstimator(Crowd([[(BOX, 0.9)], [(BOX, 0.9)]]), BrightestPoint(), EstimatorSettings(), PLAIN)
    records = tuple(FrameRecord(number, number, True, "ok") for number in range(2))
    frames = estimator.estimate([FrameBatch(records, np.stack([frame_with(DOT)] * 2))])
    assert [frame.left_out for frame in frames] == [0, 1]
