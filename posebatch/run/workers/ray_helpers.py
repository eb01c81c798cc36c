"""The helpers of a run on Ray: actors that perform CPU tasks, one task at a time each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from posebatch.core.errors import EvictedError, WorkerDiedError
from posebatch.run.pool import Completion
from posebatch.run.tasks import VideoTask
from posebatch.run.workers.actors import ProcessHandle, TaskHelper
from posebatch.run.workers.ray_calls import NO_ANSWER, Actor, Ref, completion_of, summary_of
from posebatch.run.workers.ray_cluster import RayCluster
from posebatch.run.workers.ray_diagnoses import Diagnoses

IDLE_SECONDS: Final = 30.0
"""Time that an idle helper stays on a node without workers. An autoscaler may keep a node with an actor on it, even one
that claims no core."""


def nodes_for_helpers(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Ids of the nodes that take workers: alive, and with cores or GPUs. ``nodes`` is the answer of ``ray.nodes()``."""
    alive = (node for node in nodes if node["Alive"])
    return [node["NodeID"] for node in alive if node["Resources"].get("CPU") or node["Resources"].get("GPU")]


@dataclass(frozen=True)
class _Helper:
    actor: Actor
    process: ProcessHandle
    has_worked: bool = False
    """Whether it ended a task before. It may then have died idle, and not because of its next task."""
    idle_since: float = 0.0


class Helpers:
    """Helpers, started when no idle one is left.

    They claim no CPU, so that workers on every core cannot keep them from starting; ``slots`` bounds their number. They
    stay after a task: Ray ends an idle process after a second, so plain Ray tasks would each start a new one.

    They start only on nodes that take workers. A head node without cores has memory for Ray and the driver, not for
    videos. While an autoscaler has not added the first node, tasks wait for it: the first of them makes the pool ask
    for workers, and they for nodes.
    """

    def __init__(
        self,
        shared_context: Ref,
        diagnoses: Diagnoses,
        slots: int,
        cluster: RayCluster,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared_context, self._diagnoses, self._slots = shared_context, diagnoses, slots
        self._cluster, self._clock = cluster, clock
        self._waiting: deque[VideoTask] = deque()  # for the first node
        self._node_request: Actor | None = None
        self._starting: dict[Ref, tuple[VideoTask, Actor]] = {}  # by the ref of handle(), with the first task
        self._idle: list[_Helper] = []
        self._busy: dict[Ref, tuple[VideoTask, _Helper]] = {}  # by the ref of perform()
        self._started = 0

    def idle_slots(self) -> int:
        """How many more tasks may be submitted. Tasks that wait for a node begin once there is one."""
        for _ in range(len(self._waiting)):
            self._start_helper(self._waiting.popleft())
        return self._slots - len(self._busy) - len(self._starting) - len(self._waiting)

    def end_idle(self, nodes_of_workers: set[str]) -> None:
        """End the helpers that have long been idle, but those beside workers, which keep their node anyway."""
        latest = self._clock() - IDLE_SECONDS
        for helper in [*self._idle]:
            if helper.idle_since <= latest and helper.process.node_id not in nodes_of_workers:
                self._idle.remove(helper)
                ray.kill(helper.actor)

    def request_node(self) -> None:
        """If tasks wait for a node, ask the autoscaler for one: helpers claim nothing that would make it add one."""
        if self._waiting and self._node_request is None:
            claimant: Any = ray.remote(max_restarts=0, num_cpus=1)(TaskHelper)
            self._node_request = claimant.remote(self._shared_context)

    def submit(self, task: VideoTask) -> None:
        """Begin a task."""
        if self._idle:
            self._begin(task, self._idle.pop())
        else:
            self._start_helper(task)

    def refs(self) -> list[Ref]:
        """The calls that are under way."""
        return [*self._starting, *self._busy]

    def ended(self, ref: Ref) -> list[Completion]:
        """Take note of a call that has ended; returns the tasks that ended with it."""
        return self._helper_started(ref) if ref in self._starting else self._task_ended(ref)

    def busy_actors(self) -> set[Actor]:
        """The actors that have a task."""
        return {helper.actor for _, helper in self._busy.values()}

    def kill(self) -> None:
        """End all helpers, and with them the tasks under way."""
        self._end_node_request()
        for actor in [*self.busy_actors(), *(helper.actor for helper in self._idle)]:
            ray.kill(actor)
        for _, actor in self._starting.values():
            ray.kill(actor)

    def _start_helper(self, first: VideoTask) -> None:
        """Start a helper. It gets its first task once its crash folder is known: that task may kill it at once."""
        nodes = nodes_for_helpers(self._cluster.nodes())
        if not nodes:
            self._waiting.append(first)
            return
        self._end_node_request()
        self._started += 1
        # Not soft: Ray then starts some helpers on other nodes, a head without cores among them, even while this one
        # is alive. If the node is lost before the helper runs there, the task goes to another helper.
        node = NodeAffinitySchedulingStrategy(nodes[self._started % len(nodes)], soft=False)
        helper: Any = ray.remote(max_restarts=0, num_cpus=0)(TaskHelper)
        options = {"max_concurrency": 2, "scheduling_strategy": node}  # at once: a task, and a call of activity()
        actor = helper.options(**options).remote(self._shared_context)
        self._starting[actor.handle.remote()] = first, actor

    def _end_node_request(self) -> None:
        if self._node_request is not None:
            ray.kill(self._node_request)
            self._node_request = None

    def _begin(self, task: VideoTask, helper: _Helper) -> None:
        self._busy[helper.actor.perform.remote(task)] = task, helper

    def _helper_started(self, ref: Ref) -> list[Completion]:
        task, actor = self._starting.pop(ref)
        try:
            process = ray.get(ref)
        except NO_ANSWER as death:
            reason = summary_of(death)
            return [Completion(task, error=EvictedError(f"{task.name}: its process died before it began: {reason}"))]
        self._begin(task, _Helper(actor, process))
        return []

    def _task_ended(self, ref: Ref) -> list[Completion]:
        task, helper = self._busy.pop(ref)
        completion = completion_of(task, ref)
        if not isinstance(completion.error, WorkerDiedError):
            self._idle.append(replace(helper, has_worked=True, idle_since=self._clock()))
            return [completion]
        ray.kill(helper.actor)
        if helper.has_worked:
            # Each task may be done twice, so it runs again in a new process: only there a death is the task's doing.
            self._start_helper(task)
            return []
        return self._diagnoses.begin(helper.process, [completion])
