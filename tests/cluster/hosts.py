"""Hosts on this machine: each has its own address, name, processes, ``/tmp`` and name service, in Linux namespaces.

All addresses are in `NETWORK` and lead nowhere else: no namespace has a route out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cluster.switch import DEVICE, MTU

FOLDER: Final = Path(__file__).resolve().parent
NETWORK: Final = "10.77.0"
NO_NAME_SERVER: Final = "nameserver 10.77.0.253\noptions timeout:1 attempts:1\n"
"""No host has this address."""

Rule = tuple[str, str, dict[str, Any]]
"""Two hosts, and the fields of `switch.Wire` between them."""


def missing() -> str:
    """Why there can be no hosts here; empty if there can."""
    if os.geteuid():
        return "needs root, for network namespaces"
    for program, package in (("ip", "iproute2"), ("unshare", "util-linux"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            return f"needs {program} of the package {package}"
    return "" if os.path.exists("/dev/net/tun") else "needs /dev/net/tun"


@dataclass(eq=False)
class Host:
    """A host that runs."""

    name: str
    address: str
    folder: Path
    """Its ``tmp``, ``hosts`` and ``resolv.conf``."""
    process: subprocess.Popen[str]
    pid: int
    """Its first process, as seen from outside."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of every command on this host."""

    def start(self, command: Sequence[str], **named: Any) -> subprocess.Popen[str]:
        """Start a command on this host."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_", "TMP"))}
        return subprocess.Popen(
            ["nsenter", "--target", str(self.pid), "--net", "--pid", "--mount", "--uts", "--", *command],
            env={**inherited, **self.environment, **named.pop("environment", {})},
            text=True,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            **{"stdout": subprocess.PIPE, **named},
        )

    def run(self, *command: str, seconds: float = 600, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Exit code and output of a command on this host."""
        process = self.start(command, environment=dict(environment or {}))
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"{self.name}: hangs: {' '.join(command)[:200]}") from None
        return process.returncode, output

    def check(self, *command: str) -> str:
        """Output of a command that succeeds."""
        code, output = self.run(*command)
        assert code == 0, f"{self.name}: {' '.join(command)[:300]}: exit code {code}\n{output}"
        return output

    def know(self, names: Mapping[str, str]) -> None:
        """Make this host know these names, and no others; with none, its name service has failed."""
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in names.items())]
        (self.folder / "hosts").write_text("\n".join(lines) + "\n")  # the same file: it is mounted

    def is_on(self) -> bool:
        return self.process.poll() is None

    def switch_off(self) -> None:
        """End all of its processes at once, as a loss of power does."""
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()  # `unshare` takes the first process with it, and that one all others
            self.process.wait()


@dataclass
class Network:
    """Hosts joined by a switch."""

    folder: Path
    _switch: subprocess.Popen[str]
    hosts: dict[str, Host] = field(default_factory=dict)
    _addresses: int = 0

    def add(self, name: str) -> Host:
        """Switch a host on. Each gets an address that no host had before."""
        self._addresses += 1
        address = f"{NETWORK}.{self._addresses}"
        folder = self.folder / f"{name}-{self._addresses}"
        (folder / "tmp").mkdir(parents=True)
        (folder / "tmp").chmod(0o1777)
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        (folder / "resolv.conf").write_text(NO_NAME_SERVER)
        unshare = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts", "--"]
        process = subprocess.Popen(
            [*unshare, sys.executable, str(FOLDER / "host_init.py"), name, str(folder)],
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "ready\n", f"the host {name} did not start"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        host = Host(name, address, folder, process, int(children[0]))
        self.hosts[name] = host
        mac = f"02:00:0a:4d:00:{self._addresses:02x}"
        self._command({"plug": name, "pid": host.pid, "mac": mac})
        host.check("sh", "-c", f"ip link set {DEVICE} address {mac} mtu {MTU} && ip address add {address}/24 "
                   f"dev {DEVICE} && ip link set {DEVICE} up")  # fmt: skip
        return host

    def remove(self, host: Host) -> None:
        """Switch a host off for good."""
        self._command({"unplug": host.name})
        host.switch_off()
        if self.hosts.get(host.name) is host:
            del self.hosts[host.name]
        shutil.rmtree(host.folder, ignore_errors=True)

    def rule(self, *rules: Rule) -> None:
        """Replace all rules between hosts; without any, the network is whole and fast."""
        self._command({"rules": rules})

    def cut(self, host: str, *from_hosts: str) -> None:
        """Cut a host off from others, all of them by default; every other rule ends."""
        others = from_hosts or [other for other in self.hosts if other != host]
        self.rule(*((host, other, {"cut": True}) for other in others))

    def heal(self) -> None:
        """End all rules."""
        self.rule()

    def statistics(self) -> dict[tuple[str, str], tuple[int, int, int]]:
        """Frames passed, bytes passed and frames dropped, by sender and receiver."""
        return {(row[0], row[1]): (row[2], row[3], row[4]) for row in self._command({"statistics": True})}

    def _command(self, command: dict[str, Any]) -> Any:
        assert self._switch.stdin
        assert self._switch.stdout
        self._switch.stdin.write(json.dumps(command) + "\n")
        self._switch.stdin.flush()
        answer = self._switch.stdout.readline()
        assert answer, "the switch has ended"
        return json.loads(answer)


@contextmanager
def network() -> Iterator[Network]:
    """A switch without hosts; on leaving, every host is switched off."""
    # not /tmp: each host has its own there
    with tempfile.TemporaryDirectory(prefix="posebatch-cluster-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        switch = subprocess.Popen(
            [sys.executable, str(FOLDER / "switch.py")],
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        joined = Network(Path(folder), switch)
        try:
            yield joined
        finally:
            for host in [*joined.hosts.values()]:
                host.switch_off()
            assert switch.stdin
            switch.stdin.close()
            switch.wait(10)
