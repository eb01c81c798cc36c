"""How good a pose network is: the estimator's own way from boxes to poses, on labelled images."""

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
from posebatch.evaluation.joints import JointAccuracy, joint_accuracy, pair_poses
from posebatch.evaluation.labels import LabelledDataset, true_boxes
from posebatch.models.networks.engines import PLAIN, Placement
from posebatch.models.networks.person_detector import PersonDetector
from posebatch.models.networks.pixels import Pixels
from posebatch.models.networks.pose_network import PoseNetwork
from posebatch.pose.crops import crop_regions
from posebatch.pose.estimator import PoseEstimator


class _GivenBoxes:
    """Stands where the estimator has its detector: gives what it was given, one image after the other."""

    batch_size = 1

    def __init__(self, detections: Iterable[Detections]) -> None:
        self._detections = iter(detections)

    def detect(self, frames: Pixels) -> list[Detections]:
        return [next(self._detections) for _ in range(len(frames))]


@dataclass(frozen=True)
class PoseAccuracy:
    """How good poses are, against labels."""

    images: int
    persons: int
    """Labelled persons whose pose is measured."""
    found: int
    """Those among them with a pose whose box overlaps theirs."""
    average_precision: AveragePrecision
    joints: tuple[JointAccuracy, ...]
    """The 17 joints, then all of them together."""


def evaluate_keypoints(
    network: PoseNetwork,
    dataset: LabelledDataset,
    settings: EstimatorSettings,
    detections: Sequence[Detections] | None = None,
    placement: Placement = PLAIN,
) -> PoseAccuracy:
    """How good the poses of a network are for the given boxes, or for the labelled ones when there are none given.

    Raises `InputError` when an image cannot be decoded.
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
    """The poses in the boxes of each image, by `PoseEstimator`, ranked and thinned out as ``settings`` say.

    ``detections`` has one entry for each image. An image without a box is not decoded. Raises `InputError` when one
    cannot be.
    """
    given = cast(PersonDetector, _GivenBoxes(found for found in detections if len(found)))  # nobody asks its record
    batches = (
        _one_frame(number, image.pixels() if len(found) else None)
        for number, (image, found) in enumerate(zip(dataset.images, detections, strict=True))
    )
    return PoseEstimator(given, network, settings, placement).estimate(batches)


def measure_poses(network: PoseNetwork, dataset: LabelledDataset, poses: Sequence[FramePoses]) -> PoseAccuracy:
    """How good the poses of each image are. ``network`` found them; its heatmap cells are the unit of the bias."""
    pairs = pair_poses(dataset, poses)
    return PoseAccuracy(
        len(dataset.images),
        len(pairs),
        int(pairs.found.sum()),
        pose_average_precision(dataset, poses),
        joint_accuracy(pairs.truth, pairs.estimate, _cell_px(network, pairs.bbox_xyxy)),
    )


def _cell_px(network: PoseNetwork, bbox_xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) side of a heatmap cell in the crops of boxes (n, 4), pixels of the image."""
    width, height = network.heatmap_size_wh
    return crop_regions(bbox_xyxy, width / height, network.record.box_padding)[:, 2] / width


def _one_frame(number: int, pixels: NDArray[np.uint8] | None) -> FrameBatch:
    if pixels is None:
        return FrameBatch((FrameRecord(number, number, True, "missing"),), np.zeros((0, 1, 1, 3), np.uint8))
    return FrameBatch((FrameRecord(number, number, True, "ok"),), pixels[None])
