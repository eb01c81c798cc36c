"""The files for Kubernetes: each starts alone, no container is root, memory fits, the two schedules run one job."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from posebatch.run.workers.memory_limit import LEAST_BYTES, SHARE_OF_WORKERS, default_memory_bytes
from posebatch.run.workers.ray_session import ACTORS_PER_GPU

INFRA = Path(__file__).resolve().parents[2] / "infra"


def documents(name: str) -> list[dict[str, Any]]:
    return [*yaml.safe_load_all((INFRA / name).read_text())]


def pods(node: Any) -> Iterator[dict[str, Any]]:
    """The specs of all pods below a node of YAML."""
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        for child in node.values():
            yield from pods(child)
    if isinstance(node, list):
        for child in node:
            yield from pods(child)


PODS = [(name, pod) for name in ("rayjob.yaml", "nightly.yaml") for pod in pods(documents(name))]


def test_every_pod_is_checked():
    assert len(PODS) == 4, "submitter, head, worker, and the pod of the nightly script"


@pytest.mark.parametrize(("name", "pod"), PODS)
def test_no_pod_runs_as_root(name: str, pod: dict[str, Any]):
    security = pod["securityContext"]
    user = re.search(r"^USER (\d+):\d+$", (INFRA / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None, "Kubernetes cannot tell from a name whether it is root"
    assert (security["runAsNonRoot"], security["runAsUser"]) == (True, int(user[1])), name
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        wanted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["securityContext"] == wanted, container["name"]
        assert "memory" in container["resources"]["limits"], container["name"]


def test_rayjob_needs_no_other_file_than_its_service_account():
    (account,) = documents("service-account.yaml")
    (rayjob,) = documents("rayjob.yaml")
    cluster = rayjob["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert {group["template"]["spec"]["serviceAccountName"] for group in groups} == {account["metadata"]["name"]}
    assert account["kind"] == "ServiceAccount"


def test_both_schedules_run_the_same_job():
    (rayjob,) = documents("rayjob.yaml")
    (cron_job,) = documents("nightly-raycronjob.yaml")
    assert cron_job["spec"]["jobTemplate"] == rayjob["spec"]
    nightly = documents("nightly.yaml")[0]["spec"]
    assert {key: cron_job["spec"][key] for key in ("schedule", "timeZone")} == {
        key: nightly[key] for key in ("schedule", "timeZone")
    }


@pytest.mark.parametrize("name", [path.name for path in INFRA.glob("nightly*.yaml")])
def test_schedules_name_the_service_account_that_they_need(name: str):
    assert "kubectl apply -f infra/service-account.yaml" in (INFRA / name).read_text()


def test_memory_of_workers_fits_their_pod():
    (rayjob,) = documents("rayjob.yaml")
    (workers,) = rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    here = ACTORS_PER_GPU * int(limits["nvidia.com/gpu"])
    limit = int(limits["memory"].removesuffix("Gi")) << 30
    each = default_memory_bytes(limit, here)
    assert LEAST_BYTES < each <= SHARE_OF_WORKERS * limit / here
    assert f"{each / 1e9:.1f} GB each" in (INFRA / "rayjob.yaml").read_text()
    assert "--max-memory-gb" not in rayjob["spec"]["entrypoint"], "the default follows the pod"


def test_ray_job_stop_leaves_time_to_end():
    (rayjob,) = documents("rayjob.yaml")
    (head,) = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in head["env"]}
    seconds = int(variables["RAY_JOB_STOP_WAIT_TIME_S"])
    assert 3 < seconds < 30, "longer than Ray's default, shorter than the grace of a pod"
    (start,) = (one for one in documents("cluster.yaml")[0]["head_start_ray_commands"] if "--head" in one)
    assert f"RAY_JOB_STOP_WAIT_TIME_S={seconds} " in start


def test_ray_still_reads_the_variable_that_lengthens_its_wait():
    module = pytest.importorskip("ray.dashboard.modules.job.job_supervisor")
    assert "RAY_JOB_STOP_WAIT_TIME_S" in Path(os.fspath(module.__file__)).read_text()
