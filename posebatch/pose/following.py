"""Follow persons from one frame to the next without a detector.

A person's box is the enlarged bounding box of their joints in the frame before. Source: Xiao, Wu and Wei, "Simple
Baselines for Human Pose Estimation and Tracking", ECCV 2018, section 3; there optical flow moves the joints first.
All functions are pure: which persons are followed, where their boxes lie, when to run the detector again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import Detections, FramePoses, check_array
from posebatch.core.similarity import oks_nms

WIDENING: Final = 1.15
"""Size of the box relative to the bounding box of the joints: joints move, and head and feet extend beyond them. The
paper's value."""


KEPT_CONFIDENCE: Final = 0.7
"""A person counts as lost when their confidence falls below this share of their confidence at detection."""


SAME_PERSON_OKS: Final = 0.9
"""Two poses with a greater OKS are one person, on whom two boxes have converged. The paper's threshold."""


MIN_BOX_SIDE: Final = 1.0
"""Pixels. The person of a thinner box has left the frame."""


@dataclass(frozen=True)
class FollowedPersons:
    """The persons of one frame, as they are expected in the next one."""

    detections: Detections
    """The expected boxes, with the scores of the detection that they come from."""
    confidences: NDArray[np.float32]
    """(n,) `joint_confidence` of each person in the frame of their detection."""

    def __post_init__(self) -> None:
        check_array("confidences", self.confidences, np.float32, (len(self.detections),))


def joint_confidence(keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean score of all joints of each person: (n, 17, 3) -> (n,)."""
    confidence: NDArray[np.float32] = keypoints[:, :, 2].mean(axis=1)
    return confidence


def needs_redetection(keypoints: NDArray[np.float32], followed: FollowedPersons) -> bool:
    """Whether the frame must be detected again: a followed person is lost, or two are now the same person.

    ``keypoints`` (n, 17, 3) are those found in the boxes of the followed persons.
    """
    lost = joint_confidence(keypoints) < KEPT_CONFIDENCE * followed.confidences
    boxes, scores = followed.detections.bbox_xyxy, followed.detections.scores
    return bool(lost.any()) or len(_distinct_persons(keypoints, scores, boxes)) < len(keypoints)


def follow(
    poses: FramePoses, confidences: NDArray[np.float32], frame_size_wh: tuple[int, int], kpt_thr: float
) -> FollowedPersons:
    """Which persons of a frame are followed into the next frame, and their boxes there.

    ``confidences`` (n,) are those of the persons' detection. A box encloses the joints that score more than
    ``kpt_thr``, or all joints when fewer than two do. The box is enlarged `WIDENING` times around its centre and
    clipped to the frame. Persons who have left the frame are not followed, nor are duplicates of a better pose.
    """
    distinct = np.sort(_distinct_persons(poses.keypoints, poses.pose_scores, poses.bbox_xyxy))
    order = distinct[np.argsort(-poses.bbox_scores[distinct], kind="stable")]
    boxes = _clipped(_widened(_enclosing(poses.keypoints[order], kpt_thr)), frame_size_wh)
    inside = (boxes[:, 2:] - boxes[:, :2] >= MIN_BOX_SIDE).all(axis=1)
    kept = order[inside]
    return FollowedPersons(Detections(boxes[inside], poses.bbox_scores[kept]), confidences[kept])


def _distinct_persons(
    keypoints: NDArray[np.float32], scores: NDArray[np.float32], bbox_xyxy: NDArray[np.float32]
) -> NDArray[np.intp]:
    """OKS non-maximum suppression: indices of the persons kept, by descending score."""
    areas = (bbox_xyxy[:, 2:] - bbox_xyxy[:, :2]).prod(axis=1)
    return oks_nms(keypoints[:, :, :2], scores, areas, SAME_PERSON_OKS)


def _enclosing(keypoints: NDArray[np.float32], kpt_thr: float) -> NDArray[np.float64]:
    """Boxes (n, 4) x1, y1, x2, y2 around the confident joints of (n, 17, 3)."""
    counts = keypoints[:, :, 2] > kpt_thr
    counts |= counts.sum(axis=1, keepdims=True) < 2
    positions = keypoints[:, :, :2].astype(np.float64)
    low = np.where(counts[:, :, None], positions, np.inf).min(axis=1)
    high = np.where(counts[:, :, None], positions, -np.inf).max(axis=1)
    return np.concatenate([low, high], axis=1)


def _widened(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * WIDENING
    return np.concatenate([centre - half, centre + half], axis=1)


def _clipped(boxes: NDArray[np.floating[Any]], frame_size_wh: tuple[int, int]) -> NDArray[np.float32]:
    width, height = frame_size_wh
    limit = np.array([width, height, width, height]) - 0.5
    clipped: NDArray[np.float32] = np.clip(boxes, -0.5, limit).astype(np.float32)
    return clipped
