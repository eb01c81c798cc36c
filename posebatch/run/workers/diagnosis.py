"""Diagnosis of a dead process: which of its tasks caused the death."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from posebatch.core.errors import EvictedError, WorkerCrashError
from posebatch.run.pool import Completion
from posebatch.run.workers.crash_reports import CrashReport


def attribute_deaths(died: Sequence[Completion], report: CrashReport | None, node_is_alive: bool) -> list[Completion]:
    """Attribute the death of a process to the task that caused it.

    ``died`` are the tasks that ran in it, ``report`` its crash report. The culprit is the task that the report names,
    or the only one that ran; its error becomes a `WorkerCrashError`. The error of the others becomes an `EvictedError`,
    as do all if the node was lost or the process had been asked to end. If two ran on a node that lives and the report
    names neither, both are returned with ``shared=True``.
    """
    culprits = {completion.task.name for completion in died if isinstance(completion.error, WorkerCrashError)}
    if report is not None and report.reason:
        names = {completion.task.name for completion in died}
        culprits |= names if len(died) == 1 else names & {str(report.subject)}
    return [_attributed(completion, culprits, report, node_is_alive, shared=len(died) > 1) for completion in died]


def _attributed(
    completion: Completion, culprits: set[str], report: CrashReport | None, node_is_alive: bool, shared: bool
) -> Completion:
    name = completion.task.name
    if isinstance(completion.error, WorkerCrashError):
        return completion
    if name in culprits:
        return replace(completion, error=WorkerCrashError(f"{name}: the process that worked on it {report}"))
    if culprits:
        return replace(completion, error=EvictedError(f"{name}: another segment ended the process that worked on it"))
    if report is not None and report.was_ending:
        return replace(completion, error=EvictedError(f"{name}: the process that worked on it was asked to end"))
    if not node_is_alive:
        return replace(completion, error=EvictedError(f"{name}: the node that worked on it was lost"))
    return replace(completion, shared=shared)
