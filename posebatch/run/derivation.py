"""The job `posebatch derive`: tracks, motion and previews of published videos again, from their stored poses."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Final

from posebatch.core.errors import DamagedRecordError, InputError, OutputError
from posebatch.core.settings import Settings
from posebatch.core.videos import SourceVideo
from posebatch.core.wording import counted
from posebatch.dataset.layout import record_key
from posebatch.dataset.publication import fetch_if_readable, list_records
from posebatch.run.connection import OpenPool, ray_pool
from posebatch.run.context import RunContext
from posebatch.run.driver import Job, perform_job
from posebatch.run.failure_policy import DEFAULT_LIMITS, SchedulerLimits
from posebatch.run.outcome import RunOutcome
from posebatch.run.planning.commit_index import READING_THREADS, CommitIndex
from posebatch.run.planning.decisions import DAMAGED, CommitSummary, decide_derivation
from posebatch.run.planning.ledger import Ledger
from posebatch.run.planning.planner import Planned
from posebatch.run.run_folder import new_run_id
from posebatch.run.tally import Tally
from posebatch.storage.open import open_store
from posebatch.storage.store import Store

READ_TOGETHER: Final = 64
"""Commit records that are read at once."""


def derive_job(
    output: str,
    settings: Settings,
    match: str = "*",
    open_pool: OpenPool = ray_pool,
    limits: SchedulerLimits = DEFAULT_LIMITS,
) -> RunOutcome:
    """Derive what depends on poses alone, and print how it ended.

    ``match``: a glob over the videos' paths in the archive. Raises `OutputError` if nothing has been published there,
    `InputError` if no published video matches, and otherwise as `run_job`.
    """
    store = open_store(output, settings.selection.endpoint_url)
    context = RunContext(new_run_id(), settings, store.root, "", "", only_derives=True)
    videos = PublishedVideos(store, match)
    job = Job(
        context,
        store,
        [],
        videos,
        Tally(len(videos)),
        lambda _, say: CommitIndex(store, None, Ledger.empty(), say),
        f"{counted(len(videos), 'published video')} in {store.root}  (run {context.run_id})",
        decide=videos.decide,
    )
    return perform_job(job, open_pool, limits)


class PublishedVideos:
    """The published videos of an output, by their commit records, which are read a few at a time."""

    def __init__(self, store: Store, match: str) -> None:
        """List the records. Raises `OutputError` if there are none, and `InputError` if none matches."""
        self._store = store
        paths = [path for path, _ in list_records(store)]
        if not paths:
            raise OutputError(f"{store.root}: no commit record below videos/: nothing has been published here")
        self._paths = [path for path in paths if fnmatch.fnmatchcase(path, match)]
        if not self._paths:
            raise InputError(
                f"--match {match!r} fits none of {counted(len(paths), 'published video')}: {paths[0]}, ..."
            )
        self._summaries: dict[str, CommitSummary] = {}  # of the videos that are not decided yet, by output path

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[SourceVideo]:
        """The videos, as their records describe them."""
        remaining = iter(self._paths)
        with ThreadPoolExecutor(READING_THREADS) as threads:
            while batch := list(islice(remaining, READ_TOGETHER)):
                for path, found in zip(batch, threads.map(partial(fetch_if_readable, self._store), batch), strict=True):
                    if found is None:  # removed since it was listed
                        continue
                    if isinstance(found, DamagedRecordError):
                        self._summaries[path] = DAMAGED
                        yield SourceVideo(self._store.uri(record_key(path)), path, "", 0, 0.0)
                        continue
                    record = found.record
                    self._summaries[path] = CommitSummary.of(record)
                    yield SourceVideo(record.video, path, record.etag, record.size_bytes, record.last_modified)

    def decide(self, videos: Iterable[SourceVideo], _: CommitIndex, context: RunContext) -> Iterator[Planned]:
        """Each of these videos with the decision about it."""
        for video in videos:
            yield Planned(video, decide_derivation(self._summaries.pop(video.output_path), context))
