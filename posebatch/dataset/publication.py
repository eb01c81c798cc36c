"""What is done, what is staged, and how results become visible.

Keys below the output root::

    poses/PATH.parquet, frames/PATH.parquet, previews/PATH.gif   the data
    videos/PATH.parquet                                          the commit record, written last
    _state/staging/WORK/...                                      finished segments of unfinished videos
    _state/attempts/WORK.json                                    how often a video was tried in vain
    _state/ledger/...                                            what the records say, to save reading them all

WORK identifies a video's content and everything that shapes its rows, so what is staged for one version of the source
or the settings is never taken for another. Every put is one whole object under a key that depends on nothing else;
whoever is late writes the same bytes again, or, if another version was published meanwhile, is refused (`Publication`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO

from posebatch.core.errors import NewerOutputError, ObjectNotFoundError, StorageError, UnsupportedError
from posebatch.core.frames import FramePoses
from posebatch.core.records import VideoRecord
from posebatch.dataset.layout import DATA_FOLDERS, RECORDS, data_key, record_key
from posebatch.dataset.staging import listed
from posebatch.dataset.tables.records import record_from_bytes, record_to_bytes
from posebatch.dataset.tables.rows import published_frames
from posebatch.storage.store import Store, StoredObject


@dataclass(frozen=True)
class CommittedRecord:
    """A commit record as it lies in the store."""

    output_path: str
    """Of its video."""
    etag: str
    """Of the record's own object."""
    record: VideoRecord


def read_record(store: Store, output_path: str) -> VideoRecord | None:
    """A video's commit record; None when there is none. Raises `NewerOutputError`, and `StorageError` for damage."""
    key = record_key(output_path)
    try:
        return _parsed(store, key, store.read(key))
    except ObjectNotFoundError:
        return None


def fetch_record(store: Store, output_path: str) -> CommittedRecord | None:
    """The same with the etag of what was read."""
    key = record_key(output_path)
    try:
        content, etag = store.fetch(key)
    except ObjectNotFoundError:
        return None
    return CommittedRecord(output_path, etag, _parsed(store, key, content))


def _parsed(store: Store, key: str, content: bytes) -> VideoRecord:
    try:
        return record_from_bytes(content)
    except (StorageError, NewerOutputError) as error:
        raise type(error)(f"{store.uri(key)}: {error}") from error


def list_records(store: Store) -> Iterator[tuple[str, str]]:
    """Output path and etag of every commit record, by a thousand with each request."""
    for found in listed(store, RECORDS):
        if found.key.endswith(".parquet"):
            yield found.key[len(RECORDS) : -len(".parquet")], found.etag


def read_published_frames(store: Store, output_path: str) -> Iterator[FramePoses]:
    """A published video's processed frames with their persons, in order."""
    contents = (store.read(data_key(folder, output_path)) for folder in ("frames", "poses"))
    return published_frames(*contents)


@dataclass(frozen=True)
class Publication:
    """One try to publish a video, which writes only over what was there when it began.

    A process that died may have a put under way that arrives when a successor has published another version. The store
    refuses it then, so tables of one version never stand beside the record of another. Whoever is refused while alive
    (`PutRefusedError`, retryable) begins a new publication, which looks anew. Where a store has no conditional puts,
    they are plain ones.
    """

    store: Store
    output_path: str
    seen: Mapping[str, str | None]
    """The etag of each of the video's objects when the publication began; None where there was none."""

    @classmethod
    def begin(cls, store: Store, output_path: str) -> Publication:
        """Look at what is there."""
        keys = [*(data_key(folder, output_path) for folder in DATA_FOLDERS), record_key(output_path)]
        return cls(store, output_path, {key: _etag(store, key) for key in keys})

    def put(self, folder: str, content: bytes | IO[bytes]) -> StoredObject:
        """Write the video's object in one of `DATA_FOLDERS`."""
        return self._put(data_key(folder, self.output_path), content)

    def withdrawn(self) -> Publication:
        """The same, once an older commit record has been taken away.

        To be done before anything that it vouches for changes: should this process die amid that, no record vouches for
        tables of another version.
        """
        key = record_key(self.output_path)
        self._delete(key)
        return replace(self, seen={**self.seen, key: None})

    def delete(self, folder: str) -> None:
        """Remove the video's object in one of `DATA_FOLDERS`, if there was one."""
        self._delete(data_key(folder, self.output_path))

    def commit(self, record: VideoRecord) -> CommittedRecord:
        """Write the commit record: from here on the video is done."""
        put = self._put(record_key(self.output_path), record_to_bytes(record))
        return CommittedRecord(self.output_path, put.etag, record)

    def _delete(self, key: str) -> None:
        etag = self.seen[key]
        if etag is None:
            return
        try:
            self.store.delete(key, etag)
        except UnsupportedError:
            self.store.delete(key)

    def _put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        try:
            return self.store.put_if(key, content, self.seen[key])
        except UnsupportedError:
            return self.store.put(key, content)


def _etag(store: Store, key: str) -> str | None:
    try:
        return store.head(key).etag
    except ObjectNotFoundError:
        return None


def publish_failure(store: Store, output_path: str, record: VideoRecord) -> CommittedRecord:
    """Record a failed video. What an older version of it had published is taken away first: it is outdated, and a
    reader of the folders must not take it for current.
    """
    publication = Publication.begin(store, output_path).withdrawn()
    for folder in DATA_FOLDERS:
        publication.delete(folder)
    return publication.commit(record)
