"""The bookkeeping of the pool on a scripted Ray: which actors start, who gets a task, what follows from a death."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.exceptions

from posebatch.core.errors import DamagedVideoError, EvictedError, RunAbortedError, WorkerCrashError, WorkerDiedError
from posebatch.core.settings import settings_from
from posebatch.core.videos import Segment, SourceVideo, VideoInfo, VideoPlan
from posebatch.run.context import RunContext
from posebatch.run.pool import Completion
from posebatch.run.tasks import (
    ClipResult,
    ClipsTask,
    ClipTask,
    DeriveTask,
    ProbeResult,
    ProbeTask,
    SegmentResult,
    SegmentTask,
)
from posebatch.run.workers import ray_diagnoses
from posebatch.run.workers.actors import CallResult, ProcessHandle, SegmentWorker, TaskHelper
from posebatch.run.workers.crash_reports import CrashReport
from posebatch.run.workers.diagnosis import attribute_deaths
from posebatch.run.workers.ray_activity import ACTIVITY_SECONDS
from posebatch.run.workers.ray_diagnoses import CRASH_REPORT_SECONDS
from posebatch.run.workers.ray_helpers import IDLE_SECONDS, nodes_for_helpers
from posebatch.run.workers.ray_pool import RayPool
from posebatch.run.workers.ray_session import cores_of_gpu_worker
from posebatch.run.workers.ray_workers import FAILED_STARTS_TO_ABORT

INFO = VideoInfo("h264", "yuv420p", 64, 48, 0, Fraction(1, 100), 0, 1.0, 10.0, 4)
CONTEXT = RunContext("run", settings_from({"first_worker_minutes": 3}), "/out", "d@1", "p@1")
FIRST_WORKER_SECONDS = 180
DONE = SegmentResult(1, 0, 0.1)
HERE, ELSEWHERE = ProcessHandle("here", "crash"), ProcessHandle("e1" * 28, "crash")
CRASHED = "crashed (Segmentation fault)"


def segment(index: int, alone: bool = False) -> SegmentTask:
    return SegmentTask(SourceVideo("/in/a.mp4", "a.mp4", "e", 1, 1.0), INFO, Segment(index, index), alone)


def cpu_task(name: str) -> ProbeTask:
    return ProbeTask(SourceVideo(f"/in/{name}", name, "e", 1, 1.0))


def node(node_id: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    """A node as ``ray.nodes()`` names it."""
    return {"NodeID": node_id, "Alive": alive, "Resources": {"memory": 8e9, **resources}}


@dataclass(eq=False)
class Call:
    """A call of an actor's method, and its ref."""

    arguments: tuple[Any, ...] = ()
    answer: CallResult | Exception | Any = None
    """None while the call is under way."""


@dataclass(eq=False)
class ScriptedActor:
    """An actor whose calls end when the test says so."""

    calls: list[Call] = field(default_factory=list)
    """Calls of the methods that do the work, in order."""
    queries: dict[str, Call] = field(default_factory=dict)
    """The last call of each other method."""
    killed: bool = False

    def __getattr__(self, name: str) -> Any:
        assert hasattr(SegmentWorker, name) or hasattr(TaskHelper, name), name
        if name in ("activity", "read_crash_report"):
            return SimpleNamespace(remote=lambda *_: self.queries.setdefault(name, Call()))
        return SimpleNamespace(remote=self._call)

    def _call(self, *arguments: Any) -> Call:
        self.calls.append(Call(arguments))
        return self.calls[-1]

    def answer(self, number: int, answer: CallResult | ProcessHandle | list[CallResult]) -> None:
        self.calls[number].answer = answer

    def die(self, death: Exception | None = None) -> None:
        for call in [*self.calls, *self.queries.values()]:
            call.answer = call.answer or death or ray.exceptions.ActorDiedError()


class ScriptedRay:
    """The functions of Ray that the pool uses."""

    def __init__(self) -> None:
        self.actors: list[ScriptedActor] = []
        self.options: dict[str, Any] = {}
        """Options of the actor that was started last."""
        self.strategies: list[Any] = []
        """The scheduling strategies of the actors, in order of their start; None for the default."""
        self.cluster: list[dict[str, Any]] = [node("e0" * 28, CPU=4.0)]
        """The answer of ``ray.nodes()``."""

    def nodes(self) -> list[dict[str, Any]]:
        return self.cluster

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **_: Any) -> Any:
        return lambda _: SimpleNamespace(options=self._options, remote=self._start)

    def _options(self, **options: Any) -> Any:
        self.options = options
        self.strategies.append(options.get("scheduling_strategy"))
        return SimpleNamespace(remote=self._start)

    def _start(self, *_: Any) -> ScriptedActor:
        self.actors.append(ScriptedActor())
        return self.actors[-1]

    def wait(self, refs: list[Call], num_returns: int, timeout: float) -> tuple[list[Call], list[Call]]:
        ready = [ref for ref in refs if ref.answer is not None][:num_returns]
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref: Call, timeout: float | None = None) -> Any:
        if ref.answer is None and timeout is not None:
            raise ray.exceptions.GetTimeoutError
        assert ref.answer is not None, "this call would block for ever"
        if isinstance(ref.answer, Exception):
            raise ref.answer
        return ref.answer

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here")

    def kill(self, actor: ScriptedActor) -> None:
        actor.killed = True
        actor.die()


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> ScriptedRay:
    scripted = ScriptedRay()
    for name in ("put", "nodes", "remote", "wait", "get", "get_runtime_context", "kill"):
        monkeypatch.setattr(ray, name, getattr(scripted, name))
    return scripted


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def start_pool(workers: int = 1, clock: Callable[[], float] | None = None) -> RayPool:
    pool = RayPool(CONTEXT, workers, "cpu", clock=clock or Clock())
    pool.start_workers()
    return pool


def pool_with_ready_workers(scripted: ScriptedRay, workers: int, clock: Callable[[], float] | None = None) -> RayPool:
    pool = start_pool(workers, clock)
    for actor in scripted.actors:
        actor.answer(0, CallResult(HERE))
    assert pool.wait(0) == []
    return pool


def idle_and_shareable(pool: RayPool) -> tuple[int, int]:
    return pool.capacity().idle, pool.capacity().shareable


# --- workers -------------------------------------------------------------------------------------------------------


def test_workers_start_with_the_first_probe_and_never_without(scripted: ScriptedRay) -> None:
    """What is to be derived or drawn needs helpers alone."""
    clock, prepared = Clock(), []
    pool = RayPool(CONTEXT, 2, "cpu", clock=clock, before_workers=lambda: prepared.append("weights"))
    pool.submit(DeriveTask(cpu_task("a").video))
    clock.now = 1e6
    capacity = pool.capacity()
    assert (capacity.requested, capacity.idle, capacity.workers) == (False, 0, 2)
    assert (len(scripted.actors), prepared) == (1, [])
    pool.submit(cpu_task("b"))
    assert pool.capacity().requested
    assert (len(scripted.actors), prepared) == (1 + 2 + 1, ["weights"])


def test_workers_are_used_as_they_become_ready(scripted: ScriptedRay) -> None:
    pool = start_pool(3)
    assert (pool.capacity().workers, *idle_and_shareable(pool)) == (3, 0, 0)
    for ready, actor in enumerate(scripted.actors, start=1):
        actor.answer(0, CallResult(HERE))
        assert pool.wait(0) == []
        assert pool.capacity().idle == ready
    assert scripted.options["max_concurrency"] == 3, "two segments, and a call of activity()"


def test_segments_go_to_idle_workers_first_and_at_most_two_to_each(scripted: ScriptedRay) -> None:
    pool = pool_with_ready_workers(scripted, 2)
    free = []
    for index in range(4):
        free.append(idle_and_shareable(pool))
        pool.submit(segment(index))
    assert free == [(2, 0), (1, 1), (0, 2), (0, 1)]
    assert idle_and_shareable(pool) == (0, 0)
    assert sorted(len(actor.calls) for actor in scripted.actors) == [3, 3], "load() and two segments"


def test_segment_that_must_run_alone_shares_its_worker_with_none(scripted: ScriptedRay) -> None:
    pool = pool_with_ready_workers(scripted, 2)
    pool.submit(segment(0))
    pool.submit(segment(1, alone=True))
    assert idle_and_shareable(pool) == (0, 1)
    pool.submit(segment(2))
    (shared,) = (actor for actor in scripted.actors if len(actor.calls) == 3)
    assert [call.arguments[0].segment.index for call in shared.calls[1:]] == [0, 2]


def test_segments_of_one_worker_end_one_by_one(scripted: ScriptedRay) -> None:
    pool = pool_with_ready_workers(scripted, 1)
    first, second = segment(0), segment(1)
    pool.submit(first)
    pool.submit(second)
    (actor,) = scripted.actors
    error = DamagedVideoError("bad")
    actor.answer(1, CallResult(error=error))
    assert pool.wait(0) == [Completion(first, error=error)]
    assert idle_and_shareable(pool) == (0, 1)
    actor.answer(2, CallResult(DONE))
    assert pool.wait(0) == [Completion(second, DONE)]
    assert (*idle_and_shareable(pool), len(scripted.actors)) == (1, 0, 1)


@pytest.mark.parametrize(
    ("segments", "ended_well", "died", "shared"),
    [
        (1, [], [0], False),
        (2, [], [0, 1], True),
        (2, [0], [1], False),
        (2, [1], [0], False),
    ],
)
@pytest.mark.parametrize("both_calls_fail_at_once", [True, False])
def test_death_of_worker_ends_all_of_its_segments_once(
    scripted: ScriptedRay,
    segments: int,
    ended_well: list[int],
    died: list[int],
    shared: bool,
    both_calls_fail_at_once: bool,
) -> None:
    pool = pool_with_ready_workers(scripted, 1)
    for index in range(segments):
        pool.submit(segment(index))
    (actor,) = scripted.actors
    for index in ended_well:
        actor.answer(1 + index, CallResult(DONE))
    if both_calls_fail_at_once:
        actor.die()
    else:  # the other call fails only when the pool kills what is left of the process
        actor.calls[1 + died[0]].answer = ray.exceptions.ActorDiedError()
    completions = {completion.task.segment.index: completion for completion in pool.wait(0)}
    assert set(completions) == set(range(segments))
    assert all(completions[index].result == DONE and not completions[index].shared for index in ended_well)
    assert all(isinstance(completions[index].error, WorkerDiedError) for index in died)
    assert all(completions[index].shared is shared for index in died)
    assert pool.wait(0) == [], "nothing is returned twice"
    assert actor.killed
    assert (*idle_and_shareable(pool), len(scripted.actors)) == (0, 0, 2), "another one starts"


def test_wait_for_first_worker_starts_again_when_the_last_one_dies(scripted: ScriptedRay) -> None:
    clock = Clock()
    pool = pool_with_ready_workers(scripted, 1, clock)
    pool.submit(segment(0))
    clock.now = 100 * FIRST_WORKER_SECONDS
    scripted.actors[0].die()
    assert len(pool.wait(0)) == 1
    assert pool.capacity().idle == 0, "no reason to give up yet"
    clock.now += FIRST_WORKER_SECONDS + 1
    with pytest.raises(RunAbortedError, match="no worker became ready within 3 minutes"):
        pool.capacity()


def test_pool_gives_up_when_no_worker_survives_loading(scripted: ScriptedRay) -> None:
    pool = start_pool()
    for _ in range(FAILED_STARTS_TO_ABORT - 1):
        scripted.actors[-1].die()
        assert pool.wait(0) == []
    scripted.actors[-1].die()
    with pytest.raises(RunAbortedError, match="workers in a row died"):
        pool.wait(0)
    assert len(scripted.actors) == FAILED_STARTS_TO_ABORT


def test_close_kills_all_actors(scripted: ScriptedRay) -> None:
    pool = pool_with_ready_workers(scripted, 2)
    pool.submit(segment(0))
    pool.submit(cpu_task("a"))
    pool.submit(cpu_task("b"))
    begin_first_task(pool, scripted.actors[2]).answer(1, CallResult())
    pool.wait(0)
    pool.submit(cpu_task("c"))
    pool.submit(cpu_task("d"))
    pool.close()
    assert len(scripted.actors) == 5
    assert all(actor.killed for actor in scripted.actors)


# --- clips ---------------------------------------------------------------------------------------------------------


def clips(*names: str, alone: bool = False) -> ClipsTask:
    return ClipsTask(tuple(ClipTask(cpu_task(name).video, alone=alone) for name in names))


def test_group_of_clips_takes_the_place_of_a_segment_and_ends_clip_by_clip(scripted: ScriptedRay) -> None:
    pool = pool_with_ready_workers(scripted, 1)
    group, error = clips("a", "b"), DamagedVideoError("bad")
    pool.submit(group)
    assert idle_and_shareable(pool) == (0, 1)
    pool.submit(clips("c"))
    assert idle_and_shareable(pool) == (0, 0)
    result = ClipResult(DONE, ProbeResult(group.clips[0].video, VideoPlan(INFO, (Segment(),)), frozenset()))
    scripted.actors[0].answer(1, [CallResult(result), CallResult(error=error)])
    assert pool.wait(0) == [Completion(group.clips[0], result), Completion(group.clips[1], error=error)]
    assert idle_and_shareable(pool) == (0, 1)


def test_clip_that_must_run_alone_shares_its_worker_with_none(scripted: ScriptedRay) -> None:
    pool = pool_with_ready_workers(scripted, 1)
    pool.submit(clips("a", alone=True))
    assert idle_and_shareable(pool) == (0, 0)


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("/in/b", {"/in/a": EvictedError, "/in/b": WorkerCrashError, "/in/c": EvictedError}),
        (clips("a", "b").name, dict.fromkeys(("/in/a", "/in/b", "/in/c"), WorkerDiedError)),
    ],
)
def test_death_with_clips_accuses_the_one_that_the_report_names(
    scripted: ScriptedRay, monkeypatch: pytest.MonkeyPatch, subject: str, expected: dict[str, type]
) -> None:
    """The networks have frames of several clips: a report of their step names none, and each must be tried alone."""
    monkeypatch.setattr(ray_diagnoses, "read_crash_report", lambda _: CrashReport(CRASHED, "decode", subject))
    pool = pool_with_ready_workers(scripted, 1)
    pool.submit(clips("a", "b"))
    pool.submit(clips("c"))
    scripted.actors[0].die()
    completions = pool.wait(0)
    assert {completion.task.video.uri: type(completion.error) for completion in completions} == expected
    assert {completion.shared for completion in completions} == {WorkerDiedError in expected.values()}


def test_group_whose_networks_failed_ends_its_worker(scripted: ScriptedRay) -> None:
    """The clip that was published before is no loss; the others are suspects."""
    pool = pool_with_ready_workers(scripted, 1)
    group, died = clips("a", "b", "c"), CallResult(error=WorkerDiedError("failed with 2 clips in the networks"))
    pool.submit(group)
    scripted.actors[0].answer(1, [CallResult(DONE), died, died])
    completions = pool.wait(0)
    assert [completion.task for completion in completions] == list(group.clips)
    assert [completion.shared for completion in completions] == [False, True, True]
    assert scripted.actors[0].killed


# --- diagnosis ------------------------------------------------------------------------------------------------------


def completions_of_dead_worker(segments: int) -> list[Completion]:
    return [Completion(segment(index), error=WorkerDiedError(f"{index} died")) for index in range(segments)]


DIED, SUSPECT = (WorkerDiedError, False), (WorkerDiedError, True)
CULPRIT, EVICTED = (WorkerCrashError, False), (EvictedError, False)


@pytest.mark.parametrize(
    ("segments", "report", "node_is_alive", "expected"),
    [
        (0, CrashReport(""), True, []),
        (1, None, True, [DIED]),
        (1, CrashReport(""), True, [DIED]),
        (2, CrashReport(""), True, [SUSPECT, SUSPECT]),
        (1, None, False, [EVICTED]),
        (2, None, False, [EVICTED, EVICTED]),
        (1, CrashReport("", was_ending=True), True, [EVICTED]),
        (2, CrashReport("", was_ending=True), True, [EVICTED, EVICTED]),
        (1, CrashReport(CRASHED, was_ending=True), True, [CULPRIT]),
        (1, CrashReport(CRASHED), True, [CULPRIT]),
        (1, CrashReport(CRASHED, "decode", "another task"), True, [CULPRIT]),
        (2, CrashReport(CRASHED), True, [SUSPECT, SUSPECT]),
        (2, CrashReport(CRASHED, "decode", "another task"), True, [SUSPECT, SUSPECT]),
        (2, CrashReport(CRASHED, "decode", segment(0).name), True, [CULPRIT, EVICTED]),
        (2, CrashReport(CRASHED, "decode", segment(1).name), True, [EVICTED, CULPRIT]),
    ],
)
def test_death_is_attributed_to_its_culprit(
    segments: int, report: CrashReport | None, node_is_alive: bool, expected: list[tuple[type, bool]]
) -> None:
    completions = attribute_deaths(completions_of_dead_worker(segments), report, node_is_alive)
    assert [(type(completion.error), completion.shared) for completion in completions] == expected
    for completion in completions:
        if report and report.stage and type(completion.error) is WorkerCrashError:
            assert str(completion.error).endswith(f"the process that worked on it {CRASHED} in step 'decode'")


def test_worker_with_failed_networks_is_replaced_and_names_the_culprit(scripted: ScriptedRay) -> None:
    """Networks that failed once fail again, so the worker ends. The other segment in it is not suspected."""
    pool = pool_with_ready_workers(scripted, 1)
    pool.submit(segment(0))
    pool.submit(segment(1))
    scripted.actors[0].answer(1, CallResult(error=WorkerCrashError("the networks failed: CUDA error")))
    first, second = pool.wait(0)
    assert (type(first.error), type(second.error)) == (WorkerCrashError, EvictedError)
    assert scripted.actors[0].killed
    assert len(scripted.actors) == 2


@pytest.fixture
def report_on_this_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ray_diagnoses,
        "read_crash_report",
        lambda crash_dir: CrashReport(CRASHED, "decode") if crash_dir == HERE.crash_dir else None,
    )


@pytest.mark.usefixtures("report_on_this_node")
def test_crash_report_on_this_node_is_read_at_once(scripted: ScriptedRay) -> None:
    pool = pool_with_ready_workers(scripted, 1)
    pool.submit(segment(0))
    scripted.actors[0].die()
    (completion,) = pool.wait(0)
    assert type(completion.error) is WorkerCrashError


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (CrashReport(CRASHED, "decode"), WorkerCrashError),
        (CrashReport(""), WorkerDiedError),
        (ray.exceptions.ActorDiedError(), EvictedError),
        (None, EvictedError),
    ],
)
def test_crash_report_on_another_node_is_read_by_a_process_there(
    scripted: ScriptedRay, answer: CrashReport | Exception | None, expected: type
) -> None:
    """Without an answer in time, the node counts as lost."""
    clock = Clock()
    pool = start_pool(clock=clock)
    scripted.actors[0].answer(0, CallResult(ELSEWHERE))
    pool.wait(0)
    pool.submit(segment(0))
    scripted.actors[0].die()
    assert pool.wait(0) == []
    assert scripted.options["scheduling_strategy"].node_id == ELSEWHERE.node_id
    if answer is None:
        assert pool.wait(0) == []
        clock.now += CRASH_REPORT_SECONDS + 1
    else:
        scripted.actors[-1].queries["read_crash_report"].answer = answer
    (completion,) = pool.wait(0)
    assert type(completion.error) is expected
    assert pool.wait(0) == []


def test_activity_changes_when_a_busy_actor_makes_progress(scripted: ScriptedRay) -> None:
    clock = Clock()
    pool = pool_with_ready_workers(scripted, 1, clock)

    def activity_later() -> int:
        clock.now += ACTIVITY_SECONDS
        return pool.activity()

    at_first = activity_later()
    assert activity_later() == at_first, "no actor is busy"
    pool.submit(segment(0))
    activity_later()
    changes = []
    for answer in (1, 1, 2, ray.exceptions.ActorDiedError()):
        scripted.actors[0].queries.pop("activity").answer = answer
        changes.append(activity_later() - at_first)
    assert changes == [1, 1, 2, 2]


def test_worker_that_was_asked_to_end_finishes_its_segment_and_gets_no_other(scripted: ScriptedRay) -> None:
    clock = Clock()
    pool = start_pool(clock=clock)
    scripted.actors[0].answer(0, CallResult(HERE))
    pool.wait(0)
    pool.submit(segment(0))
    pool.submit(segment(1))
    clock.now = 3600.0
    handed_back = EvictedError("handed back")
    scripted.actors[0].answer(2, CallResult(error=handed_back))
    assert pool.wait(0) == [Completion(segment(1), error=handed_back)]
    capacity = pool.capacity()
    assert (capacity.idle, capacity.shareable, capacity.died, len(scripted.actors)) == (0, 0, 1, 2)
    assert not scripted.actors[0].killed
    scripted.actors[0].answer(1, CallResult(DONE))
    assert pool.wait(0) == [Completion(segment(0), DONE)]
    assert scripted.actors[0].killed
    assert len(scripted.actors) == 2, "it was replaced once"
    assert pool.capacity().ready == 0, "its successor has the time of a first worker to become ready"


# --- CPU tasks ------------------------------------------------------------------------------------------------------


def begin_first_task(pool: RayPool, helper: ScriptedActor) -> ScriptedActor:
    """The helper names its crash folder, and gets its first task."""
    helper.answer(0, HERE)
    assert pool.wait(0) == []
    return helper


def test_cpu_tasks_need_no_worker_and_reuse_helpers(scripted: ScriptedRay) -> None:
    pool = start_pool(3)
    workers = len(scripted.actors)
    assert pool.capacity().task_slots == 3
    pool.submit(cpu_task("a"))
    pool.submit(cpu_task("b"))
    assert (pool.capacity().task_slots, len(scripted.actors)) == (1, workers + 2)
    first, second = (begin_first_task(pool, helper) for helper in scripted.actors[workers:])
    assert pool.capacity().task_slots == 1
    second.answer(1, CallResult("probed"))
    assert pool.wait(0) == [Completion(cpu_task("b"), "probed")]
    pool.submit(cpu_task("c"))
    assert [call.arguments[0].video.output_path for call in second.calls[1:]] == ["b", "c"]
    first.answer(1, CallResult(error=DamagedVideoError("bad")))
    (completion,) = pool.wait(0)
    assert (completion.task, type(completion.error)) == (cpu_task("a"), DamagedVideoError)
    assert (pool.capacity().task_slots, len(scripted.actors)) == (2, workers + 2)


HEAD = node("ead0" * 14)
"""A head node that takes no workers: started with ``--num-cpus 0 --num-gpus 0``."""
FIRST, SECOND = (node(letter * 56, CPU=6.0, GPU=1.0) for letter in "12")


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([], []),
        ([HEAD], []),
        ([node("one machine", CPU=2.0)], ["one machine"]),
        ([HEAD, FIRST, SECOND], ["1" * 56, "2" * 56]),
        ([HEAD, node("lost", alive=False, CPU=6.0), SECOND], ["2" * 56]),
        ([HEAD, node("GPU alone", GPU=1.0)], ["GPU alone"]),
        ([node("no core left", CPU=0.0)], []),
    ],
)
def test_nodes_for_helpers_are_those_that_take_workers(nodes: list[dict[str, Any]], expected: list[str]) -> None:
    assert nodes_for_helpers(nodes) == expected


def helper_nodes(scripted: ScriptedRay) -> list[tuple[str, bool]]:
    return [(one.node_id, one.soft) for one in scripted.strategies if one is not None]


def test_helpers_are_spread_over_the_nodes_that_take_workers(scripted: ScriptedRay) -> None:
    scripted.cluster = [HEAD, FIRST, SECOND]
    pool = start_pool(workers=4)
    for name in "abcd":
        pool.submit(cpu_task(name))
    assert sorted(helper_nodes(scripted)) == [("1" * 56, False)] * 2 + [("2" * 56, False)] * 2


def test_helpers_wait_for_the_first_node_that_takes_workers(scripted: ScriptedRay) -> None:
    """An autoscaler starts with a head alone. The first probe asks for workers, which make it add nodes."""
    scripted.cluster = [HEAD]
    pool = RayPool(CONTEXT, 1, "cpu", clock=Clock())
    assert (pool.capacity().task_slots, pool.capacity().requested) == (2, False)
    pool.submit(cpu_task("a"))
    assert (pool.capacity().task_slots, pool.capacity().requested) == (1, True)
    assert helper_nodes(scripted) == []
    scripted.cluster = [HEAD, FIRST]
    assert pool.capacity().task_slots == 1
    scripted.cluster = [HEAD, node(FIRST["NodeID"], alive=False, CPU=6.0), SECOND]
    pool.submit(cpu_task("b"))
    assert helper_nodes(scripted) == [("1" * 56, False), ("2" * 56, False)]


def test_run_without_workers_asks_for_its_first_node_by_an_actor_that_claims_a_core(scripted: ScriptedRay) -> None:
    """Helpers claim nothing, so that no autoscaler would add a node for them."""
    scripted.cluster = [HEAD]
    pool = RayPool(CONTEXT, 1, "cpu", clock=Clock())
    pool.submit(DeriveTask(cpu_task("a").video))
    pool.submit(DeriveTask(cpu_task("b").video))
    (claimant,) = scripted.actors
    assert not pool.capacity().requested
    scripted.cluster = [HEAD, FIRST]
    assert pool.capacity().task_slots == 0
    assert claimant.killed
    assert helper_nodes(scripted) == [("1" * 56, False)] * 2


def test_idle_helper_keeps_no_node_that_has_no_worker(scripted: ScriptedRay) -> None:
    clock = Clock()
    pool = start_pool(clock=clock)
    scripted.actors[0].answer(0, CallResult(HERE))
    helpers = []
    for name in "ab":
        pool.submit(cpu_task(name))
        helpers.append(scripted.actors[-1])
    for helper, process in zip(helpers, (HERE, ELSEWHERE), strict=True):
        helper.answer(0, process)
    pool.wait(0)
    for helper in helpers:
        helper.answer(1, CallResult("done"))
    assert len(pool.wait(0)) == 2
    for seconds, killed in ((IDLE_SECONDS - 1, [False, False]), (IDLE_SECONDS, [False, True])):
        clock.now = seconds
        pool.capacity()
        assert [helper.killed for helper in helpers] == killed
    pool.submit(cpu_task("c"))
    assert helpers[0].calls[-1].arguments == (cpu_task("c"),)


def test_helper_gets_its_task_only_after_it_named_its_crash_folder(scripted: ScriptedRay) -> None:
    """Otherwise a task that kills it at once would leave no report, each time again."""
    pool = start_pool()
    pool.submit(cpu_task("a"))
    assert pool.wait(0) == []
    assert [call.arguments for call in scripted.actors[-1].calls] == [()], "only handle() was called"


@pytest.mark.parametrize("death", [None, ray.exceptions.ActorUnschedulableError("its node was lost")])
def test_death_of_helper_before_its_task_is_an_eviction(scripted: ScriptedRay, death: Exception | None) -> None:
    """Its process died, or its node was lost before the process started."""
    pool = start_pool()
    pool.submit(cpu_task("a"))
    scripted.actors[-1].die(death)
    (completion,) = pool.wait(0)
    assert (completion.task, type(completion.error), pool.capacity().task_slots) == (cpu_task("a"), EvictedError, 2)


@pytest.mark.usefixtures("report_on_this_node")
def test_task_that_kills_a_new_helper_is_the_culprit(scripted: ScriptedRay) -> None:
    pool = start_pool()
    pool.submit(cpu_task("a"))
    begin_first_task(pool, scripted.actors[-1]).die()
    (completion,) = pool.wait(0)
    assert isinstance(completion.error, WorkerCrashError)
    assert str(completion.error) == f"/in/a: the process that worked on it {CRASHED} in step 'decode'"
    assert scripted.actors[-1].killed
    pool.submit(cpu_task("b"))
    assert len(scripted.actors) == 3, "a new helper starts"


def test_death_of_used_helper_is_no_fault_of_its_next_task(scripted: ScriptedRay) -> None:
    pool = start_pool()
    pool.submit(cpu_task("a"))
    begin_first_task(pool, scripted.actors[-1]).answer(1, CallResult())
    assert len(pool.wait(0)) == 1
    pool.submit(cpu_task("b"))
    scripted.actors[-1].die()
    assert pool.wait(0) == [], "the task runs again in a new process"
    assert pool.capacity().task_slots == 1
    begin_first_task(pool, scripted.actors[-1]).die()
    (completion,) = pool.wait(0)
    assert isinstance(completion.error, WorkerDiedError), "the new process had no earlier task"
    assert (pool.capacity().task_slots, len(scripted.actors)) == (2, 3)


@pytest.mark.parametrize(
    ("nodes", "cores"),
    [
        ([], 2),
        ([{"CPU": 64}], 2),
        ([{"CPU": 16, "GPU": 1}], 8),
        ([{"CPU": 64}, {"CPU": 16, "GPU": 1}, {"CPU": 48, "GPU": 8}], 3),
        ([{"CPU": 1, "GPU": 1}], 1),
        ([{"GPU": 1}], 1),
    ],
)
def test_gpu_workers_share_the_cores_of_their_node(nodes: list[dict[str, float]], cores: int) -> None:
    lost = {"Alive": False, "Resources": {"CPU": 2.0, "GPU": 2.0}}
    assert cores_of_gpu_worker([lost, *({"Alive": True, "Resources": node} for node in nodes)]) == cores
