"""Rows of consecutive frames that are the same person beyond doubt."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.motion.pose_similarity import box_area, paired_iou, paired_oks
from posebatch.motion.row_window import RowWindow

LEAST_SIMILARITY: Final = 0.3


LEAST_MARGIN: Final = 0.2
"""A pair is safe if the next best partner of either row is less similar by this much."""


LONGEST_STEP_S: Final = 0.5
"""Frames further apart than this need a prediction of motion to be linked."""


def safe_pairs(
    window: RowWindow, first_order: int, kpt_thr: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Safe pairs of rows, and how alike the rows of consecutive frames are.

    Returns rows (k,), their next rows (k,), and for each frame from ``first_order`` on (f,) the largest IoU of one of
    its boxes with one of the next frame's (0 for the last frame).
    """
    rows, others = _neighbours(window, first_order)
    iou = paired_iou(window.boxes[rows], window.boxes[others])
    closest = np.zeros(len(window.time_s) - first_order)
    np.maximum.at(closest, window.order[rows] - first_order, iou)
    near = (iou > 0) & (window.time_s[window.order[others]] - window.time_s[window.order[rows]] <= LONGEST_STEP_S)
    rows, others, iou = rows[near], others[near], iou[near]
    areas = (box_area(window.boxes[rows]) + box_area(window.boxes[others])) / 2
    oks = paired_oks(window.poses[rows], window.poses[others], areas, kpt_thr)
    similarity = np.where(np.isnan(oks), iou, (iou + oks) / 2)
    safe = similarity >= LEAST_SIMILARITY
    for side in (rows, others):
        safe &= _leads(side, similarity, len(window.order))
    return rows[safe], others[safe], closest


def _neighbours(window: RowWindow, first_order: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of a row and a row of the next frame, from frame ``first_order`` on."""
    starts = np.searchsorted(window.order, np.arange(len(window.time_s) + 2))
    rows = np.arange(starts[first_order], len(window.order))
    next_orders = window.order[rows] + 1
    counts = starts[next_orders + 1] - starts[next_orders]
    repeated = np.repeat(rows, counts)
    position = np.arange(len(repeated)) - np.repeat(np.cumsum(counts) - counts, counts)
    return repeated, np.repeat(starts[next_orders], counts) + position


def _leads(side: NDArray[np.int64], similarity: NDArray[np.float64], rows: int) -> NDArray[np.bool_]:
    """Whether each pair is the best of its row, and no other pair of the row comes close."""
    best = np.zeros(rows)
    np.maximum.at(best, side, similarity)
    leading = similarity == best[side]
    second = np.zeros(rows)
    np.maximum.at(second, side[~leading], similarity[~leading])
    alone = np.bincount(side[leading], minlength=rows) == 1
    return leading & alone[side] & (similarity - second[side] >= LEAST_MARGIN)
