"""Decides ahead of a run, in a thread, what is to be done with each video."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from posebatch.core.errors import NewerOutputError, PosebatchError, RunAbortedError
from posebatch.core.videos import SourceVideo
from posebatch.dataset.staging import NO_FAILED_ATTEMPTS, FailedAttempts
from posebatch.run.context import RunContext
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.decisions import Action, Decision, decide

PLANNED_AHEAD: Final = 64
"""Items that may wait."""


PASSED_TOGETHER: Final = 4096
"""Videos that need no work and are told in one: a run passes over a million of them in seconds."""


Item = TypeVar("Item")


@dataclass(frozen=True)
class Planned:
    """A video and what is to be done with it."""

    video: SourceVideo
    decision: Decision
    tries: FailedAttempts = NO_FAILED_ATTEMPTS
    """In vain, in earlier runs."""


@dataclass
class SkippedVideos:
    """Videos, one after another, that need no work."""

    up_to_date: int = 0
    quarantined: int = 0
    partial: int = 0
    """Among those that are up to date."""
    size_bytes: int = 0
    complained: list[Planned] = field(default_factory=list)
    """The quarantined and the partial ones."""

    @property
    def videos(self) -> int:
        """How many they are."""
        return self.up_to_date + self.quarantined

    def add(self, planned: Planned) -> None:
        """Count one more."""
        quarantined, partial = planned.decision.action is Action.QUARANTINED, planned.decision.partial is not None
        self.quarantined += quarantined
        self.up_to_date += not quarantined
        self.partial += partial
        self.size_bytes += planned.video.size_bytes
        if quarantined or partial:
            self.complained.append(planned)


@dataclass(frozen=True)
class Notice:
    """Something worth saying about the planning itself."""

    text: str


def decisions(videos: Iterable[SourceVideo], standings: CommitIndex, context: RunContext) -> Iterator[Planned]:
    """What is to be done with each video, in their order; tries in vain are not looked up."""
    return (Planned(video, decide(video, standing, context)) for video, standing in standings.of(videos))


class Planner:
    """Plans ahead of the run, in a thread: what needs work one by one, what does not in bulk."""

    def __init__(self, videos: Iterable[SourceVideo], standings: CommitIndex, context: RunContext) -> None:
        self._videos, self._standings, self._context = videos, standings, context
        self._decided: queue.Queue[Planned | SkippedVideos | Notice | Exception | None] = queue.Queue(PLANNED_AHEAD)
        self._closed = threading.Event()
        self.exhausted = False
        self._thread = threading.Thread(target=self._plan, name="planner", daemon=True)
        self._thread.start()

    def poll(self, timeout_s: float = 0.0) -> Planned | SkippedVideos | Notice | None:
        """What comes next, or None when there is nothing yet, or nothing any more (then ``exhausted`` is set).

        Raises `RunAbortedError` when the inputs or the commit records cannot be read, and `NewerOutputError`.
        """
        if self.exhausted:
            return None
        try:
            item = self._decided.get(block=timeout_s > 0, timeout=timeout_s or None)
        except queue.Empty:
            return None
        if isinstance(item, PosebatchError) and not isinstance(item, NewerOutputError):
            raise RunAbortedError(f"the inputs or the commit records cannot be read: {item}") from item
        if isinstance(item, Exception):
            raise item
        self.exhausted = item is None
        return item

    def close(self) -> None:
        """Stop planning."""
        self._closed.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._decided.get_nowait()
            self._thread.join(0.05)

    def _plan(self) -> None:
        try:
            for item in self._items():
                self._decided.put(item)
            self._decided.put(None)
        except _ClosedError:
            return
        except Exception as error:  # raised again where the run polls
            self._decided.put(error)

    def _items(self) -> Iterator[Planned | SkippedVideos | Notice]:
        notice = self._standings.open(self._unless_closed)
        if notice:
            yield Notice(notice)
        passed = SkippedVideos()
        for planned in self._within_limit():
            needs_work = planned.decision.action in (Action.COMPUTE, Action.PREVIEW)
            if not needs_work:
                passed.add(planned)
            if passed.videos == PASSED_TOGETHER or (needs_work and passed.videos):
                yield passed
                passed = SkippedVideos()
            if needs_work:
                yield self._with_tries(planned)
        if passed.videos:
            yield passed

    def _within_limit(self) -> Iterator[Planned]:
        """All videos, or those before the first that would be one too many to work on."""
        left = self._context.settings.selection.limit
        for planned in decisions(self._unless_closed(self._videos), self._standings, self._context):
            if left is not None and planned.decision.action in (Action.COMPUTE, Action.PREVIEW):
                if left == 0:
                    return
                left -= 1
            yield planned

    def _with_tries(self, planned: Planned) -> Planned:
        if planned.decision.action is not Action.COMPUTE or self._context.settings.selection.retry_failed:
            return planned
        return replace(planned, tries=self._standings.tries(planned.video, self._context.data_fingerprint))

    def _unless_closed(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            if self._closed.is_set():
                raise _ClosedError
            yield item


class _ClosedError(Exception):
    """The run needs no more plans."""
