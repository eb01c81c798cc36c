"""The staging area of a video: finished segments and failed attempts, kept until publication."""

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
from posebatch.dataset.layout import ATTEMPTS
from posebatch.dataset.tables.staged import read_staged
from posebatch.storage.store import Store, StoredObject


def list_attempts(store: Store) -> Iterator[str]:
    """The ids of all works that were tried in vain."""
    return (found.key.removeprefix(ATTEMPTS).removesuffix(".json") for found in listed(store, ATTEMPTS))


def listed(store: Store, prefix: str) -> Iterator[StoredObject]:
    """An output that does not exist yet holds nothing."""
    with suppress(ObjectNotFoundError):
        yield from store.list(prefix)


@dataclass(frozen=True)
class FailedAttempts:
    """How often a video was tried in vain."""

    attempts: int = 0
    kills: int = 0
    """Among them, how often it ended the process that worked on it."""


NO_FAILED_ATTEMPTS: Final = FailedAttempts()


@dataclass(frozen=True)
class StagingArea:
    """The staging area of one video in one version, under one set of settings."""

    store: Store
    work_id: str

    @classmethod
    def of(cls, store: Store, video: SourceVideo, data_fingerprint: str) -> StagingArea:
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

    def tries(self) -> FailedAttempts:
        """How often this work was tried in vain, over all runs."""
        try:
            noted = json.loads(self.store.read(self._attempts_key))
            return FailedAttempts(int(noted["attempts"]), int(noted.get("kills", 0)))
        except ObjectNotFoundError:
            return NO_FAILED_ATTEMPTS
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self.store.uri(self._attempts_key)}: not a count of attempts; delete it") from error

    def note_attempt(self, tries: FailedAttempts, kind: str, error: str) -> None:
        """Remember a failed try beyond the end of this run."""
        content = json.dumps({**vars(tries), "error_kind": kind, "error": error})
        self.store.put(self._attempts_key, content.encode())
