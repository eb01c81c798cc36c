"""The rows of the last chunks, and which row follows which: the part of a video that linking looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.motion.tracking.chunks import Chunk

CHUNKS_KEPT: Final = 4


@dataclass
class RowWindow:
    """Rows (n) of consecutive frames (f). Row numbers and frame orders count from the window's start.

    An order is the position of a frame among the processed frames.
    """

    first_row: int
    """The window's first row, counted from the video's start."""
    first_order: int
    """The window's first frame, counted from the video's start."""
    time_s: NDArray[np.float64]
    """(f,)"""
    closest_iou: NDArray[np.float64]
    """(f,) largest IoU of one of the frame's boxes and one of the next frame's, 0: not known yet, or none."""
    row_counts: tuple[int, ...]
    """Rows of each chunk."""
    frame_counts: tuple[int, ...]
    """Frames of each chunk."""
    order: NDArray[np.int64]
    """(n,) frame of each row, ascending."""
    boxes: NDArray[np.float64]
    """(n, 4)"""
    scores: NDArray[np.float32]
    """(n,) box scores."""
    poses: NDArray[np.float32]
    """(n, 17, 3)"""
    previous: NDArray[np.int64]
    """(n,) the same person's row before, -1: none, or not in the window."""
    following: NDArray[np.int64]
    """(n,) the same person's row after, -1: none."""
    started: NDArray[np.bool_]
    """(n,) whether no row comes before: the row is the head of a tracklet."""
    parted: NDArray[np.bool_]
    """(n,) whether a break of motion parts the row from the row before or after."""
    piece: NDArray[np.int64]
    """(n,) number of the row's piece, -1: not numbered yet."""

    @classmethod
    def empty(cls) -> RowWindow:
        """The window before the first chunk."""
        none = np.zeros(0, np.int64)
        boxes, poses = np.zeros((0, 4)), np.zeros((0, NUM_KEYPOINTS, 3), np.float32)
        scores, started = np.zeros(0, np.float32), np.zeros(0, bool)
        return cls(
            0, 0, np.zeros(0), np.zeros(0), (), (), none, boxes, scores, poses, none, none, started, started, none
        )

    def advanced(self, chunk: Chunk) -> RowWindow:
        """The window with ``chunk`` at its end. The oldest of more than `CHUNKS_KEPT` chunks leaves it."""
        leaving = len(self.row_counts) + 1 > CHUNKS_KEPT
        rows = self.row_counts[0] if leaving else 0
        frames = self.frame_counts[0] if leaving else 0
        added = len(chunk.frame)
        unknown = np.full(added, -1, np.int64)
        return RowWindow(
            self.first_row + rows,
            self.first_order + frames,
            np.append(self.time_s[frames:], chunk.time_s),
            np.append(self.closest_iou[frames:], np.zeros(len(chunk.time_s))),
            (*self.row_counts[leaving:], added),
            (*self.frame_counts[leaving:], len(chunk.frame_index)),
            np.append(self.order[rows:] - frames, chunk.frame + len(self.time_s) - frames),
            np.concatenate([self.boxes[rows:], chunk.bbox_xyxy]),
            np.append(self.scores[rows:], chunk.bbox_scores),
            np.concatenate([self.poses[rows:], chunk.keypoints]),
            np.append(np.maximum(self.previous[rows:] - rows, -1), unknown),
            np.append(np.maximum(self.following[rows:] - rows, -1), unknown),
            np.append(self.started[rows:], np.ones(added, bool)),
            np.append(self.parted[rows:], np.zeros(added, bool)),
            np.append(self.piece[rows:], unknown),
        )

    def join(self, rows: NDArray[np.int64], next_rows: NDArray[np.int64]) -> None:
        """State that ``next_rows`` (k,) follow ``rows`` (k,)."""
        self.following[rows] = next_rows
        self.previous[next_rows] = rows
        self.started[next_rows] = False

    def part(self, rows: NDArray[np.int64]) -> None:
        """State that a break of motion follows ``rows`` (k,), so that the next row may be another person's."""
        next_rows = self.following[rows]
        self.following[rows] = -1
        self.previous[next_rows] = -1
        self.started[next_rows] = True
        self.parted[rows] = self.parted[next_rows] = True

    def chunk_rows(self, number: int) -> range:
        """Rows of a chunk of the window. ``number`` may count from the end: -1 is the newest."""
        ends = np.cumsum((0, *self.row_counts))
        return range(int(ends[number % len(self.row_counts)]), int(ends[number % len(self.row_counts) + 1]))

    def chunk_orders(self, number: int) -> range:
        """Frames of a chunk of the window."""
        ends = np.cumsum((0, *self.frame_counts))
        return range(int(ends[number % len(self.frame_counts)]), int(ends[number % len(self.frame_counts) + 1]))
