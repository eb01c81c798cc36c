"""A Ray cluster whose nodes are hosts: a head, workers, a store, and hosts from which jobs are submitted."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cluster.hosts import FOLDER, Host, Network, network
from faults.nights import InjectedFault, injecting
from support.processes import wait_for

BIN: Final = Path(sys.executable).parent
ROOT: Final = FOLDER.parents[1]
GCS_PORT, DASHBOARD_PORT = 6379, 8265

ARCHIVE: Final = "s3://archive/"

WORKERS: Final = ("w1", "w2", "w3")
IN_FLIGHT_OF_A_HOST: Final = 2
"""Segments under way at once in the one worker of a host."""

OPTIONS: Final = ("--workers", "3", "--segment-seconds", "1", "--preview", "gif", "--fail-on", "any")
"""Of every run. Broken videos fail each time, so a run that is done ends with exit code 3."""

HEALTH_CHECKS: Final[Mapping[str, str]] = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "8000",
    "RAY_health_check_failure_threshold": "5",
}
"""A host that does not answer is dead to Ray after about 50 s. The environment of the tests may say otherwise."""

PATIENCE: Final[Mapping[str, str]] = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
"""A host that is cut off waits so long for its head, and is a zombie when it is joined again."""

FEW_PROCESSES: Final[Mapping[str, str]] = {
    "RAY_enable_metrics_collection": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # the hosts share one memory: others' use is no reason to end a process
}


@dataclass(eq=False)
class Job:
    """A run that was submitted."""

    night: Night
    process: subprocess.Popen[str]
    id: str
    log: Path

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def is_over(self) -> bool:
        return self.process.poll() is not None

    def finish(self, seconds: float = 900) -> tuple[int | None, str]:
        """Exit code of the run, by the last line of its log, and the log."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the job hangs:\n{self.output()[-5000:]}") from None
        output = self.output()
        codes = re.findall(r"exit code:? (\d)", output)
        return (int(codes[-1]) if codes else None), output


@dataclass(eq=False)
class Night:
    """The runs of a scenario, all into one output."""

    cluster: Cluster
    name: str
    folder: Path
    """On the machine of the tests; every host sees it. It holds the marks of `faults.injection`."""
    started: float = field(default_factory=time.monotonic)
    jobs: list[Job] = field(default_factory=list)

    @property
    def output(self) -> str:
        return f"s3://output/{self.name}"

    def plan(self, *faults: InjectedFault, seconds_per_frame: float = 0.1) -> None:
        """From now on the networks take this time for a frame, and these faults happen."""
        self.folder.mkdir(parents=True, exist_ok=True)
        plan = {"marks": str(self.folder), "faults": [vars(fault) for fault in faults],
                "seconds_per_frame": seconds_per_frame}  # fmt: skip
        replacement = self.cluster.plan_file.with_suffix(".new")
        replacement.write_text(json.dumps(plan))
        replacement.replace(self.cluster.plan_file)

    def submit(self, *options: str, host: Host | None = None) -> Job:
        """Submit a run from a host, by default from the one that only submits."""
        return self.cluster.submit(self, *options, host=host or self.cluster.submitter)

    def close(self) -> None:
        """End what is left of its jobs: it would take the workers of the next scenario."""
        self.release()
        self.cluster.network.heal()
        for job in self.jobs:
            if not job.is_over():
                self.cluster.submitter.run(str(BIN / "ray"), "job", "stop", "--address", self.cluster.dashboard, job.id)
                job.process.kill()
                job.process.wait()

    def run(self, *options: str) -> tuple[int | None, str]:
        """Exit code and log of a run."""
        return self.submit(*options).finish()

    def computed(self) -> Counter[str]:
        """How often each segment was computed, by its key."""
        path = self.folder / "staged"
        lines = path.read_text().split() if path.exists() else []
        return Counter(key for key in lines if key.endswith(".arrow"))

    def stored(self) -> list[tuple[str, str]]:
        """Key and host of each segment whose put succeeded, in order."""
        path = self.folder / "stored"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(key, host) for key, host in (line.split() for line in lines) if key.endswith(".arrow")]

    def repeated(self) -> int:
        """Computations beyond one for each segment."""
        return self.computed().total() - len(self.computed())

    def held_by(self, fault: int = 0) -> str:
        """The host on which a fault happened; empty before that."""
        path = self.folder / f"{fault}.0"
        return path.read_text() if path.exists() else ""

    def release(self) -> None:
        """Let go on what the action ``hold`` holds."""
        (self.folder / "release").touch()

    def verify(self) -> str:
        """The output of ``verify --deep``; it finds nothing wrong."""
        return self.cluster.submitter.check(str(BIN / "posebatch"), "verify", "--output", self.output, "--deep")

    def describe(self) -> dict[str, Any]:
        return self.cluster.describe(self.output)


@dataclass(eq=False)
class Cluster:
    """The hosts, and what runs on them."""

    network: Network
    folder: Path
    variables: dict[str, str]
    plan_file: Path
    head: Host = field(init=False)
    store: Host = field(init=False)
    submitter: Host = field(init=False)
    workers: dict[str, Host] = field(default_factory=dict)
    _nodes: dict[Host, subprocess.Popen[str]] = field(default_factory=dict)
    _store_process: subprocess.Popen[str] | None = None
    _jobs: int = 0

    @property
    def dashboard(self) -> str:
        return f"http://{self.head.address}:{DASHBOARD_PORT}"

    def add_host(self, name: str) -> Host:
        host = self.network.add(name)
        host.environment = dict(self.variables)
        self.introduce()
        return host

    def introduce(self) -> None:
        """Tell every host the names of all."""
        names = {name: host.address for name, host in self.network.hosts.items()}
        for host in self.network.hosts.values():
            host.know(names)

    def start_store(self) -> None:
        """Start the S3 server; started again, it has what it had."""
        paths = {"PYTHONPATH": os.pathsep.join([str(FOLDER.parent), str(ROOT)])}
        command = [sys.executable, str(FOLDER / "store_server.py"), str(self.folder / "s3"), self.store.address]
        self._store_process = self.store.start(command, environment=paths)
        assert self._store_process.stdout
        line = self._store_process.stdout.readline()
        assert line.startswith("{"), f"the store did not start: {line}{self._store_process.stdout.read()}"
        self.variables |= json.loads(line)

    def stop_store(self) -> None:
        """End the S3 server; its host then refuses connections."""
        self.store.check("pkill", "-KILL", "-f", str(FOLDER / "store_server.py"))
        assert self._store_process
        self._store_process.wait()

    def start_node(self, host: Host, num_cpus: int = 1, environment: Mapping[str, str] | None = None) -> None:
        """Start Ray on a host; the first one is the head."""
        is_head = host is self.head
        where = (
            ("--head", f"--port={GCS_PORT}", "--include-dashboard=true", f"--dashboard-host={host.address}",
             f"--dashboard-port={DASHBOARD_PORT}")
            if is_head else (f"--address={self.head.address}:{GCS_PORT}",)
        )  # fmt: skip
        log = self.folder / f"ray-{host.name}-{len(self._nodes)}.log"
        with log.open("wb") as output:
            self._nodes[host] = host.start(
                [sys.executable, str(FOLDER / "start_node.py"), "--block", *where, f"--node-ip-address={host.address}",
                 f"--num-cpus={num_cpus}", f"--object-store-memory={100 << 20}", "--disable-usage-stats"],
                environment=dict(environment or {}), stdout=output,
            )  # fmt: skip

    def node_runs(self, host: Host) -> bool:
        """Whether Ray runs on a host: `ray start --block` ends with its node."""
        return host in self._nodes and self._nodes[host].poll() is None

    def add_worker(self, name: str, environment: Mapping[str, str] | None = None) -> Host:
        """Switch a host on, and let it join."""
        host = self.workers[name] = self.add_host(name)
        self.start_node(host, environment=environment)
        return host

    def remove_worker(self, name: str) -> None:
        """Switch a host off for good."""
        self.network.remove(self.workers.pop(name))

    def alive(self) -> set[str]:
        """The addresses of the nodes that are alive, as the head says; none while the head starts."""
        path = self.folder / "alive.json"
        return set(json.loads(path.read_text())) if path.exists() else set()

    def restore(self, *names: str) -> None:
        """A whole network, and exactly these workers, all of them alive."""
        self.network.heal()
        self.introduce()
        for name in {*self.workers} - {*names}:
            self.remove_worker(name)
        wait_for(lambda: self._have_joined(names), 400, pause_s=1)

    def _have_joined(self, names: tuple[str, ...]) -> bool:
        """Whether these workers and no others are alive. One that is missing, or whose Ray has ended, is replaced."""
        for name in names:
            if name in self.workers and not self.node_runs(self.workers[name]):
                self.remove_worker(name)
            if name not in self.workers:
                self.add_worker(name)
            if self.workers[name].address not in self.alive():
                return False  # one after another: their starts need all cores
        return self.alive() == {self.head.address, *(host.address for host in self.workers.values())}

    def submit(self, night: Night, *options: str, host: Host, environment: Mapping[str, str] | None = None) -> Job:
        """Submit a run from a host; ``environment`` is of its driver alone, which runs on the head."""
        self._jobs += 1
        job, log = f"{night.name}-{self._jobs}", night.folder / f"job-{self._jobs}.log"
        variables = [f"{name}={value}" for name, value in (environment or {}).items()]
        job_command = ["env", *variables, sys.executable, str(ROOT / "jobs" / "extract_poses.py"), ARCHIVE]
        with log.open("wb") as output:
            process = host.start(
                [str(BIN / "ray"), "job", "submit", "--address", self.dashboard, "--submission-id", job, "--",
                 *job_command, "--output", night.output, *OPTIONS, *options],
                stdout=output,
            )  # fmt: skip
        night.jobs.append(Job(night, process, job, log))
        return night.jobs[-1]

    def describe(self, output: str) -> dict[str, Any]:
        answer = self.submitter.check(sys.executable, str(FOLDER / "observe.py"), "describe", output)
        described: dict[str, Any] = json.loads(answer.strip().splitlines()[-1])
        return described


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A head, a store and a host that submits; workers are added by `Cluster.restore`."""
    with network() as joined:
        plan_file = joined.folder / "plan.json"
        plan_file.write_text(json.dumps({"marks": str(joined.folder), "faults": [], "seconds_per_frame": 0}))
        health = {name: os.environ.get(name, value) for name, value in HEALTH_CHECKS.items()}
        variables = {**injecting(plan_file), **health, **PATIENCE, **FEW_PROCESSES, "RAY_AUTH_MODE": "token",
                     "RAY_AUTH_TOKEN": secrets.token_hex(16)}  # fmt: skip
        cluster = Cluster(joined, joined.folder, variables, plan_file)
        cluster.store = cluster.add_host("store")
        cluster.start_store()
        cluster.head, cluster.submitter = cluster.add_host("head"), cluster.add_host("submit")
        cluster.start_node(cluster.head, num_cpus=0)
        watch = [
            str(FOLDER / "watch_nodes.py"),
            f"{cluster.head.address}:{GCS_PORT}",
            str(cluster.folder / "alive.json"),
        ]
        with (cluster.folder / "watch.log").open("wb") as log:
            cluster.head.start([sys.executable, *watch], stdout=log)
        wait_for(cluster.alive, 300)  # a node that asks the head too early gives up
        yield cluster


def wait_until(condition: Callable[[], object], job: Job, seconds: float = 240) -> None:
    """Wait until something holds while a job runs; the job must not end before."""
    wait_for(lambda: condition() or job.is_over(), seconds)
    assert condition(), f"the job ended too early:\n{job.output()[-5000:]}"
