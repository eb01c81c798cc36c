"""Persons from one frame to the next without a detector: propagate, then widen.

A person's box in a frame is what encloses their joints in the frame before, made somewhat larger (Xiao, Wu and Wei:
Simple Baselines for Human Pose Estimation and Tracking, ECCV 2018, section 3; there optical flow moves joints first).
Everything here is a function of single frames' persons: who is followed, where to look, when to detect again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import Detections, FramePoses, check_array
from posebatch.core.similarity import oks_nms

WIDENING: Final = 1.15
"""How much wider and taller the box is than the joints lie apart: joints move, and a head and feet lie outside of them.
The paper's value."""


KEPT_CONFIDENCE: Final = 0.7
"""A person is lost who keeps less than this of the confidence that they had when they were detected."""


SAME_PERSON_OKS: Final = 0.9
"""Poses more alike than this are one person's: two boxes have come to look at the same one. The paper's threshold."""


MIN_BOX_SIDE: Final = 1.0
"""Pixels. In a thinner box there is nobody: they have left the frame."""


@dataclass(frozen=True)
class FollowedPersons:
    """The persons of one frame, as they are looked for in the next."""

    detections: Detections
    """Where to look; the scores are those of the detection from which the boxes stem."""
    confidences: NDArray[np.float32]
    """(n,) `joint_confidence` of each person when they were detected."""

    def __post_init__(self) -> None:
        check_array("confidences", self.confidences, np.float32, (len(self.detections),))


def joint_confidence(keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
    """How well all joints of persons are seen: (n, 17, 3) -> (n,) means of the joints' scores."""
    confidence: NDArray[np.float32] = keypoints[:, :, 2].mean(axis=1)
    return confidence


def needs_redetection(keypoints: NDArray[np.float32], looked_for: FollowedPersons) -> bool:
    """Whether followed persons have to be detected again, by the keypoints (n, 17, 3) that were found for them.

    So it is when the confidence of one has dropped, or when two have become the same one.
    """
    dropped = joint_confidence(keypoints) < KEPT_CONFIDENCE * looked_for.confidences
    boxes = looked_for.detections.bbox_xyxy
    return bool(dropped.any()) or len(_different(keypoints, looked_for.detections.scores, boxes)) < len(keypoints)


def follow(
    poses: FramePoses, confidences: NDArray[np.float32], frame_size_wh: tuple[int, int], kpt_thr: float
) -> FollowedPersons:
    """Who of a frame's persons is looked for in the next frame, and where.

    ``confidences`` (n,) are those at the persons' detection. A box encloses the joints that score more than
    ``kpt_thr``, or all when fewer than two do, is `WIDENING` times as large around its centre and clipped to the frame.
    Not followed are persons of whom nothing is left in the frame, and those that are a better one over again.
    """
    alone = np.sort(_different(poses.keypoints, poses.pose_scores, poses.bbox_xyxy))
    order = alone[np.argsort(-poses.bbox_scores[alone], kind="stable")]
    boxes = _clipped(_widened(_enclosing(poses.keypoints[order], kpt_thr)), frame_size_wh)
    inside = (boxes[:, 2:] - boxes[:, :2] >= MIN_BOX_SIDE).all(axis=1)
    kept = order[inside]
    return FollowedPersons(Detections(boxes[inside], poses.bbox_scores[kept]), confidences[kept])


def _different(
    keypoints: NDArray[np.float32], scores: NDArray[np.float32], bbox_xyxy: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Indices of the persons that are not a better one over again."""
    areas = (bbox_xyxy[:, 2:] - bbox_xyxy[:, :2]).prod(axis=1)
    return oks_nms(keypoints[:, :, :2], scores, areas, SAME_PERSON_OKS)


def _enclosing(keypoints: NDArray[np.float32], kpt_thr: float) -> NDArray[np.float64]:
    """Boxes (n, 4) x1, y1, x2, y2 around the joints (n, 17, 3) that count."""
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
