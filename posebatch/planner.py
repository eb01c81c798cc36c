"""Decides ahead of a run, in threads, what is to be done with each video."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

from posebatch.commits import NONE_IN_VAIN, Tries, Work, read_record
from posebatch.errors import NewerOutputError, PosebatchError, RunAbortedError
from posebatch.plan import Action, Decision, RunContext, decide
from posebatch.storage import Store
from posebatch.types import SourceVideo

PLANNING_THREADS: Final = 16
PLANNED_AHEAD: Final = 64
"""Commit records that are read at once, and decisions that may wait."""


@dataclass(frozen=True)
class Planned:
    """A video and what is to be done with it."""

    video: SourceVideo
    decision: Decision
    tries: Tries = NONE_IN_VAIN
    """In vain, in earlier runs."""


class Planner:
    """Reads commit records ahead of the run, in threads, and decides what to do with each video."""

    def __init__(self, videos: Iterator[SourceVideo], store: Store, context: RunContext) -> None:
        self._videos, self._store, self._context = videos, store, context
        self._decided: queue.Queue[Planned | Exception | None] = queue.Queue(PLANNED_AHEAD)
        self._closed = threading.Event()
        self.exhausted = False
        self._thread = threading.Thread(target=self._plan, name="planner", daemon=True)
        self._thread.start()

    def poll(self, timeout_s: float = 0.0) -> Planned | None:
        """The next video, or None when there is none yet, or none any more (then ``exhausted`` is set).

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
        limit = self._context.settings.selection.limit
        try:
            for planned in self._decisions():
                if planned.decision.action in (Action.COMPUTE, Action.PREVIEW) and limit is not None:
                    if limit == 0:
                        break
                    limit -= 1
                self._decided.put(planned)
                if self._closed.is_set():
                    return
            self._decided.put(None)
        except Exception as error:  # raised again where the run polls
            self._decided.put(error)

    def _decisions(self) -> Iterator[Planned]:
        with ThreadPoolExecutor(PLANNING_THREADS) as threads:
            while chunk := list(islice(self._videos, PLANNED_AHEAD)):
                yield from threads.map(self._decide, chunk)

    def _decide(self, video: SourceVideo) -> Planned:
        decision = decide(video, read_record(self._store, video.output_path), self._context)
        if decision.action is not Action.COMPUTE or self._context.settings.selection.retry_failed:
            return Planned(video, decision)
        return Planned(video, decision, Work.of(self._store, video, self._context.data_fingerprint).tries())
