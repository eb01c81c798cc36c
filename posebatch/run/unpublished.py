"""The sources that a run found to need work, until they are published or failed: how far the output lags behind."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from posebatch.core.videos import SourceVideo
from posebatch.run.context import RunContext
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.planner import Decide, Planned


@dataclass(frozen=True)
class _Source:
    size_bytes: int
    last_modified: float


class UnpublishedSources:
    """Grows in the planner's thread, with the videos that it decides about; shrinks in the scheduler's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sources: dict[str, _Source] = {}  # by address
        self.settled_bytes = 0
        """Size of the videos that are up to date, published or failed."""

    def watching(self, decide: Decide) -> Decide:
        """The same function, whose decisions are noted."""

        def decide_and_note(
            videos: Iterable[SourceVideo], index: CommitIndex, context: RunContext
        ) -> Iterator[Planned]:
            for planned in decide(videos, index, context):
                self._note(planned)
                yield planned

        return decide_and_note

    def settle(self, uri: str) -> bool:
        """Take a video out; False if it is not in."""
        with self._lock:
            source = self._sources.pop(uri, None)
            self.settled_bytes += source.size_bytes if source else 0
        return source is not None

    def oldest(self) -> float | None:
        """When the oldest of the sources was modified, Unix time; None without any."""
        with self._lock:
            return min((source.last_modified for source in self._sources.values()), default=None)

    def _note(self, planned: Planned) -> None:
        video = planned.video
        with self._lock:
            if planned.needs_work:
                self._sources[video.uri] = _Source(video.size_bytes, video.last_modified)
            else:
                self.settled_bytes += video.size_bytes
