"""Calls to Ray actors: how a call ended, and which of Ray's errors mean that the process behind it died."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import ray
import ray.exceptions

from posebatch.core.errors import WorkerDiedError
from posebatch.run.pool import Completion
from posebatch.run.tasks import ClipsTask, SegmentTask, Task

Ref: TypeAlias = "ray.ObjectRef[Any]"
"""The future result of a call."""

Actor: TypeAlias = Any
"""A handle of a Ray actor."""

WORKER_DEATHS: Final = (
    # The process of the actor ended (a crash, `os._exit`, SIGKILL), or its node is out of reach.
    ray.exceptions.RayActorError,
    # The same for a process that is not an actor's; Ray raises it where the actor was not yet created.
    ray.exceptions.WorkerCrashedError,
    # Ray's memory monitor killed the process because its node ran short of memory.
    ray.exceptions.OutOfMemoryError,
    # The node failed its health checks or left the cluster.
    ray.exceptions.NodeDiedError,
    # The call ended well, but its result lay on a node that was lost before the driver fetched it. To the driver this
    # is the same as a death: the task must run again. That is safe because each task may be done twice.
    ray.exceptions.ObjectLostError,
    # Ray's own processes on that node failed, as when the raylet is killed amid a call.
    ray.exceptions.RaySystemError,
    # The raylet of that node ended, and with it all of the node's workers.
    ray.exceptions.LocalRayletDiedError,
)
"""Ray's errors after which a task must run in another process. Any other error of Ray is a bug, and is raised."""

NO_ANSWER: Final = (*WORKER_DEATHS, ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnschedulableError)
"""Ray's errors where a process gave no answer: it died, took too long, or could not be started on its node."""


def completion_of(task: Task, ref: Ref) -> Completion:
    """The completion of a task whose call has ended. `WorkerDiedError` is its error if the process died."""
    try:
        call_result = ray.get(ref)
    except WORKER_DEATHS as death:
        return Completion(task, error=_death_of(task, death))
    return _completion(task, call_result)


def completions_of(call: SegmentTask | ClipsTask, ref: Ref) -> list[Completion]:
    """The completions of a worker's call that has ended: of a segment, or of each clip of a group."""
    if isinstance(call, SegmentTask):
        return [completion_of(call, ref)]
    try:
        results = ray.get(ref)
    except WORKER_DEATHS as death:
        return [Completion(clip, error=_death_of(clip, death)) for clip in call.clips]
    return [_completion(clip, each) for clip, each in zip(call.clips, results, strict=True)]


def _completion(task: Task, ended: Any) -> Completion:
    return Completion(task, ended.result, ended.error, seconds=ended.seconds, storage_retries=ended.storage_retries)


def _death_of(task: Task, death: BaseException) -> WorkerDiedError:
    return WorkerDiedError(f"{task.name}: the process that worked on it died: {summary_of(death)}")


def summary_of(death: BaseException) -> str:
    """The first line of an error of Ray, which goes on for a page."""
    lines = [line.strip() for line in str(death).splitlines() if line.strip()]
    return lines[0] if lines else type(death).__name__
