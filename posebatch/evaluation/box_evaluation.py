"""A detector of given settings on labelled images or on a video, and the table of its findings by height."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from posebatch.core.errors import InputError
from posebatch.core.frames import Detections
from posebatch.core.settings import SamplingSettings
from posebatch.core.text_table import text_table
from posebatch.evaluation.boxes_found import HEIGHTS, NOBODY, BoxCounts, count_boxes, read_truth, true_boxes_of
from posebatch.evaluation.detector_accuracy import detect_persons
from posebatch.evaluation.labels import LabelledDataset
from posebatch.evaluation.video_batches import batches_until
from posebatch.models.networks.person_detector import PersonDetector
from posebatch.models.networks.pixels import Pixels
from posebatch.pose.uploads import to_device
from posebatch.video.frame_images import RGB
from posebatch.video.options import DecodeOptions


class TimedDetector:
    """A detector that counts its frames and seconds, and the frames that held more persons than allowed."""

    def __init__(self, detector: PersonDetector) -> None:
        self.record, self.batch_size, self._detector = detector.record, detector.batch_size, detector
        self.seconds, self.frames, self.frames_cut = 0.0, 0, 0

    def detect(self, frames: Pixels) -> list[Detections]:
        """The persons of each frame."""
        started = time.perf_counter()
        detections = self._detector.detect(frames)
        self.seconds += time.perf_counter() - started
        self.frames += len(frames)
        self.frames_cut += sum(persons.left_out > 0 for persons in detections)
        return detections

    @property
    def frames_per_second(self) -> float:
        """Of the detector alone."""
        return self.frames / max(self.seconds, 1e-9)


def count_in_images(detector: PersonDetector, dataset: LabelledDataset) -> BoxCounts:
    """Count found persons and false boxes over labelled images."""
    total = BoxCounts.zero()
    for truth, persons in zip(true_boxes_of(dataset), detect_persons(detector, dataset), strict=True):
        total += count_boxes(truth, persons.bbox_xyxy)
    return total


def count_in_video(detector: PersonDetector, video: Path, truth: Path, stride: int, device: str) -> BoxCounts:
    """Count found persons and false boxes over every ``stride``-th frame, from the truth's first frame to its last.

    Raises `InputError` and `VideoError`.
    """
    truths = read_truth(truth)
    total = BoxCounts.zero()
    for number, persons in _detect_in_video(detector, video, stride, device, last=max(truths)):
        if number >= min(truths):
            total += count_boxes(truths.get(number, NOBODY), persons.bbox_xyxy)
    return total


def counts_text(counts: BoxCounts) -> str:
    """A table: a line per range of heights, and a line for all."""
    bounds = [*HEIGHTS, math.inf]
    names = [f"{low} to {high}" if high < math.inf else f"from {low}" for low, high in pairwise(bounds)]
    columns = [np.append(values, values.sum()) for values in (counts.persons, counts.found, counts.false)]
    rows = [
        [name, str(persons), f"{found / persons:.3f}" if persons else "-", f"{false / max(counts.frames, 1):.3f}"]
        for name, persons, found, false in zip([*names, "all"], *columns, strict=True)
    ]
    return f"{counts.frames} frames\n" + text_table(["height, px", "persons", "found", "false boxes a frame"], rows)


def _detect_in_video(
    detector: PersonDetector, video: Path, stride: int, device: str, last: int
) -> Iterator[tuple[int, Detections]]:
    """Frame numbers of a video up to ``last``, and the persons detected there."""
    if not video.is_file():
        raise InputError(f"{video}: no such file")
    options = DecodeOptions(SamplingSettings(stride=stride), detector.batch_size, frame_format=RGB)
    for batch, _ in batches_until(video, options, last):
        numbers = [record.frame_index for record in batch.records if record.status == "ok"]
        detections = detector.detect(to_device(batch.images, device))
        for number, persons in zip(numbers, detections, strict=True):
            if number > last:
                return
            yield number, persons
