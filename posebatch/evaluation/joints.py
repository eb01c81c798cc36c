"""Distances of joints from their labels, in pixels, torso lengths and heatmap cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import FramePoses
from posebatch.core.similarity import box_iou, greedy_pairs, oks
from posebatch.core.skeleton import KEYPOINT_NAMES, NUM_KEYPOINTS
from posebatch.evaluation.labels import LabelledDataset

PCK_TORSO: Final = 0.2
"""A joint is right within this distance of its label, torso lengths."""


SAME_PERSON_IOU: Final = 0.5
"""IoU of the boxes from which a pose may belong to a labelled person."""


_SHOULDERS: Final = [KEYPOINT_NAMES.index("left_shoulder"), KEYPOINT_NAMES.index("right_shoulder")]


_OPPOSITE_HIPS: Final = [KEYPOINT_NAMES.index("right_hip"), KEYPOINT_NAMES.index("left_hip")]


@dataclass(frozen=True)
class JointAccuracy:
    """One joint over all labelled persons. A figure without data is nan."""

    joint: str
    """Its name, or ``all joints``."""
    labelled: int
    """Number of labels."""
    found: int
    """Labels of persons with a pose. The distances are over these."""
    with_torso: int
    """Labels of persons whose torso is labelled. PCK is over these."""
    pck: float
    """Share of joints within `PCK_TORSO` of the label, 0..1. A joint of a person without a pose is wrong."""
    median_px: float
    mean_px: float
    median_torso: float
    """Torso lengths."""
    mean_torso: float
    bias_x_cells: float
    """Median of estimate minus label, heatmap cells of the person's crop. Positive: joints lie too far right."""
    bias_y_cells: float
    """The same in y. Positive: joints lie too far down."""


@dataclass(frozen=True)
class PairedPoses:
    """Every labelled person with the pose that belongs to them."""

    image: NDArray[np.intp]
    """(n,) index into the dataset's images."""
    person: NDArray[np.intp]
    """(n,) index into the image's labelled persons."""
    truth: NDArray[np.float64]
    """(n, 17, 3) x, y, visibility."""
    estimate: NDArray[np.float64]
    """(n, 17, 3) x, y, score; nan for a person without a pose."""
    bbox_xyxy: NDArray[np.float64]
    """(n, 4) the pose's box; nan for a person without a pose."""
    oks: NDArray[np.float64]
    """(n,) object keypoint similarity; 0 for a person without a pose."""

    def __len__(self) -> int:
        return len(self.oks)

    @property
    def found(self) -> NDArray[np.bool_]:
        """(n,) whether the person has a pose."""
        return ~np.isnan(self.estimate[:, 0, 0])


def pair_poses(dataset: LabelledDataset, poses: Sequence[FramePoses]) -> PairedPoses:
    """Pair each person whose pose is measured with the pose whose box overlaps theirs most.

    Pairing is greedy, the largest IoU first, and uses each pose once. A pose without enough overlap stays unpaired.
    """
    images, persons, truths, estimates, boxes, similarities = [], [], [], [], [], []
    for number, (image, frame) in enumerate(zip(dataset.images, poses, strict=True)):
        labels, posed = image.persons, image.persons.posed
        overlaps = box_iou(labels.bbox_xyxy[posed], frame.bbox_xyxy)
        for person, match in zip(posed, greedy_pairs(overlaps, SAME_PERSON_IOU), strict=True):
            pose = np.full((NUM_KEYPOINTS, 3), np.nan) if match is None else frame.keypoints[match].astype(np.float64)
            truth = labels.keypoints[person]
            visible = labels.labelled[person]
            similarity = 0.0 if match is None else oks(pose[:, :2], truth[:, :2], float(labels.area[person]), visible)
            images.append(number)
            persons.append(person)
            truths.append(truth)
            estimates.append(pose)
            boxes.append(np.full(4, np.nan) if match is None else frame.bbox_xyxy[match].astype(np.float64))
            similarities.append(similarity)
    shape = (-1, NUM_KEYPOINTS, 3)
    return PairedPoses(
        np.array(images, np.intp),
        np.array(persons, np.intp),
        np.array(truths, np.float64).reshape(shape),
        np.array(estimates, np.float64).reshape(shape),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(similarities, np.float64),
    )


def joint_accuracy(
    truth: NDArray[np.float64], estimate: NDArray[np.float64], cell_px: NDArray[np.float64]
) -> tuple[JointAccuracy, ...]:
    """Figures of each joint in COCO's order, then of all joints together.

    ``truth`` (n, 17, 3): x, y, visibility. ``estimate`` (n, 17, 3): x, y, score; nan for a person without a pose.
    ``cell_px`` (n,): side of a heatmap cell of each person's crop, pixels. The torso length is the distance from a
    shoulder to the opposite hip (Toshev & Szegedy, CVPR 2014): the mean of both sides, or of the labelled side.
    """
    labelled = truth[:, :, 2] > 0
    difference = estimate[:, :, :2] - truth[:, :, :2]
    distance = np.linalg.norm(difference, axis=2)
    cells = difference / cell_px[:, None, None]
    torso = torso_lengths(truth, labelled)
    relative = distance / torso[:, None]
    has_torso = labelled & ~np.isnan(torso)[:, None]
    rows = [
        _row(name, labelled[:, [k]], has_torso[:, [k]], distance[:, [k]], relative[:, [k]], cells[:, [k]])
        for k, name in enumerate(KEYPOINT_NAMES)
    ]
    return (*rows, _row("all joints", labelled, has_torso, distance, relative, cells))


def torso_lengths(truth: NDArray[np.float64], labelled: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,) pixels; nan if neither side is labelled."""
    sides = np.linalg.norm(truth[:, _SHOULDERS, :2] - truth[:, _OPPOSITE_HIPS, :2], axis=2)
    known = labelled[:, _SHOULDERS] & labelled[:, _OPPOSITE_HIPS]
    length = (sides * known).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.where(length > 0, length, np.nan)


def _row(
    name: str,
    labelled: NDArray[np.bool_],
    has_torso: NDArray[np.bool_],
    distance: NDArray[np.float64],
    relative: NDArray[np.float64],
    cells: NDArray[np.float64],
) -> JointAccuracy:
    found = labelled & ~np.isnan(distance)
    pixels = distance[found]
    bias = np.median(cells[found], axis=0) if found.any() else np.full(2, np.nan)
    torsos = relative[has_torso & ~np.isnan(relative)]
    right = int((torsos <= PCK_TORSO).sum())
    with_torso = int(has_torso.sum())
    return JointAccuracy(
        name,
        int(labelled.sum()),
        len(pixels),
        with_torso,
        right / with_torso if with_torso else float("nan"),
        *_middle_and_mean(pixels),
        *_middle_and_mean(torsos),
        float(bias[0]),
        float(bias[1]),
    )


def _middle_and_mean(values: NDArray[np.float64]) -> tuple[float, float]:
    return (float(np.median(values)), float(values.mean())) if len(values) else (float("nan"), float("nan"))
