"""What is kept of each piece of a track until the video ends: a few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SURE_SCORE: Final = 0.7
"""A track without a box of this score lasts for `FAINT_SECONDS`, or is no person."""


FAINT_SECONDS: Final = 1.0


LEAST_SECONDS: Final = 0.5
"""A track has rows for this time in all, or for half of a shorter video, or is no person."""


SURE_SECONDS: Final = 1.0


LEAST_SHARE: Final = 1 / 3
"""A track with rows for less than `SURE_SECONDS` is found in this share of its time, or is no person."""


TOLERANCE_S: Final = 1e-6


@dataclass(frozen=True)
class Summaries:
    """Rows in all, best box score, first and last frame, and duration of pieces or tracks (n,)."""

    rows: NDArray[np.int64]
    best_score: NDArray[np.float32]
    first_frame: NDArray[np.int64]
    last_frame: NDArray[np.int64]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]


def is_person(tracks: Summaries, step_s: float, video_s: float) -> NDArray[np.bool_]:
    """Whether tracks (n,) are persons rather than lone boxes.

    Processed frames are ``step_s`` seconds apart, and the video lasts for ``video_s``.
    """
    seconds = tracks.end_s - tracks.start_s + step_s
    seen = tracks.rows * step_s + TOLERANCE_S
    longest = video_s / 2
    steady = (seen >= min(SURE_SECONDS, longest)) | (seen >= seconds * LEAST_SHARE)
    scored = (seconds + TOLERANCE_S >= min(FAINT_SECONDS, longest)) | (tracks.best_score >= SURE_SCORE)
    return (seen >= min(LEAST_SECONDS, longest)) & steady & scored


class PieceTable:
    """Summaries of pieces, by number. The columns grow by doubling."""

    def __init__(self) -> None:
        self._size = 0
        self._columns: dict[str, NDArray[Any]] = {
            "rows": np.zeros(64, np.int64),
            "best_score": np.zeros(64, np.float32),
            "first_frame": np.zeros(64, np.int64),
            "last_frame": np.zeros(64, np.int64),
            "start_s": np.zeros(64),
            "end_s": np.zeros(64),
        }

    def add_rows(
        self,
        piece: NDArray[np.int64],
        scores: NDArray[np.float32],
        frame_index: NDArray[np.int64],
        time_s: NDArray[np.float64],
    ) -> None:
        """Count rows (n,), in the order of the video. New pieces have the next numbers, by first row."""
        if not len(piece):
            return
        known, self._size = self._size, max(self._size, int(piece.max()) + 1)
        self._grow()
        columns = self._columns
        new, first = np.unique(piece, return_index=True)
        first = first[new >= known]
        columns["first_frame"][piece[first]], columns["start_s"][piece[first]] = frame_index[first], time_s[first]
        columns["last_frame"][piece], columns["end_s"][piece] = frame_index, time_s
        columns["rows"][: self._size] += np.bincount(piece, minlength=self._size)
        np.maximum.at(columns["best_score"], piece, scores)

    def chains(self, pieces: NDArray[np.int64], following: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first piece of each piece's track (pieces,), if ``following`` (k,) continue ``pieces`` (k,)."""
        first = np.arange(self._size)
        first[following] = pieces
        while not np.array_equal(further := first[first], first):
            first = further
        return first

    def summaries(self, first: NDArray[np.int64]) -> Summaries:
        """Summaries of tracks, at the numbers of their first pieces. ``first`` is from `chains`."""
        own = {name: values[: self._size].copy() for name, values in self._columns.items()}
        rows = np.zeros(self._size, np.int64)
        np.add.at(rows, first, own["rows"])
        for name in ("best_score", "last_frame", "end_s"):
            np.maximum.at(own[name], first, own[name].copy())
        return Summaries(**{**own, "rows": rows})

    def _grow(self) -> None:
        capacity = len(self._columns["rows"])
        while capacity < self._size:
            capacity *= 2
        for name, values in self._columns.items():
            if len(values) < capacity:
                self._columns[name] = np.concatenate([values, np.zeros(capacity - len(values), values.dtype)])
