"""The network between the hosts does what its rules say."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from cluster.hosts import Network, network
from cluster.suite import REASON_TO_SKIP, note_row
from cluster.switch import Wire


def test_wire_without_rules_delivers_at_once() -> None:
    assert Wire().arrival(9000, now=5.0) == 5.0


@pytest.mark.parametrize(
    ("wire", "arrivals"),
    [
        (Wire(cut=True), [None, None, None]),
        (Wire(loss=1.0), [None, None, None]),
        (Wire(delay_ms=50), [0.05, 0.05, 0.05]),
        (Wire(mbit_per_s=8), [0.001, 0.002, 0.003]),
        (Wire(mbit_per_s=8, delay_ms=50), [0.051, 0.052, 0.053]),
        (Wire(mbit_per_s=0.02), [0.4, 0.8, None]),  # more than a second of queue
    ],
)
def test_wire_delays_slows_and_loses(wire: Wire, arrivals: list[float | None]) -> None:
    """Three frames of 1,000 bytes at once."""
    assert [wire.arrival(1000, now=0.0) for _ in range(3)] == [
        None if arrival is None else pytest.approx(arrival) for arrival in arrivals
    ]


def test_wire_loses_the_same_frames_each_time() -> None:
    first, second = Wire(loss=0.1, seed=7), Wire(loss=0.1, seed=7)
    lost = [first.arrival(1, now=0.0) is None for _ in range(2000)]
    assert lost == [second.arrival(1, now=0.0) is None for _ in range(2000)]
    assert 140 < sum(lost) < 260


on_hosts = pytest.mark.skipif(bool(REASON_TO_SKIP), reason=REASON_TO_SKIP)

SERVER = """
import socket
server = socket.create_server(("0.0.0.0", 9000))
print("up", flush=True)
while True:
    client, _ = server.accept()
    while client.recv(1 << 20):
        pass
    client.close()
"""

CLIENT = """
import json, socket, sys, time
begun = time.perf_counter()
try:
    client = socket.create_connection(("b", 9000), timeout=3)
except OSError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit()
connected = time.perf_counter()
client.settimeout(60)
client.sendall(bytes(int(sys.argv[1])))
client.shutdown(socket.SHUT_WR)
client.recv(1)
sent = time.perf_counter()
print(json.dumps({"connect_ms": 1e3 * (connected - begun), "mbit_per_s": int(sys.argv[1]) * 8e-6 / (sent - connected)}))
"""


@pytest.fixture(scope="module")
def pair() -> Iterator[Network]:
    with network() as joined:
        first, second = joined.add("a"), joined.add("b")
        first.know({"b": second.address})
        server = second.start([sys.executable, "-c", SERVER])
        assert server.stdout
        assert server.stdout.readline() == "up\n"
        yield joined


def _ask(pair: Network, size: int) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(pair.hosts["a"].check(sys.executable, "-c", CLIENT, str(size)))
    return answer


@on_hosts
@pytest.mark.slow
def test_network_delays_slows_and_cuts(pair: Network) -> None:
    pair.heal()
    plain = _ask(pair, 200 << 20)
    pair.rule(("a", "b", {"delay_ms": 50}))
    assert _ask(pair, 1)["connect_ms"] > 100, "there and back"
    pair.rule(("a", "b", {"mbit_per_s": 20}))
    assert _ask(pair, 4 << 20)["mbit_per_s"] < 21
    pair.cut("a")
    assert "error" in _ask(pair, 1)
    pair.heal()
    assert "error" not in _ask(pair, 1)
    pair.hosts["a"].know({})
    assert "name resolution" in _ask(pair, 1)["error"]
    note_row("the network alone", "-", f"{plain['mbit_per_s']:.0f} Mbit/s between two hosts", 0)


@on_hosts
@pytest.mark.slow
def test_host_leads_nowhere_and_ends_with_its_processes(pair: Network) -> None:
    host = pair.add("c")
    assert host.check("ip", "route").split()[0] == "10.77.0.0/24"
    assert len(host.check("ip", "route").splitlines()) == 1, "no way out"
    sleeper = host.start(["sleep", "1000"])
    pair.remove(host)
    assert sleeper.wait(10) != 0
