"""A Ray cluster of one node for the tests: started once, so that not every test pays for the start of a Ray."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.processes import processes_with

START_SECONDS = 120
MARK = "POSEBATCH_TEST_CLUSTER"


@dataclass(frozen=True)
class RayHead:
    """A running head node."""

    address: str
    dashboard_url: str
    token: str
    mark: str
    """In the environment of every process of this cluster, and of no other."""
    folder: Path
    """Where its sessions and their logs lie."""

    def environment(self) -> dict[str, str]:
        """What a driver or `ray job submit` needs to reach it."""
        return {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, MARK: self.mark}

    def ask(self, page: str) -> bytes:
        """What a page of its dashboard says."""
        address, headers = f"{self.dashboard_url}/{page}", {"Authorization": f"Bearer {self.token}"}
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as answer:
            content: bytes = answer.read()
            return content

    def workers(self) -> list[int]:
        """Process ids of the actors that hold the networks."""
        return [pid for pid, title in processes_with(MARK, self.mark) if title.startswith("ray::SegmentWorker")]


@contextmanager
def running_ray_head(
    num_cpus: int = 3,
    more_options: Callable[[str], Sequence[str]] = lambda _: (),
    variables: Mapping[str, str] | None = None,
) -> Iterator[RayHead]:
    """Start a head node with a dashboard; stop it and everything it started on leaving.

    ``more_options`` returns further options of `ray start` for the address of the head. ``variables``: of its
    environment.
    """
    # not pytest's folder: Ray puts sockets there, whose paths must be short
    folder = tempfile.mkdtemp(prefix="pb")
    port, dashboard_port, agent_port, client_port, metrics_port = _free_ports(5)
    head = RayHead(
        f"127.0.0.1:{port}",
        f"http://127.0.0.1:{dashboard_port}",
        secrets.token_hex(16),
        secrets.token_hex(8),
        Path(folder),
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": head.token, MARK: head.mark}
    environment |= variables or {}
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats",
        "--node-ip-address=127.0.0.1", f"--port={port}", f"--ray-client-server-port={client_port}",
        "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}",
        f"--dashboard-agent-listen-port={agent_port}", f"--metrics-export-port={metrics_port}",
        f"--num-cpus={num_cpus}", f"--object-store-memory={100 << 20}", f"--temp-dir={folder}",
        *more_options(head.address),
    ]  # fmt: skip
    log = Path(folder, "head.log")
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        _wait_until_ready(head, process, log)
        yield head
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        for pid, _ in processes_with(MARK, head.mark):
            if pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(head: RayHead, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            head.ask("api/version")
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"no Ray head within {START_SECONDS} s:\n{log.read_text(errors='replace')[-3000:]}")


def _free_ports(count: int) -> list[int]:
    """Free ports, all of them different: each stays taken until the last one is found."""
    with ExitStack() as probes:
        sockets = [probes.enter_context(closing(socket.socket())) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]
