"""Agreement of two sets of poses of the same frames, one of which is the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import FramePoses
from posebatch.core.similarity import greedy_pairs, oks
from posebatch.evaluation.average_precision import pose_average_precision
from posebatch.evaluation.labels import AREA_OF_BOX, LabelledDataset, LabelledImage, LabelledPersons

SAME_PERSON_OKS: Final = 0.5
"""OKS from which two poses belong to the same person."""


NOTICEABLE_PX: Final = 0.5
"""Joints farther than this from the reference's are counted, pixels."""


@dataclass(frozen=True)
class Distances:
    """Quantiles of the distances between joints and the reference's joints; nan without a joint."""

    median: float
    p95: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Distances:
        """The quantiles of ``values`` (n,)."""
        if not len(values):
            return cls(*[float("nan")] * 4)
        return cls(*(float(value) for value in np.quantile(values, (0.5, 0.95, 0.99, 1.0))))


@dataclass(frozen=True)
class Agreement:
    """Poses against the reference's. A joint counts if its person is in both and its reference score is high enough."""

    frames: int
    reference_persons: int
    kept: int
    """Persons of the reference with a matching pose (`SAME_PERSON_OKS`). Each pose matches one person."""
    added: int
    """Poses without a matching person of the reference."""
    joints: int
    pixels: Distances
    heights: Distances
    """The same distances as shares of the height of the reference's box."""
    noticeable: float
    """Share of the joints that are farther than `NOTICEABLE_PX` apart, 0..1."""
    ap: float
    """COCO's AP with the reference's persons as the truth; nan if it has none."""
    ar: float


def compare(reference: Sequence[FramePoses], poses: Sequence[FramePoses], kpt_thr: float) -> Agreement:
    """Compare poses of the same frames.

    OKS takes 0.53 of the reference's box as a person's area. It uses the joints whose reference score is above
    ``kpt_thr``, or all joints of a person without such a joint. Raises ``ValueError`` if the frames differ.
    """
    if [frame.record for frame in reference] != [frame.record for frame in poses]:
        raise ValueError(f"{len(reference)} and {len(poses)} frames, which are not the same")
    kept, pixels, heights = 0, [np.zeros(0)], [np.zeros(0)]
    for truth, frame in zip(reference, poses, strict=True):
        counted, areas = _counted_joints(truth, kpt_thr), _areas(truth)
        similarities = np.array(
            [
                [oks(pose[:, :2], person[:, :2], area, visible) for pose in frame.keypoints]
                for person, area, visible in zip(truth.keypoints, areas, counted, strict=True)
            ]
        ).reshape(len(truth), len(frame))
        for person, match in enumerate(greedy_pairs(similarities, SAME_PERSON_OKS)):
            if match is None:
                continue
            kept += 1
            difference = (frame.keypoints[match] - truth.keypoints[person])[counted[person], :2].astype(np.float64)
            pixels.append(np.linalg.norm(difference, axis=1))
            heights.append(pixels[-1] / (truth.bbox_xyxy[person, 3] - truth.bbox_xyxy[person, 1]))
    distances, relative = np.concatenate(pixels), np.concatenate(heights)
    precision = pose_average_precision(_as_labels(reference, kpt_thr), poses)
    return Agreement(
        len(reference),
        sum(map(len, reference)),
        kept,
        sum(map(len, poses)) - kept,
        len(distances),
        Distances.of(distances),
        Distances.of(relative),
        float((distances > NOTICEABLE_PX).mean()) if len(distances) else float("nan"),
        precision.ap,
        precision.ar,
    )


def _counted_joints(frame: FramePoses, kpt_thr: float) -> NDArray[np.bool_]:
    """(n, 17) whether each joint is compared: those above the threshold, or all of a person without one."""
    above: NDArray[np.bool_] = frame.keypoints[:, :, 2] > kpt_thr
    return above | ~above.any(axis=1, keepdims=True)


def _areas(frame: FramePoses) -> NDArray[np.float64]:
    sides = (frame.bbox_xyxy[:, 2:] - frame.bbox_xyxy[:, :2]).astype(np.float64)
    areas: NDArray[np.float64] = AREA_OF_BOX * sides.prod(axis=1)
    return areas


def _as_labels(frames: Sequence[FramePoses], kpt_thr: float) -> LabelledDataset:
    images = []
    for frame in frames:
        keypoints = frame.keypoints.astype(np.float64)
        keypoints[:, :, 2] = 2 * _counted_joints(frame, kpt_thr)
        boxes = frame.bbox_xyxy.astype(np.float64)
        persons = LabelledPersons(boxes, keypoints, _areas(frame), np.zeros(len(frame), bool))
        number = frame.record.frame_index
        images.append(LabelledImage(str(number), number, 0, 0, Path(), persons))
    return LabelledDataset("reference", tuple(images), has_keypoints=True)
