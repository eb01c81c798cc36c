"""The pool's bookkeeping, on a Ray that is played: what starts, who gets a segment, what is told when one dies."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions

from posebatch.core.errors import DamagedVideoError, EvictedError, RunAbortedError, WorkerCrashError, WorkerDiedError
from posebatch.core.settings import settings_from
from posebatch.core.videos import Segment, SourceVideo, VideoInfo
from posebatch.run.context import RunContext
from posebatch.run.pool import Capacity, Completion
from posebatch.run.tasks import ProbeTask, SegmentResult, SegmentTask
from posebatch.run.workers import crash_reports, ray_pool
from posebatch.run.workers.actors import CallResult, ProcessHandle
from posebatch.run.workers.crash_reports import CrashReport
from posebatch.run.workers.diagnosis import attribute_deaths
from posebatch.run.workers.ray_pool import FAILED_STARTS_TO_ABORT, FIRST_WORKER_SECONDS, RayPool
from posebatch.run.workers.ray_session import cores_of_gpu_worker

INFO = VideoInfo("h264", "yuv420p", 64, 48, 0, Fraction(1, 100), 0, 1.0, 10.0, 4)
CONTEXT = RunContext("run", settings_from({}), "/out", "d@1", "p@1")
DONE = SegmentResult(1, 0, 0.1)
HERE, ELSEWHERE = ProcessHandle("here", "box"), ProcessHandle("e1" * 28, "box")


def segment(index: int, alone: bool = False) -> SegmentTask:
    return SegmentTask(SourceVideo("/in/a.mp4", "a.mp4", "e", 1, 1.0), INFO, Segment(index, index), alone)


@dataclass(eq=False)
class Call:
    """A call of an actor's method, and its ref."""

    arguments: tuple[Any, ...]
    outcome: CallResult | Exception | None = None


@dataclass(eq=False)
class Asked:
    """One more of the calls that count for nothing here."""

    outcome: Any = None


@dataclass(eq=False)
class Actor:
    """An actor whose calls end when the test says so."""

    calls: list[Call] = field(default_factory=list)
    killed: bool = False
    told: dict[str, Asked] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        if name in ("beats", "autopsy"):
            return SimpleNamespace(remote=lambda *_: self.told.setdefault(name, Asked()))
        return SimpleNamespace(remote=self._call)

    def _call(self, *arguments: Any) -> Call:
        self.calls.append(Call(arguments))
        return self.calls[-1]

    def end(self, number: int, outcome: CallResult) -> None:
        self.calls[number].outcome = outcome

    def die(self) -> None:
        for call in [*self.calls, *self.told.values()]:
            call.outcome = call.outcome or ray.exceptions.ActorDiedError()


class PlayedRay:
    """As much of Ray as the pool uses."""

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.options: dict[str, Any] = {}

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **_: Any) -> Any:
        return lambda _: SimpleNamespace(options=self._options, remote=self._start)

    def _options(self, **options: Any) -> Any:
        self.options = options
        return SimpleNamespace(remote=self._start)

    def _start(self, *_: Any) -> Actor:
        self.actors.append(Actor())
        return self.actors[-1]

    def wait(self, refs: list[Call], num_returns: int, timeout: float) -> tuple[list[Call], list[Call]]:
        ready = [ref for ref in refs if ref.outcome is not None][:num_returns]
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref: Call, timeout: float | None = None) -> Any:
        if ref.outcome is None and timeout is not None:
            raise ray.exceptions.GetTimeoutError
        assert ref.outcome is not None, "this would wait for ever"
        if isinstance(ref.outcome, Exception):
            raise ref.outcome
        return ref.outcome

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here")

    def kill(self, actor: Actor) -> None:
        actor.killed = True
        actor.die()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> PlayedRay:
    played = PlayedRay()
    monkeypatch.setattr(ray_pool, "ray", played)
    return played


def pool_of(played: PlayedRay, workers: int) -> RayPool:
    """A pool whose workers are ready."""
    pool = RayPool(CONTEXT, workers, "cpu")
    for actor in played.actors:
        actor.end(0, CallResult(HERE))
    assert pool.wait(0) == []
    return pool


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_are_used_as_they_become_ready(played: PlayedRay, workers: int) -> None:
    pool = RayPool(CONTEXT, workers, "cpu")
    assert pool.capacity() == Capacity(idle=0, shareable=0, task_slots=max(2, workers), workers=workers)
    for ready, actor in enumerate(played.actors, start=1):
        actor.end(0, CallResult(HERE))
        assert pool.wait(0) == []
        assert pool.capacity().idle == ready
    assert played.options["max_concurrency"] == 3, "two segments, and a call for its beats"


def test_idle_workers_come_first_and_nobody_has_more_than_two(played: PlayedRay) -> None:
    pool = pool_of(played, 2)
    places = []
    for index in range(4):
        places.append((pool.capacity().idle, pool.capacity().shareable))
        pool.submit(segment(index))
    assert places == [(2, 0), (1, 1), (0, 2), (0, 1)]
    assert (pool.capacity().idle, pool.capacity().shareable) == (0, 0)
    assert sorted(len(actor.calls) for actor in played.actors) == [3, 3], "load and two segments"


def test_a_segment_that_is_to_be_alone_keeps_its_worker_to_itself(played: PlayedRay) -> None:
    pool = pool_of(played, 2)
    pool.submit(segment(0))
    pool.submit(segment(1, alone=True))
    assert (pool.capacity().idle, pool.capacity().shareable) == (0, 1)
    pool.submit(segment(2))
    (beside,) = (actor for actor in played.actors if len(actor.calls) == 3)
    assert [call.arguments[0].segment.index for call in beside.calls[1:]] == [0, 2]


def test_segments_end_one_by_one(played: PlayedRay) -> None:
    pool = pool_of(played, 1)
    first, second = segment(0), segment(1)
    pool.submit(first)
    pool.submit(second)
    (actor,) = played.actors
    error = DamagedVideoError("bad")
    actor.end(1, CallResult(error=error))
    assert pool.wait(0) == [Completion(first, error=error)]
    assert (pool.capacity().idle, pool.capacity().shareable) == (0, 1)
    actor.end(2, CallResult(DONE))
    assert pool.wait(0) == [Completion(second, DONE)]
    assert (pool.capacity().idle, pool.capacity().shareable, len(played.actors)) == (1, 0, 1)


@pytest.mark.parametrize(
    ("segments", "ended_well", "died", "shared"),
    [
        (1, [], [0], False),
        (2, [], [0, 1], True),
        (2, [0], [1], False),
        (2, [1], [0], False),
    ],
)
@pytest.mark.parametrize("told_at_once", [True, False])
def test_what_is_told_of_a_worker_that_died(
    played: PlayedRay, segments: int, ended_well: list[int], died: list[int], shared: bool, told_at_once: bool
) -> None:
    pool = pool_of(played, 1)
    for index in range(segments):
        pool.submit(segment(index))
    (actor,) = played.actors
    for index in ended_well:
        actor.end(1 + index, CallResult(DONE))
    if told_at_once:
        actor.die()
    else:  # the other call's end comes only when the pool makes sure that the process has ended
        actor.calls[1 + died[0]].outcome = ray.exceptions.ActorDiedError()
    ends = {end.task.segment.index: end for end in pool.wait(0)}
    assert set(ends) == set(range(segments))
    assert all(ends[index].result == DONE and not ends[index].shared for index in ended_well)
    assert all(isinstance(ends[index].error, WorkerDiedError) and ends[index].shared is shared for index in died)
    assert pool.wait(0) == [], "nothing is told twice"
    assert actor.killed
    assert (pool.capacity().idle, pool.capacity().shareable, len(played.actors)) == (0, 0, 2), "another one starts"


def test_waiting_for_a_worker_begins_anew_when_the_last_one_dies(
    played: PlayedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=lambda _: None)
    monkeypatch.setattr(ray_pool, "time", clock)
    pool = pool_of(played, 1)
    pool.submit(segment(0))
    clock.now = 100 * FIRST_WORKER_SECONDS
    played.actors[0].die()
    assert len(pool.wait(0)) == 1
    assert pool.capacity().idle == 0, "no reason to give up yet"
    clock.now += FIRST_WORKER_SECONDS + 1
    with pytest.raises(RunAbortedError, match="no worker became ready"):
        pool.capacity()


def test_workers_that_never_become_ready(played: PlayedRay) -> None:
    pool = RayPool(CONTEXT, 1, "cpu")
    for _ in range(FAILED_STARTS_TO_ABORT - 1):
        played.actors[-1].die()
        assert pool.wait(0) == []
    played.actors[-1].die()
    with pytest.raises(RunAbortedError, match="workers in a row died"):
        pool.wait(0)
    assert len(played.actors) == FAILED_STARTS_TO_ABORT


def test_closing_kills_the_actors(played: PlayedRay) -> None:
    pool = pool_of(played, 2)
    pool.submit(segment(0))
    pool.submit(task("a"))
    pool.submit(task("b"))
    helped(played, pool, played.actors[2]).end(1, CallResult())
    pool.wait(0)
    pool.submit(task("c"))
    pool.submit(task("d"))
    pool.close()
    assert len(played.actors) == 5
    assert all(actor.killed for actor in played.actors)


# --- who is to blame ----------------------------------------------------------------------------------------------


CRASHED = "crashed (Segmentation fault)"


def died(*indices: int, error: type[WorkerDiedError] = WorkerDiedError) -> list[Completion]:
    return [Completion(segment(index), error=error(f"{index} died")) for index in indices]


@pytest.mark.parametrize(
    ("count", "trace", "node_is_alive", "expected"),
    [
        (0, CrashReport(""), True, []),
        (1, None, True, [(WorkerDiedError, False)]),
        (1, CrashReport(""), True, [(WorkerDiedError, False)]),
        (2, CrashReport(""), True, [(WorkerDiedError, True), (WorkerDiedError, True)]),
        (1, None, False, [(EvictedError, False)]),
        (2, None, False, [(EvictedError, False), (EvictedError, False)]),
        (1, CrashReport(CRASHED), True, [(WorkerCrashError, False)]),
        (1, CrashReport(CRASHED, "decode", "another one"), True, [(WorkerCrashError, False)]),
        (2, CrashReport(CRASHED), True, [(WorkerDiedError, True), (WorkerDiedError, True)]),
        (2, CrashReport(CRASHED, "decode", "another one"), True, [(WorkerDiedError, True), (WorkerDiedError, True)]),
        (2, CrashReport(CRASHED, "decode", segment(0).name), True, [(WorkerCrashError, False), (EvictedError, False)]),
        (2, CrashReport(CRASHED, "decode", segment(1).name), True, [(EvictedError, False), (WorkerCrashError, False)]),
    ],
)
def test_verdicts(
    count: int, trace: CrashReport | None, node_is_alive: bool, expected: list[tuple[type, bool]]
) -> None:
    found = attribute_deaths(died(*range(count)), trace, node_is_alive)
    assert [(type(end.error), end.shared) for end in found] == expected
    assert all(
        "step 'decode'" in str(end.error) for end in found if trace and trace.stage and end.error == WorkerCrashError
    )


def test_a_process_that_says_itself_why_it_cannot_go_on(played: PlayedRay) -> None:
    """Networks that have failed fail again: the process ends, and whoever else was in it is no suspect."""
    pool = pool_of(played, 1)
    pool.submit(segment(0))
    pool.submit(segment(1))
    played.actors[0].end(1, CallResult(error=WorkerCrashError("the networks failed: CUDA error")))
    first, second = pool.wait(0)
    assert (type(first.error), type(second.error)) == (WorkerCrashError, EvictedError)
    assert played.actors[0].killed
    assert len(played.actors) == 2


@pytest.mark.parametrize(
    ("place", "answer", "expected"),
    [
        (HERE, None, WorkerCrashError),
        (ELSEWHERE, CrashReport(CRASHED, "decode"), WorkerCrashError),
        (ELSEWHERE, CrashReport(""), WorkerDiedError),
        (ELSEWHERE, ray.exceptions.ActorDiedError(), EvictedError),
        (ELSEWHERE, "no answer in time", EvictedError),
    ],
)
def test_somebody_looks_into_the_box(
    played: PlayedRay, monkeypatch: pytest.MonkeyPatch, place: ProcessHandle, answer: Any, expected: type
) -> None:
    monkeypatch.setattr(
        crash_reports, "read_crash_report", lambda box: CrashReport(CRASHED, "decode") if box == "box" else None
    )
    pool = RayPool(CONTEXT, 1, "cpu")
    played.actors[0].end(0, CallResult(place))
    pool.wait(0)
    pool.submit(segment(0))
    played.actors[0].die()
    ends = pool.wait(0)
    if place is ELSEWHERE:
        assert ends == [], "a process on that node is asked first"
        assert played.options["scheduling_strategy"].node_id == ELSEWHERE.node_id
        if answer == "no answer in time":
            assert pool.wait(0) == []
            monkeypatch.setattr(ray_pool.time, "monotonic", lambda: 1e12)
        else:
            played.actors[-1].told["autopsy"].outcome = answer
        ends = pool.wait(0)
    (end,) = ends
    assert type(end.error) is expected
    assert pool.wait(0) == []


def test_beats_tell_that_something_moves(played: PlayedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "BEAT_SECONDS", 0.0)
    pool = pool_of(played, 1)
    idle = pool.activity()
    assert pool.activity() == idle, "nobody is at work"
    pool.submit(segment(0))
    pool.activity()
    told = []
    for answer in (1, 1, 2, ray.exceptions.ActorDiedError()):
        played.actors[0].told.pop("beats").outcome = answer
        told.append(pool.activity() - idle)
    assert told == [1, 1, 2, 2]


# --- CPU tasks ----------------------------------------------------------------------------------------------------


def task(name: str) -> ProbeTask:
    return ProbeTask(SourceVideo(f"/in/{name}", name, "e", 1, 1.0))


def helped(played: PlayedRay, pool: RayPool, helper: Actor | None = None) -> Actor:
    """The helper that was asked for last, or this one, has begun and has its first task."""
    helper = helper or played.actors[-1]
    helper.calls[0].outcome = HERE
    assert pool.wait(0) == []
    return helper


def test_tasks_need_no_worker_and_their_helpers_stay(played: PlayedRay) -> None:
    pool = RayPool(CONTEXT, 3, "cpu")
    workers = len(played.actors)
    assert pool.capacity().task_slots == 3
    pool.submit(task("a"))
    pool.submit(task("b"))
    assert (pool.capacity().task_slots, len(played.actors)) == (1, workers + 2)
    first, second = (helped(played, pool, helper) for helper in played.actors[workers:])
    assert pool.capacity().task_slots == 1
    second.end(1, CallResult("probed"))
    assert pool.wait(0) == [Completion(task("b"), "probed")]
    pool.submit(task("c"))
    assert [call.arguments[0].video.output_path for call in second.calls[1:]] == ["b", "c"]
    first.end(1, CallResult(error=DamagedVideoError("bad")))
    (end,) = pool.wait(0)
    assert (end.task, type(end.error)) == (task("a"), DamagedVideoError)
    assert (pool.capacity().task_slots, len(played.actors)) == (2, workers + 2)


def test_a_helper_has_no_task_before_its_box_is_known(played: PlayedRay) -> None:
    """Else a task that ends it at once would leave no explanation, each time anew."""
    pool = RayPool(CONTEXT, 1, "cpu")
    pool.submit(task("a"))
    assert pool.wait(0) == []
    assert [call.arguments for call in played.actors[-1].calls] == [()], "it was only asked for its place"


def test_a_task_is_not_to_blame_for_a_helper_that_never_began(played: PlayedRay) -> None:
    pool = RayPool(CONTEXT, 1, "cpu")
    pool.submit(task("a"))
    played.actors[-1].die()
    (end,) = pool.wait(0)
    assert (end.task, type(end.error), pool.capacity().task_slots) == (task("a"), EvictedError, 2)


def test_a_task_that_kills_a_new_process_is_to_blame(played: PlayedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        crash_reports, "read_crash_report", lambda box: CrashReport(CRASHED, "probe") if box == HERE.box else None
    )
    pool = RayPool(CONTEXT, 1, "cpu")
    pool.submit(task("a"))
    helped(played, pool).die()
    (end,) = pool.wait(0)
    assert isinstance(end.error, WorkerCrashError)
    assert str(end.error) == f"/in/a: the process working on it {CRASHED} in step 'probe'"
    assert played.actors[-1].killed
    pool.submit(task("b"))
    assert len(played.actors) == 3, "a new one"


def test_a_helper_may_have_died_before_its_next_task(played: PlayedRay) -> None:
    pool = RayPool(CONTEXT, 1, "cpu")
    pool.submit(task("a"))
    helped(played, pool).end(1, CallResult())
    assert len(pool.wait(0)) == 1
    pool.submit(task("b"))
    played.actors[-1].die()
    assert pool.wait(0) == [], "it is tried in a new process"
    assert pool.capacity().task_slots == 1
    helped(played, pool).die()
    (end,) = pool.wait(0)
    assert isinstance(end.error, WorkerDiedError), "and that one it has killed itself"
    assert (pool.capacity().task_slots, len(played.actors)) == (2, 3)


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
def test_gpu_workers_share_the_cores_of_their_node(nodes, cores):
    gone = {"Alive": False, "Resources": {"CPU": 2.0, "GPU": 2.0}}
    assert cores_of_gpu_worker([gone, *({"Alive": True, "Resources": node} for node in nodes)]) == cores
