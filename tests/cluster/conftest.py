"""One cluster for all scenarios, and the dataset that one machine makes of the same archive."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from cluster.hosts import FOLDER
from cluster.ray_cluster import BIN, OPTIONS, Cluster, Night, running_cluster
from faults.nights import make_archive


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        make_archive(cluster.folder / "archive", videos=12, longest_s=8)
        fill = [str(FOLDER / "observe.py"), "fill", str(cluster.folder / "archive"), "s3://archive/", "s3://output/"]
        cluster.submitter.check(sys.executable, *fill)
        yield cluster


@pytest.fixture(scope="session")
def one_machine(cluster: Cluster) -> dict[str, Any]:
    """The dataset of a run on a single host, without the cluster."""
    night = Night(cluster, "one-machine", cluster.folder / "one-machine")
    night.plan(seconds_per_frame=0.0)
    run = [str(BIN / "posebatch"), "run", "s3://archive/", "--output", night.output, *OPTIONS, "--workers", "1"]
    code, output = cluster.submitter.run(*run)
    assert code == 3, output
    return night.describe()


@pytest.fixture
def night(cluster: Cluster, one_machine: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[Night]:
    """An output for a scenario; the cluster stays as the scenario leaves it."""
    name = request.node.name.removeprefix("test_").replace("_", "-")
    night = Night(cluster, name, cluster.folder / name)
    night.plan()
    yield night
    night.close()
