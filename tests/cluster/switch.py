"""The switch that joins the hosts, in user space: it delays, loses, slows and cuts frames by rules for each pair.

Not every kernel can do that itself (``tc netem``); TAP devices are in all. Each host has the device `DEVICE` in its
network namespace; this process holds the other ends and passes Ethernet frames on.

Commands are lines of JSON on the standard input; each is answered by a line. The process ends with its input, and with
it all devices end::

    {"plug": "store", "pid": 4711, "mac": "02:00:0a:4d:00:02"}    give the host of that process a device
    {"unplug": "store"}                                           take it away
    {"rules": [["store", "head", {"delay_ms": 50}]]}              replace all rules; both directions
    {"statistics": true}                                          frames and bytes passed and dropped, by pair
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import selectors
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

DEVICE: Final = "tap0"
MTU: Final = 9000
"""Bytes in a packet. Large ones, as in a data centre: each costs this process the same time."""
QUEUE_SECONDS: Final = 1.0
"""Frames that would wait longer for bandwidth are dropped, as by a router."""

CLONE_NEWNET: Final = 0x40000000
TUNSETIFF: Final = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
BROADCAST_BIT: Final = 1


@dataclass
class Wire:
    """What happens to frames in one direction between two hosts."""

    delay_ms: float = 0.0
    loss: float = 0.0
    """Share of the frames."""
    mbit_per_s: float = 0.0
    """0: as fast as the switch is."""
    cut: bool = False
    seed: int = 0
    _free_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def arrival(self, size: int, now: float) -> float | None:
        """When a frame that is sent ``now`` arrives; None if it is lost."""
        if self.cut or (self.loss and self._random.random() < self.loss):
            return None
        if self.mbit_per_s:
            self._free_at = max(self._free_at, now) + size * 8e-6 / self.mbit_per_s
            if self._free_at > now + QUEUE_SECONDS:
                self._free_at -= size * 8e-6 / self.mbit_per_s
                return None
            now = self._free_at
        return now + self.delay_ms / 1000


PLAIN: Final = Wire()


class Switch:
    """Ports by the name of their host."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, "")
        self._ports: dict[str, int] = {}
        self._hosts: dict[bytes, str] = {}  # by MAC address
        self._wires: dict[tuple[str, str], Wire] = {}
        self._late: list[tuple[float, int, str, bytes]] = []  # a heap: arrival, number, host, frame
        self._number = 0
        self._passed: Counter[tuple[str, str]] = Counter()
        self._bytes: Counter[tuple[str, str]] = Counter()
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._input = b""

    def serve(self) -> None:
        """Pass frames on until the input ends."""
        while True:
            timeout = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            for key, _ in self._selector.select(timeout):
                if key.data:
                    self._receive(key.data, key.fd)
                elif not self._obey():
                    return
            while self._late and self._late[0][0] <= time.monotonic():
                _, _, host, frame = heapq.heappop(self._late)
                self._send(host, frame)

    def _receive(self, sender: str, port: int) -> None:
        for _ in range(64):  # then the other ports have their turn
            try:
                frame = os.read(port, 65536)
            except BlockingIOError:
                return
            except OSError:  # the host is gone, and with it the device
                self._unplug(sender)
                return
            if frame[0] & BROADCAST_BIT:
                for host in [*self._ports]:
                    if host != sender:
                        self._pass(sender, host, frame)
            elif (host := self._hosts.get(frame[:6], "")) in self._ports:
                self._pass(sender, host, frame)

    def _pass(self, sender: str, host: str, frame: bytes) -> None:
        pair = sender, host
        wire = self._wires.get(pair, PLAIN)
        if wire is PLAIN:
            self._send(host, frame)
        else:
            arrival = wire.arrival(len(frame), time.monotonic())
            if arrival is None:
                self._dropped[pair] += 1
                return
            self._number += 1
            heapq.heappush(self._late, (arrival, self._number, host, frame))
        self._passed[pair] += 1
        self._bytes[pair] += len(frame)

    def _send(self, host: str, frame: bytes) -> None:
        try:
            os.write(self._ports[host], frame)
        except (KeyError, OSError):  # unplugged meanwhile, or not up yet
            return

    def _obey(self) -> bool:
        """Carry out the commands that have arrived; False at the end of the input."""
        received = os.read(sys.stdin.fileno(), 65536)
        *lines, self._input = (self._input + received).split(b"\n")
        for line in lines:
            print(json.dumps(self._command(json.loads(line))), flush=True)
        return bool(received)

    def _command(self, command: dict[str, Any]) -> Any:
        match command:
            case {"plug": host, "pid": pid, "mac": mac}:
                self._plug(host, pid, bytes.fromhex(mac.replace(":", "")))
            case {"unplug": host}:
                self._unplug(host)
            case {"rules": rules}:
                self._wires = {
                    pair: Wire(**rule, seed=number)
                    for number, (one, other, rule) in enumerate(rules)
                    for pair in ((one, other), (other, one))
                }
            case {"statistics": _}:
                pairs = {*self._passed, *self._dropped}
                return [[*pair, self._passed[pair], self._bytes[pair], self._dropped[pair]] for pair in sorted(pairs)]
            case _:
                raise ValueError(command)
        return "done"

    def _plug(self, host: str, pid: int, mac: bytes) -> None:
        """Make the device in the network namespace of a process; this process only visits that namespace."""
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            _enter(namespace)
            port = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(port, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TAP | IFF_NO_PI))
        finally:
            _enter(self._home)
            os.close(namespace)
        self._ports[host], self._hosts[mac] = port, host
        self._selector.register(port, selectors.EVENT_READ, host)

    def _unplug(self, host: str) -> None:
        if (port := self._ports.pop(host, None)) is not None:
            self._selector.unregister(port)
            os.close(port)


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


if __name__ == "__main__":
    Switch().serve()
