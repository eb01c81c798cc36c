"""Tracklets: rows joined over consecutive frames and short losses, where nobody else comes into question."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from posebatch.motion.link_rules import LinkRules
from posebatch.motion.local_motion import velocity
from posebatch.motion.pose_similarity import paired_similarity
from posebatch.motion.row_window import RowWindow
from posebatch.motion.safe_pairs import LEAST_MARGIN, LEAST_SIMILARITY

SHORT_LOSS_S: Final = 0.2
"""A tracklet continues over a loss of this time. Longer ones are bridged when the video ends."""


ROWS_BEFORE: Final = 8
"""Rows that give the velocity of a finish."""


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
        similarity = self._similarity(window, heads, now)
        finishes, starts = linear_sum_assignment(similarity, maximize=True)
        joined: list[tuple[int, int]] = []
        gone: set[int] = set()
        for finish, start in zip(finishes.tolist(), starts.tolist(), strict=True):
            value = similarity[finish, start]
            if value < LEAST_SIMILARITY:
                continue
            gone.add(finish)
            rivals = np.append(np.delete(similarity[finish], start), np.delete(similarity[:, start], finish))
            waiting = self._waiting[finish]
            parted = waiting.parted or window.parted[heads[start]]
            if parted or value - rivals.max(initial=0.0) < LEAST_MARGIN:
                continue
            joined.append((waiting.piece, int(window.piece[heads[start]])))
            row = waiting.row - window.first_row
            if row >= 0:
                window.join(np.array([row]), heads[start : start + 1])
            else:
                window.started[heads[start]] = False
        doubtful: NDArray[np.bool_] = np.any(similarity >= LEAST_SIMILARITY, axis=1)
        self._waiting = [
            waiting for number, waiting in enumerate(self._waiting) if number not in gone and not doubtful[number]
        ]
        return joined

    def _similarity(self, window: RowWindow, heads: NDArray[np.int64], now: float) -> NDArray[np.float64]:
        """Similarity of the waiting finishes, moved on to ``now``, and the rows ``heads``."""
        moved = [waiting.moved_to(now) for waiting in self._waiting]
        boxes, poses = np.array([box for box, _ in moved]), np.array([pose for _, pose in moved])
        return paired_similarity(
            boxes[:, None], poses[:, None], window.boxes[heads][None], window.poses[heads][None], self._kpt_thr
        )


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
