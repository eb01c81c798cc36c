"""The interface between the scheduler and its workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from posebatch.core.errors import (
    PosebatchError,
)
from posebatch.run.tasks import (
    SegmentTask,
    VideoTask,
)

SEGMENTS_PER_WORKER: Final = 2
"""While the networks have one, the next one's frames are decoded."""


@dataclass(frozen=True)
class Completion:
    """How a job ended."""

    job: SegmentTask | VideoTask
    result: object = None
    error: PosebatchError | None = None
    shared: bool = False
    """Whether its worker died with another segment in it as well, so that it is unclear which one was to blame."""


class Pool(Protocol):
    """Where jobs run. Segments go to workers that hold the networks, at most two each; other jobs are CPU tasks."""

    def idle_workers(self) -> int:
        """Workers that are ready and have nothing to do. Raises `RunAbortedError` when none can be had."""

    def shareable_workers(self) -> int:
        """Workers that have one segment and may be given the next; not one whose segment is to be alone."""

    def idle_task_slots(self) -> int:
        """How many more CPU tasks may be given."""

    def workers(self) -> int:
        """Workers that are wanted in all."""

    def activity(self) -> int:
        """A number that changes when any process at work has moved on, though no job of it has ended."""

    def submit(self, job: SegmentTask | VideoTask) -> None:
        """Begin a job; its end is told by `wait`. A segment goes to an idle worker as long as there is one."""

    def wait(self, timeout_s: float) -> list[Completion]:
        """The jobs that have ended; waits at most ``timeout_s`` for the first."""
