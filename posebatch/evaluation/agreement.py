"""Agreement of two sets of poses of the same frames, one of which is the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from posebatch.core.frames import FramePoses
from posebatch.evaluation.average_precision import pose_average_precision
from posebatch.evaluation.labels import LabelledDataset, LabelledImage, LabelledPersons
from posebatch.evaluation.matching import Distances, counted_joints, match_persons, person_areas

NOTICEABLE_PX: Final = 0.5
"""Joints farther than this from the reference's are counted, pixels."""


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

    Persons are matched as `match_persons` does. Raises ``ValueError`` if the frames differ.
    """
    if [frame.record for frame in reference] != [frame.record for frame in poses]:
        raise ValueError(f"{len(reference)} and {len(poses)} frames, which are not the same")
    kept, pixels, heights = 0, [np.zeros(0)], [np.zeros(0)]
    for truth, frame in zip(reference, poses, strict=True):
        pairs = match_persons(truth, frame, kpt_thr)
        compared = np.isfinite(pairs.pixels)
        kept += len(pairs.matched)
        pixels.append(pairs.pixels[compared])
        heights.append(pairs.shares[compared])
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


def _as_labels(frames: Sequence[FramePoses], kpt_thr: float) -> LabelledDataset:
    images = []
    for frame in frames:
        keypoints = frame.keypoints.astype(np.float64)
        keypoints[:, :, 2] = 2 * counted_joints(frame, kpt_thr)
        boxes = frame.bbox_xyxy.astype(np.float64)
        persons = LabelledPersons(boxes, keypoints, person_areas(frame), np.zeros(len(frame), bool))
        number = frame.record.frame_index
        images.append(LabelledImage(str(number), number, 0, 0, Path(), persons))
    return LabelledDataset("reference", tuple(images), has_keypoints=True)
