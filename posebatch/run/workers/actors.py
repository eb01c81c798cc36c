"""The processes of a run: what a worker that holds the networks, and a helper for CPU tasks, do when they are called.

Each is watched over by `watch`, and says where its box lies, so that somebody can look into it when the process dies.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import ray

from posebatch.core.errors import InternalError, PosebatchError
from posebatch.run.context import RunContext
from posebatch.run.tasks import SegmentJob, TaskJob
from posebatch.run.workers.crash_reports import Trace, read_trace
from posebatch.run.workers.heartbeat import watch
from posebatch.run.workers.video_tasks import perform


@dataclass(frozen=True)
class Outcome:
    """What came of a call in another process: exceptions travel as values, so Ray's own mean that the process died."""

    result: object = None
    error: PosebatchError | None = None


@dataclass(frozen=True)
class Place:
    """Where a process runs, and where it leaves word of what it does."""

    node_id: str
    box: str
    """Path on that node; see `watch`."""


def attempt(story: Callable[[], object], name: str) -> Outcome:
    """Run a story and catch how it ends; a bug becomes an `InternalError` of the video it met."""
    try:
        return Outcome(story())
    except PosebatchError as error:
        return Outcome(error=error)
    except Exception:
        return Outcome(error=InternalError(f"{name}: a bug in posebatch: {traceback.format_exc(limit=-8)}"))


class TaskHelper:
    """An actor for CPU tasks."""

    def __init__(self, context: RunContext) -> None:
        os.environ.update(context.environment)
        self._context = context
        self._place = _settle(context)

    def place(self) -> Place:
        """Where this process is."""
        return self._place

    def perform(self, job: TaskJob) -> Outcome:
        """Work on one task."""
        return attempt(lambda: self._perform(job), job.video.uri)

    def beats(self) -> int:
        """A number that grows whenever something moves on."""
        return watch.beats

    def autopsy(self, box: str) -> Trace | None:
        """What a process of this node that has died left in its box."""
        return read_trace(box)

    def _perform(self, job: TaskJob) -> object:
        with watch.step(job.stage, job.video.uri):
            return perform(job, self._context)


class SegmentWorker:
    """An actor with both networks."""

    def __init__(self, context: RunContext, device: str, threads: int) -> None:
        os.environ.update(context.environment)
        self._context, self._device, self._threads = context, device, threads

    def load(self) -> Outcome:
        """Load the networks; separate from construction so that its errors come back as they are. Gives the `Place`."""
        return attempt(self._load, "worker")

    def process(self, job: SegmentJob) -> Outcome:
        """Work on one segment; called by two threads at once."""
        return attempt(lambda: self._processor.process(job), job.video.uri)

    def beats(self) -> int:
        """A number that grows whenever something moves on."""
        return watch.beats

    def _load(self) -> Place:
        # imported here, so that the processes of CPU tasks need not load torch
        from posebatch.run.workers.segment_worker import SegmentProcessor  # noqa: PLC0415

        self._processor = SegmentProcessor.load(self._context, self._device, self._threads)
        return _settle(self._context)


def _settle(context: RunContext) -> Place:
    """Begin to watch over this process."""
    limits = context.settings.limits
    box = watch.start(limits.max_seconds_per_frame, limits.max_memory_gb * 1e9)
    return Place(ray.get_runtime_context().get_node_id(), box)
