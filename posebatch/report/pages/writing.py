"""Write the pages about a run, and about videos, into an output."""

from __future__ import annotations

import fnmatch
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.errors import DamagedRecordError, InputError, ObjectNotFoundError
from posebatch.core.records import PublishedObject, VideoRecord
from posebatch.dataset.layout import FRAMES, MOTION, PREVIEWS, TRACKS
from posebatch.dataset.publication import fetch_if_readable, list_records
from posebatch.dataset.tables.page_data import (
    MovementRows,
    no_rows,
    read_frame_line,
    read_movement_rows,
    read_track_rows,
)
from posebatch.report.pages.addresses import MOST_PAGES, VIDEO_PAGE, run_page_key
from posebatch.report.pages.pictures import skeleton_drawing, stills, text_bytes, thumbnail
from posebatch.report.pages.player_data import PlayerData, player_data
from posebatch.report.pages.run_differences import differences
from posebatch.report.pages.run_facts import RunFacts, VideoLine, chosen_run, read_run
from posebatch.report.pages.run_page import RunMaterial, run_page, worst_videos
from posebatch.report.pages.video_page import VideoMaterial, video_page
from posebatch.storage.open import open_newest
from posebatch.storage.store import Store

PAGES_AT_ONCE: Final = 4
"""Pages in work: a large one takes some 200 MB."""


MOST_IN_MEMORY: Final = 64 << 20
"""Bytes of a motion table. A larger one is read in parts."""


@dataclass(frozen=True)
class Written:
    """What a report has written."""

    run_page: str
    """Key of the page of the run."""
    pages: int
    """Pages of videos."""
    left_out: int
    """Videos that were wanted but are beyond the limit."""
    damaged: tuple[str, ...]
    """For each video without a page because its commit record is damaged, the error."""


@dataclass(frozen=True)
class _Paged:
    """A video whose page is written."""

    output_path: str
    thumbnail: str | None
    reason: str


def write_report(
    store: Store,
    run_id: str | None = None,
    match: str | None = None,
    most: int = MOST_PAGES,
    endpoint_url: str | None = None,
) -> Written:
    """Write the page of a run, by default the last one, and pages of videos.

    Pages are made for the videos that the run worked on, the worst first; with ``match``, for the videos of the output
    whose path matches the glob. No more than ``most`` of them. ``endpoint_url`` is that of the store. Raises
    `InputError` if there is no such run, or no video that matches.
    """
    chosen, before = chosen_run(store, run_id)
    facts = read_run(store, chosen)
    wanted = _of_run(facts) if match is None else _matching(store, match)
    with ThreadPoolExecutor(PAGES_AT_ONCE) as threads:
        pages = list(threads.map(lambda path: _write_page(store, path, endpoint_url), wanted[:most]))
    made = [page for page in pages if isinstance(page, _Paged)]
    paged = {VIDEO_PAGE.output_path(listed.key) for listed in store.list(f"{VIDEO_PAGE.folder}/")}
    material = RunMaterial(
        store.root,
        facts,
        None if before is None else differences(read_run(store, before), facts),
        frozenset(path for path in paged if path is not None),
        {page.output_path: page.thumbnail for page in made if page.thumbnail},
        {page.output_path: page.reason for page in made},
    )
    key = run_page_key(chosen)
    store.put(key, run_page(material).encode("utf-8", "backslashreplace"))
    damaged = tuple(str(page) for page in pages if isinstance(page, DamagedRecordError))
    return Written(key, len(made), max(0, len(wanted) - most), damaged)


def _of_run(facts: RunFacts) -> list[str]:
    """Output paths of the videos of a run, the worst and the partial ones first."""
    first = [*worst_videos(facts.lines), *(line for line in facts.lines if line.status == "partial")]
    ordered: list[VideoLine] = [*first, *facts.lines]
    return list(dict.fromkeys(line.output_path for line in ordered if line.output_path is not None))


def _matching(store: Store, match: str) -> list[str]:
    paths = [path for path, _ in list_records(store) if fnmatch.fnmatchcase(path, match)]
    if not paths:
        examples = ", ".join(path for path, _ in islice(list_records(store), 3))
        raise InputError(f"--match {match}: no published video has such a path; the output holds {examples or 'none'}")
    return paths


def _write_page(store: Store, output_path: str, endpoint_url: str | None) -> _Paged | DamagedRecordError | None:
    """Write the page of a video; None if it is published no more, or has no tables."""
    committed = fetch_if_readable(store, output_path)
    if isinstance(committed, DamagedRecordError):
        return committed
    if committed is None or committed.record.status == "failed":
        return None
    record = committed.record
    preview = _preview(store, record)
    tracks = _content(store, record, TRACKS.kind)
    rows = read_track_rows(tracks) if tracks else []
    motion = _Motion(store, _published(record, MOTION.kind), endpoint_url)
    shown = stills(preview) if preview else []
    player = _player(record, _content(store, record, FRAMES.kind), motion, text_bytes(shown))
    material = VideoMaterial(output_path, record, player, rows, shown)
    store.put(VIDEO_PAGE.key(output_path), video_page(material).encode("utf-8", "backslashreplace"))
    picture = thumbnail(preview) if preview else _drawn(record, motion, rows)
    return _Paged(output_path, picture, next((row["grade_reason"] or "" for row in rows if row["is_main"]), ""))


class _Motion:
    """The motion table of a video, or none."""

    def __init__(self, store: Store, published: PublishedObject | None, endpoint_url: str | None) -> None:
        self._store, self._published, self._endpoint_url = store, published, endpoint_url

    def rows(self, frames: NDArray[np.int64]) -> MovementRows:
        """The rows of some frames; none if there is no table, or if it was replaced meanwhile."""
        try:
            return self._read(frames)
        except ObjectNotFoundError:
            return no_rows()

    def _read(self, frames: NDArray[np.int64]) -> MovementRows:
        if self._published is None:
            return no_rows()
        key = self._published.key
        if self._published.size_bytes <= MOST_IN_MEMORY:
            return read_movement_rows(self._store.read(key), frames)
        with open_newest(self._store.uri(key), self._endpoint_url) as file:
            return read_movement_rows(file, frames)


def _player(record: VideoRecord, frames: bytes | None, motion: _Motion, stills_bytes: int) -> PlayerData | None:
    if frames is None or record.info is None:
        return None
    line = read_frame_line(frames)
    motion_table = _published(record, MOTION.kind)
    rows = motion_table.rows if motion_table else 0
    if not len(line):
        return None
    return player_data(line, motion.rows, (record.info.width, record.info.height), rows, stills_bytes)


def _drawn(record: VideoRecord, motion: _Motion, tracks: list[dict[str, Any]]) -> str | None:
    """A drawing of the frame in the middle of the main track, or of the longest; None without tracks."""
    if not tracks or record.info is None:
        return None
    track = max(tracks, key=lambda row: (row["is_main"], row["frames_seen"]))
    middle = np.arange((track["first_frame"] + track["last_frame"]) // 2, track["last_frame"] + 1)[:200]
    rows = motion.rows(middle)
    if not len(rows):
        return None
    persons = rows.joints[rows.frame_index == rows.frame_index.min()]
    return skeleton_drawing(persons, (record.info.width, record.info.height))


def _preview(store: Store, record: VideoRecord) -> bytes | None:
    """The preview that shows most of the video: an MP4 is the whole of it, the others may be its beginning."""
    contents = (_content(store, record, PREVIEWS[form].kind) for form in ("mp4", "webp", "gif"))
    return next((content for content in contents if content is not None), None)


def _content(store: Store, record: VideoRecord, kind: str) -> bytes | None:
    """A published object of a video; None if it has none, or if it was replaced meanwhile."""
    published = _published(record, kind)
    if published is None:
        return None
    try:
        return store.read(published.key)
    except ObjectNotFoundError:
        return None


def _published(record: VideoRecord, kind: str) -> PublishedObject | None:
    return next((published for published in record.objects if published.kind == kind), None)
