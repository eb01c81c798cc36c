"""Cuts a stream of frames into windows at fixed times, each with frames of context on both sides.

A window depends on the frames alone, not on the blocks that they came in, and so does everything computed from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.motion.blocks import FrameBlock

_PIECE: Final = 4096
"""Frames of a block that are handled at a time: a long block is not copied again for each window."""
_OF_FRAMES: Final = ("frame_index", "pts", "time_s")


@dataclass(frozen=True)
class Window:
    """The frames of a window with its context."""

    block: FrameBlock
    track_ids: NDArray[np.int32]
    """(n,) one per person row, -1 without track."""
    start: int
    """Position of the first frame of the window itself."""
    stop: int
    """Position after its last frame."""


class FrameWindows:
    """Collects blocks of frames and gives windows of ``length_s`` seconds, counted from the first frame.

    Memory is bounded by a window with its context, and a block.
    """

    def __init__(self, length_s: float, context_s: float) -> None:
        self._length, self._context = length_s, context_s
        self._held: list[tuple[FrameBlock, NDArray[np.int32]]] = []
        self._origin: float | None = None
        self._done = 0
        """Windows before this one are given."""

    def add(self, block: FrameBlock, track_ids: NDArray[np.int32]) -> Iterator[Window]:
        """The windows that end, with their context, before the last frame of ``block``. ``track_ids`` are (n,)."""
        for first in range(0, len(block.frame_index), _PIECE):
            piece, rows = frames_between(block, first, first + _PIECE)
            self._held.append((piece, track_ids[rows]))
            self._origin = float(piece.time_s[0]) if self._origin is None else self._origin
            yield from self._complete(float(piece.time_s[-1]))

    def finish(self) -> Iterator[Window]:
        """The remaining windows."""
        yield from self._complete(np.inf)

    def _complete(self, until: float) -> Iterator[Window]:
        while self._held:
            number = self._next_number()
            if number is None or until < self._edge(number + 1) + self._context:
                return
            yield self._window(number)
            self._done = number + 1

    def _edge(self, number: int) -> float:
        assert self._origin is not None
        return self._origin + number * self._length

    def _next_number(self) -> int | None:
        """Number of the first window that is not given and has a frame."""
        edge = self._edge(self._done)
        for block, _ in self._held:
            if block.time_s[-1] >= edge:
                time = block.time_s[np.searchsorted(block.time_s, edge)]
                number = max(self._done, int((time - self._edge(0)) // self._length))
                while time >= self._edge(number + 1):  # the division rounds
                    number += 1
                return number
        return None

    def _window(self, number: int) -> Window:
        block, ids = _joined(self._held)
        low, start, stop, high = np.searchsorted(
            block.time_s,
            [
                self._edge(number) - self._context,
                self._edge(number),
                self._edge(number + 1),
                self._edge(number + 1) + self._context,
            ],
        ).tolist()
        part, rows = frames_between(block, low, high)
        keep = int(np.searchsorted(block.time_s, self._edge(number + 1) - self._context))
        kept, kept_rows = frames_between(block, keep, len(block.frame_index))
        self._held = [(kept, ids[kept_rows])] if len(kept.frame_index) else []
        return Window(part, ids[rows], start - low, stop - low)


def frames_between(block: FrameBlock, low: int, high: int) -> tuple[FrameBlock, slice]:
    """The frames from ``low`` to ``high``, and which rows these are."""
    rows = slice(*np.searchsorted(block.frame, [low, high]).tolist())
    values = {
        field.name: getattr(block, field.name)[slice(low, high) if field.name in _OF_FRAMES else rows]
        for field in fields(block)
    }
    return FrameBlock(**values | {"frame": values["frame"] - low}), rows


def _joined(parts: list[tuple[FrameBlock, NDArray[np.int32]]]) -> tuple[FrameBlock, NDArray[np.int32]]:
    if len(parts) == 1:
        return parts[0]
    blocks = [block for block, _ in parts]
    values = {
        field.name: np.concatenate([getattr(block, field.name) for block in blocks]) for field in fields(blocks[0])
    }
    before = np.cumsum([0, *(len(block.frame_index) for block in blocks[:-1])])
    values["frame"] = np.concatenate([block.frame + first for block, first in zip(blocks, before, strict=True)])
    return FrameBlock(**values), np.concatenate([ids for _, ids in parts])
