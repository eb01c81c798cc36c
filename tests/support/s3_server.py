"""A real S3 server on loopback for the tests: OpenStack Swift behind its S3 interface.

The storage code depends on a server's answers to ranges, conditions and broken uploads. So the tests use a server that
others have written. Swift comes from PyPI, needs no system service and runs as any user on Linux.

``python tests/support/s3_server.py [FOLDER]`` starts a server, prints the environment variables that lead to it, and
serves until Ctrl-C.
"""

import argparse
import ctypes
import http.client
import importlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

LOOPBACK = "127.0.0.1"
START_SECONDS = 30.0
STOP_SECONDS = 5.0
SERVER_MODULES = {
    "account": "swift.account.server",
    "container": "swift.container.server",
    "object": "swift.obj.server",
    "proxy": "swift.proxy.server",
}
PR_SET_PDEATHSIG = 1

# The timeouts are long, because no Swift daemon runs here that would repair an update given up on a busy machine: a
# listing would lack the object for good. Swift always logs to syslog too; port 9 ("discard") keeps its lines out of the
# machine's own log.
DEFAULTS = """\
[DEFAULT]
bind_ip = {ip}
bind_port = {port}
workers = 0
swift_dir = {place}
devices = {place}/data
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
conn_timeout = 20
node_timeout = 60
container_update_timeout = 60
log_udp_host = {ip}
log_udp_port = 9
log_requests = false
"""

STORAGE = """
[pipeline:main]
pipeline = healthcheck {name}-server

[app:{name}-server]
use = egg:swift#{name}

[filter:healthcheck]
use = egg:swift#healthcheck
"""

FILTERS = (
    "catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth copy slo dlo versioned_writes symlink"
)

PROXY = """
[pipeline:main]
pipeline = {filters} proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
error_suppression_limit = 1000000
"""


@dataclass(frozen=True)
class S3Server:
    """The address of a running server, and the credentials of its one user."""

    endpoint_url: str
    access_key: str = "test:tester"
    secret_key: str = "S3secretThatMustNotShowUpAnywhere7MDENG"
    """A text of its own, so that tests can look for it in places where it must not be."""
    region: str = "us-east-1"

    def client(self) -> Any:
        """A boto3 client that reads no environment variables, so that tests can change them."""
        import boto3  # noqa: PLC0415  the server's own process starts faster without it
        from botocore.config import Config  # noqa: PLC0415

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(
                s3={"addressing_style": "path"},
                retries={"mode": "standard"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                proxies={},
            ),
        )

    def environment(self) -> dict[str, str]:
        """Variables that lead a program to this server only, however the machine is configured."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": "",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": LOOPBACK,
            "no_proxy": LOOPBACK,
        }


@contextmanager
def running_s3_server(folder: Path) -> Iterator[S3Server]:
    """Serve S3 from ``folder`` while the block runs; it holds data, configuration and logs.

    Swift keeps metadata in extended attributes. Where the file system of ``folder`` has none, another folder is used
    and removed afterwards. The processes die with the thread that enters the block, even when it is killed. So enter
    the block from the main thread.
    """
    with ExitStack() as stack:
        place = _place_with_attributes(folder, stack)
        ports = {name: stack.enter_context(_reserved_port()) for name in SERVER_MODULES}
        server = S3Server(f"http://{LOOPBACK}:{ports['proxy']}")
        _write_configuration(place, ports, server)
        supervisor = stack.enter_context(_supervisor(place, ports))
        _wait_until_healthy(supervisor, place, ports)
        yield server


def _place_with_attributes(folder: Path, stack: ExitStack) -> Path:
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if _has_attributes(folder):
        return folder
    others = [Path(tempfile.gettempdir()), Path(__file__).absolute().parent.parent]
    for other in others:
        if os.access(other, os.W_OK) and _has_attributes(other):
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".s3-server-", dir=other)))
            (place / ".gitignore").write_text("*\n")
            return place
    tried = ", ".join(str(path) for path in [folder, *others])
    raise RuntimeError(f"the S3 test server needs a folder with user extended attributes (Linux); none among {tried}")


def _has_attributes(folder: Path) -> bool:
    if not hasattr(os, "setxattr"):
        return False
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.setxattr(file.fileno(), "user.swift.metadata", bytes(1024))
        except OSError:
            return False
    return True


@contextmanager
def _reserved_port() -> Iterator[int]:
    """Reserve a free port without listening: the server can bind it too, and no other process is given it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOOPBACK, 0))
        # Only after the bind: with SO_REUSEPORT the kernel may choose a port that another process shares.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield holder.getsockname()[1]


def _write_configuration(place: Path, ports: dict[str, int], server: S3Server) -> None:
    (place / "data" / "d1").mkdir(parents=True, exist_ok=True)
    (place / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = posebatch-tests\n")
    for name, port in ports.items():
        sections = _proxy_sections(server) if name == "proxy" else STORAGE.format(name=name)
        defaults = DEFAULTS.format(ip=LOOPBACK, port=port, place=place)
        (place / f"{name}-server.conf").write_text(defaults + sections)


def _proxy_sections(server: S3Server) -> str:
    options = {
        "s3api": f"location = {server.region}\n",
        "tempauth": f"user_{server.access_key.replace(':', '_')} = {server.secret_key} .admin\n",
    }
    filters = [f"\n[filter:{name}]\nuse = egg:swift#{name}\n{options.get(name, '')}" for name in FILTERS.split()]
    return PROXY.format(filters=FILTERS) + "".join(filters)


@contextmanager
def _supervisor(place: Path, ports: dict[str, int]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-W", "ignore", __file__, "--supervise", str(os.getpid()), str(place)]
    command += [f"{name}={port}" for name, port in ports.items()]
    with (place / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=place
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_healthy(supervisor: subprocess.Popen[bytes], place: Path, ports: dict[str, int]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not all(_is_healthy(port) for port in ports.values()):
        if supervisor.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the S3 test server did not start\n{_log_tails(place)}")
        time.sleep(0.05)


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _log_tails(place: Path) -> str:
    tails = []
    for log in sorted(place.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-20:]
        tails.append("\n".join([f"--- {log.name}", *lines]))
    return "\n".join(tails)


def _supervise(parent: int, place: Path, ports: dict[str, int]) -> NoReturn:
    """Import Swift once, because that is slow; fork the servers, and end when one of them ends."""
    _die_with(parent)
    _import_swift(place)
    _write_rings(place, ports)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    own = os.getpid()
    children: list[int] = []
    try:
        for name in ports:
            child = os.fork()
            if child == 0:
                _serve(own, name, place)
            children.append(child)
        dead, status = os.wait()
        children.remove(dead)
        sys.exit(f"a server ended with wait status {status}")
    finally:
        for child in children:
            os.kill(child, signal.SIGTERM)
        for child in children:
            os.waitpid(child, 0)


def _die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, also after a SIGKILL of the parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _import_swift(place: Path) -> None:
    """Import the servers with a folder of their own, so that /etc/swift is not read."""
    importlib.import_module("swift.common.utils").set_swift_dir(str(place))
    for module in SERVER_MODULES.values():
        importlib.import_module(module)


def _write_rings(place: Path, ports: dict[str, int]) -> None:
    ring_builder = importlib.import_module("swift.common.ring").RingBuilder
    for name in ("account", "container", "object"):
        builder = ring_builder(4, 1, 1)  # 2**4 partitions, one replica, an hour between moves
        address = {"ip": LOOPBACK, "port": ports[name], "replication_ip": LOOPBACK, "replication_port": ports[name]}
        builder.add_dev({"region": 1, "zone": 1, "device": "d1", "weight": 1, "meta": "", **address})
        builder.rebalance()
        builder.get_ring().save(str(place / f"{name}.ring.gz"))


def _serve(parent: int, name: str, place: Path) -> NoReturn:
    """Run one of the servers until it is killed; no code of the supervisor may run in this fork."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _die_with(parent)
        log = os.open(place / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(log, sys.stdout.fileno())
        os.dup2(log, sys.stderr.fileno())
        sys.argv = [f"swift-{name}-server", str(place / f"{name}-server.conf"), "--verbose"]
        importlib.import_module(SERVER_MODULES[name]).main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


def _serve_by_hand(folder: Path) -> None:
    with running_s3_server(folder) as server:
        for name, value in server.environment().items():
            print(f"export {name}={shlex.quote(value)}")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            signal.pause()


def _main() -> None:
    if sys.argv[1:2] == ["--supervise"]:
        ports = dict(pair.split("=") for pair in sys.argv[4:])
        _supervise(int(sys.argv[2]), Path(sys.argv[3]), {name: int(port) for name, port in ports.items()})
    parser = argparse.ArgumentParser(description="Serve S3 on loopback until Ctrl-C.")
    parser.add_argument("folder", nargs="?", type=Path, help="for the data; a temporary one when left out")
    folder: Path | None = parser.parse_args().folder
    if folder is not None:
        _serve_by_hand(folder)
        return
    with tempfile.TemporaryDirectory(prefix="s3-server-") as temporary:
        _serve_by_hand(Path(temporary))


if __name__ == "__main__":
    _main()
