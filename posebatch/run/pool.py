"""The interface between the scheduler and the workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from posebatch.core.errors import PosebatchError
from posebatch.run.tasks import Call, Task

SEGMENTS_PER_WORKER: Final = 2
"""While the networks process one segment, the worker decodes the next."""


@dataclass(frozen=True)
class Capacity:
    """The tasks that a pool accepts at this moment."""

    idle: int
    """Workers that are ready and have no segment."""
    shareable: int
    """Workers that have one segment and accept a second; none whose segment must run alone."""
    task_slots: int
    """CPU tasks that may be submitted."""
    workers: int
    """Workers of the run, ready or not."""
    ready: int
    """Workers whose networks are loaded, busy or not."""
    gpu_share: float = 1.0
    """GPUs that each worker holds. On a CPU 1, so that an hour of a worker counts as an hour."""
    requested: bool = True
    """Whether the workers were requested: not before a video is probed."""
    died: int = 0
    """Workers that died so far, loading or at work; each was replaced."""


@dataclass(frozen=True)
class Completion:
    """The end of a task: a result or an error."""

    task: Task
    result: object = None
    error: PosebatchError | None = None
    shared: bool = False
    """Whether its worker died while it had other segments or clips, too, and the cause may be any."""
    seconds: float = field(default=0.0, compare=False)
    """Time that the task took in its process; 0 if the process died."""
    storage_retries: int = field(default=0, compare=False)
    """Requests to a store that this process has repeated, since its last task ended."""


class Pool(Protocol):
    """Workers that run tasks.

    Segments and groups of clips go to workers that hold the networks, at most `SEGMENTS_PER_WORKER` calls each. Other
    tasks need only a CPU.
    """

    def capacity(self) -> Capacity:
        """The tasks that may be submitted now. Raises `RunAbortedError` if no worker becomes ready."""

    def start_workers(self) -> None:
        """Request the workers, unless that was done before."""

    def submit(self, task: Call) -> None:
        """Start a call within the `capacity`; `wait` returns its end. A segment goes to an idle worker if any."""

    def wait(self, timeout_s: float) -> list[Completion]:
        """The tasks that ended since the last call, clips one by one. Waits at most ``timeout_s`` for the first."""

    def activity(self) -> int:
        """A number that changes whenever a busy process has made progress, even if no task has ended."""
