"""The start of a Ray on this machine, however busy the machine is: long limits, patience, and further attempts.

On a machine whose cores are all busy a start takes minutes, and three limits of Ray end it before: a node must register
within 30 s; its agents must name their ports within 15 s; and other limits, which Ray reads from the environment. The
first is raised by `_patient_registration`. The second has no effect on ports that are known before the start, see
`_own_node`. Names of Ray that are not public are used only if they exist; without them Ray's own limits hold.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import ray
import ray._private.node
import ray._private.services

from posebatch.core.errors import PosebatchError, RunAbortedError

START_SECONDS: Final = 600.0
"""Longest wait in one attempt until the node has registered, in seconds."""

ATTEMPTS: Final = 4
"""Attempts to start a Ray."""

BUSY_SECONDS: Final = 20.0
"""A start that takes longer is reported, in seconds. A machine with a free core needs about 5."""

REPORT_SECONDS: Final = 60.0
"""Time between two such reports, in seconds."""

LIMITS: Final[Mapping[str, str]] = {
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_gcs_server_port_wait_time_s": "600",
    "RAY_gcs_server_request_timeout_seconds": "300",
    "RAY_gcs_rpc_server_connect_timeout_s": "60",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "300",
    "RAY_py_gcs_connect_timeout_s": "300",
    "RAY_raylet_client_num_connect_attempts": "300",
    "RAY_health_check_initial_delay_ms": "60000",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "10",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_raylet_start_wait_time_s": "5",  # of one question; `_patient_registration` asks again
}
"""Ray's limits for a local Ray, as environment variables. One that the user has set is left alone."""

FEWER_PROCESSES: Final[Mapping[str, str]] = {
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
}
"""Set after a failed attempt: no worker is started ahead, and no process waits for the metrics agent."""

AGENT_PORTS: Final = (
    "metrics_agent_port",
    "metrics_export_port",
    "dashboard_agent_listen_port",
    "runtime_env_agent_port",
)
"""Ports of a node's agents, by their names in Ray's parameters."""


def start_local_ray(
    num_cpus: int,
    object_store_bytes: int | None,
    dashboard: bool,
    log_to_driver: bool,
    say: Callable[[str], None],
    check: Callable[[], None],
) -> None:
    """Start a Ray on this machine and connect to it.

    ``say`` prints a line while the start takes long. ``check`` is called meanwhile, and ends the wait by raising a
    `PosebatchError`. Raises `RunAbortedError` if every attempt has failed.
    """
    # without a token Ray writes one into the home folder, and later clusters then ask for it
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    for attempt in range(1, ATTEMPTS + 1):
        check()
        try:
            with _prepared_for_a_busy_machine(LIMITS if attempt == 1 else {**LIMITS, **FEWER_PROCESSES}, say, check):
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    object_store_memory=object_store_bytes,
                    include_dashboard=dashboard,
                    log_to_driver=log_to_driver,
                    logging_level=logging.ERROR,
                )
            return
        except PosebatchError:
            raise
        except Exception as error:  # Ray raises many types here, even a plain Exception
            if attempt == ATTEMPTS or not _may_pass(error):
                raise RunAbortedError(f"cannot start a local Ray: {error}") from error
            say(f"the machine is busy: Ray did not start ({_first_line(error)}); attempt {attempt + 1} of {ATTEMPTS}")


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may succeed: not after a wrong argument or a folder that cannot be written."""
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    return not isinstance(error, ValueError | TypeError | ImportError | OSError)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


@contextmanager
def _prepared_for_a_busy_machine(
    limits: Mapping[str, str], say: Callable[[str], None], check: Callable[[], None]
) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(_environment(limits))
        if hasattr(ray._private.services, "get_node"):
            stack.enter_context(_patient_registration(say, check))
        if hasattr(ray._private.node, "Node"):
            stack.enter_context(_own_node())
        yield


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the processes that Ray starts, and remove them afterwards. Those already set stay."""
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _patient_registration(say: Callable[[str], None], check: Callable[[], None]) -> Iterator[None]:
    """Wait up to `START_SECONDS` until the node has registered; a node whose process has ended gives up at once.

    Ray asks for its node with a function that raises `RuntimeError` until the node has registered, and counts its 30 s
    between two calls. In place of that function stands one that asks again itself.
    """
    services: Any = ray._private.services
    original = services.get_node
    started = time.monotonic()
    next_report = started + BUSY_SECONDS

    def get_node(gcs_address: str, node_id: str) -> Any:
        nonlocal next_report
        while True:
            try:
                return original(gcs_address, node_id)
            except RuntimeError as error:
                check()
                now = time.monotonic()
                if now - started > START_SECONDS:
                    raise TimeoutError(f"no answer within {START_SECONDS / 60:.0f} minutes") from error
                if not _runs(node_id):
                    raise ConnectionError("its raylet has ended during the start") from error
                if now > next_report:
                    next_report = now + REPORT_SECONDS
                    say(f"the machine is busy: Ray has been starting for {now - started:.0f} s")
            time.sleep(0.1)

    services.get_node = get_node
    try:
        yield
    finally:
        services.get_node = original


def _runs(node_id: str) -> bool:
    """Whether the raylet of a node runs, by the processes of this machine; True where ``/proc`` does not tell."""
    if not os.path.isdir("/proc/self"):
        return True
    argument = f"--node_id={node_id}".encode()
    return any(argument in _command_line(int(entry)) for entry in os.listdir("/proc") if entry.isdecimal())


def _command_line(process: int) -> list[bytes]:
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []  # it has ended meanwhile


@contextmanager
def _own_node() -> Iterator[None]:
    """Choose the ports of the node's agents before its start, and end its processes if the start fails.

    A raylet that does not know the port of an agent after 15 s crashes. Ray leaves the processes of a failed start
    until this process ends.

    Without a dashboard Ray starts the process of the dashboard all the same, for its usage statistics alone, and waits
    for it before it starts the raylet. Here it is left out; metrics are exported by the agent of the node.
    """
    module: Any = ray._private.node
    original = module.Node
    nodes: list[Any] = []

    class OwnNode(original):  # type: ignore[misc, valid-type]
        def __init__(self, ray_params: Any, *arguments: Any, **named: Any) -> None:
            nodes.append(self)
            self._chosen_ports = _set_ports(ray_params)
            super().__init__(ray_params, *arguments, **named)

        def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
            self._webui_url = ""
            if include_dashboard or include_dashboard is None:
                super().start_api_server(include_dashboard=include_dashboard, raise_on_failure=raise_on_failure)

        def start_ray_processes(self) -> None:
            _write_port_files(self, self._chosen_ports)
            super().start_ray_processes()

    module.Node = OwnNode
    try:
        yield
    except BaseException:
        ray.shutdown()
        for node in nodes:
            _end_processes(node)
        raise
    finally:
        module.Node = original


def _set_ports(ray_params: Any) -> dict[str, int]:
    """Set free ports for the agents, and return them by name.

    Ray's default for one of them is a fixed port, which a second Ray on the machine cannot have.
    """
    wanted = [name for name in AGENT_PORTS if hasattr(ray_params, name)]
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in wanted]  # all at once, so that the ports differ
        for name, probe in zip(wanted, probes, strict=True):
            probe.bind(("", 0))
            setattr(ray_params, name, probe.getsockname()[1])
    return {name: getattr(ray_params, name) for name in wanted}


def _write_port_files(node: Any, ports: Mapping[str, int]) -> None:
    """Write the files in which an agent tells its port. A raylet waits for some of them even if the port is given."""
    folder, node_id = getattr(node, "_session_dir", None), getattr(node, "_node_id", None)
    if folder is None or node_id is None:
        return
    for name, port in ports.items():
        with open(os.path.join(folder, f"{name}_{node_id}"), "x", encoding="ascii") as file:
            file.write(str(port))


def _end_processes(node: Any) -> None:
    if hasattr(node, "kill_all_processes") and hasattr(node, "all_processes"):
        node.kill_all_processes(check_alive=False, allow_graceful=False)
