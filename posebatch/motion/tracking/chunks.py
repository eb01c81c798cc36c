"""Chunks of a video's rows: cut at the same frames, whatever the blocks that deliver them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.motion.blocks import FrameBlock

CHUNK_FRAMES: Final = 1024


CHUNK_ROWS: Final = 4096
"""A chunk ends at the first frame at which it has `CHUNK_FRAMES` frames or this many persons."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive frames (f) and their persons (n). ``first_order`` and ``first_row`` count from the video's start."""

    first_order: int
    first_row: int
    frame_index: NDArray[np.int64]
    """(f,)"""
    time_s: NDArray[np.float64]
    """(f,)"""
    frame: NDArray[np.int64]
    """(n,) position in ``frame_index``, ascending."""
    bbox_xyxy: NDArray[np.float64]
    """(n, 4) pixels."""
    bbox_scores: NDArray[np.float32]
    """(n,)"""
    keypoints: NDArray[np.float32]
    """(n, 17, 3) x, y in pixels, score."""


def chunks(blocks: Iterable[FrameBlock]) -> Iterator[Chunk]:
    """Chunks of the frames of ``blocks``. Their ends depend on the frames alone, not on the blocks."""
    order = row = 0
    for block in _merged(blocks):
        chunk = Chunk(
            order,
            row,
            block.frame_index,
            block.time_s,
            block.frame,
            block.bbox_xyxy.astype(np.float64),
            block.bbox_scores,
            block.keypoints,
        )
        order += len(block.frame_index)
        row += len(block.frame)
        yield chunk


def _merged(blocks: Iterable[FrameBlock]) -> Iterator[FrameBlock]:
    pending: list[FrameBlock] = []
    frames = rows = 0
    for block in blocks:
        pending.append(block)
        frames += len(block.frame_index)
        rows += len(block.frame)
        if frames < CHUNK_FRAMES and rows < CHUNK_ROWS:
            continue
        rest = _concatenated(pending)
        while (end := _chunk_end(rest)) is not None:
            yield _part(rest, 0, end)
            rest = _part(rest, end, len(rest.frame_index))
        pending, frames, rows = [rest], len(rest.frame_index), len(rest.frame)
    if frames:
        yield _concatenated(pending)


def _chunk_end(block: FrameBlock) -> int | None:
    """Number of frames of the chunk at the start of ``block``, None if the block does not complete it."""
    end = CHUNK_FRAMES
    if len(block.frame) >= CHUNK_ROWS:
        end = min(end, int(block.frame[CHUNK_ROWS - 1]) + 1)
    return end if end <= len(block.frame_index) else None


def _concatenated(blocks: list[FrameBlock]) -> FrameBlock:
    if len(blocks) == 1:
        return blocks[0]
    starts = np.cumsum([0, *(len(block.frame_index) for block in blocks)])
    return FrameBlock(
        np.concatenate([block.frame_index for block in blocks]),
        np.concatenate([block.pts for block in blocks]),
        np.concatenate([block.time_s for block in blocks]),
        np.concatenate([block.frame + start for block, start in zip(blocks, starts[:-1], strict=True)]),
        np.concatenate([block.person for block in blocks]),
        np.concatenate([block.bbox_xyxy for block in blocks]),
        np.concatenate([block.bbox_scores for block in blocks]),
        np.concatenate([block.pose_scores for block in blocks]),
        np.concatenate([block.keypoints for block in blocks]),
    )


def _part(block: FrameBlock, first: int, last: int) -> FrameBlock:
    """Frames ``first`` to ``last - 1`` of a block."""
    rows = slice(*np.searchsorted(block.frame, [first, last]))
    frames = slice(first, last)
    return FrameBlock(
        block.frame_index[frames],
        block.pts[frames],
        block.time_s[frames],
        block.frame[rows] - first,
        block.person[rows],
        block.bbox_xyxy[rows],
        block.bbox_scores[rows],
        block.pose_scores[rows],
        block.keypoints[rows],
    )
