"""What the output already holds for each video, read from commit records or taken from the ledger.

The ledger counts for a video only if the listed ETag of its record still matches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Final, Self

from posebatch.core.errors import DamagedRecordError, ObjectNotFoundError, PosebatchError
from posebatch.core.shards import Shard
from posebatch.core.videos import SourceVideo
from posebatch.dataset.layout import ledger_key
from posebatch.dataset.publication import CommittedRecord, fetch_if_readable, list_records
from posebatch.dataset.staging import NO_FAILED_ATTEMPTS, FailedAttempts, StagingArea, list_attempts
from posebatch.run.planning.decisions import DAMAGED, CommitSummary
from posebatch.run.planning.ledger import Ledger, LedgerBuilder, RecordListing, digests, merge
from posebatch.storage.store import Store

BATCH_VIDEOS: Final = 64
"""Videos that are looked up together."""


READING_THREADS: Final = 16
"""Commit records that are read at once."""


FEW_VIDEOS: Final = 1000
"""Up to this number, records are read one by one: the output may hold millions, which would all have to be listed."""


@dataclass(frozen=True)
class Scope:
    """The commit records that a run may ask for."""

    part: Shard | None = None
    """Only those of this shard, which has a ledger of its own."""
    folder: str = ""
    """Only those below this folder of output paths; empty, or with a slash at the end."""


EVERYTHING: Final = Scope()


class CommitIndex:
    """The commit records of an output, as far as one run needs them.

    A context manager: on exit it saves the ledger for the next run. Code that must not write does not enter it.

    >>> with CommitIndex.load(store, expected_videos=len(videos)) as index:  # doctest: +SKIP
    ...     for video, summary in index.summaries(videos):
    ...         print(video.uri, summary is not None)
    """

    def __init__(
        self,
        store: Store,
        listing: RecordListing | None,
        ledger: Ledger,
        say: Callable[[str], None] = print,
        scope: Scope = EVERYTHING,
    ) -> None:
        """``listing``: the records of the scope; None: read each record that is asked for, and keep no ledger."""
        self._store, self._listing, self._say, self._scope = store, listing, say, scope
        self._known = ledger if listing is None else ledger.matching(listing)
        # A listing of one folder says nothing about others. Their entries stay in the ledger; nothing asks for them.
        self._unlisted = Ledger.empty() if listing is None or not scope.folder else ledger.not_in(listing)
        self._outdated = len(ledger) - len(self._known) - len(self._unlisted)
        # One builder for each thread that adds to it: the planner reads records, the scheduler commits them.
        self._read, self._committed = LedgerBuilder(), LedgerBuilder()
        self.notice = ""
        """What the user should know about the index; usually empty."""

    @classmethod
    def load(
        cls,
        store: Store,
        expected_videos: int,
        scope: Scope = EVERYTHING,
        *,
        few_videos: int = FEW_VIDEOS,
        on_listed: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = print,
    ) -> CommitIndex:
        """List the commit records of the ``scope`` and read its ledger, unless the videos are few.

        ``on_listed`` is called for each listed record and may raise, to stop the listing. ``say`` receives the message
        that the ledger could not be saved. Raises `StorageError`.
        """
        if expected_videos <= few_videos:
            return cls(store, None, Ledger.empty(), say, scope)
        listing = RecordListing(_each(list_records(store, scope.folder), on_listed), scope.part)
        index = cls(store, listing, _read_ledger(store, scope.part), say, scope)
        unknown = len(listing) - len(index._known)
        if unknown > few_videos:
            index.notice = (
                f"{unknown} of {len(listing)} commit records are not in the ledger: it is being rebuilt by reading them"
            )
        return index

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._save()
        except PosebatchError as error:  # the ledger only saves requests, so its loss must not fail the run
            self._say(f"posebatch: the ledger could not be written, the next run reads more: {error}")

    def summaries(self, videos: Iterable[SourceVideo]) -> Iterator[tuple[SourceVideo, CommitSummary | None]]:
        """Each video with the summary of its commit record, `DAMAGED`, or None if it has no record."""
        remaining = iter(videos)
        while batch := list(islice(remaining, BATCH_VIDEOS)):
            yield from zip(batch, self._summaries_of(batch), strict=True)

    def failed_attempts(self, video: SourceVideo, data_fingerprint: str) -> FailedAttempts:
        """The failed attempts at a video in earlier runs."""
        staging = StagingArea.of(self._store, video, data_fingerprint)
        return staging.failed_attempts() if staging.work_id in self._ids_with_attempts else NO_FAILED_ATTEMPTS

    def add(self, committed: CommittedRecord) -> None:
        """Add a record that this run has written."""
        if self._listing is not None:
            self._committed.add(committed.output_path, committed.etag, CommitSummary.of(committed.record))

    def confirm(self, committed: CommittedRecord) -> None:
        """Note for later runs that a record of an earlier version has been checked; see `Decision.may_differ`."""
        if self._listing is not None:
            summary = CommitSummary.of(committed.record)
            checked = replace(summary, outcome=replace(summary.outcome, may_differ=False))
            self._read.add(committed.output_path, committed.etag, checked)

    def _summaries_of(self, videos: Sequence[SourceVideo]) -> list[CommitSummary | None]:
        paths = digests(video.output_path for video in videos)
        summaries = self._known.summaries(paths)
        has_record = [True] * len(videos) if self._listing is None else self._listing.contains(paths).tolist()
        unknown = [i for i, summary in enumerate(summaries) if summary is None and has_record[i]]
        for i, found in zip(unknown, self._fetch([videos[i].output_path for i in unknown]), strict=True):
            if isinstance(found, DamagedRecordError):
                summaries[i] = DAMAGED
            elif found is not None:
                summary = summaries[i] = CommitSummary.of(found.record)
                self._read.add(found.output_path, found.etag, summary)
        return summaries

    def _fetch(self, output_paths: list[str]) -> list[CommittedRecord | DamagedRecordError | None]:
        if not output_paths:
            return []
        with ThreadPoolExecutor(READING_THREADS) as threads:
            return list(threads.map(partial(fetch_if_readable, self._store), output_paths))

    def _save(self) -> None:
        """Write the ledger if the records were listed and the stored one is out of date."""
        if self._listing is None:
            return
        read, committed = self._read.build(), self._committed.build()
        if self._outdated or len(read) or len(committed):
            ledger = merge([self._unlisted, self._known, read, committed])
            self._store.put(ledger_key(self._scope.part), ledger.to_bytes())

    @cached_property
    def _ids_with_attempts(self) -> frozenset[str]:
        return frozenset(list_attempts(self._store))


def _each(records: Iterator[tuple[str, str]], on_listed: Callable[[], None]) -> Iterator[tuple[str, str]]:
    for record in records:
        on_listed()
        yield record


def _read_ledger(store: Store, part: Shard | None) -> Ledger:
    """The ledger of a part. If it has none, what the ledger of a larger part says: that of an earlier division."""
    larger = [] if part is None else [*part.within(), None]
    for owner in (part, *larger):
        try:
            ledger = Ledger.from_bytes(store.read(ledger_key(owner)))
        except (ObjectNotFoundError, ValueError):  # lost or damaged: if all are, every record is read
            continue
        return ledger if part is None or owner == part else ledger.in_part(part)
    return Ledger.empty()
