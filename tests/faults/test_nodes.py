"""Nodes are lost and join during a run: a raylet is killed, a node leaves on SIGTERM, another joins."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from faults.nights import (
    BIN,
    Nights,
    SharedRay,
    assert_same,
    finish,
    injecting,
    kill,
    make_archive,
    shared_ray,
    undisturbed_nights,
)
from faults.suite import FULL, note_figure
from support.processes import wait_for

from posebatch import read_videos

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(not FULL, reason="takes minutes: make test-faults")]

RUN = ("--workers", "2", "--segment-seconds", "2", "--preview", "gif")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive"), 14, 6)


@pytest.fixture(scope="module")
def undisturbed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return undisturbed_nights(archive, tmp_path_factory.mktemp("undisturbed"), RUN)


@dataclass
class Cluster:
    """A head node without CPUs for workers, to which a test adds nodes, all on this machine."""

    ray: SharedRay
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add_node(self, num_cpus: int = 1) -> subprocess.Popen[bytes]:
        command = [BIN / "ray", "start", "--block", f"--address={self.ray.head.address}", f"--num-cpus={num_cpus}",
                   "--disable-usage-stats", f"--object-store-memory={100 << 20}"]  # fmt: skip
        environment = {**os.environ, **injecting(self.ray.plan_file), **self.ray.head.environment()}
        environment["RAY_raylet_start_wait_time_s"] = "120"  # several nodes start at once
        del environment["RAY_ADDRESS"]
        self.nodes.append(
            subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )
        return self.nodes[-1]

    def raylets(self, node: subprocess.Popen[bytes]) -> list[int]:
        children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
        return [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet"]


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with shared_ray(tmp_path_factory.mktemp("ray"), num_cpus=0) as ray:
        cluster = Cluster(ray)
        try:
            yield cluster
        finally:
            for node in cluster.nodes:
                node.kill()  # the processes that it started end with the head
            for node in cluster.nodes:
                node.wait()


@pytest.fixture
def nights(cluster: Cluster, archive: Path, tmp_path: Path) -> Nights:
    return Nights(str(archive), str(tmp_path / "out"), tmp_path / "scratch", RUN, cluster.ray, seconds_per_frame=0.1)


@pytest.mark.parametrize("graceful", [False, True], ids=["raylet killed", "SIGTERM"])
def test_lost_node_counts_against_no_video(
    cluster: Cluster, nights: Nights, undisturbed: Nights, graceful: bool
) -> None:
    going = cluster.add_node()
    cluster.add_node()
    process = nights.start()
    wait_for(lambda: len(nights.staged()) > 3 or process.poll() is not None)
    if graceful:
        going.terminate()
    else:
        assert [kill(pid) for pid in cluster.raylets(going)] == [True]
    cluster.add_node()
    code, output = finish(process)
    assert code == 3, output
    assert_same(nights.output, undisturbed.output)
    assert set(read_videos(nights.output)["attempts"]) == {1}, "a lost node counts against no video"
    repeated = nights.staged().total() - len(nights.staged())
    assert repeated <= 4
    if not graceful:
        note_figure(
            "a raylet killed amid a run, and a node that joins",
            "the run goes on; nothing counts against a video",
            f"{repeated} segments done again; the same dataset",
        )


def test_run_waits_for_its_first_node(cluster: Cluster, nights: Nights, undisturbed: Nights) -> None:
    process = nights.start()
    with pytest.raises(AssertionError, match="waited in vain"):
        wait_for(lambda: nights.staged() or process.poll() is not None, seconds=5)
    cluster.add_node(num_cpus=2)
    code, output = finish(process)
    assert code == 3, output
    assert_same(nights.output, undisturbed.output)
