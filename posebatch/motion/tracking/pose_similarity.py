"""How alike two persons of different frames are: IoU of boxes and OKS of poses, for many pairs at once."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import OKS_SIGMAS

LEAST_JOINTS: Final = 5
"""Joints seen in both poses from which OKS counts."""


_VARIANCES: Final = (2 * (2 * OKS_SIGMAS) ** 2).astype(np.float32)


def paired_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of boxes (..., 4) and (..., 4) pixels, pair by pair -> (...)."""
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    shared = width.clip(0) * height.clip(0)
    union = box_area(a) + box_area(b) - shared
    iou: NDArray[np.float64] = shared / np.maximum(union, 1e-9)
    return iou


def box_area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas (...) of boxes (..., 4)."""
    area: NDArray[np.float64] = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return area


def paired_oks(
    a: NDArray[np.float32], b: NDArray[np.float32], areas: NDArray[np.float64], kpt_thr: float
) -> NDArray[np.float64]:
    """OKS of poses (..., 17, 3) and (..., 17, 3), pair by pair, over the joints seen in both -> (...).

    ``areas`` (...) are square pixels. A pair with fewer than `LEAST_JOINTS` such joints gets NaN.
    """
    seen = (a[..., 2] > kpt_thr) & (b[..., 2] > kpt_thr)
    offset_x, offset_y = a[..., 0] - b[..., 0], a[..., 1] - b[..., 1]
    squared = offset_x * offset_x + offset_y * offset_y
    scaled = squared / (np.maximum(areas, 1.0).astype(np.float32)[..., None] * _VARIANCES)
    similar = np.exp(-scaled) * seen
    count = seen.sum(axis=-1)
    oks: NDArray[np.float64] = similar.sum(axis=-1, dtype=np.float64) / np.maximum(count, 1)
    oks[count < LEAST_JOINTS] = np.nan
    return oks


def paired_oks_or_iou(
    boxes_a: NDArray[np.float64],
    poses_a: NDArray[np.float32],
    boxes_b: NDArray[np.float64],
    poses_b: NDArray[np.float32],
    kpt_thr: float,
) -> NDArray[np.float64]:
    """OKS of poses pair by pair, or IoU of boxes where fewer than `LEAST_JOINTS` joints are seen in both.

    Shapes (..., 4), (..., 17, 3), (..., 4), (..., 17, 3) -> (...).
    """
    oks = paired_oks(poses_a, poses_b, (box_area(boxes_a) + box_area(boxes_b)) / 2, kpt_thr)
    return np.where(np.isnan(oks), paired_iou(boxes_a, boxes_b), oks)


def paired_similarity(
    boxes_a: NDArray[np.float64],
    poses_a: NDArray[np.float32],
    boxes_b: NDArray[np.float64],
    poses_b: NDArray[np.float32],
    kpt_thr: float,
) -> NDArray[np.float64]:
    """Similarity from 0 to 1 (equal), pair by pair: mean of IoU and OKS, or IoU where too few joints are seen.

    Shapes (..., 4), (..., 17, 3), (..., 4), (..., 17, 3) -> (...).
    """
    iou = paired_iou(boxes_a, boxes_b)
    oks = paired_oks(poses_a, poses_b, (box_area(boxes_a) + box_area(boxes_b)) / 2, kpt_thr)
    return np.where(np.isnan(oks), iou, (iou + oks) / 2)
