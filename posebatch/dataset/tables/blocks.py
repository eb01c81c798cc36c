"""Frames and persons as arrays (`FrameBlock`): from staged frames, and from the two stored tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import IO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from posebatch.core.errors import StorageError
from posebatch.core.frames import FramePoses
from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.dataset.tables.parquet import open_parquet
from posebatch.dataset.tables.rows import person_columns, seconds_of
from posebatch.dataset.tables.schemas import BBOX, KEYPOINT_COLUMNS
from posebatch.motion.blocks import FrameBlock

FRAMES_PER_BLOCK: Final = 2048
"""Frames of a block from stored tables. Bounds the memory for it, with at most 300 persons a frame."""


_NUMBERS: Final = (*BBOX, "bbox_score", "pose_score", *KEYPOINT_COLUMNS)


def frame_block(frames: Sequence[FramePoses], time_base: Fraction) -> FrameBlock:
    """Consecutive processed frames as a block."""
    counts = [len(frame) for frame in frames]
    boxes, scores, pose_scores, keypoints = person_columns(frames)
    pts = np.array([frame.record.pts for frame in frames], np.int64)
    return FrameBlock(
        frame_index=np.array([frame.record.frame_index for frame in frames], np.int64),
        pts=pts,
        time_s=seconds_of(pts, time_base),
        frame=np.repeat(np.arange(len(frames)), counts),
        person=_ranks(np.array(counts, np.int64)),
        bbox_xyxy=boxes,
        bbox_scores=scores,
        pose_scores=pose_scores,
        keypoints=keypoints,
    )


def stored_blocks(
    frames_file: IO[bytes], poses_file: IO[bytes], frames_per_block: int = FRAMES_PER_BLOCK
) -> Iterator[FrameBlock]:
    """The frames of a video with their persons, from its two published tables, in blocks.

    No Python object is made for a frame or a person. Raises `StorageError` if the tables cannot be read or do not count
    the same persons, and `NewerOutputError` if a later version of posebatch wrote them.
    """
    try:
        yield from _stored_blocks(frames_file, poses_file, frames_per_block)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise StorageError(f"the stored tables cannot be read: {' '.join(str(error).split())}") from error


def _stored_blocks(frames_file: IO[bytes], poses_file: IO[bytes], frames_per_block: int) -> Iterator[FrameBlock]:
    columns = ["frame_index", "pts", "time_s", "num_persons"]
    persons = _PersonRows(open_parquet(poses_file), frames_per_block)
    for batch in open_parquet(frames_file).iter_batches(frames_per_block, columns=columns):
        counts = batch["num_persons"].to_numpy().astype(np.int64)
        index, person, numbers = persons.take(int(counts.sum()))
        frame = np.repeat(np.arange(len(counts)), counts)
        frame_index = batch["frame_index"].to_numpy()
        if not np.array_equal(frame_index[frame], index):
            raise ValueError("the frames and the poses table do not count the same persons")
        yield FrameBlock(
            frame_index=frame_index,
            pts=batch["pts"].to_numpy(),
            time_s=batch["time_s"].to_numpy(),
            frame=frame,
            person=person,
            bbox_xyxy=numbers[:, :4].copy(),
            bbox_scores=numbers[:, 4].copy(),
            pose_scores=numbers[:, 5].copy(),
            keypoints=numbers[:, 6:].reshape(-1, NUM_KEYPOINTS, 3),
        )
    if persons.take_rest():
        raise ValueError("the poses table goes on after the last frame of the frames table")


class _PersonRows:
    """The rows of a poses table, taken a number at a time."""

    def __init__(self, file: pq.ParquetFile, batch_rows: int) -> None:
        self._batches = file.iter_batches(batch_rows, columns=["frame_index", "person", *_NUMBERS])
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0

    def take(self, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """frame_index (n,), person (n,) and numbers (n, 57) of the next ``rows`` rows, or of fewer at the end."""
        while self._rows < rows and (batch := next(self._batches, None)) is not None:
            self._waiting.append(batch)
            self._rows += batch.num_rows
        taken: list[pa.RecordBatch] = []
        while rows and self._waiting:
            first = self._waiting.pop(0)
            taken.append(first.slice(0, rows))
            if first.num_rows > rows:
                self._waiting.insert(0, first.slice(rows))
            rows -= taken[-1].num_rows
            self._rows -= taken[-1].num_rows
        index = [batch["frame_index"].to_numpy() for batch in taken]
        person = [batch["person"].to_numpy() for batch in taken]
        numbers = np.empty((sum(map(len, index)), len(_NUMBERS)), np.float32)
        for column, name in enumerate(_NUMBERS):
            if taken:
                numbers[:, column] = np.concatenate([batch[name].to_numpy() for batch in taken])
        return (
            np.concatenate([np.zeros(0, np.int64), *index]),
            np.concatenate([np.zeros(0, np.int32), *person]),
            numbers,
        )

    def take_rest(self) -> bool:
        """Whether rows are left."""
        return self._rows > 0 or next(self._batches, None) is not None


def _ranks(counts: NDArray[np.int64]) -> NDArray[np.int32]:
    """0, 1, ... for the persons of each frame."""
    starts = np.cumsum(counts) - counts
    return (np.arange(counts.sum()) - np.repeat(starts, counts)).astype(np.int32)
