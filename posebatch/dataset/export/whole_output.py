"""Export the videos of an output: read each, convert it, write its files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posebatch.core.errors import DamagedRecordError, InputError
from posebatch.core.extras import need
from posebatch.core.records import VideoRecord
from posebatch.core.wording import counted
from posebatch.dataset.export.files import ExportedFile
from posebatch.dataset.export.formats import format_called
from posebatch.dataset.export.reading import (
    MotionChoice,
    TrackChoice,
    chosen_tracks,
    has_motion,
    matching_videos,
    read_all_tracks,
    read_video_motion,
)
from posebatch.storage.addresses import is_s3, local_path
from posebatch.storage.disk_errors import translated_disk_errors
from posebatch.storage.open import open_store
from posebatch.storage.spool import write_atomically
from posebatch.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ExportedVideo:
    """What became of one video."""

    output_path: str
    files: tuple[str, ...] = ()
    """Addresses of its files."""
    notes: tuple[str, ...] = ()
    """What the user should know, such as an assumed height, or why there is no file."""
    is_incomplete: bool = False
    """Whether a file is missing that was asked for."""


def export_output(
    output: str,
    to: str,
    format_name: str,
    match: str = "*",
    choice: MotionChoice | None = None,
    endpoint_url: str | None = None,
) -> Iterator[ExportedVideo]:
    """Write the files of each video at its path below ``to``, and yield each video when its files are written.

    Files of the same name are replaced, no other file is touched. Raises `UsageError` for an unknown format or a
    missing library, and `InputError` if no video matches, none has motion, or none has the chosen track, before
    anything is written.
    """
    chosen_format, choice = format_called(format_name), choice or MotionChoice()
    need(*chosen_format.libraries)
    store = open_store(output, endpoint_url)
    put = _target(to, store, endpoint_url)
    videos = matching_videos(store, match)
    readable = [(path, record) for path, record in videos if not isinstance(record, DamagedRecordError)]
    _check_motion(store, output, readable)
    _check_track(store, readable, choice.track)
    for output_path, record in videos:
        yield _export_video(store, output_path, record, chosen_format.files, choice, put)


def _export_video(
    store: Store,
    output_path: str,
    record: VideoRecord | DamagedRecordError,
    files_of: Callable[..., Iterator[ExportedFile]],
    choice: MotionChoice,
    put: Callable[[str, bytes], str],
) -> ExportedVideo:
    if isinstance(record, DamagedRecordError):
        return ExportedVideo(output_path, (), (str(record),), is_incomplete=True)
    if record.status == "failed":
        return ExportedVideo(output_path, (), ("the video failed, so there is nothing to export",))
    if not has_motion(record):
        return ExportedVideo(output_path, (), ("no motion: `posebatch derive` computes it",), is_incomplete=True)
    every = read_all_tracks(store, output_path)
    tracks = chosen_tracks(every, choice.track)
    if tracks.empty:
        return ExportedVideo(output_path, (), (_without_track(every, choice.track),))
    addresses, notes, is_refused = [], [], False
    for file in files_of(read_video_motion(store, output_path, record, tracks, choice)):
        if file.content is not None:
            addresses.append(put(f"{output_path}{file.suffix}", file.content))
        if file.note:
            notes.append(f"{file.suffix[1:]}: {file.note}")
        is_refused |= file.is_refused
    return ExportedVideo(output_path, tuple(addresses), tuple(notes), is_refused or not addresses)


def _without_track(every: pd.DataFrame, choice: TrackChoice) -> str:
    if every.empty:
        return "no tracks, so there is nothing to export"
    return f"{_wanted(choice)} is not there; {_those(every)}"


def _wanted(choice: TrackChoice) -> str:
    return "a main track" if choice == "main" else f"track {choice}"


def _those(tracks: pd.DataFrame) -> str:
    ids = [str(track_id) for track_id in tracks.track_id]
    shown = ids if len(ids) <= 20 else [*ids[:20], f"and {len(ids) - 20} more"]
    return f"it has {counted(len(ids), 'track')}: {', '.join(shown)}"


def _check_motion(store: Store, output: str, videos: list[tuple[str, VideoRecord]]) -> None:
    usable = [record for _, record in videos if record.status != "failed"]
    if usable and not any(has_motion(record) for record in usable):
        raise InputError(
            f"{store.root}: {counted(len(usable), 'video')} without tracks and motion; compute them first: posebatch "
            f"derive --output {output}"
        )


def _check_track(store: Store, videos: list[tuple[str, VideoRecord]], choice: TrackChoice) -> None:
    """Raise `InputError` if no video has the chosen track, although some have tracks."""
    if choice == "all":
        return
    lacking = []
    for output_path, record in videos:
        if not has_motion(record):
            continue
        every = read_all_tracks(store, output_path)
        if not chosen_tracks(every, choice).empty:
            return
        if not every.empty:
            lacking.append(f"{output_path}: {_without_track(every, choice)}")
    if lacking:
        others = counted(len(lacking) - 1, "more video has", "more videos have")
        more = f" ({others} none either)" if len(lacking) > 1 else ""
        raise InputError(f"{lacking[0]}{more}")


def _target(to: str, source: Store, endpoint_url: str | None) -> Callable[[str, bytes], str]:
    """The function that writes one file below ``to`` and returns its address.

    Raises `InputError` if ``to`` lies in the output that is exported: readers of its folders would take the files for
    tables, and ``gc`` for leftovers.
    """
    root = to.rstrip("/") if is_s3(to) else local_path(to)
    if f"{root}/".startswith(f"{source.root.rstrip('/')}/"):
        raise InputError(f"--to {to}: it lies in the output {source.root}; choose a folder outside")
    if is_s3(to):
        store = open_store(root, endpoint_url)
        return lambda key, content: store.uri(store.put(key, content).key)

    def put(key: str, content: bytes) -> str:
        path = Path(root, key)
        with translated_disk_errors(str(path)):
            os.makedirs(path.parent, exist_ok=True)
            write_atomically(path, lambda file: file.write(content), path.with_name(f".{uuid.uuid4().hex}.part"))
        return str(path)

    return put
