"""Ray: actors that hold the networks, tasks for the rest. Mechanism only; `runner` decides.

An actor has at most two segments, so that it never waits for the next one. When it dies, its box says what it was about
(see `watch`), so that the one that is to blame is told apart from the other. Actors are asked for all at once and used
as they become ready: pending actors are what makes an autoscaler add nodes. CPU tasks go to helpers, actors that claim
no CPU, so that workers on every core cannot starve them; their number is bounded here. Ray's own tasks would each start
a process anew, since Ray ends what is idle for a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from typing import Any, Final

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from posebatch.core.errors import EvictedError, RunAbortedError, WorkerCrashError, WorkerDiedError
from posebatch.run.context import RunContext
from posebatch.run.pool import SEGMENTS_PER_WORKER, Capacity, Completion
from posebatch.run.tasks import SegmentTask, VideoTask
from posebatch.run.workers.actors import ProcessHandle, SegmentWorker, TaskHelper
from posebatch.run.workers.crash_reports import read_crash_report
from posebatch.run.workers.diagnosis import attribute_deaths
from posebatch.run.workers.ray_session import ACTORS_PER_GPU, cores_of_gpu_worker, passed_on

FIRST_WORKER_SECONDS: Final = 600.0
"""How long a run without any ready worker waits; an autoscaler may need minutes for a node."""


FAILED_STARTS_TO_ABORT: Final = 20
"""Workers in a row that die before they are ready, after which the run gives up if it has no other: enough to outlast
nodes that are taken away, few enough to notice that the networks do not fit into memory."""


WORKER_DEATHS: Final = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.RaySystemError,
    ray.exceptions.LocalRayletDiedError,
)
"""What Ray raises when a process or node ended under the work. Anything else is a bug and is raised."""


NO_ANSWER: Final = (*WORKER_DEATHS, ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnschedulableError)
"""What Ray raises when one asks a process that is not there."""


INQUEST_SECONDS: Final = 60.0
"""How long a process on the node of one that died may take to look into its box. Longer than Ray takes to notice that
the node itself has gone."""


BEAT_SECONDS: Final = 15.0
"""How often busy actors are asked whether they move on."""


@dataclass(eq=False)
class _Worker:
    """An actor that is ready."""

    actor: Any
    place: ProcessHandle
    jobs: dict[Any, SegmentTask] = field(default_factory=dict)
    """By the ref of their end."""

    @property
    def is_shareable(self) -> bool:
        return len(self.jobs) == 1 and not any(job.alone for job in self.jobs.values())


@dataclass(eq=False)
class _Helper:
    """An actor for CPU tasks, one at a time."""

    actor: Any
    place: ProcessHandle
    has_worked: bool = False
    """Then it may have died since, through no fault of its next task."""


@dataclass(frozen=True)
class _PendingDiagnosis:
    """Jobs whose process has died, until it is known of what."""

    ends: tuple[Completion, ...]
    deadline: float


class RayPool:
    """A `runner.Pool` on the Ray that is connected."""

    def __init__(self, context: RunContext, workers: int, device: str, worker: type = SegmentWorker) -> None:
        self._context = context
        self._wanted, self._device, self._worker_class = workers, device, worker
        self._shared_context = ray.put(replace(context, environment=passed_on()))
        self._starting: dict[Any, Any] = {}  # ref of load() -> actor
        self._workers: list[_Worker] = []
        self._busy: dict[Any, _Worker] = {}  # ref of process() -> its worker
        self._starting_helpers: dict[Any, tuple[VideoTask, Any]] = {}  # ref of place() -> its first task, actor
        self._idle_helpers: list[_Helper] = []
        self._tasks: dict[Any, tuple[VideoTask, _Helper]] = {}  # by the ref of perform()
        self._task_slots = max(2, workers)
        self._inquests: dict[Any, _PendingDiagnosis] = {}  # by the ref of autopsy()
        self._pulse = _Pulse()
        self._failed_starts = 0
        self._without_since = time.monotonic()
        for _ in range(workers):
            self._start_worker()

    def capacity(self) -> Capacity:
        """See `Pool`."""
        if not self._workers and time.monotonic() - self._without_since > FIRST_WORKER_SECONDS:
            raise RunAbortedError(
                f"no worker became ready within {FIRST_WORKER_SECONDS:.0f} s: the cluster has no free "
                f"{'GPU' if self._device == 'cuda' else 'CPU'} for one; see `ray status`"
            )
        return Capacity(
            idle=sum(not worker.jobs for worker in self._workers),
            shareable=sum(worker.is_shareable for worker in self._workers),
            task_slots=self._task_slots - len(self._tasks) - len(self._starting_helpers),
            workers=self._wanted,
        )

    def submit(self, job: SegmentTask | VideoTask) -> None:
        """See `runner.Pool`."""
        if isinstance(job, SegmentTask):
            places = (worker for worker in self._workers if not worker.jobs or worker.is_shareable)
            worker = min(places, key=lambda worker: len(worker.jobs))
            ref = worker.actor.process.remote(job)
            worker.jobs[ref], self._busy[ref] = job, worker
        elif self._idle_helpers:
            self._help(job, self._idle_helpers.pop())
        else:
            self._start_helper(job)

    def wait(self, timeout_s: float) -> list[Completion]:
        """See `runner.Pool`."""
        refs = [*self._starting, *self._busy, *self._starting_helpers, *self._tasks, *self._inquests]
        if not refs:  # every worker idle, nothing to wait for but time
            time.sleep(timeout_s)
            return []
        ready, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        if ready:  # take what else has ended by now
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        overdue = [ref for ref, inquest in self._inquests.items() if time.monotonic() > inquest.deadline]
        return [completion for ref in dict.fromkeys([*ready, *overdue]) for completion in self._ended(ref)]

    def activity(self) -> int:
        """See `runner.Pool`."""
        busy = {helper.actor for _, helper in self._tasks.values()} | {worker.actor for worker in self._busy.values()}
        return self._pulse.feel(busy)

    def close(self) -> None:
        """End the actors, and with them what is under way."""
        workers = [*self._starting.values(), *(worker.actor for worker in self._workers)]
        helpers = [helper.actor for helper in (*self._idle_helpers, *(helper for _, helper in self._tasks.values()))]
        for actor in [*workers, *helpers, *(actor for _, actor in self._starting_helpers.values())]:
            ray.kill(actor)

    def _start_worker(self) -> None:
        on_gpu = self._device == "cuda"
        threads = cores_of_gpu_worker(ray.nodes()) if on_gpu else 1  # type: ignore[no-untyped-call]
        gpus = 1 / ACTORS_PER_GPU if on_gpu else 0
        worker: Any = ray.remote(max_restarts=0, num_cpus=threads, num_gpus=gpus)(self._worker_class)
        concurrent = worker.options(max_concurrency=SEGMENTS_PER_WORKER + 1)  # one call for its beats
        actor = concurrent.remote(self._shared_context, self._device, threads)
        self._starting[actor.load.remote()] = actor

    def _start_helper(self, first: VideoTask) -> None:
        """It is given its first task when it has said where its box lies: a task may end it at once."""
        helper: Any = ray.remote(max_restarts=0, num_cpus=0, scheduling_strategy="SPREAD")(TaskHelper)
        actor = helper.options(max_concurrency=2).remote(self._shared_context)  # one call for its beats
        self._starting_helpers[actor.place.remote()] = first, actor

    def _help(self, job: VideoTask, helper: _Helper) -> None:
        self._tasks[helper.actor.perform.remote(job)] = job, helper

    def _ended(self, ref: Any) -> list[Completion]:
        kinds: list[tuple[Container[Any], Callable[[Any], list[Completion]]]] = [
            (self._starting, self._worker_started),
            (self._starting_helpers, self._helper_started),
            (self._busy, self._segment_ended),
            (self._tasks, self._task_ended),
            (self._inquests, self._inquest_ended),
        ]
        for waited_for, end in kinds:
            if ref in waited_for:
                return end(ref)
        return []  # told with the other segment of a worker that died

    def _segment_ended(self, ref: Any) -> list[Completion]:
        worker = self._busy.pop(ref)
        completion = _completion(worker.jobs.pop(ref), ref)
        if not isinstance(completion.error, WorkerDiedError):
            return [completion]
        return self._worker_died(worker, completion)

    def _helper_started(self, ref: Any) -> list[Completion]:
        job, actor = self._starting_helpers.pop(ref)
        try:
            place = ray.get(ref)
        except WORKER_DEATHS as death:
            return [Completion(job, error=EvictedError(f"{job.name}: the process for it died early: {_why(death)}"))]
        self._help(job, _Helper(actor, place))
        return []

    def _task_ended(self, ref: Any) -> list[Completion]:
        job, helper = self._tasks.pop(ref)
        completion = _completion(job, ref)
        if not isinstance(completion.error, WorkerDiedError):
            self._idle_helpers.append(replace(helper, has_worked=True))
            return [completion]
        ray.kill(helper.actor)
        if helper.has_worked:
            self._start_helper(job)  # tasks may be done twice; what dies in a new process is to blame
            return []
        return self._hold_inquest(helper.place, [completion])

    def _worker_died(self, worker: _Worker, first: Completion) -> list[Completion]:
        """The end of all segments that were in it; one may have ended well just before."""
        ray.kill(worker.actor)  # if it is only out of reach, what it still does must not count
        self._workers.remove(worker)
        self._without_since = time.monotonic()
        self._start_worker()
        ends = [first]
        for ref, job in worker.jobs.items():
            del self._busy[ref]
            ends.append(_completion(job, ref))
        died = [end for end in ends if isinstance(end.error, WorkerDiedError)]
        well = [end for end in ends if end not in died]
        if any(isinstance(end.error, WorkerCrashError) for end in died):  # it has said itself why it cannot go on
            return well + attribute_deaths(died, None, node_is_alive=True)
        return well + self._hold_inquest(worker.place, died)

    def _hold_inquest(self, place: ProcessHandle, died: list[Completion]) -> list[Completion]:
        """What is known at once; else it is told later, when a process on that node has looked into the box."""
        if place.node_id == ray.get_runtime_context().get_node_id():
            return attribute_deaths(died, read_crash_report(place.box), node_is_alive=True)
        there = NodeAffinitySchedulingStrategy(place.node_id, soft=False)
        examiner: Any = ray.remote(max_restarts=0, num_cpus=0)(TaskHelper)
        ref = (
            examiner.options(scheduling_strategy=there).remote(self._shared_context).read_crash_report.remote(place.box)
        )
        self._inquests[ref] = _PendingDiagnosis(tuple(died), time.monotonic() + INQUEST_SECONDS)
        return []

    def _inquest_ended(self, ref: Any) -> list[Completion]:
        inquest = self._inquests.pop(ref)
        try:
            return attribute_deaths(inquest.ends, ray.get(ref, timeout=0), node_is_alive=True)
        except NO_ANSWER:
            return attribute_deaths(inquest.ends, None, node_is_alive=False)

    def _worker_started(self, ref: Any) -> list[Completion]:
        actor = self._starting.pop(ref)
        try:
            outcome = ray.get(ref)
        except WORKER_DEATHS as death:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS_TO_ABORT and not self._workers:
                raise RunAbortedError(
                    f"{self._failed_starts} workers in a row died while they loaded the networks: {_why(death)}"
                ) from death
            self._start_worker()
            return []
        if outcome.error is not None:
            raise RunAbortedError(f"a worker cannot load the networks: {outcome.error}") from outcome.error
        assert isinstance(outcome.result, ProcessHandle)
        self._failed_starts = 0
        self._workers.append(_Worker(actor, outcome.result))
        return []


class _Pulse:
    """Asks actors now and then whether they move on."""

    def __init__(self) -> None:
        self._asked: dict[Any, Any] = {}  # ref of beats() -> actor
        self._heard: dict[Any, int] = {}
        self._next = 0.0
        self._changes = 0

    def feel(self, actors: set[Any]) -> int:
        """A number that changes when any of them has moved on."""
        ready, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0) if self._asked else ([], [])
        for ref in ready:
            self._hear(self._asked.pop(ref), ref)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + BEAT_SECONDS
            self._heard = {actor: activity for actor, activity in self._heard.items() if actor in actors}
            self._asked |= {actor.activity.remote(): actor for actor in actors - set(self._asked.values())}
        return self._changes

    def _hear(self, actor: Any, ref: Any) -> None:
        try:
            activity = ray.get(ref)
        except WORKER_DEATHS:
            return
        self._changes += activity != self._heard.get(actor)
        self._heard[actor] = activity


def _completion(job: SegmentTask | VideoTask, ref: Any) -> Completion:
    try:
        outcome = ray.get(ref)
    except WORKER_DEATHS as death:
        return Completion(job, error=WorkerDiedError(f"{job.name}: the process working on it died: {_why(death)}"))
    return Completion(job, outcome.result, outcome.error)


def _why(death: BaseException) -> str:
    """The telling line of Ray's long explanations."""
    lines = [line.strip() for line in str(death).splitlines() if line.strip()]
    return lines[0] if lines else type(death).__name__
