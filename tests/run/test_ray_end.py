"""The end of a local Ray while a run needs it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray._private.worker
from support.processes import wait_for

from posebatch.run.workers import ray_end
from posebatch.run.workers.ray_end import NEEDED, local_ray_watched


class StartedNode:
    """Ray's record of the processes that it has started, each of which sleeps here."""

    def __init__(self) -> None:
        self.all_processes: dict[str, Any] = {
            name: [SimpleNamespace(process=subprocess.Popen(["sleep", "600"]))] for name in (*NEEDED, "log_monitor")
        }
        self.is_ended = threading.Event()

    def process(self, name: str) -> subprocess.Popen[bytes]:
        started: subprocess.Popen[bytes] = self.all_processes[name][0].process
        return started

    def kill_all_processes(self, check_alive: bool, allow_graceful: bool) -> None:
        assert not check_alive
        assert not allow_graceful
        for name in self.all_processes:
            self.process(name).kill()
            self.process(name).wait()
        self.is_ended.set()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartedNode]:
    started = StartedNode()
    monkeypatch.setattr(ray._private.worker, "_global_node", started)
    yield started
    started.kill_all_processes(check_alive=False, allow_graceful=False)


@pytest.mark.parametrize("name", NEEDED)
def test_end_of_a_local_ray_is_told_once(node: StartedNode, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_end, "GRACE_SECONDS", 0.3)
    told: list[str] = []
    with local_ray_watched(told.append):
        os.kill(node.process(name).pid, signal.SIGKILL)
        wait_for(node.is_ended.is_set)
    assert told == [f"the end of Ray's {name} on this machine, by signal 9"]


def test_rest_of_an_ended_ray_ends_with_the_run(node: StartedNode) -> None:
    told: list[str] = []
    with local_ray_watched(told.append):
        node.process("raylet").kill()
        wait_for(lambda: told)
        assert not node.is_ended.is_set()
    assert node.is_ended.is_set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_rest_of_an_ended_ray_ends_although_nobody_can_be_told(node: StartedNode) -> None:
    def tell(_: str) -> None:
        raise BrokenPipeError

    with local_ray_watched(tell):
        node.process("raylet").kill()
        node.process("raylet").wait()
        threading.Event().wait(5 * ray_end.WATCH_SECONDS)
    assert node.is_ended.is_set()


def test_end_of_a_process_that_no_run_needs_is_not_told(node: StartedNode) -> None:
    told: list[str] = []
    with local_ray_watched(told.append):
        node.process("log_monitor").kill()
        node.process("log_monitor").wait()
        threading.Event().wait(5 * ray_end.WATCH_SECONDS)
    assert not told
    assert not node.is_ended.is_set()


def test_process_without_a_local_ray_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray._private.worker, "_global_node", None)
    with local_ray_watched(lambda _: pytest.fail("nothing is known of its processes")):
        pass
