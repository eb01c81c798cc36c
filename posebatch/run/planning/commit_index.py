"""How every video stands: by its commit record, or by the ledger where a listing of the records proves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import islice
from typing import Final

from posebatch.core.errors import ObjectNotFoundError
from posebatch.core.videos import SourceVideo
from posebatch.dataset.layout import LEDGER_KEY
from posebatch.dataset.publication import CommittedRecord, fetch_record, list_records
from posebatch.dataset.staging import NO_FAILED_ATTEMPTS, FailedAttempts, StagingArea, list_attempts
from posebatch.run.planning.decisions import CommitSummary
from posebatch.run.planning.ledger import Ledger, LedgerBuilder, Listing, digests, merged
from posebatch.storage.store import Store

ASKED_TOGETHER: Final = 64
"""Videos that are asked about at once."""


READING_THREADS: Final = 16
"""Commit records that are read at once."""


FEW_VIDEOS: Final = 1000
"""So many records are read one by one: that is at most a thousand reads, where the records to list may be millions."""


Watch = Callable[[Iterator[tuple[str, str]]], Iterator[tuple[str, str]]]


class CommitIndex:
    """What an output says of the videos of one run. Begins with `open`; what the run adds is kept by `save`."""

    def __init__(self, store: Store, videos: int = 0) -> None:
        """``videos``: how many will be asked about."""
        self._store, self._few = store, videos <= FEW_VIDEOS
        self._listing: Listing | None = None
        self._proven = Ledger.empty()
        self._dropped = 0
        self._read, self._committed = LedgerBuilder(), LedgerBuilder()  # one for each thread that adds to it

    def open(self, watch: Watch = lambda found: found) -> str:
        """List the records and load the ledger, unless the videos are few; a second call does nothing.

        Returns what is worth saying, or nothing. ``watch`` is put around the listing, which it may break off.
        """
        if self._few or self._listing is not None:
            return ""
        listing, ledger = Listing(watch(list_records(self._store))), self._load()
        self._listing, self._proven = listing, ledger.proven(listing)
        self._dropped = len(ledger) - len(self._proven)
        unknown = len(listing) - len(self._proven)
        if unknown <= FEW_VIDEOS:
            return ""
        return f"{unknown} of {len(listing)} commit records are not in the ledger: it is being rebuilt by reading them"

    def of(self, videos: Iterable[SourceVideo]) -> Iterator[tuple[SourceVideo, CommitSummary | None]]:
        """Each video and how it stands; None: it has no commit record."""
        coming = iter(videos)
        while together := list(islice(coming, ASKED_TOGETHER)):
            yield from zip(together, self._of(together), strict=True)

    def _of(self, videos: Sequence[SourceVideo]) -> list[CommitSummary | None]:
        paths = digests(video.output_path for video in videos)
        standings = self._proven.standings(paths)
        there = [True] * len(videos) if self._listing is None else self._listing.holds(paths).tolist()
        unread = [i for i, standing in enumerate(standings) if standing is None and there[i]]
        for i, found in zip(unread, self._fetch([videos[i].output_path for i in unread]), strict=True):
            if found is not None:
                standing = standings[i] = CommitSummary.of(found.record)
                self._read.add(found.output_path, found.etag, standing)
        return standings

    def tries(self, video: SourceVideo, data_fingerprint: str) -> FailedAttempts:
        """How often a video was tried in vain, in earlier runs."""
        work = StagingArea.of(self._store, video, data_fingerprint)
        return work.failed_attempts() if work.work_id in self._tried else NO_FAILED_ATTEMPTS

    def note(self, done: CommittedRecord) -> None:
        """Remember a record that this run has written."""
        self._committed.add(done.output_path, done.etag, CommitSummary.of(done.record))

    def save(self) -> None:
        """Write the ledger, if the records were listed and it would say anything new."""
        if self._listing is None:
            return
        parts = [self._proven, self._read.ledger(), self._committed.ledger()]
        if self._dropped or any(map(len, parts[1:])):
            self._store.put(LEDGER_KEY, merged(parts).to_bytes())

    def _load(self) -> Ledger:
        try:
            return Ledger.from_bytes(self._store.read(LEDGER_KEY))
        except (ObjectNotFoundError, ValueError):  # lost or damaged: nothing is known, and every record is read
            return Ledger.empty()

    def _fetch(self, output_paths: list[str]) -> list[CommittedRecord | None]:
        if not output_paths:
            return []
        with ThreadPoolExecutor(READING_THREADS) as threads:
            return list(threads.map(partial(fetch_record, self._store), output_paths))

    @cached_property
    def _tried(self) -> frozenset[str]:
        return frozenset(list_attempts(self._store))
