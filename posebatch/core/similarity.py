"""Similarity of persons: OKS of poses, IoU of boxes, non-maximum suppression, greedy pairing."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import NUM_KEYPOINTS, OKS_SIGMAS

OKS_NMS_THR: Final = 0.7
"""OKS-NMS threshold of new rows, unless one is given. docs/accuracy.md has the measurement."""


OKS_NMS_OFF: Final = 1.0
"""OKS-NMS threshold that drops nobody. Videos published before `OKS_NMS_THR` became the default have such rows."""


def oks(
    keypoints: NDArray[np.floating],
    reference: NDArray[np.floating],
    area: float,
    visible: NDArray[np.bool_] | None = None,
) -> float:
    """Object keypoint similarity (OKS) of two poses, from 0 to 1 (equal).

    ``keypoints`` and ``reference`` are (17, 2) pixels and ``area`` is the person's area in square pixels. ``visible``
    (17,) marks the keypoints of the reference that count, all when None. Without visible keypoints the result is 0.
    Source: COCO keypoint evaluation, ``mean(exp(-d^2 / (2 * area * (2 * sigma)^2)))`` over the visible keypoints.
    """
    mask = np.ones(NUM_KEYPOINTS, bool) if visible is None else visible
    if not mask.any():
        return 0.0
    return float(joint_similarity(keypoints, reference, np.float64(area))[mask].mean())


def joint_similarity(
    keypoints: NDArray[np.floating], reference: NDArray[np.floating], area: NDArray[np.floating] | np.floating
) -> NDArray[np.float64]:
    """The term of each keypoint in `oks`: (..., 17, 2) and (17, 2) pixels, (...) areas -> (..., 17)."""
    squared = ((keypoints - reference) ** 2).sum(axis=-1)
    variance = (2.0 * OKS_SIGMAS) ** 2
    similarity: NDArray[np.float64] = np.exp(-squared / (2.0 * variance * (area + np.spacing(1.0))[..., None]))
    return similarity


def rescore(
    box_scores: NDArray[np.floating[Any]], keypoint_scores: NDArray[np.floating[Any]], kpt_thr: float
) -> NDArray[np.float32]:
    """Pose scores (n,): box scores (n,) times the mean of the keypoint scores (n, k) above ``kpt_thr``.

    A person without such a keypoint gets 0. Source: ``COCODataset.evaluate`` of SimpleBaseline's code, with a
    threshold of 0.2.
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
    """OKS non-maximum suppression: indices of the persons kept, by descending score.

    ``keypoints`` are (n, 17, 2) pixels; ``scores`` are (n,); ``areas`` are (n,) square pixels. A person is dropped if
    the OKS with a kept person of higher score is above ``oks_thr``. All keypoints count, and the area is the mean of
    both. Equal scores keep their order. Source: ``oks_nms`` of SimpleBaseline's code, which evaluates with 0.9 and
    uses the area of the padded crop.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, others = int(order[0]), order[1:]
        kept.append(best)
        mean_areas = (areas[best] + areas[others]) / 2
        similarity = joint_similarity(keypoints[others], keypoints[best], mean_areas).mean(axis=1)
        order = others[similarity <= oks_thr]
    return np.array(kept, np.intp)


def box_iou(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Intersection over union of boxes (n, 4) and (m, 4), x1, y1, x2, y2 in pixels -> (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = (high - low).clip(min=0).prod(axis=2)
    areas_a, areas_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    union = areas_a[:, None] + areas_b[None] - intersection
    iou: NDArray[np.float64] = intersection / np.maximum(union, np.finfo(np.float64).tiny)
    return iou


def greedy_pairs(similarity: NDArray[np.float64], minimum: float) -> list[int | None]:
    """Pair rows and columns of (n, m) similarities greedily, as COCO does: the largest first, each at most once.

    Returns the column of each row, or None for a row without partner. Similarities below ``minimum`` are not paired.
    """
    pairs: list[int | None] = [None] * len(similarity)
    for index in np.argsort(-similarity, axis=None, kind="stable"):
        row, column = divmod(int(index), similarity.shape[1])
        if similarity[row, column] < minimum:
            break
        if pairs[row] is None and column not in pairs:
            pairs[row] = column
    return pairs
