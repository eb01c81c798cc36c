"""What both networks give for one frame: persons, the crop of each, and the heatmaps of its joints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import FramePoses
from posebatch.core.images import FrameBatch
from posebatch.pose.crops import apply_affine, invert_affine
from posebatch.pose.estimator import PoseEstimator


@dataclass(frozen=True)
class PersonInspection:
    """The pose network's input and output for one person."""

    crop: NDArray[np.uint8]
    """(h, w, 3) RGB."""
    heatmaps: NDArray[np.float32]
    """(17, h/4, w/4)."""
    keypoints: NDArray[np.float32]
    """(17, 3) x, y in pixels of the frame, and score."""
    points_in_heatmaps: NDArray[np.float64]
    """(17, 2) x, y of the keypoints in pixels of the heatmaps."""


@dataclass(frozen=True)
class Inspection:
    """The persons of one frame, as the job publishes them, and how the pose network came to their joints."""

    poses: FramePoses
    persons: tuple[PersonInspection, ...]
    """In the order of ``poses``."""


def inspect(estimator: PoseEstimator, frame: FrameBatch) -> Inspection:
    """Run both networks on a batch of one frame. The job finds the same persons, but for ``--detect-every``."""
    (poses,) = estimator.estimate([frame])
    return Inspection(poses, tuple(_persons(estimator, frame, poses)))


def _persons(estimator: PoseEstimator, frame: FrameBatch, poses: FramePoses) -> list[PersonInspection]:
    pixels, found = estimator.to_device(frame), []
    for box, keypoints in zip(poses.bbox_xyxy, poses.keypoints, strict=True):
        regions = estimator.regions(box[None])
        crops = estimator.crops(pixels, [0], regions)
        heatmaps = estimator.heatmaps(crops)[0].float().cpu().numpy()
        to_heatmap = invert_affine(estimator.heatmaps_to_frame(regions))
        points = apply_affine(to_heatmap, keypoints[None, :, :2])[0]
        crop = crops[0].permute(1, 2, 0).round().clamp(0, 255).byte().cpu().numpy()
        found.append(PersonInspection(crop, heatmaps, keypoints, points))
    return found
