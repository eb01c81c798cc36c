"""The workers of a run on Ray: actors that hold the networks, each with at most two calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import ray

from posebatch.core.errors import EvictedError, RunAbortedError, WorkerCrashError, WorkerDiedError
from posebatch.run.pool import SEGMENTS_PER_WORKER, Completion
from posebatch.run.tasks import ClipsTask, SegmentTask
from posebatch.run.workers.actors import ProcessHandle
from posebatch.run.workers.diagnosis import attribute_deaths
from posebatch.run.workers.ray_calls import WORKER_DEATHS, Actor, Ref, completions_of, summary_of
from posebatch.run.workers.ray_cluster import RayCluster
from posebatch.run.workers.ray_diagnoses import Diagnoses
from posebatch.run.workers.ray_session import ACTORS_PER_GPU, cores_of_gpu_worker

FAILED_STARTS_TO_ABORT: Final = 20
"""A run without any worker gives up after so many in a row have died while they loaded: enough to outlast nodes that
are evicted, few enough to notice that the networks do not fit into memory."""


@dataclass(eq=False)
class _Worker:
    """An actor whose networks are loaded."""

    actor: Actor
    process: ProcessHandle
    tasks: dict[Ref, SegmentTask | ClipsTask] = field(default_factory=dict)
    """The segments and groups of clips under way, by the ref of their call."""
    is_ending: bool = False
    """Whether it was asked to end from outside: it finishes what it has and gets no more."""

    @property
    def is_idle(self) -> bool:
        return not self.tasks and not self.is_ending

    @property
    def is_shareable(self) -> bool:
        return len(self.tasks) == 1 and not self.is_ending and not any(task.alone for task in self.tasks.values())


class Workers:
    """``wanted`` workers, all requested at once by `start`: pending actors are what makes an autoscaler add nodes.

    Each is used as soon as it is ready, and replaced when it dies.
    """

    def __init__(
        self,
        shared_context: Ref,
        diagnoses: Diagnoses,
        wanted: int,
        device: str,
        worker_class: type,
        first_worker_minutes: float,
        cluster: RayCluster,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wanted = wanted
        self._shared_context, self._diagnoses, self._clock = shared_context, diagnoses, clock
        self._cluster = cluster
        self._device, self._worker_class = device, worker_class
        self.gpu_share = 1 / ACTORS_PER_GPU if device == "cuda" else 1.0
        """GPUs that each worker holds; on a CPU 1."""
        self._first_worker_minutes = first_worker_minutes
        self._starting: dict[Ref, Actor] = {}  # by the ref of load()
        self._ready: list[_Worker] = []
        self._failed_starts = 0
        self._without_worker_since = clock()
        self.requested = False
        self.died = 0
        """Workers that died, loading or at work."""

    def start(self) -> None:
        """Request the workers, unless that was done before."""
        if self.requested:
            return
        self.requested, self._without_worker_since = True, self._clock()
        for _ in range(self.wanted):
            self._start_worker()

    def idle(self) -> int:
        """Ready workers without a segment. Raises `RunAbortedError` if no worker became ready in time."""
        waited_s = self._clock() - self._without_worker_since if self.requested and not self._ready else 0.0
        if waited_s > 60 * self._first_worker_minutes:
            raise RunAbortedError(
                f"no worker became ready within {self._first_worker_minutes:g} minutes (--first-worker-minutes): the "
                f"cluster has no free {'GPU' if self._device == 'cuda' else 'CPU'} for one; see `ray status`"
            )
        return sum(worker.is_idle for worker in self._ready)

    def ready(self) -> int:
        """Workers whose networks are loaded, with segments or without."""
        return len(self._ready)

    def shareable(self) -> int:
        """Workers with one segment that may get a second."""
        return sum(worker.is_shareable for worker in self._ready)

    def submit(self, task: SegmentTask | ClipsTask) -> None:
        """Begin a segment or a group of clips on an idle worker, or else on a shareable one."""
        candidates = (worker for worker in self._ready if worker.is_idle or worker.is_shareable)
        worker = min(candidates, key=lambda worker: len(worker.tasks))
        method = worker.actor.process if isinstance(task, SegmentTask) else worker.actor.process_clips
        worker.tasks[method.remote(task)] = task

    def refs(self) -> list[Ref]:
        """The calls that are under way."""
        return [*self._starting, *(ref for worker in self._ready for ref in worker.tasks)]

    def ended(self, ref: Ref) -> list[Completion]:
        """Take note of a call that has ended; returns the segments and clips that ended with it."""
        if ref in self._starting:
            self._worker_started(ref)
            return []
        worker = next((worker for worker in self._ready if ref in worker.tasks), None)
        if worker is None:
            return []  # already returned with the other call of a worker that died
        completions = completions_of(worker.tasks.pop(ref), ref)
        errors = [completion.error for completion in completions]
        if any(isinstance(error, EvictedError) for error in errors):
            self._replace(worker)  # it has handed the call back, and may still finish the other
        elif any(isinstance(error, WorkerDiedError) for error in errors):
            return self._worker_died(worker, completions)
        if worker.is_ending and not worker.tasks:
            self._let_go(worker)
        return completions

    def busy_actors(self) -> set[Actor]:
        """The actors that have a segment."""
        return {worker.actor for worker in self._ready if worker.tasks}

    def nodes(self) -> set[str]:
        """The nodes of the ready workers."""
        return {worker.process.node_id for worker in self._ready}

    def kill(self) -> None:
        """End all workers, and with them the segments under way."""
        for actor in [*self._starting.values(), *(worker.actor for worker in self._ready)]:
            ray.kill(actor)

    def _start_worker(self) -> None:
        on_gpu = self._device == "cuda"
        threads = cores_of_gpu_worker(self._cluster.nodes()) if on_gpu else 1
        gpus = 1 / ACTORS_PER_GPU if on_gpu else 0
        worker: Any = ray.remote(max_restarts=0, num_cpus=threads, num_gpus=gpus)(self._worker_class)
        concurrent = worker.options(max_concurrency=SEGMENTS_PER_WORKER + 1)  # and a call of activity()
        actor = concurrent.remote(self._shared_context, self._device, threads)
        self._starting[actor.load.remote()] = actor

    def _worker_started(self, ref: Ref) -> None:
        actor = self._starting.pop(ref)
        try:
            loaded = ray.get(ref)
        except WORKER_DEATHS as death:
            self._failed_starts += 1
            self.died += 1
            if self._failed_starts >= FAILED_STARTS_TO_ABORT and not self._ready:
                raise RunAbortedError(
                    f"{self._failed_starts} workers in a row died while they loaded the networks: {summary_of(death)}"
                ) from death
            self._start_worker()
            return
        if loaded.error is not None:
            raise RunAbortedError(f"a worker cannot load the networks: {loaded.error}") from loaded.error
        assert isinstance(loaded.result, ProcessHandle)
        self._failed_starts = 0
        self._ready.append(_Worker(actor, loaded.result))

    def _replace(self, worker: _Worker) -> None:
        """Start another worker in place of one that ends or has died."""
        if not worker.is_ending:
            worker.is_ending = True
            self.died += 1
            self._start_worker()

    def _let_go(self, worker: _Worker) -> None:
        ray.kill(worker.actor)  # it may only be out of reach: nothing that it still does may count
        self._ready.remove(worker)
        self._without_worker_since = self._clock()

    def _worker_died(self, worker: _Worker, first: list[Completion]) -> list[Completion]:
        """Replace a worker, and end all of its calls. Segments and clips may have ended well just before the death."""
        self._let_go(worker)
        self._replace(worker)
        others = (completion for ref, task in worker.tasks.items() for completion in completions_of(task, ref))
        completions = [*first, *others]
        died = [completion for completion in completions if isinstance(completion.error, WorkerDiedError)]
        ended_before = [completion for completion in completions if completion not in died]
        if any(isinstance(completion.error, WorkerCrashError) for completion in died):
            # the worker itself has named the segment after which it cannot go on: there is no crash report to read
            return ended_before + attribute_deaths(died, None, node_is_alive=True)
        return ended_before + self._diagnoses.begin(worker.process, died)
