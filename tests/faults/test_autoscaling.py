"""An autoscaler adds nodes for work that waits and removes them afterwards; a worker asked to end blames nobody."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.nights import (
    Nights,
    SharedRay,
    assert_same,
    finish,
    injecting,
    make_archive,
    processes,
    shared_ray,
    undisturbed_nights,
)
from faults.suite import FULL, note_figure
from support.autoscaling import AutoscalingHead, autoscaling_head
from support.processes import wait_for

from posebatch import read_videos

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(not FULL, reason="takes minutes: make test-faults")]

RUN = ("--workers", "2", "--segment-seconds", "2")
IDLE_S = 5.0


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive"), 7, 6)


@pytest.fixture(scope="module")
def undisturbed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return undisturbed_nights(archive, tmp_path_factory.mktemp("undisturbed"), RUN)


@pytest.fixture(params=[1, 2], ids=["autoscaler 1", "autoscaler 2"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[AutoscalingHead, SharedRay]]:
    plan_file = tmp_path / "plan.json"
    plan_file.write_text(json.dumps({"marks": str(tmp_path), "faults": []}))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in injecting(plan_file).items():
            patch.setenv(name, value)
        with autoscaling_head(tmp_path, max_nodes=3, idle_s=IDLE_S, version=request.param) as scaling:
            yield scaling, SharedRay(scaling.head, plan_file)


def test_nodes_come_with_work_and_go_with_it(
    cluster: tuple[AutoscalingHead, SharedRay], archive: Path, undisturbed: Nights, tmp_path: Path
) -> None:
    scaling, ray = cluster
    assert scaling.worker_nodes() == []
    nights = Nights(str(archive), str(tmp_path / "out"), tmp_path / "scratch", RUN, ray, seconds_per_frame=0.05)
    process = nights.start()
    most = 0
    while process.poll() is None:
        most = max(most, len(scaling.worker_nodes()))
    code, output = finish(process)
    assert code == 3, output
    assert most == 2, "one node for each worker, and none for helpers"
    assert_same(nights.output, undisturbed.output)
    wait_for(lambda: scaling.worker_nodes() == [], seconds=120)
    note_figure("nodes of an autoscaler, from none", "as many as workers; none after the run", f"0, {most}, 0")


def test_derivation_gets_a_node_though_helpers_claim_no_core(
    cluster: tuple[AutoscalingHead, SharedRay], archive: Path, undisturbed: Nights, tmp_path: Path
) -> None:
    scaling, ray = cluster
    output_folder = shutil.copytree(undisturbed.output, tmp_path / "out")
    nights = Nights(str(archive), str(output_folder), tmp_path / "scratch", RUN, ray)
    process = nights.start("--cutoff-hz", "5", command="derive")
    code, output = finish(process)
    assert code == 0, output
    assert " derived" in output
    wait_for(lambda: scaling.worker_nodes() == [], seconds=120)


def test_worker_that_is_asked_to_end_counts_against_no_video(
    archive: Path, undisturbed: Nights, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As when a spot machine is taken away: SIGTERM to its processes, and SIGKILL after a while."""
    with shared_ray(tmp_path_factory.mktemp("ray"), num_cpus=3) as ray:
        nights = Nights(str(archive), str(tmp_path / "out"), tmp_path / "scratch", RUN, ray, seconds_per_frame=0.1)
        process = nights.start()
        wait_for(lambda: len(nights.staged()) > 1 or process.poll() is not None)
        asked = processes("ray::SegmentWorker")
        assert len(asked) == 2
        for pid in asked:
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not {*asked} & {*processes("ray::SegmentWorker")}, seconds=60)
        code, output = finish(process)
    assert code == 3, output
    assert "hands it back" in output
    assert_same(nights.output, undisturbed.output)
    assert set(read_videos(nights.output)["attempts"]) == {1}
    assert nights.staged().total() == len(nights.staged()), "each segment was finished, or handed back before it began"
