"""The two Ray actors of a run: a segment worker, which holds the networks, and a helper for CPU tasks.

Both run under the `heartbeat` of their process, and both name its crash folder, so that a death can be diagnosed.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from posebatch.core.errors import EvictedError, InternalError, PosebatchError
from posebatch.core.settings import Settings
from posebatch.dataset.tables.without_pandas import keep_pandas_unloaded
from posebatch.run.context import RunContext
from posebatch.run.tasks import ClipsTask, SegmentTask, Task, VideoTask
from posebatch.run.workers.crash_reports import CrashReport, read_crash_report
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.run.workers.memory_limit import container_memory_bytes, default_memory_bytes, workers_on_node
from posebatch.run.workers.termination import TerminationNotice
from posebatch.run.workers.video_tasks import perform
from posebatch.storage.retry import repeated_requests


@dataclass(frozen=True)
class CallResult:
    """The result of a call in an actor.

    Our exceptions travel as values. An exception that Ray itself raises therefore means that the process died.
    """

    result: object = None
    error: PosebatchError | None = None
    seconds: float = field(default=0.0, compare=False)
    """Time that it took."""
    storage_retries: int = field(default=0, compare=False)
    """Requests to a store that this process has repeated since the last result."""


@dataclass(frozen=True)
class ProcessHandle:
    """The node of an actor's process, and the folder that holds its crash report."""

    node_id: str
    crash_dir: str
    """Path on that node; see `heartbeat`."""


def call(action: Callable[[], object], name: str) -> CallResult:
    """Call ``action`` and catch its errors. An error that is not ours is a bug: an `InternalError` of ``name``."""
    started = time.perf_counter()
    ended = _call(action, name)
    return replace(ended, seconds=time.perf_counter() - started, storage_retries=repeated_requests.take())


def _call(action: Callable[[], object], name: str) -> CallResult:
    try:
        return CallResult(action())
    except PosebatchError as error:
        return CallResult(error=error)
    except Exception:
        return CallResult(error=InternalError(f"{name}: a bug in posebatch: {traceback.format_exc(limit=-8)}"))


class TaskHelper:
    """An actor for CPU tasks."""

    def __init__(self, context: RunContext) -> None:
        os.environ.update(context.environment)
        self._context = context
        self._termination = _listen_for_termination()
        keep_pandas_unloaded()
        self._handle = _start_heartbeat(context)

    def handle(self) -> ProcessHandle:
        """The handle of this process."""
        return self._handle

    def perform(self, task: VideoTask) -> CallResult:
        """Perform one task. A process that was asked to end hands it back at once, with an `EvictedError`."""
        if self._termination.is_given:
            return _handed_back(task)
        return call(lambda: self._perform(task), task.video.uri)

    def activity(self) -> int:
        """`Heartbeat.activity` of this process."""
        return heartbeat.activity

    def read_crash_report(self, crash_dir: str) -> CrashReport | None:
        """Read the crash report of another process of this node, which has died."""
        return read_crash_report(crash_dir)

    def _perform(self, task: VideoTask) -> object:
        with heartbeat.step(task.stage, task.video.uri):
            return perform(task, self._context)


class SegmentWorker:
    """An actor that holds both networks."""

    def __init__(self, context: RunContext, device: str, threads: int) -> None:
        os.environ.update(context.environment)
        self._context, self._device, self._threads = context, device, threads
        self._termination = _listen_for_termination()

    def load(self) -> CallResult:
        """Load the networks; the result is a `ProcessHandle`. A call of its own, so that errors arrive unchanged."""
        return call(self._load, "worker")

    def process(self, task: SegmentTask) -> CallResult:
        """Process one segment. Two threads may call this at once.

        A process that was asked to end hands the segment back at once, with an `EvictedError`.
        """
        if self._termination.is_given:
            return _handed_back(task)
        return call(lambda: self._processor.process(task), task.video.uri)

    def process_clips(self, task: ClipsTask) -> list[CallResult]:
        """Process a group of clips; the result of each, in their order. Takes one of the two threads of `process`."""
        if self._termination.is_given:
            return [_handed_back(clip) for clip in task.clips]
        started = time.perf_counter()
        ends = self._clips.process(task)
        each_s = (time.perf_counter() - started) / len(task.clips)
        return [
            replace(call(end.result, clip.video.uri), seconds=each_s)
            for clip, end in zip(task.clips, ends, strict=True)
        ]

    def activity(self) -> int:
        """`Heartbeat.activity` of this process."""
        return heartbeat.activity

    def _load(self) -> ProcessHandle:
        # imported here, so that the processes of CPU tasks need not load torch
        from posebatch.run.workers.clip_worker import ClipProcessor  # noqa: PLC0415
        from posebatch.run.workers.segment_worker import SegmentProcessor  # noqa: PLC0415

        self._processor = SegmentProcessor.load(self._context, self._device, self._threads)
        self._clips = ClipProcessor(self._context, self._processor)
        keep_pandas_unloaded()
        return _start_heartbeat(self._context)


def _listen_for_termination() -> TerminationNotice:
    notice = TerminationNotice()
    notice.listen(heartbeat.note_termination)
    return notice


def _handed_back(task: Task) -> CallResult:
    return CallResult(error=EvictedError(f"{task.name}: its process was asked to end, and hands it back"))


def _start_heartbeat(context: RunContext) -> ProcessHandle:
    settings, node_id = context.settings, ray.get_runtime_context().get_node_id()
    crash_dir = heartbeat.start(settings.limits.max_seconds_per_frame, _max_memory_bytes(settings, node_id))
    return ProcessHandle(node_id, crash_dir)


def _max_memory_bytes(settings: Settings, node_id: str) -> float:
    if settings.limits.max_memory_gb is not None:
        return settings.limits.max_memory_gb * 1e9
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    resources: dict[str, float] = next((node["Resources"] for node in nodes if node["NodeID"] == node_id), {})
    return default_memory_bytes(container_memory_bytes(), workers_on_node(resources, settings.execution))
