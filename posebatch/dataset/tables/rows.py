"""Rows of the tables ``poses`` and ``frames``: made from `FramePoses`, and read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.core.redaction import utf8_text
from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.core.videos import SourceVideo, VideoInfo
from posebatch.dataset.tables.parquet import open_parquet
from posebatch.dataset.tables.schemas import BBOX, FRAMES_SCHEMA, KEYPOINT_COLUMNS, POSES_SCHEMA, ROW_GROUP_ROWS


def person_columns(
    frames: Sequence[FramePoses],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Boxes (n, 4), box scores (n,), pose scores (n,) and keypoints (n, 17, 3) of all frames, concatenated."""
    return (
        _joined([frame.bbox_xyxy for frame in frames], 4),
        _joined([frame.bbox_scores for frame in frames]),
        _joined([frame.pose_scores for frame in frames]),
        _joined([frame.keypoints for frame in frames], NUM_KEYPOINTS, 3),
    )


def provenance(
    video: SourceVideo, info: VideoInfo, sampling: Mapping[str, Any], models: Mapping[str, str], fingerprint: str
) -> dict[str, str]:
    """Metadata of a published table about its origin. It depends only on source, weights and settings."""
    return {
        "posebatch.video": utf8_text(video.uri),
        "posebatch.etag": video.etag,
        "posebatch.sampling": json.dumps(sampling),
        "posebatch.models": json.dumps(models),
        "posebatch.settings_fingerprint": fingerprint,
        "posebatch.time_base": str(info.time_base),
        "posebatch.frame_width": str(info.width),
        "posebatch.frame_height": str(info.height),
    }


def poses_table(frames: Sequence[FramePoses], video: str, time_base: Fraction) -> pa.Table:
    """Rows of the poses table, for the processed frames of a video in order."""
    counts = [len(frame) for frame in frames]
    boxes, scores, pose_scores, keypoints = person_columns(frames)
    flat = keypoints.reshape(-1, NUM_KEYPOINTS * 3)
    person = [rank for count in counts for rank in range(count)]
    columns = [
        constant(video, len(person)),
        *(np.repeat(column, counts) for column in _timing(frames, time_base)),
        pa.array(person, pa.int32()),
        pa.nulls(len(person), pa.int32()),
        *(boxes[:, i] for i in range(4)),
        scores,
        pose_scores,
        *(flat[:, i] for i in range(NUM_KEYPOINTS * 3)),
    ]
    return pa.table(columns, schema=POSES_SCHEMA)


def frames_table(frames: Sequence[FramePoses], video: str, time_base: Fraction) -> pa.Table:
    """Rows of the frames table, for the processed frames of a video in order."""
    columns = [
        constant(video, len(frames)),
        *_timing(frames, time_base),
        pa.array([frame.record.is_keyframe for frame in frames], pa.bool_()),
        pa.array([frame.record.status for frame in frames], pa.string()),
        pa.array([frame.record.time_status for frame in frames], pa.string()),
        pa.array([len(frame) for frame in frames], pa.int32()),
    ]
    return pa.table(columns, schema=FRAMES_SCHEMA)


DATA_TABLES: Final[Mapping[str, tuple[Callable[[Sequence[FramePoses], str, Fraction], pa.Table], pa.Schema]]] = {
    "poses": (poses_table, POSES_SCHEMA),
    "frames": (frames_table, FRAMES_SCHEMA),
}
"""For each kind of table that is made from frames: the function that makes its rows, and its schema."""


def published_frames(frames_content: bytes, poses_content: bytes) -> Iterator[FramePoses]:
    """The frames of a video with their persons, from its two published tables. Reads one row group at a time.

    Raises `NewerOutputError` if a later version of posebatch wrote a table.
    """
    persons_of_frames = _persons_by_frame(open_parquet(poses_content))
    pending = next(persons_of_frames, None)
    file = open_parquet(frames_content)
    stored = ("frame_index", "pts", "is_keyframe", "status", "time_status")
    names = [name for name in stored if name in file.schema_arrow.names]  # version 2 has no time_status
    for batch in file.iter_batches(ROW_GROUP_ROWS, columns=names):
        for row in batch.to_pylist():
            record = FrameRecord(**row)
            if pending is None or pending[0] != record.frame_index:
                yield FramePoses.empty(record)
                continue
            _, persons, track_ids = pending
            yield FramePoses(
                record,
                persons[:, :4],
                persons[:, 4],
                persons[:, 5],
                persons[:, 6:].reshape(-1, NUM_KEYPOINTS, 3),
                track_ids=track_ids,
            )
            pending = next(persons_of_frames, None)


def _persons_by_frame(file: pq.ParquetFile) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.int32]]]:
    """frame_index, persons (n, 4 + 2 + 51) and their tracks (n,) of each frame with persons.

    A person is a box, two scores and keypoints; -1 is no track.
    """
    names = [*BBOX, "bbox_score", "pose_score", *KEYPOINT_COLUMNS]
    # the last frame, whose persons may continue in the next batch
    last: list[tuple[int, NDArray[np.float32], NDArray[np.int32]]] = []
    for batch in file.iter_batches(ROW_GROUP_ROWS, columns=["frame_index", "track_id", *names]):
        index = batch["frame_index"].to_numpy()
        tracks = batch["track_id"].fill_null(-1).to_numpy()
        numbers = np.stack([batch[name].to_numpy() for name in names], axis=1)
        starts = np.flatnonzero(np.diff(index, prepend=index[0] - 1))
        for a, b in zip(starts, [*starts[1:], len(index)], strict=True):
            if last and last[0][0] == index[a]:
                _, persons, before = last[0]
                joined = np.concatenate([persons, numbers[a:b]]), np.concatenate([before, tracks[a:b]])
                last = [(int(index[a]), *joined)]
                continue
            yield from last
            last = [(int(index[a]), numbers[a:b], tracks[a:b])]
    yield from last


def _timing(frames: Sequence[FramePoses], time_base: Fraction) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    index = np.array([frame.record.frame_index for frame in frames], np.int64)
    pts = np.array([frame.record.pts for frame in frames], np.int64)
    return index, pts, seconds_of(pts, time_base)


def seconds_of(pts: NDArray[np.int64], time_base: Fraction) -> NDArray[np.float64]:
    """The column ``time_s`` for ``pts``. `verify` compares it bit by bit, so it is computed only here."""
    seconds: NDArray[np.float64] = pts * time_base.numerator / time_base.denominator
    return seconds


def _joined(arrays: Sequence[NDArray[np.float32]], *shape: int) -> NDArray[np.float32]:
    return np.concatenate([np.zeros((0, *shape), np.float32), *arrays])


def constant(value: str, length: int) -> pa.DictionaryArray:
    """A column of ``length`` rows with the same text, such as ``video``."""
    return pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(length, np.int32)), pa.array([utf8_text(value)], pa.string())
    )
