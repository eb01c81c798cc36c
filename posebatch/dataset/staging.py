"""The staging area of a video: finished segments and failed attempts, kept until the video is published."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final

from posebatch.core.errors import ObjectNotFoundError, StagedError, StorageError
from posebatch.core.frames import FramePoses
from posebatch.core.records import SegmentReport
from posebatch.core.videos import Segment, SourceVideo
from posebatch.dataset.layout import ATTEMPTS, STAGING, Artifact
from posebatch.dataset.tables.schemas import STAGED_VERSION
from posebatch.dataset.tables.staged import read_staged
from posebatch.storage.store import Store, StoredObject


def list_attempts(store: Store) -> Iterator[str]:
    """The work ids of all videos that have failed attempts."""
    return (listed.key.removeprefix(ATTEMPTS).removesuffix(".json") for listed in list_existing(store, ATTEMPTS))


def list_existing(store: Store, prefix: str) -> Iterator[StoredObject]:
    """The objects below ``prefix``; none if the output does not exist yet."""
    with suppress(ObjectNotFoundError):
        yield from store.list(prefix)


@dataclass(frozen=True)
class FailedAttempts:
    """How often processing a video failed, over all runs."""

    attempts: int = 0
    kills: int = 0
    """Worker crashes among the failed attempts."""


NO_FAILED_ATTEMPTS: Final = FailedAttempts()


@dataclass(frozen=True)
class StagingArea:
    """The staging area of one version of a video under one set of settings."""

    store: Store
    work_id: str
    """32 hexadecimal digits of a SHA-256 over everything that determines the rows, so no other version can match."""

    @classmethod
    def of(cls, store: Store, video: SourceVideo, data_fingerprint: str) -> StagingArea:
        """The staging area of a video. Runs that would compute the same rows share it.

        Versions with other staged segments do not: these would have other frames or fewer columns.
        """
        identity = json.dumps([video.uri, video.output_path, video.etag, data_fingerprint, STAGED_VERSION])
        return cls(store, hashlib.sha256(identity.encode()).hexdigest()[:32])

    @property
    def _prefix(self) -> str:
        return f"{STAGING}{self.work_id}/"

    def segment_key(self, segment: Segment) -> str:
        """Key of a staged segment. It contains the segment's range, so a different split gets different keys."""
        length = "rest" if segment.num_packets is None else str(segment.num_packets)
        return f"{self._prefix}{segment.first_packet:09d}-{length}.arrow"

    def preview_key(self, artifact: Artifact) -> str:
        """Key of a preview, which is staged until the tables are published."""
        return f"{self._prefix}{artifact.kind}.{artifact.suffix}"

    def staged_keys(self) -> set[str]:
        """Keys of everything that is staged."""
        return {listed.key for listed in self.store.list(self._prefix)}

    @property
    def _index_key(self) -> str:
        return f"{self._prefix}packets.index"

    def read_index(self) -> bytes | None:
        """The index of the video's packets, as `stage_index` wrote it; None if there is none."""
        try:
            return self.store.read(self._index_key)
        except ObjectNotFoundError:
            return None

    def stage_index(self, content: bytes) -> None:
        """Keep the index of the video's packets, so that no other process and no later run has to make it."""
        self.store.put(self._index_key, content)

    def stage(self, segment: Segment, content: IO[bytes]) -> None:
        """Checkpoint a finished segment, as a `StagedWriter` wrote it."""
        self.store.put(self.segment_key(segment), content)

    def read_segment(self, segment: Segment) -> tuple[Iterator[list[FramePoses]], SegmentReport]:
        """Read a staged segment: its frames in batches, and its report.

        Raises `ObjectNotFoundError` if the segment is not staged. An unreadable one, such as another version of
        posebatch may have staged, is removed and raises the same error, so that it is computed again.
        """
        key = self.segment_key(segment)
        try:
            return read_staged(self.store.read(key))
        except StagedError as error:
            self.store.delete(key)
            raise ObjectNotFoundError(f"{self.store.uri(key)}: {error}; it is computed again") from error

    def clear(self, keys: Iterable[str] | None = None) -> None:
        """Remove the failed attempts and the staged ``keys`` (all of them when None)."""
        for key in self.staged_keys() if keys is None else keys:
            self.store.delete(key)
        self.store.delete(self._attempts_key)

    @property
    def _attempts_key(self) -> str:
        return f"{ATTEMPTS}{self.work_id}.json"

    def failed_attempts(self) -> FailedAttempts:
        """Read the failed attempts of all runs. Raises `StorageError` if their file is damaged."""
        try:
            content = json.loads(self.store.read(self._attempts_key))
            return FailedAttempts(int(content["attempts"]), int(content.get("kills", 0)))
        except ObjectNotFoundError:
            return NO_FAILED_ATTEMPTS
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self.store.uri(self._attempts_key)}: not a count of attempts; delete it") from error

    def note_attempt(self, attempts: FailedAttempts, kind: str, error: str) -> None:
        """Write the failed attempts so that later runs count them too."""
        content = json.dumps({**vars(attempts), "error_kind": kind, "error": error})
        self.store.put(self._attempts_key, content.encode())
