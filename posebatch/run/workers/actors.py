"""The processes of a run: a worker that holds the networks, and a helper for CPU tasks.

`heartbeat` watches each process. Each names its crash folder, so that its death can be diagnosed.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import ray

from posebatch.core.errors import InternalError, PosebatchError
from posebatch.run.context import RunContext
from posebatch.run.tasks import SegmentTask, VideoTask
from posebatch.run.workers.crash_reports import CrashReport, read_crash_report
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.run.workers.video_tasks import perform


@dataclass(frozen=True)
class CallResult:
    """What came of a call in another process: exceptions travel as values, so Ray's own mean that the process died."""

    result: object = None
    error: PosebatchError | None = None


@dataclass(frozen=True)
class ProcessHandle:
    """Where a process runs, and where it leaves word of what it does."""

    node_id: str
    box: str
    """Path on that node; see `heartbeat`."""


def attempt(story: Callable[[], object], name: str) -> CallResult:
    """Run a story and catch how it ends; a bug becomes an `InternalError` of the video it met."""
    try:
        return CallResult(story())
    except PosebatchError as error:
        return CallResult(error=error)
    except Exception:
        return CallResult(error=InternalError(f"{name}: a bug in posebatch: {traceback.format_exc(limit=-8)}"))


class TaskHelper:
    """An actor for CPU tasks."""

    def __init__(self, context: RunContext) -> None:
        os.environ.update(context.environment)
        self._context = context
        self._place = _settle(context)

    def place(self) -> ProcessHandle:
        """Where this process is."""
        return self._place

    def perform(self, job: VideoTask) -> CallResult:
        """Work on one task."""
        return attempt(lambda: self._perform(job), job.video.uri)

    def activity(self) -> int:
        """A number that grows whenever something moves on."""
        return heartbeat.activity

    def read_crash_report(self, box: str) -> CrashReport | None:
        """What a process of this node that has died left in its box."""
        return read_crash_report(box)

    def _perform(self, job: VideoTask) -> object:
        with heartbeat.step(job.stage, job.video.uri):
            return perform(job, self._context)


class SegmentWorker:
    """An actor with both networks."""

    def __init__(self, context: RunContext, device: str, threads: int) -> None:
        os.environ.update(context.environment)
        self._context, self._device, self._threads = context, device, threads

    def load(self) -> CallResult:
        """Load the networks and give the `ProcessHandle`; apart from construction, so that errors arrive unchanged."""
        return attempt(self._load, "worker")

    def process(self, job: SegmentTask) -> CallResult:
        """Work on one segment; called by two threads at once."""
        return attempt(lambda: self._processor.process(job), job.video.uri)

    def activity(self) -> int:
        """A number that grows whenever something moves on."""
        return heartbeat.activity

    def _load(self) -> ProcessHandle:
        # imported here, so that the processes of CPU tasks need not load torch
        from posebatch.run.workers.segment_worker import SegmentProcessor  # noqa: PLC0415

        self._processor = SegmentProcessor.load(self._context, self._device, self._threads)
        return _settle(self._context)


def _settle(context: RunContext) -> ProcessHandle:
    """Begin to watch over this process."""
    limits = context.settings.limits
    box = heartbeat.start(limits.max_seconds_per_frame, limits.max_memory_gb * 1e9)
    return ProcessHandle(ray.get_runtime_context().get_node_id(), box)
