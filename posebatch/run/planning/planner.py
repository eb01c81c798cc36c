"""The planner: decides in a thread, ahead of the scheduler, what is to be done with each video."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from posebatch.core.errors import NewerOutputError, PosebatchError, RunAbortedError, StorageError
from posebatch.core.videos import SourceVideo
from posebatch.dataset.publication import CommittedRecord, fetch_record
from posebatch.dataset.staging import NO_FAILED_ATTEMPTS, FailedAttempts
from posebatch.run.context import RunContext
from posebatch.run.outcome import Problems
from posebatch.run.planning.cold_storage import ColdVideos
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.decisions import Action, Decision, decide
from posebatch.run.planning.names import PassedOverFiles, passed_over_by_content
from posebatch.run.planning.older_pictures import changed_picture
from posebatch.run.planning.other_content import other_content_of
from posebatch.run.tally import Tally
from posebatch.storage.store import Store

PLANNED_AHEAD: Final = 64
"""Items that wait for the scheduler at most."""


SKIPPED_TOGETHER: Final = 4096
"""Videos without work that make one item: so a run skips a million of them in seconds."""


CHECKED_TOGETHER: Final = 64
"""Videos whose decisions are made together."""


CHECKING_THREADS: Final = 16
"""Headers of videos that are read at once."""


@dataclass(frozen=True)
class Planned:
    """A video and the decision about it."""

    video: SourceVideo
    decision: Decision
    failed_attempts: FailedAttempts = NO_FAILED_ATTEMPTS
    """In earlier runs."""

    @property
    def needs_work(self) -> bool:
        """Whether the run has to do anything with the video."""
        return self.decision.action in (Action.COMPUTE, Action.PREVIEW, Action.DERIVE)


@dataclass
class SkippedVideos:
    """Consecutive videos that need no work."""

    up_to_date: int = 0
    quarantined: int = 0
    partial: int = 0
    """Among those that are up to date."""
    cold: ColdVideos = field(default_factory=ColdVideos)
    """Videos whose source must be restored first."""
    size_bytes: int = 0
    passed_over: PassedOverFiles = field(default_factory=PassedOverFiles)
    """Files that are named like videos, but are none."""
    problems: list[Planned] = field(default_factory=list)
    """The quarantined and the partial videos."""

    @property
    def videos(self) -> int:
        """Their number."""
        return self.up_to_date + self.quarantined + self.cold.videos + self.passed_over.files

    def add(self, planned: Planned) -> None:
        """Add a video that needs no work."""
        self.size_bytes += planned.video.size_bytes
        if planned.decision.action is Action.PASSED_OVER:
            self.passed_over.add(passed_over_by_content(planned.video, planned.decision.reason))
            return
        if planned.decision.action is Action.COLD:
            self.cold.add(planned.video)
            return
        quarantined, partial = planned.decision.action is Action.QUARANTINED, planned.decision.partial is not None
        self.quarantined += quarantined
        self.up_to_date += not quarantined
        self.partial += partial
        if quarantined or partial:
            self.problems.append(planned)

    def count_in(self, tally: Tally, problems: Problems) -> None:
        """Add the counts and the problems to those of a run."""
        tally.up_to_date += self.up_to_date
        tally.quarantined += self.quarantined
        tally.partial += self.partial
        tally.partial_before += self.partial
        tally.cold.update(self.cold)
        tally.no_videos += self.passed_over.files
        tally.passed_over.update(self.passed_over)
        tally.bytes_passed += self.size_bytes
        for planned in self.problems:
            if planned.decision.action is Action.QUARANTINED:
                problems.add(planned.video.uri, "failed before", planned.decision.reason)
            else:
                problems.add(planned.video.uri, "partial before", str(planned.decision.partial))


def decisions(videos: Iterable[SourceVideo], index: CommitIndex, context: RunContext) -> Iterator[Planned]:
    """Each video with the decision about it, in order; failed attempts are not looked up."""
    summaries = index.summaries(videos)
    with ThreadPoolExecutor(CHECKING_THREADS) as threads:
        while batch := list(islice(summaries, CHECKED_TOGETHER)):
            decided = [Planned(video, decide(video, summary, context)) for video, summary in batch]
            if any(planned.decision.may_differ for planned in decided):
                decided = list(_checked(decided, index, context, threads))
            for planned in decided:
                video, action = planned.video, planned.decision.action
                if action is Action.COMPUTE and (content := other_content_of(video, context.endpoint_url)):
                    yield Planned(video, Decision(Action.PASSED_OVER, content))
                else:
                    yield planned


def _checked(
    decided: list[Planned], index: CommitIndex, context: RunContext, threads: ThreadPoolExecutor
) -> Iterator[Planned]:
    """The same decisions, but to compute those videos again whose picture an earlier version took for another."""
    store = context.store()
    checks = threads.map(lambda planned: _check(planned, store, context), decided)
    for planned, check in zip(decided, checks, strict=True):
        if check is None:
            yield planned
        elif check.change:
            yield replace(planned, decision=Decision(Action.COMPUTE, check.change))
        else:
            index.confirm(check.committed)
            yield planned


@dataclass(frozen=True)
class _PictureCheck:
    committed: CommittedRecord
    change: str | None


def _check(planned: Planned, store: Store, context: RunContext) -> _PictureCheck | None:
    """None for a video that need not be checked, or cannot be read now: a later run checks it then."""
    if not planned.decision.may_differ or planned.video.cold_class:
        return None
    try:
        committed = fetch_record(store, planned.video.output_path)
        if committed is None:
            return None
        return _PictureCheck(committed, changed_picture(planned.video, committed.record, context))
    except StorageError:
        return None


Decide = Callable[[Iterable[SourceVideo], CommitIndex, RunContext], Iterator[Planned]]
"""`decisions`, or another function of the same kind."""


class Planner:
    """Plans ahead in a thread: videos that need work one by one, the others in bulk."""

    def __init__(
        self,
        videos: Iterable[SourceVideo],
        index: CommitIndex,
        context: RunContext,
        skipped_together: int = SKIPPED_TOGETHER,
        decide: Decide = decisions,
        may_begin: Callable[[], bool] = lambda: True,
    ) -> None:
        """``may_begin``: whether a video may still begin; once it may not, planning stops."""
        self._may_begin = may_begin
        self._videos, self._index, self._context, self._decide = videos, index, context, decide
        self._skipped_together = skipped_together
        self._items: queue.Queue[Planned | SkippedVideos | Exception | None] = queue.Queue(PLANNED_AHEAD)
        self._closed = threading.Event()
        self.exhausted = False
        """Whether `poll` has returned everything, or planning was stopped."""
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)
        self._thread.start()

    def poll(self, timeout_s: float = 0.0) -> Planned | SkippedVideos | None:
        """The next item, or None if there is none yet or, when ``exhausted`` is set, none any more.

        Waits at most ``timeout_s`` seconds. Raises `RunAbortedError` if the inputs or the commit records cannot be
        read, and `NewerOutputError`.
        """
        if not self.exhausted and not self._may_begin():
            self.close()
            self.exhausted = True
        if self.exhausted:
            return None
        try:
            item = self._items.get(block=timeout_s > 0, timeout=timeout_s or None)
        except queue.Empty:
            return None
        if isinstance(item, PosebatchError) and not isinstance(item, NewerOutputError):
            raise RunAbortedError(f"the inputs or the commit records cannot be read: {item}") from item
        if isinstance(item, Exception):
            raise item
        self.exhausted = item is None
        return item

    def close(self) -> None:
        """Stop planning and wait for the thread."""
        self._closed.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._items.get_nowait()  # the thread may wait for room in the queue
            self._thread.join(0.05)

    def _run(self) -> None:
        try:
            for item in self._plan():
                self._items.put(item)
            self._items.put(None)
        except _ClosedError:
            return
        except Exception as error:  # poll raises it in the scheduler's thread
            self._items.put(error)

    def _plan(self) -> Iterator[Planned | SkippedVideos]:
        skipped = SkippedVideos()
        for planned in self._within_limit():
            if not planned.needs_work:
                skipped.add(planned)
            if skipped.videos == self._skipped_together or (planned.needs_work and skipped.videos):
                yield skipped
                skipped = SkippedVideos()
            if planned.needs_work:
                yield self._with_failed_attempts(planned)
        if skipped.videos:
            yield skipped

    def _within_limit(self) -> Iterator[Planned]:
        """The videos up to ``--limit`` of those that need work."""
        left = self._context.settings.selection.limit
        for planned in self._decide(self._until_closed(), self._index, self._context):
            if left is not None and planned.needs_work:
                if left == 0:
                    return
                left -= 1
            yield planned

    def _with_failed_attempts(self, planned: Planned) -> Planned:
        if planned.decision.action is not Action.COMPUTE or self._context.settings.selection.retry_failed:
            return planned
        failed = self._index.failed_attempts(planned.video, self._context.data_fingerprint)
        return replace(planned, failed_attempts=failed)

    def _until_closed(self) -> Iterator[SourceVideo]:
        for video in self._videos:
            if self._closed.is_set():
                raise _ClosedError
            yield video


class _ClosedError(Exception):
    """The planner was closed."""
