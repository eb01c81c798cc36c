"""How many poses are right, and how many are one too many on the same person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import FramePoses
from posebatch.core.similarity import greedy_pairs, oks
from posebatch.evaluation.labels import LabelledDataset, LabelledPersons

RIGHT_OKS: Final = 0.5
"""OKS with a labelled person from which a pose is right."""


@dataclass(frozen=True)
class PoseCounts:
    """The poses of all images."""

    poses: int
    right: int
    """Poses paired with a labelled person, each person once."""
    doubles: int
    """Further poses that would be right, if their person had not a better one."""


def count_poses(dataset: LabelledDataset, poses: Sequence[FramePoses]) -> PoseCounts:
    """Count right poses and doubles. ``poses`` has one entry per image of the dataset."""
    right = doubles = 0
    for image, frame in zip(dataset.images, poses, strict=True):
        similarity = _similarity(image.persons, frame)
        found = sum(match is not None for match in greedy_pairs(similarity, RIGHT_OKS))
        right += found
        doubles += int((similarity.max(axis=0, initial=0.0) >= RIGHT_OKS).sum()) - found
    return PoseCounts(sum(map(len, poses)), right, doubles)


def _similarity(persons: LabelledPersons, frame: FramePoses) -> NDArray[np.float64]:
    """OKS of each labelled person with each pose: (persons, poses)."""
    rows = [
        [
            oks(pose[:, :2], persons.keypoints[person, :, :2], float(persons.area[person]), persons.labelled[person])
            for pose in frame.keypoints.astype(np.float64)
        ]
        for person in persons.posed
    ]
    return np.array(rows, np.float64).reshape(len(persons.posed), len(frame))
