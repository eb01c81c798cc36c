"""Similarity of persons: OKS between poses, IoU between boxes, non-maximum suppression and greedy pairing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import NUM_KEYPOINTS, OKS_SIGMAS


def oks(
    keypoints: NDArray[np.floating],
    reference: NDArray[np.floating],
    area: float,
    visible: NDArray[np.bool_] | None = None,
) -> float:
    """Object keypoint similarity of one person, 0 (unlike) to 1 (equal).

    ``keypoints`` and ``reference`` are (17, 2) pixels, ``area`` the person's area in square pixels, ``visible`` (17,)
    marks the reference joints that count (all when None). Nothing visible gives 0. Source: COCO keypoint evaluation,
    ``mean(exp(-d^2 / (2 * area * (2 * sigma)^2)))`` over the visible joints.
    """
    mask = np.ones(NUM_KEYPOINTS, bool) if visible is None else visible
    if not mask.any():
        return 0.0
    return float(joint_similarity(keypoints, reference, np.float64(area))[mask].mean())


def joint_similarity(
    keypoints: NDArray[np.floating], reference: NDArray[np.floating], area: NDArray[np.floating] | np.floating
) -> NDArray[np.float64]:
    """What each joint adds to the `oks` of persons: (..., 17, 2) and (17, 2) pixels, (...) areas -> (..., 17)."""
    squared = ((keypoints - reference) ** 2).sum(axis=-1)
    variance = (2.0 * OKS_SIGMAS) ** 2
    similarity: NDArray[np.float64] = np.exp(-squared / (2.0 * variance * (area + np.spacing(1.0))[..., None]))
    return similarity


def rescore(
    box_scores: NDArray[np.floating[Any]], keypoint_scores: NDArray[np.floating[Any]], kpt_thr: float
) -> NDArray[np.float32]:
    """Scores of persons (n,): the box's (n,) times the mean of the keypoints' (n, k) above ``kpt_thr``.

    0 for a person with no keypoint above it. Source: ``COCODataset.evaluate`` of SimpleBaseline's code, where the
    threshold is 0.2.
    """
    counts = keypoint_scores > kpt_thr
    means = (keypoint_scores * counts).sum(axis=1) / np.maximum(counts.sum(axis=1), 1)
    scores: NDArray[np.float32] = (box_scores * means).astype(np.float32)
    return scores


def oks_nms(
    keypoints: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    areas: NDArray[np.floating[Any]],
    oks_thr: float,
) -> NDArray[np.intp]:
    """The persons of one frame that are not a better one over again: their indices, the best score first.

    ``keypoints`` are (n, 17, 2) pixels, ``scores`` and ``areas`` (n,). From the best score down, a person drops out
    whose object keypoint similarity with one that stays is above ``oks_thr``; all joints count, and the area is the
    mean of both. Equal scores keep their order. Source: ``oks_nms`` of SimpleBaseline's code, which evaluates with 0.9
    and takes the area of the crop, padding included.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, others = int(order[0]), order[1:]
        kept.append(best)
        shared = (areas[best] + areas[others]) / 2
        alike = joint_similarity(keypoints[others], keypoints[best], shared).mean(axis=1)
        order = others[alike <= oks_thr]
    return np.array(kept, np.intp)


def box_iou(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Intersection over union of boxes (n, 4) and (m, 4), edges in pixels -> (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    total = (a[:, 2:] - a[:, :2]).prod(axis=1)[:, None] + (b[:, 2:] - b[:, :2]).prod(axis=1)[None] - shared
    iou: NDArray[np.float64] = shared / np.maximum(total, np.finfo(np.float64).tiny)
    return iou


def greedy_pairs(alike: NDArray[np.float64], least: float) -> list[int | None]:
    """For each row the column it is paired with, each column once, largest values first, none below ``least``."""
    pairs: list[int | None] = [None] * len(alike)
    for index in np.argsort(-alike, axis=None, kind="stable"):
        row, column = divmod(int(index), alike.shape[1])
        if alike[row, column] < least:
            break
        if pairs[row] is None and column not in pairs:
            pairs[row] = column
    return pairs
