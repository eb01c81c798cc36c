"""Rows of consecutive frames that are the same person beyond doubt."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.motion.tracking.local_motion import velocity
from posebatch.motion.tracking.pose_similarity import paired_iou, paired_similarity
from posebatch.motion.tracking.row_window import RowWindow

LEAST_SIMILARITY: Final = 0.3


LEAST_MARGIN: Final = 0.2
"""A pair is safe if the next best partner of either row is less similar by this much."""


ROWS_BEFORE: Final = 5
"""Rows that give the velocity of a pair's first person."""


LONGEST_STEP_S: Final = 0.5
"""Frames further apart than this need a prediction of motion to be linked."""


def join_safe_pairs(window: RowWindow, first_order: int, kpt_thr: float) -> None:
    """Join the safe pairs of rows of consecutive frames, from frame ``first_order`` on.

    A first round takes boxes where they are, and a second one moves them by the velocity that the first one's joints
    give. The second one counts. Also states how alike the boxes of consecutive frames are.
    """
    rows, others = _neighbours(window, first_order)
    iou = paired_iou(window.boxes[rows], window.boxes[others])
    np.maximum.at(window.closest_iou, window.order[rows], iou)
    step = window.time_s[window.order[others]] - window.time_s[window.order[rows]]
    candidate = (step <= LONGEST_STEP_S) & _within_reach(window, rows, others)
    rows, others, step = rows[candidate], others[candidate], step[candidate]
    previous = window.previous.copy()
    safe = _safe(window, rows, others, np.zeros((len(rows), 2)), kpt_thr)
    previous[others[safe]] = rows[safe]
    firsts, back = np.unique(rows, return_inverse=True)
    shift = velocity(window, firsts, previous, ROWS_BEFORE)[0][back] * step[:, None]
    safe = _safe(window, rows, others, shift, kpt_thr)
    window.join(rows[safe], others[safe])


def _within_reach(window: RowWindow, rows: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the centres of boxes are less than a box's size apart."""
    a, b = window.boxes[rows], window.boxes[others]
    near: NDArray[np.bool_] = np.abs(a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]).max(axis=1) < 2 * np.maximum(
        (a[:, 2:] - a[:, :2]).max(axis=1), (b[:, 2:] - b[:, :2]).max(axis=1)
    )
    return near


def _safe(
    window: RowWindow,
    rows: NDArray[np.int64],
    others: NDArray[np.int64],
    shift: NDArray[np.float64],
    kpt_thr: float,
) -> NDArray[np.bool_]:
    """Which pairs are safe, if ``rows`` (k,) are moved by ``shift`` (k, 2)."""
    poses = window.poses[rows]
    poses[..., :2] += shift[:, None].astype(np.float32)
    boxes = window.boxes[rows] + np.tile(shift, 2)
    similarity = paired_similarity(boxes, poses, window.boxes[others], window.poses[others], kpt_thr)
    safe = similarity >= LEAST_SIMILARITY
    for side in (rows, others):
        safe &= _leads(side, similarity, len(window.order))
    return safe


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
