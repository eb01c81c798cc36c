"""Questions to Ray's GCS: an answer, an error, and one that does not come."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import ray

from posebatch.core.errors import RunAbortedError
from posebatch.run.stop_request import StopRequest
from posebatch.run.workers.ray_cluster import RayCluster


def test_answer_of_ray_is_returned_from_a_thread_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": threading.current_thread().name}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    cluster = RayCluster()
    assert cluster.nodes() == [{"NodeID": "question to Ray"}]
    assert cluster.resources() == {"CPU": 2.0}


@pytest.mark.parametrize("error", [ConnectionError("no Ray"), TimeoutError("too late")])
def test_error_of_ray_is_raised(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(ray, "nodes", fail)
    with pytest.raises(type(error), match=str(error)):
        RayCluster().nodes()


def test_question_without_an_answer_ends_when_the_run_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, stop = threading.Event(), StopRequest()
    monkeypatch.setattr(ray, "nodes", answered.wait)
    threading.Timer(0.5, stop.request, ["SIGTERM"]).start()
    with pytest.raises(RunAbortedError, match="stopped by SIGTERM"):
        RayCluster(stop.check).nodes()
    answered.set()


ASKING_AFTER_THE_END = """
import os, signal, sys
import ray
from posebatch.core.errors import RunAbortedError
from posebatch.run.stop_request import StopRequest
from posebatch.run.workers.ray_cluster import RayCluster
from posebatch.run.workers.ray_session import connect_to_ray

stop = StopRequest()
try:
    with connect_to_ray(1, on_end=stop.request):
        (gcs,) = ray._private.worker._global_node.all_processes["gcs_server"]
        os.kill(gcs.process.pid, signal.SIGKILL)
        RayCluster(stop.check).nodes()
except RunAbortedError as error:
    print(error)
    sys.exit(1)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_question_to_a_killed_gcs_does_not_hold_the_run() -> None:
    """Ray itself waits for another GCS for five minutes."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", ASKING_AFTER_THE_END], env=variables, capture_output=True, text=True,
                          timeout=200, check=False)  # fmt: skip
    assert (done.returncode, "stopped by the end of Ray's gcs_server" in done.stdout) == (1, True), done.stderr
