"""Accuracy of a person detector: boxes against labels, at every score threshold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from posebatch.core.frames import Detections
from posebatch.evaluation.average_precision import AveragePrecision, RankedDetections, box_average_precision
from posebatch.evaluation.labels import LabelledDataset
from posebatch.models.networks.engines import PLAIN, Placement
from posebatch.models.networks.person_detector import DetectorSettings, PersonDetector
from posebatch.pose.pixels import RgbPixels

SCORE_THRESHOLDS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


WANTED_PRECISION: Final = 0.8
"""Precision at which recall is stated as one figure."""


LOWEST_SCORE: Final = 0.01
"""Score threshold of a detector that is measured: AP needs the doubtful boxes too."""


MOST_PERSONS: Final = 100
"""Boxes per image that COCO counts."""


@dataclass(frozen=True)
class AtThreshold:
    """Recall and precision of the boxes that score more than ``bbox_thr``. A box is right from IoU 0.5 on."""

    bbox_thr: float
    recall: float
    """Share of the labelled persons that are found, 0..1; nan if none is labelled."""
    precision: float
    """Share of the boxes that are right, 0..1; nan without boxes."""
    false_per_image: float
    boxes_per_image: float


@dataclass(frozen=True)
class DetectorAccuracy:
    """Figures of a detector's boxes against labels."""

    images: int
    persons: int
    """Labelled persons that are not ignored."""
    average_precision: AveragePrecision
    thresholds: tuple[AtThreshold, ...]
    """At each of `SCORE_THRESHOLDS`."""
    recall_at_wanted_precision: float
    """Largest recall of any threshold with a precision of at least `WANTED_PRECISION`; 0 without such a threshold."""
    wanted_precision_score: float
    """Lowest score of a box at that threshold; nan without such a threshold."""
    ranked: RankedDetections
    """All boxes, for the precision-recall curve."""


def inclusive_settings(nms_thr: float = 0.5, placement: Placement = PLAIN) -> DetectorSettings:
    """Detector settings that keep every box which a measurement over all thresholds needs."""
    return DetectorSettings(LOWEST_SCORE, nms_thr, MOST_PERSONS, placement)


def evaluate_detector(detector: PersonDetector, dataset: LabelledDataset) -> DetectorAccuracy:
    """Measure a detector, which should be loaded with `inclusive_settings`.

    Raises `InputError` if an image cannot be decoded.
    """
    return measure_detections(dataset, detect_persons(detector, dataset))


def detect_persons(
    detector: PersonDetector, dataset: LabelledDataset, on_image: Callable[[int], object] = lambda done: None
) -> list[Detections]:
    """Detect the persons in each image. Images of the same size share batches.

    ``on_image`` is called with the number of images done. Raises `InputError` if an image cannot be decoded.
    """
    by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, image in enumerate(dataset.images):
        by_size[image.width, image.height].append(number)
    detections: dict[int, Detections] = {}
    for numbers in by_size.values():
        for start in range(0, len(numbers), detector.batch_size):
            batch = numbers[start : start + detector.batch_size]
            pixels = np.stack([dataset.images[number].pixels() for number in batch])
            detections.update(zip(batch, detector.detect(RgbPixels(torch.from_numpy(pixels))), strict=True))
            on_image(len(detections))
    return [detections[number] for number in range(len(dataset.images))]


def measure_detections(dataset: LabelledDataset, detections: Sequence[Detections]) -> DetectorAccuracy:
    """Measure boxes. ``detections`` has one entry per image of the dataset."""
    average_precision, ranked = box_average_precision(dataset, detections)
    images = len(dataset.images)
    good_enough = np.flatnonzero(_at_ends_of_ties(ranked) & (ranked.precision >= WANTED_PRECISION))
    last = int(good_enough[-1]) if len(good_enough) else None
    return DetectorAccuracy(
        images,
        ranked.persons,
        average_precision,
        tuple(_at_threshold(ranked, bbox_thr, images) for bbox_thr in SCORE_THRESHOLDS),
        0.0 if last is None else float(ranked.recall[last]),
        float("nan") if last is None else float(ranked.scores[last]),
        ranked,
    )


def _at_threshold(ranked: RankedDetections, bbox_thr: float, images: int) -> AtThreshold:
    boxes = int((ranked.scores > bbox_thr).sum())
    right = int(ranked.correct[:boxes].sum())
    nan = float("nan")
    return AtThreshold(
        bbox_thr,
        right / ranked.persons if ranked.persons else nan,
        right / boxes if boxes else nan,
        (boxes - right) / images if images else nan,
        boxes / images if images else nan,
    )


def _at_ends_of_ties(ranked: RankedDetections) -> NDArray[np.bool_]:
    """(n,) whether a threshold can end at each box: no threshold separates boxes of equal scores."""
    return np.append(ranked.scores[1:] != ranked.scores[:-1], True) if len(ranked.scores) else np.zeros(0, bool)
