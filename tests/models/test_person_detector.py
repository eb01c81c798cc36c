"""Person detectors: the embedded SSDLite and torchvision's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from support.pictures import DETECTOR_NAME, drawn_person, noise
from torch import nn

from posebatch.core.errors import SettingsError
from posebatch.models.networks.boxes import anchor_boxes
from posebatch.models.networks.person_detector import (
    BoxNetwork,
    DetectorSettings,
    TorchvisionDetector,
    build_torchvision_detector,
    load_detector,
)
from posebatch.models.networks.ssdlite import build_person_ssd
from posebatch.models.weights.files import load_into, load_weights, save_weights
from posebatch.models.weights.names import resolve
from posebatch.pose.pixels import RgbPixels

TORCHVISION_NAME = "ssdlite320_mobilenet_v3_large"
SENSITIVE = DetectorSettings(bbox_thr=0.05, max_persons=200)
"""Thresholds at which noise gives some boxes."""


@pytest.fixture(scope="module")
def detector():
    return load_detector(DETECTOR_NAME, SENSITIVE)


@pytest.mark.parametrize("n", [0, 1, 3, 4])
def test_detector_gives_one_result_for_each_frame(detector, n):
    found = detector.detect(RgbPixels(noise(n)))
    assert len(found) == n
    for detections in found:
        assert len(detections) > 0
        assert (np.diff(detections.scores) <= 0).all()


def test_detector_refuses_more_frames_than_a_batch(detector):
    with pytest.raises(ValueError, match="batch size"):
        detector.detect(RgbPixels(noise(detector.batch_size + 1, 32, 32)))


def test_detector_finds_nobody_in_a_blank_frame():
    (found,) = load_detector(DETECTOR_NAME, DetectorSettings()).detect(
        RgbPixels(torch.zeros(1, 90, 160, 3, dtype=torch.uint8))
    )
    assert len(found) == 0
    assert found.bbox_xyxy.shape == (0, 4)


def test_detector_applies_threshold_and_max_persons():
    settings = DetectorSettings(bbox_thr=0.06, max_persons=3)
    (few,) = load_detector(DETECTOR_NAME, settings).detect(RgbPixels(noise(1)))
    (many,) = load_detector(DETECTOR_NAME, SENSITIVE).detect(RgbPixels(noise(1)))
    assert len(few) <= 3
    assert (few.scores > 0.06).all()
    np.testing.assert_array_equal(few.scores, many.scores[: len(few)])


@pytest.mark.parametrize(("height", "width"), [(120, 200), (31, 57), (400, 90)])
def test_detector_boxes_lie_in_the_frame(detector, height, width):
    (found,) = detector.detect(RgbPixels(noise(1, height, width)))
    x1, y1, x2, y2 = found.bbox_xyxy.T
    assert (found.bbox_xyxy >= -0.5).all()
    assert (x2 <= width - 0.5).all()
    assert (y2 <= height - 0.5).all()
    assert (x2 - x1 >= 0.99).all()
    assert (y2 - y1 >= 0.99).all()


@pytest.mark.parametrize("image", [drawn_person(), noise(1), noise(1, 500, 700, seed=3)])
def test_detector_equals_torchvision_forward_on_equally_resized_input(detector, image):
    record, state = load_weights("detector", DETECTOR_NAME)
    ssd = build_person_ssd().eval()
    load_into(ssd, state, record.name)
    ssd.score_thresh, ssd.nms_thresh, ssd.detections_per_img = (
        SENSITIVE.bbox_thr,
        SENSITIVE.nms_thr,
        SENSITIVE.max_persons,
    )
    _, height, width, _ = image.shape
    resized = F.interpolate(image.permute(0, 3, 1, 2), size=(320, 320), mode="bilinear", antialias=True)
    with torch.inference_mode():
        (expected,) = ssd([resized[0] / 255])
    boxes = expected["boxes"] * torch.tensor([width, height, width, height]) / 320 - 0.5
    (found,) = detector.detect(RgbPixels(image))
    np.testing.assert_allclose(found.scores, expected["scores"].numpy(), atol=1e-4)
    np.testing.assert_allclose(found.bbox_xyxy, boxes.numpy(), atol=0.02)


def test_detector_finds_a_person():
    (found,) = load_detector(DETECTOR_NAME, DetectorSettings()).detect(RgbPixels(drawn_person()))
    assert len(found) == 1
    assert found.scores[0] > 0.9
    x1, y1, x2, y2 = found.bbox_xyxy[0]
    assert (x1 + x2) / 2 == pytest.approx(160, abs=10)
    assert (y1, y2) == pytest.approx((0.1 * 240, 0.95 * 240), abs=20)


def test_detector_results_do_not_depend_on_other_frames(detector):
    frames = noise(4)
    together = detector.detect(RgbPixels(frames))
    other = detector.detect(RgbPixels(torch.cat([frames[:1], noise(3, seed=1)])))
    np.testing.assert_array_equal(other[0].bbox_xyxy, together[0].bbox_xyxy)
    np.testing.assert_array_equal(other[0].scores, together[0].scores)
    moved = detector.detect(RgbPixels(frames[[3, 2, 1, 0]]))
    np.testing.assert_allclose(moved[3].bbox_xyxy, together[0].bbox_xyxy, atol=0.01)
    (alone,) = detector.detect(RgbPixels(frames[:1]))
    np.testing.assert_allclose(alone.bbox_xyxy, together[0].bbox_xyxy, atol=0.01)


def on_canvas(picture, side, left, top):
    """A picture (1, h, w, 3) on a larger grey square."""
    canvas = torch.full((1, side, side, 3), 128, dtype=torch.uint8)
    canvas[:, top : top + picture.shape[1], left : left + picture.shape[2]] = picture
    return canvas


@pytest.mark.parametrize(("size", "left", "top"), [(480, 0, 0), (480, 64, 96), (640, 128, 128), (640, 320, 0)])
def test_detector_gives_the_same_box_in_a_larger_input(size, left, top):
    """The canvas is the input pixel for pixel, so the person is as large as in an input of 320."""
    person = drawn_person(200, 160)
    (small,) = load_detector(DETECTOR_NAME, DetectorSettings()).detect(RgbPixels(on_canvas(person, 320, 64, 64)))
    larger = load_detector(DETECTOR_NAME, DetectorSettings(input_size=size))
    (found,) = larger.detect(RgbPixels(on_canvas(person, size, 64 + left, 64 + top)))
    assert len(small) == 1
    assert len(found) == 1
    assert found.scores[0] == pytest.approx(small.scores[0], abs=0.05)
    np.testing.assert_allclose(found.bbox_xyxy - [left, top, left, top], small.bbox_xyxy, atol=4)


@pytest.mark.parametrize("size", [320, 480, 640])
def test_anchor_boxes_keep_their_size_in_pixels(size):
    ssd = build_person_ssd()
    boxes, trained = size * anchor_boxes(ssd, size), 320 * anchor_boxes(ssd)
    with torch.inference_mode():
        logits, _ = BoxNetwork(ssd.eval())(torch.zeros(1, 3, size, size))
    assert len(boxes) == logits.shape[1]
    kinds = torch.unique(trained[:, 2:].round(decimals=2), dim=0)
    assert torch.equal(torch.unique(boxes[:, 2:].round(decimals=2), dim=0), kinds)
    finest = (size // 8) ** 2 * 6
    assert boxes[:finest:6, 0].unique().tolist() == pytest.approx([4 + 8 * i for i in range(size // 8)])


def test_load_detector_refuses_another_size_for_torchvision(tmp_path):
    network = build_torchvision_detector(TORCHVISION_NAME, DetectorSettings())
    path = tmp_path / "copy.safetensors"
    save_weights(path, resolve("detector", TORCHVISION_NAME), network.state_dict())
    with pytest.raises(SettingsError, match=r"--detect-size 640: .* chooses its own input size"):
        load_detector(str(path), DetectorSettings(input_size=640))


def test_detector_counts_persons_left_out():
    picture = RgbPixels(noise(1))
    (many,) = load_detector(DETECTOR_NAME, DetectorSettings(bbox_thr=0.01, max_persons=200)).detect(picture)
    (few,) = load_detector(DETECTOR_NAME, DetectorSettings(bbox_thr=0.01, max_persons=2)).detect(picture)
    assert many.left_out == 0
    assert (len(few), few.left_out) == (2, len(many) - 2)


class StubNetwork(nn.Module):
    """A network with given outputs in the form of torchvision's detectors. Records the shapes of its inputs."""

    def __init__(self, boxes, scores, labels):
        super().__init__()
        self.output = {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "scores": torch.tensor(scores, dtype=torch.float32),
            "labels": torch.tensor(labels, dtype=torch.int64),
        }
        self.batches = []

    def forward(self, images):
        self.batches.append([tuple(image.shape) for image in images])
        return [self.output for _ in images]


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "expected"),
    [
        ([], [], [], []),
        ([[1, 2, 11, 22]], [0.9], [2], []),  # not a person
        ([[1, 2, 11, 22]], [0.9], [1], [[0.5, 1.5, 10.5, 21.5]]),
        ([[-5, -5, 300, 300]], [0.9], [1], [[-0.5, -0.5, 63.5, 47.5]]),  # clipped to the frame
        ([[5, 5, 5.9, 40], [70, 5, 90, 40]], [0.9, 0.8], [1, 1], []),  # thinner than a pixel, beside the frame
        ([[0, 0, 4, 4], [1, 1, 5, 5]], [0.5, 0.7], [1, 1], [[0.5, 0.5, 4.5, 4.5], [-0.5, -0.5, 3.5, 3.5]]),
        ([[0, 0, 4, 4], [1, 1, 5, 5]], [0.5, 0.5], [1, 1], [[-0.5, -0.5, 3.5, 3.5], [0.5, 0.5, 4.5, 4.5]]),
        ([[0, 0, 4, 4]] * 3, [0.5, 0.6, 0.7], [1, 1, 1], [[-0.5, -0.5, 3.5, 3.5]] * 2),  # max_persons
    ],
)
def test_torchvision_detector_translates_outputs(boxes, scores, labels, expected):
    stub = StubNetwork(boxes, scores, labels)
    wrapped = TorchvisionDetector(resolve("detector", TORCHVISION_NAME), stub, DetectorSettings(max_persons=2))
    found = wrapped.detect(RgbPixels(torch.zeros(2, 48, 64, 3, dtype=torch.uint8)))
    assert len(found) == 2
    for detections in found:
        np.testing.assert_array_equal(detections.bbox_xyxy, np.array(expected, np.float32).reshape(-1, 4))
    assert stub.batches == [[(3, 48, 64)] * wrapped.batch_size]


def test_load_detector_reads_torchvision_weights_by_path(tmp_path):
    settings = DetectorSettings(bbox_thr=0.005)
    network = build_torchvision_detector(TORCHVISION_NAME, settings)
    record = resolve("detector", TORCHVISION_NAME)
    path = tmp_path / "copy.safetensors"
    save_weights(path, record, network.state_dict())
    saved, loaded = TorchvisionDetector(record, network, settings), load_detector(str(path), settings)
    frames = noise(2)
    for expected, actual in zip(saved.detect(RgbPixels(frames)), loaded.detect(RgbPixels(frames)), strict=True):
        np.testing.assert_array_equal(expected.bbox_xyxy, actual.bbox_xyxy)
    assert loaded.detect(RgbPixels(frames[:0])) == []


@pytest.mark.parametrize("architecture", ["fasterrcnn_mobilenet_v3_large_320_fpn", TORCHVISION_NAME])
def test_build_torchvision_detector_sets_thresholds(architecture):
    network = build_torchvision_detector(architecture, DetectorSettings(bbox_thr=0.42, nms_thr=0.21))
    holder = network.roi_heads if architecture.startswith("fasterrcnn") else network
    assert (holder.score_thresh, holder.nms_thresh) == (0.42, 0.21)
