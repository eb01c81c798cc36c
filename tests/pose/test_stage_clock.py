"""The seconds of each stage go to the clock of their own call, even when two calls of one estimator take turns."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from posebatch.core.frames import Detections, FrameRecord
from posebatch.core.images import FrameBatch
from posebatch.core.settings import EstimatorSettings
from posebatch.models.networks.engines import PLAIN
from posebatch.pose import estimator as estimator_module
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.stage_clock import StageClock

DETECTOR_SECONDS, POSE_SECONDS = 2.0, 3.0


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class OnePersonDetector:
    """Takes two seconds for each call."""

    batch_size = 4

    def __init__(self, time: Time) -> None:
        self._time = time

    def detect(self, images):
        self._time.now += DETECTOR_SECONDS
        person = Detections(np.array([[10, 10, 40, 50]], np.float32), np.ones(1, np.float32))
        return [person] * len(images)


class FlatHeatmaps:
    """Takes three seconds for each call."""

    batch_size = 4
    heatmap_size_wh = (24, 32)
    record = SimpleNamespace(input_size_wh=(96, 128), box_padding=1.25, grid_alignment="edges", score_calibration=())

    def __init__(self, time: Time) -> None:
        self._time = time

    def heatmaps(self, crops, flip_test=False):
        self._time.now += POSE_SECONDS
        return torch.zeros(len(crops), 17, 32, 24)


def batches(count: int):
    for number in range(count):
        yield FrameBatch((FrameRecord(number, number, True, "ok"),), np.zeros((1, 64, 64, 3), np.uint8))


@pytest.fixture
def estimator(monkeypatch: pytest.MonkeyPatch) -> PoseEstimator:
    time = Time()
    monkeypatch.setattr(estimator_module, "time", time)
    return PoseEstimator(OnePersonDetector(time), FlatHeatmaps(time), EstimatorSettings(), PLAIN)


def test_clock_adds_up_the_seconds_of_each_stage(estimator: PoseEstimator) -> None:
    clock = StageClock()
    assert len(list(estimator.estimate(batches(4), clock))) == 4
    assert (clock.detect_seconds, clock.pose_seconds) == (DETECTOR_SECONDS, POSE_SECONDS)


def test_calls_that_take_turns_have_separate_clocks(estimator: PoseEstimator) -> None:
    first, second = StageClock(), StageClock()
    longer, shorter = estimator.estimate(batches(12), first), estimator.estimate(batches(4), second)
    for _ in range(4):
        next(longer)
        next(shorter)
    assert list(shorter) == []
    assert len(list(longer)) == 8
    assert (second.detect_seconds, second.pose_seconds) == (DETECTOR_SECONDS, POSE_SECONDS)
    assert (first.detect_seconds, first.pose_seconds) == (3 * DETECTOR_SECONDS, 3 * POSE_SECONDS)


def test_estimate_needs_no_clock(estimator: PoseEstimator) -> None:
    assert len(list(estimator.estimate(batches(1)))) == 1
