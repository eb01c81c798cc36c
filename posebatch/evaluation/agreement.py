"""How far the persons that some settings give are those that a reference gives, on the same frames."""

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
"""Poses at least this much alike are of one person."""


NOTICEABLE_PX: Final = 0.5
"""Joints that lie farther from the reference's are counted."""


@dataclass(frozen=True)
class Distances:
    """How far joints lie from the reference's; nan where there are none."""

    median: float
    p95: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Distances:
        """Of any number of distances."""
        if not len(values):
            return cls(*[float("nan")] * 4)
        return cls(*(float(value) for value in np.quantile(values, (0.5, 0.95, 0.99, 1.0))))


@dataclass(frozen=True)
class Agreement:
    """One table against another. Joints count that the reference sees: of persons in both, above the threshold."""

    frames: int
    reference_persons: int
    kept: int
    """Of the reference's persons, those with a pose that is alike (`SAME_PERSON_OKS`), each pose taken once."""
    added: int
    """Poses left over."""
    joints: int
    pixels: Distances
    heights: Distances
    """Relative to the height of the reference's box."""
    noticeable: float
    """Share of the joints that lie farther than `NOTICEABLE_PX` apart."""
    ap: float
    """COCO's AP with the reference's persons as the truth; nan when there are none."""
    ar: float


def compare(reference: Sequence[FramePoses], poses: Sequence[FramePoses], kpt_thr: float) -> Agreement:
    """Compare two tables of the same frames, ``frame_index`` by ``frame_index``.

    Similarities take 0.53 of the reference's box as a person's area, and the joints that score more than ``kpt_thr``
    there; of a person without one, all. Raises ``ValueError`` when the frames are not the same.
    """
    if [frame.record for frame in reference] != [frame.record for frame in poses]:
        raise ValueError(f"{len(reference)} and {len(poses)} frames, which are not the same")
    kept, pixels, heights = 0, [np.zeros(0)], [np.zeros(0)]
    for truth, found in zip(reference, poses, strict=True):
        seen, areas = _seen(truth, kpt_thr), _areas(truth)
        alike = np.array(
            [
                [oks(pose[:, :2], person[:, :2], area, visible) for pose in found.keypoints]
                for person, area, visible in zip(truth.keypoints, areas, seen, strict=True)
            ]
        ).reshape(len(truth), len(found))
        for person, match in enumerate(greedy_pairs(alike, SAME_PERSON_OKS)):
            if match is None:
                continue
            kept += 1
            apart = (found.keypoints[match] - truth.keypoints[person])[seen[person], :2].astype(np.float64)
            pixels.append(np.linalg.norm(apart, axis=1))
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


def _seen(frame: FramePoses, kpt_thr: float) -> NDArray[np.bool_]:
    """(n, 17) the joints of each person that count."""
    seen: NDArray[np.bool_] = frame.keypoints[:, :, 2] > kpt_thr
    return seen | ~seen.any(axis=1, keepdims=True)


def _areas(frame: FramePoses) -> NDArray[np.float64]:
    sides = (frame.bbox_xyxy[:, 2:] - frame.bbox_xyxy[:, :2]).astype(np.float64)
    areas: NDArray[np.float64] = AREA_OF_BOX * sides.prod(axis=1)
    return areas


def _as_labels(frames: Sequence[FramePoses], kpt_thr: float) -> LabelledDataset:
    images = []
    for frame in frames:
        keypoints = frame.keypoints.astype(np.float64)
        keypoints[:, :, 2] = 2 * _seen(frame, kpt_thr)
        boxes = frame.bbox_xyxy.astype(np.float64)
        persons = LabelledPersons(boxes, keypoints, _areas(frame), np.zeros(len(frame), bool))
        number = frame.record.frame_index
        images.append(LabelledImage(str(number), number, 0, 0, Path(), persons))
    return LabelledDataset("reference", tuple(images), has_keypoints=True)
