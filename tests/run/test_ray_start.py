"""The start of a local Ray, on a scripted Ray: what is tried again, what is said, and what is left behind."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray._private.node
import ray._private.services

from posebatch.core.errors import RunAbortedError
from posebatch.run.workers import ray_start
from posebatch.run.workers.ray_start import AGENT_PORTS, ATTEMPTS, FEWER_PROCESSES, LIMITS, START_SECONDS

TIMED_OUT = Exception("The current node timed out during startup.\nSee the logs.")


class ScriptedStart:
    """`ray.init` and the names of Ray that it uses; ``outcomes`` are the errors of the attempts, None for success."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcomes: list[Exception | None] = []
        self.environments: list[dict[str, str]] = []
        self.nodes: list[Any] = []
        self.ended: list[Any] = []
        self.ports: list[int] = []
        scripted = self

        class Node:
            def __init__(self, ray_params: Any, head: bool) -> None:
                assert head
                self.all_processes: dict[str, Any] = {}
                scripted.nodes.append(self)
                scripted.ports.append(ray_params.metrics_agent_port)
                self._session_dir, self._node_id = str(scripted.folder), f"node{len(scripted.nodes)}"
                self.start_ray_processes()

            def start_ray_processes(self) -> None:
                pass

            def kill_all_processes(self, check_alive: bool, allow_graceful: bool) -> None:
                assert not check_alive
                assert not allow_graceful
                scripted.ended.append(self)

        self.node_class = Node

    def init(self, **arguments: Any) -> None:
        assert arguments["address"] == "local"
        self.environments.append({name: value for name, value in os.environ.items() if name.startswith("RAY_")})
        ray._private.node.Node(SimpleNamespace(**dict.fromkeys(AGENT_PORTS, 0)), head=True)
        outcome = self.outcomes.pop(0)
        if outcome is not None:
            raise outcome


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ScriptedStart:
    for name in (*LIMITS, *FEWER_PROCESSES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "token")
    scripted = ScriptedStart(tmp_path)
    monkeypatch.setattr(ray, "init", scripted.init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray._private.node, "Node", scripted.node_class)
    return scripted


def start(said: list[str], check: Any = lambda: None) -> None:
    ray_start.start_local_ray(2, None, False, True, said.append, check)


def test_start_raises_the_limits_of_ray_for_its_own_processes_only(
    scripted: ScriptedStart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_worker_register_timeout_seconds", "7")
    scripted.outcomes, said = [None], []
    before = dict(os.environ)
    start(said)
    assert dict(os.environ) == before
    (environment,) = scripted.environments
    assert environment.items() >= {**LIMITS, "RAY_worker_register_timeout_seconds": "7"}.items(), "the user's stays"
    assert not environment.keys() & FEWER_PROCESSES.keys()
    assert (said, scripted.ended) == ([], [])


def test_start_chooses_the_ports_of_the_agents(scripted: ScriptedStart) -> None:
    scripted.outcomes = [None]
    start([])
    assert 1024 <= scripted.ports[0] <= 65535
    files = {path.name: path.read_text() for path in scripted.folder.iterdir()}
    assert files.keys() == {f"{name}_node1" for name in AGENT_PORTS}
    assert files["metrics_agent_port_node1"] == str(scripted.ports[0])
    params = SimpleNamespace(metrics_agent_port=None, dashboard_agent_listen_port=52365)
    ports = ray_start._set_ports(params)
    assert ports == vars(params)
    assert len({*ports.values(), None, 52365}) == 4, "a fixed port would belong to one Ray of this machine alone"
    assert not hasattr(params, "runtime_env_agent_port"), "another version of Ray has no such port"


def test_failed_start_is_tried_again_with_fewer_processes(scripted: ScriptedStart) -> None:
    scripted.outcomes, said = [TIMED_OUT, TIMED_OUT, None], []
    start(said)
    assert said == [
        f"the machine is busy: Ray did not start (The current node timed out during startup); attempt {n} of {ATTEMPTS}"
        for n in (2, 3)
    ]
    assert scripted.ended == scripted.nodes[:2], "the processes of failed starts are ended"
    assert all(environment.items() >= FEWER_PROCESSES.items() for environment in scripted.environments[1:])


@pytest.mark.parametrize(
    ("outcomes", "attempts"),
    [
        ([TIMED_OUT] * ATTEMPTS, ATTEMPTS),
        ([TimeoutError("late")] * ATTEMPTS, ATTEMPTS),
        ([PermissionError("/tmp/ray cannot be written")], 1),
        ([ValueError("no such argument")], 1),
    ],
    ids=["busy", "late", "folder", "argument"],
)
def test_start_gives_up_at_last_or_where_waiting_is_useless(
    scripted: ScriptedStart, outcomes: list[Exception], attempts: int
) -> None:
    scripted.outcomes = [*outcomes]
    with pytest.raises(RunAbortedError, match="cannot start a local Ray: "):
        start([])
    assert len(scripted.environments) == attempts
    assert ray._private.node.Node is scripted.node_class, "Ray's own names are back"


def test_stopped_start_is_not_tried_again(scripted: ScriptedStart) -> None:
    scripted.outcomes = [TIMED_OUT]
    stops = iter([None, RunAbortedError("stopped by SIGTERM")])

    def check() -> None:
        if stop := next(stops):
            raise stop

    with pytest.raises(RunAbortedError, match="stopped by SIGTERM"):
        start([], check)
    assert len(scripted.environments) == 1


# --- waiting for the node ------------------------------------------------------------------------------------------


class Registration:
    """A node that registers after some questions; each takes ``seconds`` of the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, questions: int, seconds: float) -> None:
        self.now, self.questions, self.seconds = 0.0, questions, seconds
        monkeypatch.setattr(ray._private.services, "get_node", self.get_node)
        monkeypatch.setattr(ray_start, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=lambda _: None))
        monkeypatch.setattr(ray_start, "_runs", lambda _: True)

    def get_node(self, gcs_address: str, node_id: str) -> dict[str, str]:
        self.now += self.seconds
        self.questions -= 1
        if self.questions > 0:
            raise RuntimeError("GCS cannot find the node")
        return {"node": node_id}


def ask(said: list[str], check: Any = lambda: None) -> Any:
    with ray_start._patient_registration(said.append, check):
        return ray._private.services.get_node("gcs", "n")


@pytest.mark.parametrize(("questions", "reports"), [(1, []), (4, []), (6, [25]), (30, [25, 90])])
def test_registration_may_take_minutes(monkeypatch: pytest.MonkeyPatch, questions: int, reports: list[int]) -> None:
    registration, said = Registration(monkeypatch, questions, 5.0), []
    assert ask(said) == {"node": "n"}
    assert said == [f"the machine is busy: Ray has been starting for {seconds} s" for seconds in reports]
    assert ray._private.services.get_node == registration.get_node


def test_registration_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    registration = Registration(monkeypatch, 1_000_000, 5.0)
    with pytest.raises(TimeoutError, match="no answer within 10 minutes"):
        ask([])
    assert registration.now == pytest.approx(START_SECONDS, abs=5.0)


def test_registration_ends_with_the_process_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    Registration(monkeypatch, 10, 5.0)
    monkeypatch.setattr(ray_start, "_runs", lambda _: False)
    with pytest.raises(ConnectionError, match="its raylet has ended"):
        ask([])


def test_registration_ends_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    Registration(monkeypatch, 10, 5.0)

    def check() -> None:
        raise RunAbortedError("stopped by SIGINT")

    with pytest.raises(RunAbortedError, match="SIGINT"):
        ask([], check)


def test_running_raylet_is_found_by_its_argument() -> None:
    assert not ray_start._runs("0" * 56)
    assert ray_start._command_line(os.getpid())[0]
    assert ray_start._command_line(2**30) == []


@pytest.mark.parametrize("dashboard", [False, True])
def test_start_leaves_out_the_process_of_a_dashboard_that_is_not_wanted(
    dashboard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    class Node:
        def __init__(self, _: Any) -> None:
            self.start_api_server(include_dashboard=dashboard, raise_on_failure=dashboard)

        def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
            started.append((include_dashboard, raise_on_failure))
            self._webui_url = "http://dashboard"

    monkeypatch.setattr(ray._private.node, "Node", Node)
    monkeypatch.setattr(ray_start, "_set_ports", lambda _: {})
    with ray_start._own_node():
        node: Any = ray._private.node.Node(SimpleNamespace())
    assert started == ([(True, True)] if dashboard else [])
    assert node._webui_url == ("http://dashboard" if dashboard else "")
