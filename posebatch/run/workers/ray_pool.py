"""The `Pool` of a run on Ray: workers that hold the networks, helpers for CPU tasks, and diagnoses of their deaths.

Mechanism only. The scheduler decides what runs, and what an error means.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import ray
from typing_extensions import override

from posebatch.run.context import RunContext
from posebatch.run.pool import Capacity, Completion, Pool
from posebatch.run.tasks import Call, ClipsTask, ProbeTask, SegmentTask
from posebatch.run.workers.actors import SegmentWorker
from posebatch.run.workers.ray_activity import ActivityMonitor
from posebatch.run.workers.ray_cluster import RayCluster
from posebatch.run.workers.ray_diagnoses import Diagnoses
from posebatch.run.workers.ray_helpers import Helpers
from posebatch.run.workers.ray_session import environment_for_workers
from posebatch.run.workers.ray_workers import Workers


class RayPool(Pool):
    """The workers and helpers of one run. Ray must be connected; see `ray_session.connected`.

    The workers start with the first video to be probed, or with the first clip: a run that only derives tables or draws
    previews needs none.
    """

    def __init__(
        self,
        context: RunContext,
        workers: int,
        device: str,
        worker_class: type = SegmentWorker,
        clock: Callable[[], float] = time.monotonic,
        before_workers: Callable[[], None] = lambda: None,
        cluster: RayCluster | None = None,
    ) -> None:
        """``workers`` actors of ``worker_class`` on ``device``; ``clock`` counts seconds.

        ``before_workers`` is called once, before they start.
        """
        self._before_workers = before_workers
        shared_context = ray.put(replace(context, environment=environment_for_workers()))
        self._diagnoses = Diagnoses(shared_context, clock)
        cluster = cluster or RayCluster()
        self._helpers = Helpers(shared_context, self._diagnoses, max(2, workers), cluster, clock)
        minutes = context.settings.limits.first_worker_minutes
        self._workers = Workers(shared_context, self._diagnoses, workers, device, worker_class, minutes, cluster, clock)
        self._activity = ActivityMonitor(clock)

    @override
    def capacity(self) -> Capacity:
        self._helpers.end_idle(self._workers.nodes())
        return Capacity(
            idle=self._workers.idle(),
            shareable=self._workers.shareable(),
            task_slots=self._helpers.idle_slots(),
            workers=self._workers.wanted,
            ready=self._workers.ready(),
            gpu_share=self._workers.gpu_share,
            requested=self._workers.requested,
            died=self._workers.died,
        )

    @override
    def start_workers(self) -> None:
        """Request the workers, unless that was done before."""
        if not self._workers.requested:
            self._before_workers()
            self._workers.start()

    @override
    def submit(self, task: Call) -> None:
        if isinstance(task, ProbeTask):
            self.start_workers()
        if isinstance(task, SegmentTask | ClipsTask):
            self._workers.submit(task)
        else:
            self._helpers.submit(task)
        if not self._workers.requested:
            self._helpers.request_node()

    @override
    def wait(self, timeout_s: float) -> list[Completion]:
        groups = (self._workers, self._helpers, self._diagnoses)
        group_of = {ref: group for group in groups for ref in group.refs()}
        if not group_of:  # no call is under way: only time can pass
            time.sleep(timeout_s)
            return []
        ended, _ = ray.wait([*group_of], num_returns=1, timeout=timeout_s)
        if ended:  # take all others that have ended by now
            ended, _ = ray.wait([*group_of], num_returns=len(group_of), timeout=0)
        refs = dict.fromkeys([*ended, *self._diagnoses.overdue()])
        return [completion for ref in refs for completion in group_of[ref].ended(ref)]

    @override
    def activity(self) -> int:
        return self._activity.changes(self._workers.busy_actors() | self._helpers.busy_actors())

    def close(self) -> None:
        """End all actors, and with them the tasks under way."""
        self._workers.kill()
        self._helpers.kill()
