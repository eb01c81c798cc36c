"""Deaths of processes that are not diagnosed yet, because their crash report lies on another node."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from posebatch.run.pool import Completion
from posebatch.run.workers.actors import ProcessHandle, TaskHelper
from posebatch.run.workers.crash_reports import read_crash_report
from posebatch.run.workers.diagnosis import attribute_deaths
from posebatch.run.workers.ray_calls import NO_ANSWER, Ref

CRASH_REPORT_SECONDS: Final = 60.0
"""Time for a process on the node of the dead one to read its crash report. Longer than Ray takes to notice that the
whole node was lost."""


@dataclass(frozen=True)
class _PendingDiagnosis:
    died: tuple[Completion, ...]
    """The tasks whose process died."""
    deadline: float


class Diagnoses:
    """Finds out which task caused the death of a process."""

    def __init__(self, shared_context: Ref, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared_context, self._clock = shared_context, clock
        self._pending: dict[Ref, _PendingDiagnosis] = {}  # by the ref of read_crash_report()

    def begin(self, process: ProcessHandle, died: Sequence[Completion]) -> list[Completion]:
        """The diagnosis at once if the process ran on this node. Otherwise it is pending, and nothing is returned."""
        if process.node_id == ray.get_runtime_context().get_node_id():
            return attribute_deaths(died, read_crash_report(process.crash_dir), node_is_alive=True)
        on_that_node = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
        reader: Any = ray.remote(max_restarts=0, num_cpus=0)(TaskHelper)
        actor = reader.options(scheduling_strategy=on_that_node).remote(self._shared_context)
        ref = actor.read_crash_report.remote(process.crash_dir)
        self._pending[ref] = _PendingDiagnosis(tuple(died), self._clock() + CRASH_REPORT_SECONDS)
        return []

    def refs(self) -> list[Ref]:
        """The calls that are under way."""
        return [*self._pending]

    def overdue(self) -> list[Ref]:
        """The calls that got no answer in time."""
        return [ref for ref, diagnosis in self._pending.items() if self._clock() > diagnosis.deadline]

    def ended(self, ref: Ref) -> list[Completion]:
        """The diagnosis of a call that has ended or is overdue. Without an answer, the node is taken to be lost."""
        diagnosis = self._pending.pop(ref)
        try:
            return attribute_deaths(diagnosis.died, ray.get(ref, timeout=0), node_is_alive=True)
        except NO_ANSWER:
            return attribute_deaths(diagnosis.died, None, node_is_alive=False)
