"""Accuracy of a pose network on labelled images, through the estimator that a run uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import Detections, FramePoses, FrameRecord
from posebatch.core.images import FrameBatch
from posebatch.core.settings import EstimatorSettings
from posebatch.evaluation.average_precision import AveragePrecision, pose_average_precision
from posebatch.evaluation.doubles import PoseCounts, count_poses
from posebatch.evaluation.drawn_joints import DrawnJoints, drawn_joints
from posebatch.evaluation.joints import JointAccuracy, joint_accuracy, pair_poses
from posebatch.evaluation.labels import LabelledDataset, true_boxes
from posebatch.evaluation.score_reliability import ScoreReliability, score_reliability
from posebatch.models.networks.engines import PLAIN, Placement
from posebatch.models.networks.person_detector import PersonDetector
from posebatch.models.networks.pixels import Pixels
from posebatch.models.networks.pose_network import PoseNetwork
from posebatch.pose.crops import crop_regions
from posebatch.pose.estimator import PoseEstimator


class _GivenBoxes:
    """Takes the place of the estimator's detector and returns given boxes, one image at a time."""

    batch_size = 1

    def __init__(self, detections: Iterable[Detections]) -> None:
        self._detections = iter(detections)

    def detect(self, frames: Pixels) -> list[Detections]:
        return [next(self._detections) for _ in range(len(frames))]


@dataclass(frozen=True)
class PoseAccuracy:
    """Figures of poses against labels."""

    images: int
    persons: int
    """Labelled persons whose pose is measured."""
    found: int
    """Persons among them with a pose whose box overlaps theirs enough."""
    average_precision: AveragePrecision
    joints: tuple[JointAccuracy, ...]
    """The 17 joints, then all joints together."""
    counts: PoseCounts
    drawn_joints: tuple[DrawnJoints, ...]
    reliability: ScoreReliability


def evaluate_keypoints(
    network: PoseNetwork,
    dataset: LabelledDataset,
    settings: EstimatorSettings,
    detections: Sequence[Detections] | None = None,
    placement: Placement = PLAIN,
) -> PoseAccuracy:
    """Measure a network's poses in ``detections``, one entry per image, or in the labelled boxes if None.

    Raises `InputError` if an image cannot be decoded.
    """
    boxes = true_boxes(dataset) if detections is None else detections
    return measure_poses(network, dataset, list(keypoints_for_boxes(network, dataset, boxes, settings, placement)))


def keypoints_for_boxes(
    network: PoseNetwork,
    dataset: LabelledDataset,
    detections: Sequence[Detections],
    settings: EstimatorSettings,
    placement: Placement = PLAIN,
) -> Iterator[FramePoses]:
    """The poses of each image, estimated in its boxes by `PoseEstimator` with its ranking and OKS-NMS.

    ``detections`` has one entry per image. An image without boxes is not decoded. Raises `InputError` if an image
    cannot be decoded.
    """
    given = cast(PersonDetector, _GivenBoxes(boxes for boxes in detections if len(boxes)))  # its record is never read
    batches = (
        _one_frame(number, image.pixels() if len(boxes) else None)
        for number, (image, boxes) in enumerate(zip(dataset.images, detections, strict=True))
    )
    return PoseEstimator(given, network, settings, placement).estimate(batches)


def measure_poses(network: PoseNetwork, dataset: LabelledDataset, poses: Sequence[FramePoses]) -> PoseAccuracy:
    """Measure poses, one entry per image. The heatmap cells of ``network``, which gave them, are the bias's unit."""
    pairs = pair_poses(dataset, poses)
    return PoseAccuracy(
        len(dataset.images),
        len(pairs),
        int(pairs.found.sum()),
        pose_average_precision(dataset, poses),
        joint_accuracy(pairs.truth, pairs.estimate, _cell_px(network, pairs.bbox_xyxy)),
        count_poses(dataset, poses),
        drawn_joints(pairs.truth, pairs.estimate),
        score_reliability(pairs.truth, pairs.estimate),
    )


def _cell_px(network: PoseNetwork, bbox_xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) side of a heatmap cell in the crop of each box (n, 4), pixels of the image."""
    width, height = network.heatmap_size_wh
    return crop_regions(bbox_xyxy, width / height, network.record.box_padding)[:, 2] / width


def _one_frame(number: int, pixels: NDArray[np.uint8] | None) -> FrameBatch:
    if pixels is None:
        return FrameBatch((FrameRecord(number, number, True, "missing"),), np.zeros((0, 1, 1, 3), np.uint8))
    return FrameBatch((FrameRecord(number, number, True, "ok"),), pixels[None])
