"""Read published videos for a compaction: each with all of its tables, of one publication, checked by checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

from posebatch.core.errors import NewerOutputError, ObjectNotFoundError, StorageError
from posebatch.core.records import PublishedObject, VideoRecord
from posebatch.dataset.compaction.names import DATA_TABLES
from posebatch.dataset.layout import record_key
from posebatch.dataset.tables.records import record_from_bytes
from posebatch.storage.store import Store

READ_THREADS: Final = 16


VIDEOS_AHEAD: Final = 64
"""Commit records that are read at once."""


BYTES_AHEAD: Final = 64 << 20
"""Bytes of tables that are read at once; the tables of one video may have more."""


@dataclass(frozen=True)
class ListedVideo:
    """A commit record as the listing shows it."""

    path: str
    """The output path of the video."""
    etag: str
    """The ETag of the record."""
    day: str
    """See `posebatch.dataset.compaction.partitions.published_day`."""


@dataclass(frozen=True)
class TakenTable:
    """One table of a video, as published."""

    content: bytes
    etag: str
    rows: int
    """As its record states them."""


@dataclass(frozen=True)
class TakenVideo:
    """A video whose tables are those that its commit record lists."""

    listed: ListedVideo
    record: bytes
    """The commit record: the file of one row."""
    tables: Mapping[str, TakenTable]
    """By the name of the table."""


@dataclass(frozen=True)
class LeftVideo:
    """A video that this compaction leaves to the next one; readers read its small files."""

    path: str
    why: str
    is_problem: bool
    """Whether something is wrong with it, so that the next compaction will leave it, too."""


def take_videos(store: Store, videos: Iterable[ListedVideo]) -> Iterator[TakenVideo | LeftVideo]:
    """Read videos in their order, some ahead. Raises `NewerOutputError` if a later version has published one."""
    waiting = iter(videos)
    with ThreadPoolExecutor(READ_THREADS) as threads:
        while chunk := list(islice(waiting, VIDEOS_AHEAD)):
            found = list(threads.map(lambda video: _fetch_record(store, video), chunk))
            for group in _groups(found):
                yield from threads.map(lambda one: one if isinstance(one, LeftVideo) else _take(store, one), group)


@dataclass(frozen=True)
class _Found:
    """A commit record that is the listed one."""

    listed: ListedVideo
    content: bytes
    record: VideoRecord


def _groups(found: Sequence[_Found | LeftVideo]) -> Iterator[list[_Found | LeftVideo]]:
    """Consecutive videos whose tables have at most `BYTES_AHEAD` bytes together, at least one."""
    group: list[_Found | LeftVideo] = []
    group_bytes = 0
    for one in found:
        size = 0 if isinstance(one, LeftVideo) else sum(published.size_bytes for published in _tables(one.record))
        if group and group_bytes + size > BYTES_AHEAD:
            yield group
            group, group_bytes = [], 0
        group.append(one)
        group_bytes += size
    if group:
        yield group


def _tables(record: VideoRecord) -> list[PublishedObject]:
    return [published for published in record.objects if published.kind in DATA_TABLES]


def _fetch_record(store: Store, video: ListedVideo) -> _Found | LeftVideo:
    key = record_key(video.path)
    try:
        content, etag = store.fetch(key)
        record = record_from_bytes(content)
    except ObjectNotFoundError:
        return _left(video.path)
    except NewerOutputError as error:
        raise NewerOutputError(f"{store.uri(key)}: {error}") from error
    except StorageError as error:
        if error.retryable:
            raise
        return LeftVideo(video.path, f"{key}: {error}", is_problem=True)
    if etag != video.etag:
        return _left(video.path)
    if record.is_being_derived:
        return LeftVideo(video.path, "its tracks are being derived", is_problem=False)
    return _Found(video, content, record)


def _take(store: Store, found: _Found) -> TakenVideo | LeftVideo:
    tables = {}
    published_tables = _tables(found.record)
    try:
        for published in published_tables:
            content, etag = store.fetch(published.key)
            if not _is_published(content, published):
                return _unlike(store, found, f"{published.key}: its bytes are not those that its record lists")
            tables[published.kind] = TakenTable(content, etag, published.rows)
    except ObjectNotFoundError as error:
        return _unlike(store, found, str(error))
    has_checksums = all(published.sha256 is not None for published in published_tables)
    # without checksums the record must be unchanged: it is withdrawn before a table is replaced
    if not has_checksums and not _is_current(store, found.listed):
        return _left(found.listed.path)
    return TakenVideo(found.listed, found.content, tables)


def _is_published(content: bytes, published: PublishedObject) -> bool:
    if len(content) != published.size_bytes:
        return False
    return published.sha256 in (None, hashlib.sha256(content).hexdigest())


def _unlike(store: Store, found: _Found, why: str) -> LeftVideo:
    """A video whose tables are not those of its record: it is being published again, or is damaged."""
    path = found.listed.path
    return LeftVideo(path, why, is_problem=True) if _is_current(store, found.listed) else _left(path)


def _is_current(store: Store, listed: ListedVideo) -> bool:
    try:
        return store.head(record_key(listed.path)).etag == listed.etag
    except ObjectNotFoundError:
        return False


def _left(path: str) -> LeftVideo:
    return LeftVideo(path, "it was published again, or removed, while it was being read", is_problem=False)
