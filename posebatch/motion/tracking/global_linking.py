"""The linker ``global``: safe pairs, tracklets, and bridges chosen for the whole video at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from posebatch.motion.tracking.breaks import part_at_breaks
from posebatch.motion.tracking.chunks import Chunk
from posebatch.motion.tracking.cuts import find_cuts
from posebatch.motion.tracking.link_rules import LinkRules
from posebatch.motion.tracking.row_window import RowWindow
from posebatch.motion.tracking.safe_pairs import join_safe_pairs
from posebatch.motion.tracking.stitching import Bridges, all_bridges, best_bridges, possible_bridges
from posebatch.motion.tracking.track_ends import TrackEnds, track_ends
from posebatch.motion.tracking.tracklets import TrackletBuilder

Joined = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Pieces (k,), and the pieces (k,) that follow them."""


NumberedChunk = tuple[Chunk, NDArray[np.int64]]
"""A chunk, and the pieces (n,) of its rows, numbered from 0 by their first row."""


class GlobalLinker:
    """Links the rows of one video, given as chunks in order.

    A piece is a run of rows that safe pairs join. Only the last chunks are kept, and of all that is before them the
    possible bridges.
    """

    def __init__(self, rules: LinkRules) -> None:
        self._rules, self._kpt_thr = rules, rules.kpt_thr
        self._window = RowWindow.empty()
        self._tracklets = TrackletBuilder(rules)
        self._newest: Chunk | None = None
        self._pieces = 0
        self._finishes: TrackEnds | None = None
        self._cuts = np.zeros(0, np.int64)
        self._bridges: list[Bridges] = []
        self._joined: list[Joined] = []

    def add(self, chunk: Chunk) -> Iterator[NumberedChunk]:
        """Give the next chunk. Yields the chunk before, whose pieces are known now."""
        window = self._window = self._window.advanced(chunk)
        orders = window.chunk_orders(-1)
        join_safe_pairs(window, max(orders.start - 1, 0), self._kpt_thr)
        if self._newest is not None:
            yield self._newest, self._settle(-2)
        if len(window.row_counts) > 2:
            self._find_bridges(-3)
        self._newest = chunk

    def rest(self) -> Iterator[NumberedChunk]:
        """Yields the last chunk."""
        if self._newest is None:
            return
        yield self._newest, self._settle(-1)
        if len(self._window.row_counts) > 1:
            self._find_bridges(-2)
        self._find_bridges(-1)

    def joined(self) -> Joined:
        """The joints of pieces, after `rest`: those of tracklets, and the best bridges of the whole video."""
        joined = _concatenated(self._joined)
        return _concatenated([joined, best_bridges(all_bridges(self._bridges).without(*joined))])

    def _settle(self, number: int) -> NDArray[np.int64]:
        """Make the tracklets of a chunk of the window, whose safe pairs are known. Returns pieces of rows (n,)."""
        window = self._window
        rows = window.chunk_rows(number)
        part_at_breaks(window, rows)
        self._number_pieces(np.array(rows, np.int64))
        self._joined.append(_arrays(self._tracklets.join(window, window.chunk_orders(number))))
        return window.piece[rows.start : rows.stop].copy()

    def _number_pieces(self, rows: NDArray[np.int64]) -> None:
        """Number rows: new pieces by their first row, and the other rows as the rows before them."""
        window = self._window
        new = rows[window.previous[rows] < 0]
        window.piece[new] = self._pieces + np.arange(len(new))
        self._pieces += len(new)
        unknown = (window.piece < 0) & (window.previous >= 0)
        origin = np.where(unknown, window.previous, np.arange(len(window.piece)))
        while not np.array_equal(further := origin[origin], origin):
            origin = further
        window.piece[rows] = window.piece[origin[rows]]

    def _find_bridges(self, number: int) -> None:
        """Find the bridges to the tracklets that start in a chunk of the window."""
        window = self._window
        orders, rows = window.chunk_orders(number), np.array(window.chunk_rows(number), np.int64)
        self._cuts = np.append(self._cuts, find_cuts(window, orders))
        ended = track_ends(window, rows[window.following[rows] < 0], window.previous, self._kpt_thr)
        finishes = ended if self._finishes is None else self._finishes.joined(ended)
        starts = track_ends(window, rows[window.started[rows]], window.following, self._kpt_thr)
        self._bridges.append(possible_bridges(finishes, starts, self._cuts, self._rules))
        recent = window.time_s[orders[-1]] - finishes.lost_s <= self._rules.max_gap_s
        self._finishes = finishes.take(recent)
        self._cuts = self._cuts[-1:] if not recent.any() else self._cuts[self._cuts >= self._finishes.order.min()]


def _arrays(joined: list[tuple[int, int]]) -> Joined:
    pairs = np.array(joined, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _concatenated(joined: list[Joined]) -> Joined:
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *(pieces for pieces, _ in joined)]), np.concatenate(
        [none, *(more for _, more in joined)]
    )
