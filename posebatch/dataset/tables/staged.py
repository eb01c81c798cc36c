"""The staged file of a segment: its frames and its report, as an Arrow IPC file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Final

import numpy as np
import pyarrow as pa

from posebatch.core.errors import StagedError
from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.core.records import DecodeReport, SegmentReport, StageSeconds
from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.dataset.tables.rows import person_columns
from posebatch.dataset.tables.schemas import PERSON, STAGED_SCHEMA

FRAMES_PER_BATCH: Final = 512
"""Frames of a record batch. Bounds the memory for writing and reading a long segment."""


class StagedWriter:
    """Writes the frames of a segment one by one, in batches of `FRAMES_PER_BATCH`."""

    def __init__(self, sink: IO[bytes]) -> None:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_file(sink, STAGED_SCHEMA, options=options)
        self._waiting: list[FramePoses] = []

    def add(self, frame: FramePoses) -> None:
        """Append the next frame."""
        self._waiting.append(frame)
        if len(self._waiting) == FRAMES_PER_BATCH:
            self._write({})

    def close(self, report: SegmentReport) -> None:
        """Write the remaining frames and the report."""
        parts = {"decode": vars(report.decode), "seconds": vars(report.seconds), "device": report.device}
        self._write({"report": json.dumps(parts)})
        self._writer.close()

    def _write(self, metadata: Mapping[str, str]) -> None:
        self._writer.write_batch(_staged_batch(self._waiting), custom_metadata=metadata)
        self._waiting = []


def read_staged(content: bytes) -> tuple[Iterator[list[FramePoses]], SegmentReport]:
    """Read a file of a `StagedWriter`: the frames in batches, and the report.

    Raises `StagedError` for a damaged file, and for a file that another version of posebatch wrote in another form.
    """
    try:
        file = pa.ipc.open_file(content)
        if not file.schema.equals(STAGED_SCHEMA):
            raise ValueError("its columns are those of another version of posebatch")
        _, metadata = file.get_batch_with_custom_metadata(file.num_record_batches - 1)
        parts = json.loads(metadata[b"report"])
        report = SegmentReport(DecodeReport(**parts["decode"]), StageSeconds(**parts["seconds"]), parts["device"])
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise StagedError(f"a staged segment cannot be read: {error}") from error
    return (_frames(file.get_batch(i)) for i in range(file.num_record_batches)), report


def _staged_batch(frames: Sequence[FramePoses]) -> pa.RecordBatch:
    columns = [
        pa.array([frame.record.frame_index for frame in frames], pa.int64()),
        pa.array([frame.record.pts for frame in frames], pa.int64()),
        pa.array([frame.record.is_keyframe for frame in frames], pa.bool_()),
        pa.array([frame.record.status for frame in frames], pa.string()),
        pa.array([frame.record.time_status for frame in frames], pa.string()),
        _persons(frames),
    ]
    return pa.record_batch(columns, schema=STAGED_SCHEMA)


def _persons(frames: Sequence[FramePoses]) -> pa.ListArray:
    """The persons of all frames, as one list per frame."""
    boxes, scores, pose_scores, keypoints = person_columns(frames)
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(boxes.reshape(-1)), 4),
        pa.array(scores),
        pa.array(pose_scores),
        pa.FixedSizeListArray.from_arrays(pa.array(keypoints.reshape(-1)), NUM_KEYPOINTS * 3),
    ]
    offsets = np.cumsum([0, *(len(frame) for frame in frames)])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.StructArray.from_arrays(columns, fields=list(PERSON))
    )


def _frames(batch: pa.RecordBatch) -> list[FramePoses]:
    """The inverse of `_staged_batch`."""
    persons = batch["persons"]
    ends = np.cumsum([0, *persons.value_lengths().to_pylist()])
    flat = persons.flatten()
    boxes = flat.field("bbox_xyxy").flatten().to_numpy().reshape(-1, 4)
    scores, pose_scores = flat.field("bbox_score").to_numpy(), flat.field("pose_score").to_numpy()
    keypoints = flat.field("keypoints").flatten().to_numpy().reshape(-1, NUM_KEYPOINTS, 3)
    timing = batch.drop_columns(["persons"]).to_pylist()
    return [
        FramePoses(FrameRecord(**row), boxes[a:b], scores[a:b], pose_scores[a:b], keypoints[a:b])
        for row, a, b in zip(timing, ends[:-1], ends[1:], strict=True)
    ]
