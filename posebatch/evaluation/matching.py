"""Which poses of two sets belong to the same person, and how far apart their joints are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import FramePoses
from posebatch.core.similarity import greedy_pairs, oks
from posebatch.evaluation.labels import AREA_OF_BOX

SAME_PERSON_OKS: Final = 0.5
"""OKS from which two poses belong to the same person."""


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
class MatchedPersons:
    """Persons of the reference in one frame with the poses that match them: p pairs."""

    reference: NDArray[np.intp]
    """(p,) index of each person in the reference's frame."""
    matched: NDArray[np.intp]
    """(p,) index of its pose in the other frame. Each pose matches one person."""
    pixels: NDArray[np.float64]
    """(p, 17) distances of the joints; nan for joints that do not count (`counted_joints`)."""
    heights: NDArray[np.float64]
    """(p,) height of the reference's box, pixels."""

    @property
    def shares(self) -> NDArray[np.float64]:
        """(p, 17) distances as shares of the person's height; nan for joints that do not count."""
        return self.pixels / self.heights[:, None]


def match_persons(reference: FramePoses, frame: FramePoses, kpt_thr: float) -> MatchedPersons:
    """Match poses of the same frame by OKS.

    OKS takes 0.53 of the reference's box as a person's area, and uses the joints that count.
    """
    counted, areas = counted_joints(reference, kpt_thr), person_areas(reference)
    similarities = np.array(
        [
            [oks(pose[:, :2], person[:, :2], area, visible) for pose in frame.keypoints]
            for person, area, visible in zip(reference.keypoints, areas, counted, strict=True)
        ]
    ).reshape(len(reference), len(frame))
    pairs = [
        (person, match) for person, match in enumerate(greedy_pairs(similarities, SAME_PERSON_OKS)) if match is not None
    ]
    persons, matches = np.array(pairs, np.intp).reshape(-1, 2).T
    difference = (frame.keypoints[matches] - reference.keypoints[persons])[:, :, :2].astype(np.float64)
    pixels = np.where(counted[persons], np.linalg.norm(difference, axis=2), np.nan)
    boxes = reference.bbox_xyxy[persons].astype(np.float64)
    return MatchedPersons(persons, matches, pixels, boxes[:, 3] - boxes[:, 1])


def counted_joints(frame: FramePoses, kpt_thr: float) -> NDArray[np.bool_]:
    """(n, 17) whether each joint is compared: those above the threshold, or all of a person without one."""
    above: NDArray[np.bool_] = frame.keypoints[:, :, 2] > kpt_thr
    return above | ~above.any(axis=1, keepdims=True)


def person_areas(frame: FramePoses) -> NDArray[np.float64]:
    """(n,) areas of the persons, estimated from their boxes, square pixels."""
    sides = (frame.bbox_xyxy[:, 2:] - frame.bbox_xyxy[:, :2]).astype(np.float64)
    areas: NDArray[np.float64] = AREA_OF_BOX * sides.prod(axis=1)
    return areas
