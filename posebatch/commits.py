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

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, Final

from posebatch.errors import NewerOutputError, ObjectNotFoundError, StagedError, StorageError, UnsupportedError
from posebatch.storage import Store, StoredObject
from posebatch.tables import SCHEMA_VERSION, published_frames, read_staged, record_from_bytes, record_to_bytes
from posebatch.types import FramePoses, Segment, SegmentReport, SourceVideo, VideoRecord

DATA_FOLDERS = ("poses", "frames", "previews")
"""Folders of objects that a commit record vouches for."""


RECORDS = "videos/"
ATTEMPTS = "_state/attempts/"
LEDGER_KEY = f"_state/ledger/1-{SCHEMA_VERSION}"
"""Raise the first number when its bytes mean something else. No version goes by what a later one says of records."""


@dataclass(frozen=True)
class Committed:
    """A commit record as it lies in the store."""

    output_path: str
    """Of its video."""
    etag: str
    """Of the record's own object."""
    record: VideoRecord


def record_key(output_path: str) -> str:
    """Where a video's commit record lies."""
    return f"{RECORDS}{output_path}.parquet"


def data_key(folder: str, output_path: str) -> str:
    """Where an object of a video lies in one of `DATA_FOLDERS`."""
    return f"{folder}/{output_path}.{'gif' if folder == 'previews' else 'parquet'}"


def read_record(store: Store, output_path: str) -> VideoRecord | None:
    """A video's commit record; None when there is none. Raises `NewerOutputError`, and `StorageError` for damage."""
    key = record_key(output_path)
    try:
        return _parsed(store, key, store.read(key))
    except ObjectNotFoundError:
        return None


def fetch_record(store: Store, output_path: str) -> Committed | None:
    """The same with the etag of what was read."""
    key = record_key(output_path)
    try:
        content, etag = store.fetch(key)
    except ObjectNotFoundError:
        return None
    return Committed(output_path, etag, _parsed(store, key, content))


def _parsed(store: Store, key: str, content: bytes) -> VideoRecord:
    try:
        return record_from_bytes(content)
    except (StorageError, NewerOutputError) as error:
        raise type(error)(f"{store.uri(key)}: {error}") from error


def list_records(store: Store) -> Iterator[tuple[str, str]]:
    """Output path and etag of every commit record, by a thousand with each request."""
    for found in _listed(store, RECORDS):
        if found.key.endswith(".parquet"):
            yield found.key[len(RECORDS) : -len(".parquet")], found.etag


def list_attempts(store: Store) -> Iterator[str]:
    """The ids of all works that were tried in vain."""
    return (found.key.removeprefix(ATTEMPTS).removesuffix(".json") for found in _listed(store, ATTEMPTS))


def _listed(store: Store, prefix: str) -> Iterator[StoredObject]:
    """An output that does not exist yet holds nothing."""
    with suppress(ObjectNotFoundError):
        yield from store.list(prefix)


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

    def commit(self, record: VideoRecord) -> Committed:
        """Write the commit record: from here on the video is done."""
        put = self._put(record_key(self.output_path), record_to_bytes(record))
        return Committed(self.output_path, put.etag, record)

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


def publish_failure(store: Store, output_path: str, record: VideoRecord) -> Committed:
    """Record a failed video. What an older version of it had published is taken away first: it is outdated, and a
    reader of the folders must not take it for current.
    """
    publication = Publication.begin(store, output_path).withdrawn()
    for folder in DATA_FOLDERS:
        publication.delete(folder)
    return publication.commit(record)


@dataclass(frozen=True)
class Tries:
    """How often a video was tried in vain."""

    attempts: int = 0
    kills: int = 0
    """Among them, how often it ended the process that worked on it."""


NONE_IN_VAIN: Final = Tries()


@dataclass(frozen=True)
class Work:
    """The staging area of one video in one version, under one set of settings."""

    store: Store
    work_id: str

    @classmethod
    def of(cls, store: Store, video: SourceVideo, data_fingerprint: str) -> Work:
        """The staging area for a video; the same for every run that would compute the same rows."""
        identity = json.dumps([video.uri, video.output_path, video.etag, data_fingerprint])
        return cls(store, hashlib.sha256(identity.encode()).hexdigest()[:32])

    @property
    def _staging(self) -> str:
        return f"_state/staging/{self.work_id}/"

    def segment_key(self, segment: Segment) -> str:
        """Where a segment is staged; its place in the video is in the name, so another cut is another key."""
        length = "rest" if segment.num_packets is None else str(segment.num_packets)
        return f"{self._staging}{segment.first_packet:09d}-{length}.arrow"

    @property
    def preview_key(self) -> str:
        """Where a preview waits for its tables."""
        return f"{self._staging}preview.gif"

    def staged_keys(self) -> set[str]:
        """The keys of everything staged."""
        return {found.key for found in self.store.list(self._staging)}

    def stage(self, segment: Segment, content: IO[bytes]) -> None:
        """Checkpoint a finished segment: what a `StagedWriter` wrote."""
        self.store.put(self.segment_key(segment), content)

    def read_segment(self, segment: Segment) -> tuple[Iterator[list[FramePoses]], SegmentReport]:
        """A staged segment's frames, a piece at a time, and its report.

        What cannot be read (another version of posebatch may have staged it) is removed, so that it is done again:
        `ObjectNotFoundError`, as for a segment that was never staged.
        """
        key = self.segment_key(segment)
        try:
            return read_staged(self.store.read(key))
        except StagedError as error:
            self.store.delete(key)
            raise ObjectNotFoundError(f"{self.store.uri(key)}: {error}; it is done again") from error

    def clear(self, keys: Iterable[str] | None = None) -> None:
        """Remove everything staged, and the count of attempts."""
        for key in self.staged_keys() if keys is None else keys:
            self.store.delete(key)
        self.store.delete(self._attempts_key)

    @property
    def _attempts_key(self) -> str:
        return f"{ATTEMPTS}{self.work_id}.json"

    def tries(self) -> Tries:
        """How often this work was tried in vain, over all runs."""
        try:
            noted = json.loads(self.store.read(self._attempts_key))
            return Tries(int(noted["attempts"]), int(noted.get("kills", 0)))
        except ObjectNotFoundError:
            return NONE_IN_VAIN
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self.store.uri(self._attempts_key)}: not a count of attempts; delete it") from error

    def note_attempt(self, tries: Tries, kind: str, error: str) -> None:
        """Remember a failed try beyond the end of this run."""
        content = json.dumps({**vars(tries), "error_kind": kind, "error": error})
        self.store.put(self._attempts_key, content.encode())
