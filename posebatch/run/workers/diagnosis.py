"""Diagnosis of a dead worker: which of its tasks caused the death."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from posebatch.core.errors import EvictedError, WorkerCrashError
from posebatch.run.pool import Completion
from posebatch.run.workers.crash_reports import CrashReport


def attribute_deaths(died: Sequence[Completion], trace: CrashReport | None, node_is_alive: bool) -> list[Completion]:
    """Who is to blame for the death of a process with these jobs in it.

    Whoever ended it: the one that its box names, or the only one there was. Nobody, when the node has gone. When it was
    killed on a node that lives, or its box blames nobody, it may have been either of two: they are told as ``shared``.
    """
    guilty = {end.task.name for end in died if isinstance(end.error, WorkerCrashError)}
    if trace is not None and trace.reason:
        guilty |= {died[0].task.name} if len(died) == 1 else {end.task.name for end in died} & {str(trace.subject)}
    return [_verdict(end, guilty, trace, node_is_alive, shared=len(died) > 1) for end in died]


def _verdict(
    end: Completion, guilty: set[str], trace: CrashReport | None, node_is_alive: bool, shared: bool
) -> Completion:
    name = end.task.name
    if isinstance(end.error, WorkerCrashError):
        return end
    if name in guilty:
        return replace(end, error=WorkerCrashError(f"{name}: the process working on it {trace}"))
    if guilty:
        return replace(end, error=EvictedError(f"{name}: another segment has ended the process working on it"))
    if not node_is_alive:
        return replace(end, error=EvictedError(f"{name}: the node working on it is gone"))
    return replace(end, shared=shared)
