"""Read the movement of published videos for an export."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from posebatch.core.errors import DamagedRecordError, InputError, StorageError
from posebatch.core.records import VideoRecord
from posebatch.dataset.export.video_motion import BOX_COLUMNS, BodyHeight, VideoMotion
from posebatch.dataset.layout import FRAMES, MOTION, POSES, TRACKS, Artifact
from posebatch.dataset.publication import fetch_if_readable, list_records
from posebatch.dataset.tables.parquet import read_table
from posebatch.dataset.tables.schemas import KEYPOINT_COLUMNS, MOTION_SCHEMA
from posebatch.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd

TrackChoice = int | Literal["all", "main"]


_ROW: Final = ["frame_index", "person"]
"""What a row of motion and a row of poses have in common."""


@dataclass(frozen=True)
class MotionChoice:
    """What to read of each video."""

    track: TrackChoice = "all"
    raw: bool = False
    """Take joints from ``poses``, as the networks found them, instead of the smoothed ones of ``motion``."""
    body: BodyHeight = field(default_factory=BodyHeight)


def matching_videos(store: Store, match: str) -> list[tuple[str, VideoRecord | DamagedRecordError]]:
    """Output path and commit record of each video whose path matches a glob, as `read_motion` matches them.

    A record that cannot be read is the error itself. Raises `InputError` if no video matches.
    """
    found: list[tuple[str, VideoRecord | DamagedRecordError]] = []
    for output_path, _ in list_records(store):
        if fnmatch.fnmatchcase(output_path, match):
            committed = fetch_if_readable(store, output_path)
            if isinstance(committed, DamagedRecordError):
                found.append((output_path, committed))
            elif committed is not None:  # else it was removed since it was listed
                found.append((output_path, committed.record))
    if not found:
        raise InputError(f"{store.uri('videos')}: no video matches {match!r}; is it an output?")
    return found


def has_motion(record: VideoRecord) -> bool:
    """Whether tracks and motion of a video are published."""
    kinds = {published.kind for published in record.objects}
    return {TRACKS.kind, MOTION.kind} <= kinds


def read_all_tracks(store: Store, output_path: str) -> pd.DataFrame:
    """The rows of the table ``tracks`` of a video."""
    return _read(store, TRACKS, output_path).assign(video=_video_name).sort_values("track_id", ignore_index=True)


def chosen_tracks(tracks: pd.DataFrame, choice: TrackChoice) -> pd.DataFrame:
    """The rows of the chosen tracks; none if the video does not have them."""
    if choice == "all":
        return tracks
    chosen = tracks.is_main if choice == "main" else tracks.track_id == choice
    return tracks[chosen].reset_index(drop=True)


def read_video_motion(
    store: Store, output_path: str, record: VideoRecord, tracks: pd.DataFrame, choice: MotionChoice
) -> VideoMotion:
    """The movement of these tracks of a video."""
    if record.info is None:
        raise StorageError(f"{output_path}: its commit record has tracks, but no properties of the video")
    motion = _read(store, MOTION, output_path).assign(video=_video_name)
    motion = motion[motion.track_id.isin(tracks.track_id)].sort_values(["frame_index", "track_id"], ignore_index=True)
    poses = _read(store, POSES, output_path, [*_ROW, *BOX_COLUMNS, *(KEYPOINT_COLUMNS if choice.raw else ())])
    smoothed = _joined(motion, poses[[*_ROW, *BOX_COLUMNS]])
    return VideoMotion(
        video=record.video,
        width=record.info.width,
        height=record.info.height,
        fps=record.info.avg_fps,
        frames=_read(store, FRAMES, output_path, ["frame_index", "time_s"]),
        tracks=tracks,
        rows=_joined(motion.drop(columns=list(KEYPOINT_COLUMNS)), poses) if choice.raw else smoothed,
        smoothed=smoothed,
        body=choice.body,
    )


def _joined(motion: pd.DataFrame, poses: pd.DataFrame) -> pd.DataFrame:
    """Rows of motion with the columns of the same persons in poses; NaN in gaps."""
    rows = motion.merge(poses, how="left", on=_ROW)[[*MOTION_SCHEMA.names, *BOX_COLUMNS]]
    return rows.astype({"person": "Int32"})


def _video_name(table: pd.DataFrame) -> pd.Series[str]:
    return table.video.astype(object)


def _read(store: Store, artifact: Artifact, output_path: str, columns: list[str] | None = None) -> pd.DataFrame:
    key = artifact.key(output_path)
    try:
        return read_table(store.read(key), artifact.schemas, columns).to_pandas()
    except ValueError as error:
        raise StorageError(f"{store.uri(key)}: {error}") from error
