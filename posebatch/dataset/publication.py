"""Publish the results of a video so that readers never see half of them.

Artifacts are written first and the commit record last. Work on a video is done if and only if it has a commit record,
and the record lists every published object with its size and checksum. Keys are those of `posebatch.dataset.layout`.

Every put writes one whole object. A process that repeats the work of another writes the same bytes again. If another
version of the video was published in the meantime, its puts are refused (see `Publication`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO

from posebatch.core.errors import DamagedRecordError, NewerOutputError, ObjectNotFoundError, UnsupportedError
from posebatch.core.frames import FramePoses
from posebatch.core.records import VideoRecord
from posebatch.dataset.layout import FRAMES, POSES, RECORDS, Artifact, artifact_keys, record_key, recorded_path
from posebatch.dataset.staging import list_existing
from posebatch.dataset.tables.records import record_from_bytes, record_to_bytes
from posebatch.dataset.tables.rows import published_frames
from posebatch.storage.store import Store, StoredObject


@dataclass(frozen=True)
class CommittedRecord:
    """A commit record and the object that holds it."""

    output_path: str
    """The output path of the video."""
    etag: str
    """The ETag of the record's object."""
    record: VideoRecord


def read_record(store: Store, output_path: str) -> VideoRecord | None:
    """Read a video's commit record; None if it has none.

    Raises `DamagedRecordError` if it cannot be read, `NewerOutputError` if a later version of posebatch wrote it.
    """
    key = record_key(output_path)
    try:
        return _parse_record(store, key, store.read(key))
    except ObjectNotFoundError:
        return None


def fetch_record(store: Store, output_path: str) -> CommittedRecord | None:
    """Read a video's commit record together with its ETag. Returns and raises as `read_record`."""
    key = record_key(output_path)
    try:
        content, etag = store.fetch(key)
    except ObjectNotFoundError:
        return None
    return CommittedRecord(output_path, etag, _parse_record(store, key, content))


def fetch_if_readable(store: Store, output_path: str) -> CommittedRecord | DamagedRecordError | None:
    """As `fetch_record`, but a damaged record is the error itself: one must not end the work on many videos."""
    try:
        return fetch_record(store, output_path)
    except DamagedRecordError as error:
        return error


def _parse_record(store: Store, key: str, content: bytes) -> VideoRecord:
    try:
        return record_from_bytes(content)
    except (DamagedRecordError, NewerOutputError) as error:
        raise type(error)(f"{store.uri(key)}: {error}") from error


def list_records(store: Store, folder: str = "") -> Iterator[tuple[str, str]]:
    """Output path and ETag of every commit record. Reads no record; S3 lists 1,000 with each request.

    ``folder``: only of output paths that begin with it; empty, or with a slash at the end.
    """
    for listed in list_existing(store, RECORDS + folder):
        path = recorded_path(listed.key)
        if path is not None:
            yield path, listed.etag


def read_published_frames(store: Store, output_path: str) -> Iterator[FramePoses]:
    """The processed frames of a published video with their persons, in order."""
    return published_frames(store.read(FRAMES.key(output_path)), store.read(POSES.key(output_path)))


@dataclass(frozen=True)
class Publication:
    """One attempt to publish a video. It overwrites only the objects that were there when it began.

    A put of a dead process may still arrive after a successor has published another version. The conditional put is
    refused then, so tables of one version never stand beside the record of another. A live process that is refused
    gets `PutRefusedError` (retryable) and begins a new publication. A store without conditional puts gets plain ones.
    """

    store: Store
    output_path: str
    seen: Mapping[str, str | None]
    """The ETag of each object of the video when the publication began; None if it did not exist."""

    @classmethod
    def begin(cls, store: Store, output_path: str) -> Publication:
        """Note the ETags of all objects that the video has now."""
        keys = [*artifact_keys(output_path), record_key(output_path)]
        return cls(store, output_path, {key: _etag(store, key) for key in keys})

    def withdrawn(self) -> Publication:
        """Remove the older commit record, if there is one, and return the publication that continues from there.

        Call this before any object that the record lists is overwritten. If this process dies in between, no record
        vouches for tables of another version.
        """
        key = record_key(self.output_path)
        self._delete(key)
        return replace(self, seen={**self.seen, key: None})

    def marked(self, record: VideoRecord) -> Publication:
        """Replace the commit record by one that vouches for less; returns the publication that continues from there.

        Call this before objects are overwritten that can be derived again. The record stays present all the time: a
        video without one would be computed again from its pixels.
        """
        key = record_key(self.output_path)
        stored = self._put(key, record_to_bytes(record))
        return replace(self, seen={**self.seen, key: stored.etag})

    def put(self, artifact: Artifact, content: bytes | IO[bytes]) -> StoredObject:
        """Write an artifact of the video. Raises `PutRefusedError` if another process has written it since."""
        return self._put(artifact.key(self.output_path), content)

    def commit(self, record: VideoRecord) -> CommittedRecord:
        """Write the commit record: the video is done. First, artifacts that the record does not list are removed.

        They belong to an older version of the video, and readers of the folders would take them for current.
        """
        listed = {published.key for published in record.objects}
        for key in artifact_keys(self.output_path):
            if key not in listed:
                self._delete(key)
        stored = self._put(record_key(self.output_path), record_to_bytes(record))
        return CommittedRecord(self.output_path, stored.etag, record)

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
    """Record that a video failed, and remove everything that was published for it before."""
    return Publication.begin(store, output_path).withdrawn().commit(record)
