"""How sure we are of a person, and which persons are the same one: SimpleBaseline's rescoring and OKS-NMS."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from posebatch.skeleton import joint_similarity


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
