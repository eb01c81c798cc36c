"""Tracklets: rows joined over consecutive frames and short losses, where nobody else comes into question."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from posebatch.motion.tracking.link_rules import LinkRules
from posebatch.motion.tracking.local_motion import velocity
from posebatch.motion.tracking.pose_similarity import paired_similarity
from posebatch.motion.tracking.row_window import RowWindow
from posebatch.motion.tracking.safe_pairs import LEAST_MARGIN, LEAST_SIMILARITY

SHORT_LOSS_S: Final = 0.2
"""A tracklet continues over a loss of this time. Longer ones are bridged when the video ends."""


ROWS_BEFORE: Final = 8
"""Rows that give the velocity of a finish."""


LARGEST_MISS: Final = 0.3
"""Largest distance from the predicted place, in heights."""


_NEVER: Final = 1e6


class TrackletBuilder:
    """Joins the rows that no safe pair joins, frame by frame, by predicted motion.

    Finishes that wait for a next row are kept from chunk to chunk.
    """

    def __init__(self, rules: LinkRules) -> None:
        self._kpt_thr, self._loss_s = rules.kpt_thr, min(SHORT_LOSS_S, rules.max_gap_s)
        self._waiting: list[_Waiting] = []

    def join(self, window: RowWindow, orders: range) -> list[tuple[int, int]]:
        """Join rows of the frames ``orders`` to tracklets that finish in earlier frames.

        Returns pairs of pieces that follow each other.
        """
        ended = (window.following < 0) & (window.order >= orders.start - 1)
        finished = _rows_by_order(window, ended, orders.stop - 2)
        started = _rows_by_order(window, window.started & (window.order >= orders.start), orders.stop - 1)
        joined: list[tuple[int, int]] = []
        for order in sorted({*started, *(order + 1 for order in finished)}):
            self._wait_for(window, finished.get(order - 1, []))
            heads = started.get(order)
            if heads and self._waiting:
                joined += self._join_frame(window, order, np.array(heads, np.int64))
        return joined

    def _wait_for(self, window: RowWindow, rows: list[int]) -> None:
        if rows:
            velocities, _ = velocity(window, np.array(rows, np.int64), window.previous, ROWS_BEFORE)
            self._waiting += [_Waiting(window, *pair) for pair in zip(rows, velocities, strict=True)]

    def _join_frame(self, window: RowWindow, order: int, heads: NDArray[np.int64]) -> list[tuple[int, int]]:
        now = float(window.time_s[order])
        self._waiting = [waiting for waiting in self._waiting if now - waiting.lost_s <= self._loss_s + 1e-6]
        if not self._waiting:
            return []
        boxes, poses = self._predicted(now)
        similarity = paired_similarity(
            boxes[:, None], poses[:, None], window.boxes[heads][None], window.poses[heads][None], self._kpt_thr
        )
        likely = similarity >= LEAST_SIMILARITY
        parted = np.array([waiting.parted for waiting in self._waiting])[:, None] | window.parted[heads][None]
        pairs = _clear_pairs(similarity) & ~parted
        pairs |= _complete_pairs(_missed(boxes, window.boxes[heads]), likely & ~_taken(pairs), parted)
        joined = [self._follow(window, finish, heads[start]) for finish, start in np.argwhere(pairs).tolist()]
        alone = np.asarray((~likely).all(axis=1)).tolist()
        self._waiting = [waiting for waiting, kept in zip(self._waiting, alone, strict=True) if kept]
        return joined

    def _follow(self, window: RowWindow, finish: int, head: np.int64) -> tuple[int, int]:
        waiting = self._waiting[finish]
        row = waiting.row - window.first_row
        if row >= 0:
            window.join(np.array([row]), np.array([head]))
        else:
            window.started[head] = False
        return waiting.piece, int(window.piece[head])

    def _predicted(self, now: float) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Boxes (n, 4) and poses (n, 17, 3) of the waiting finishes, moved on to ``now``."""
        moved = [waiting.moved_to(now) for waiting in self._waiting]
        return np.array([box for box, _ in moved]), np.array([pose for _, pose in moved])


def _clear_pairs(similarity: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pairs (n, m) of the best assignment that have no rival."""
    clear = np.zeros(similarity.shape, bool)
    for finish, start in zip(*linear_sum_assignment(similarity, maximize=True), strict=True):
        rivals = similarity[finish].copy()
        rivals[start] = 0.0
        rival = max(rivals.max(), similarity[:finish, start].max(initial=0.0))
        rival = max(rival, similarity[finish + 1 :, start].max(initial=0.0))
        value = similarity[finish, start]
        clear[finish, start] = value >= LEAST_SIMILARITY and value - rival >= LEAST_MARGIN
    return clear


def _complete_pairs(
    missed: NDArray[np.float64], likely: NDArray[np.bool_], parted: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Pairs (n, m) within groups of people from which nobody vanishes and to which nobody comes.

    In such a group the places alone decide, so that people who cross and are both seen keep their tracks.
    """
    complete = np.zeros(likely.shape, bool)
    if not likely.any():
        return complete
    finishes, starts = (np.unique(side) for side in np.nonzero(likely))
    near = likely[np.ix_(finishes, starts)]
    edges = coo_array(near)
    nodes = len(finishes) + len(starts)
    graph = coo_array((np.ones(edges.nnz), (edges.row, edges.col + len(finishes))), shape=(nodes, nodes))
    groups, group = connected_components(graph, directed=False)
    for number in range(groups):
        rows, columns = finishes[group[: len(finishes)] == number], starts[group[len(finishes) :] == number]
        cost = np.where(likely, missed, np.inf)[np.ix_(rows, columns)]
        if len(rows) != len(columns) or bool(parted[np.ix_(rows, columns)].any()):
            continue
        order, partner = linear_sum_assignment(np.minimum(cost, _NEVER))
        if (cost[order, partner] <= LARGEST_MISS**2).all():
            complete[rows[order], columns[partner]] = True
    return complete


def _missed(predicted: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances (n, m) of the centres of boxes (n, 4) and (m, 4), in heights."""
    offset = (predicted[:, None] - boxes[None]).reshape(len(predicted), len(boxes), 2, 2).mean(axis=2)
    height = np.maximum(boxes[:, 3] - boxes[:, 1], 1.0)
    squared: NDArray[np.float64] = (offset**2).sum(axis=2) / height[None] ** 2
    return squared


def _taken(pairs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pairs (n, m) with a member that is in a pair already."""
    return np.asarray(pairs.any(axis=1))[:, None] | np.asarray(pairs.any(axis=0))[None]


class _Waiting:
    """A finish that waits for its next row. ``row`` counts from the video's start."""

    __slots__ = ("box", "lost_s", "parted", "piece", "pose", "row", "time_s", "velocity")

    def __init__(self, window: RowWindow, row: int, velocity: NDArray[np.float64]) -> None:
        order = window.order[row]
        self.piece, self.row, self.parted = int(window.piece[row]), row + window.first_row, bool(window.parted[row])
        self.time_s, self.lost_s = float(window.time_s[order]), float(window.time_s[order + 1])
        self.velocity, self.box, self.pose = velocity, window.boxes[row], window.poses[row]

    def moved_to(self, time_s: float) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Box (4,) and pose (17, 3) where the motion predicts them."""
        shift = self.velocity * (time_s - self.time_s)
        pose = self.pose.copy()
        pose[:, :2] += shift.astype(np.float32)
        return self.box + np.tile(shift, 2), pose


def _rows_by_order(window: RowWindow, which: NDArray[np.bool_], last_order: int) -> dict[int, list[int]]:
    rows = np.flatnonzero(which & (window.order <= last_order))
    by_order: dict[int, list[int]] = {}
    for row, order in zip(rows.tolist(), window.order[rows].tolist(), strict=True):
        by_order.setdefault(order, []).append(row)
    return by_order
