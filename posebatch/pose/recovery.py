"""Look for persons whom the detector misses where they should be by the frame before.

Source: Xiao, Wu and Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018, section 3: optical flow
carries the joints of a frame into the next one, the boxes around them join those of the detector, and NMS drops
duplicates. All functions are pure. `posebatch.pose.flow` carries the joints.

Other than in the paper, a carried box never displaces one of the detector, and a carried person counts only while their
pose stays as sure as it was. Both keep wrong persons from living on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import Detections, FramePoses, check_array
from posebatch.core.settings import EstimatorSettings
from posebatch.core.similarity import box_iou
from posebatch.pose.following import KEPT_CONFIDENCE, follow, joint_confidence

CARRIED_SCORE: Final = 0.9
"""The score of a person above the threshold of the detector falls by this factor from frame to frame while the detector
misses them. It never falls below the threshold: a chain ends with the group of frames, or with the pose."""


MIN_CONFIDENCE: Final = 0.35
"""Least `joint_confidence` of a carried pose. Dogs and chairs that the detector takes for persons have less.

docs/flow.md has the measurement.
"""


@dataclass(frozen=True)
class MergedPersons:
    """The persons expected in a frame: detected there, or carried from the frame before."""

    detections: Detections
    confidences: NDArray[np.float32]
    """(n,) `joint_confidence` of carried persons in the frame of their detection; NaN for detected persons."""

    def __post_init__(self) -> None:
        check_array("confidences", self.confidences, np.float32, (len(self.detections),))


def missed_persons(poses: FramePoses, detections: Detections, nms_thr: float) -> NDArray[np.intp]:
    """Indices of the persons of a frame who should be carried: no box of the next frame overlaps theirs."""
    overlaps = box_iou(poses.bbox_xyxy, detections.bbox_xyxy) > nms_thr
    return np.flatnonzero(~overlaps.any(axis=1))


def carried_persons(
    poses: FramePoses,
    confidences: NDArray[np.float32],
    carried_xy: NDArray[np.float64],
    frame_size_wh: tuple[int, int],
    settings: EstimatorSettings,
) -> MergedPersons:
    """The persons of a frame at their carried joints (n, 17, 2) in the next frame.

    Their boxes are those of `follow`. Their scores fall by `CARRIED_SCORE`.
    """
    moved = np.concatenate([carried_xy, poses.keypoints[:, :, 2:]], axis=2).astype(np.float32)
    followed = follow(replace(poses, keypoints=moved), confidences, frame_size_wh, settings.kpt_thr)
    before, least = followed.detections.scores, np.float32(settings.bbox_thr)
    scores = least + np.float32(CARRIED_SCORE) * (before - least)
    return MergedPersons(Detections(followed.detections.bbox_xyxy, scores), followed.confidences)


def merge_persons(detections: Detections, carried: MergedPersons, nms_thr: float, max_persons: int) -> MergedPersons:
    """Add carried persons to the detected ones, unless a box overlaps theirs by more than ``nms_thr`` (IoU).

    The best ``max_persons`` are kept, by score.
    """
    boxes = np.concatenate([detections.bbox_xyxy, carried.detections.bbox_xyxy])
    scores = np.concatenate([detections.scores, carried.detections.scores])
    confidences = np.concatenate([np.full(len(detections), np.nan, np.float32), carried.confidences])
    overlaps = box_iou(boxes, boxes) > nms_thr
    kept = list(range(len(detections)))
    for number in range(len(detections), len(boxes)):  # the carried ones, best first
        if not overlaps[number, kept].any():
            kept.append(number)
    ranked = np.array(kept, np.intp)[np.argsort(-scores[kept], kind="stable")]
    best = ranked[:max_persons]
    left_out = detections.left_out + len(ranked) - len(best)
    return MergedPersons(Detections(boxes[best], scores[best], left_out), confidences[best])


def still_seen(keypoints: NDArray[np.float32], confidences: NDArray[np.float32]) -> NDArray[np.intp]:
    """Indices of the persons (n, 17, 3) of a `MergedPersons` who are there: all detected ones, and the carried ones
    whose pose is sure (`MIN_CONFIDENCE`), and about as sure as at their detection."""
    needed = np.maximum(KEPT_CONFIDENCE * confidences, MIN_CONFIDENCE)  # NaN for detected persons
    return np.flatnonzero(~(joint_confidence(keypoints) < needed))
