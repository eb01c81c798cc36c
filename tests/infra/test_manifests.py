"""The files of infra/: the values render to them, they fit the schemas of their kinds, and agree with each other."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from posebatch.cli.entry import build_parser
from posebatch.cli.run import _settings
from posebatch.core.settings import Settings
from posebatch.run.workers.memory_limit import LEAST_BYTES, SHARE_OF_WORKERS, default_memory_bytes
from posebatch.run.workers.ray_session import ACTORS_PER_GPU

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
VALUES: dict[str, Any] = yaml.safe_load((INFRA / "values.yaml").read_text())
OVERLAYS = [*VALUES["overlays"]]
MANIFESTS = ("rayjob.yaml", "nightly.yaml", "nightly-raycronjob.yaml", "service-account.yaml")

CRDS_VARIABLE = "POSEBATCH_KUBERAY_CRDS"
"""Folder with KubeRay's definitions, ``ray.io_rayjobs.yaml`` and so on. Without it its kinds are not checked."""

KUBERNETES_VERSION = "1.34"
"""Whose schemas check the kinds of Kubernetes itself: that of the image in nightly.yaml."""


def _render_module() -> Any:
    spec = importlib.util.spec_from_file_location("render", INFRA / "render.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RENDER = _render_module()


def documents(overlay: str, name: str) -> list[dict[str, Any]]:
    return [*yaml.safe_load_all((INFRA / overlay / name).read_text())]


def only(overlay: str, name: str) -> dict[str, Any]:
    (document,) = documents(overlay, name)
    return document


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


def entrypoint(overlay: str) -> list[str]:
    words = shlex.split(only(overlay, "rayjob.yaml")["spec"]["entrypoint"])
    assert words[:2] == ["python", "/app/jobs/extract_poses.py"]
    return words[2:]


def exec_start(overlay: str, unit: str | None = None) -> list[str]:
    """The command of the systemd unit, as systemd reads it."""
    text = unit or (INFRA / overlay / "posebatch.service").read_text()
    (line,) = re.findall(r"^ExecStart=(.*)$", text.replace("\\\n", ""), re.MULTILINE)
    assert not re.search(r"(?<!%)%(?!%)", line.replace("%%", "")), "a single % is a specifier"
    return [word.replace("%%", "%") for word in shlex.split(line)]


def settings_of(arguments: list[str]) -> Settings:
    return _settings(build_parser().parse_args(["run", *arguments]))


# --- one place of truth ------------------------------------------------------------------------------------------


def test_files_are_what_the_values_render_to():
    """After a change of values.yaml or of a template: make infra."""
    wanted = RENDER.rendered(VALUES)
    found = {f"{overlay}/{path.name}" for overlay in OVERLAYS for path in (INFRA / overlay).iterdir()}
    assert found == set(wanted)
    for name, content in wanted.items():
        assert (INFRA / name).read_text() == content, name


def test_own_values_are_rendered_elsewhere(tmp_path: Path):
    values = copy.deepcopy(VALUES)
    values["common"] |= {"notify_secret": "hooks", "begin": "22:30", "deadline": "23:45", "time_zone": "Europe/Berlin"}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, INFRA / "render.py", "--values", tmp_path / "values.yaml", "--to", tmp_path / "out"]
    subprocess.run(command, check=True)
    nightly = next(yaml.safe_load_all((tmp_path / "out/cpu/nightly.yaml").read_text()))
    assert (nightly["spec"]["schedule"], nightly["spec"]["timeZone"]) == ("30 22 * * *", "Europe/Berlin")
    script = nightly["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"][2]
    assert '(noon_ago + 0 * 86400))" "+%Y-%m-%dT23:45 Europe/Berlin"' in script, "before midnight"
    rayjob = yaml.safe_load((tmp_path / "out/cpu/rayjob.yaml").read_text())["spec"]
    settings = settings_of(shlex.split(rayjob["entrypoint"])[2:])
    assert (settings.night.notify, settings.night.deadline) == ("env:POSEBATCH_NOTIFY_URL", "23:45 Europe/Berlin")
    (head,) = rayjob["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert head["env"][1]["valueFrom"] == {"secretKeyRef": {"name": "hooks", "key": "url"}}
    unit = (tmp_path / "out/cpu/posebatch.service").read_text()
    assert settings_of(exec_start("cpu", unit)[2:]).night == settings.night


@pytest.mark.parametrize("missing", ["image", "deadline", "notify_secret"])
def test_value_that_is_missing_is_named(missing: str):
    values = copy.deepcopy(VALUES)
    del values["common"][missing]
    with pytest.raises((RENDER.jinja2.UndefinedError, KeyError), match=missing):
        RENDER.rendered(values)


# --- the schemas of the kinds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kinds_of_kubernetes_fit_its_schemas(overlay: str):
    validate = pytest.importorskip("kubernetes_validate").validate
    checked = []
    for document in (one for name in MANIFESTS for one in documents(overlay, name)):
        if not document["apiVersion"].startswith("ray.io/"):
            validate(document, KUBERNETES_VERSION, strict=True)
            checked.append(document["kind"])
    assert sorted(checked) == ["CronJob", "Role", "RoleBinding", "ServiceAccount", "ServiceAccount"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_of_kuberay_fit_the_schemas_of_kubernetes(overlay: str):
    """KubeRay's own definitions leave out what Kubernetes says of a pod; so each is checked as a pod, too."""
    validate = pytest.importorskip("kubernetes_validate").validate
    found = [*pods(only(overlay, "rayjob.yaml"))]
    assert len(found) == 3
    for pod in found:
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}, KUBERNETES_VERSION, True)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize(("name", "kind"), [("rayjob.yaml", "rayjobs"), ("nightly-raycronjob.yaml", "raycronjobs")])
def test_kinds_of_kuberay_fit_its_definitions(overlay: str, name: str, kind: str):
    if CRDS_VARIABLE not in os.environ:
        pytest.skip(f"{CRDS_VARIABLE} names no folder with KubeRay's definitions; see infra/README.md")
    jsonschema = pytest.importorskip("jsonschema")
    definition = yaml.safe_load(Path(os.environ[CRDS_VARIABLE], f"ray.io_{kind}.yaml").read_text())
    document = only(overlay, name)
    (version,) = (one for one in definition["spec"]["versions"] if f"ray.io/{one['name']}" == document["apiVersion"])
    assert definition["spec"]["names"]["kind"] == document["kind"]
    jsonschema.validate(document, without_unknown_fields(version["schema"]["openAPIV3Schema"]))


def without_unknown_fields(node: Any) -> Any:
    """A schema that refuses what the API server would drop silently."""
    if isinstance(node, list):
        return [without_unknown_fields(each) for each in node]
    if not isinstance(node, dict):
        return node
    closed = {name: without_unknown_fields(each) for name, each in node.items()}
    may_close = isinstance(node.get("properties"), dict) and "additionalProperties" not in node
    if closed.pop("x-kubernetes-int-or-string", False):
        return {"type": ["integer", "string"]}
    return {**closed, "additionalProperties": False} if may_close and node.get("type") == "object" else closed


def test_schema_that_refuses_unknown_fields_does():
    jsonschema = pytest.importorskip("jsonschema")
    schema = {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "integer"}}}}}
    jsonschema.validate({"a": {"b": 1}}, without_unknown_fields(schema))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"a": {"c": 1}}, without_unknown_fields(schema))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_cluster_file_fits_the_schema_of_ray(overlay: str):
    jsonschema = pytest.importorskip("jsonschema")
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    schema = json.loads(Path(spec.submodule_search_locations[0], "autoscaler", "ray-schema.json").read_text())
    jsonschema.validate(only(overlay, "cluster.yaml"), schema)


# --- what the files say ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_runs_as_root(overlay: str):
    user = re.search(r"^USER (\d+):\d+$", (INFRA / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None, "Kubernetes cannot tell from a name whether it is root"
    found = [pod for name in ("rayjob.yaml", "nightly.yaml") for pod in pods(documents(overlay, name))]
    assert len(found) == 4, "submitter, head, worker, and the pod of the nightly script"
    for pod in found:
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, int(user[1]))
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
            assert container["securityContext"] == {**wanted, "capabilities": {"drop": ["ALL"]}}, container["name"]
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]], container["name"]
            assert "memory" in container["resources"]["limits"], container["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rayjob_needs_no_other_file_than_its_service_account(overlay: str):
    account = only(overlay, "service-account.yaml")
    cluster = only(overlay, "rayjob.yaml")["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert {group["template"]["spec"]["serviceAccountName"] for group in groups} == {account["metadata"]["name"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_ways_run_the_same_job_at_the_same_time(overlay: str):
    rayjob = only(overlay, "rayjob.yaml")
    cron_job = only(overlay, "nightly-raycronjob.yaml")["spec"]
    nightly = documents(overlay, "nightly.yaml")[0]["spec"]
    assert cron_job["jobTemplate"] == rayjob["spec"]
    assert [cron_job[key] for key in ("schedule", "timeZone")] == [nightly[key] for key in ("schedule", "timeZone")]
    ours, systemd = settings_of(entrypoint(overlay)), settings_of(exec_start(overlay)[2:])
    assert exec_start(overlay)[:2] == ["/opt/posebatch/.venv/bin/posebatch", "run"]
    different = {name for name, value in ours.flat().items() if systemd.flat()[name] != value}
    assert different == {"workers"}, "a machine without a cluster sees its own cores and GPUs"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_schedules_name_the_files_that_they_need(overlay: str):
    for name in ("rayjob.yaml", "nightly.yaml", "nightly-raycronjob.yaml"):
        assert f"kubectl apply -f infra/{overlay}/service-account.yaml" in (INFRA / overlay / name).read_text()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_workers_and_their_memory_fit_their_pod(overlay: str):
    spec = only(overlay, "rayjob.yaml")["spec"]
    (workers,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    settings = settings_of(entrypoint(overlay))
    on_gpu = settings.execution.device == "cuda"
    here = ACTORS_PER_GPU * int(limits["nvidia.com/gpu"]) if on_gpu else int(limits["cpu"])
    assert int(settings.execution.workers) == here * workers["maxReplicas"]
    limit = int(limits["memory"].removesuffix("Gi")) << 30
    each = default_memory_bytes(limit, here)
    assert LEAST_BYTES < each <= SHARE_OF_WORKERS * limit / here
    assert f"{each / 1e9:.1f} GB each" in (INFRA / overlay / "rayjob.yaml").read_text()
    assert settings.limits.max_memory_gb is None, "the default follows the pod"


def test_spot_nodes_hold_workers_alone():
    spec = only("spot", "rayjob.yaml")["spec"]["rayClusterSpec"]
    kind = "karpenter.sh/capacity-type"
    assert spec["headGroupSpec"]["template"]["spec"]["nodeSelector"] == {kind: "on-demand"}
    assert spec["workerGroupSpecs"][0]["template"]["spec"]["nodeSelector"] == {kind: "spot"}
    nodes = only("spot", "cluster.yaml")["available_node_types"]
    markets = {name: node["node_config"].get("InstanceMarketOptions") for name, node in nodes.items()}
    assert markets == {"head": None, "spot": {"MarketType": "spot"}}
    for overlay in ("cpu", "gpu"):
        assert "spot" not in (INFRA / overlay / "cluster.yaml").read_text()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_job_stop_leaves_time_to_end(overlay: str):
    rayjob = only(overlay, "rayjob.yaml")
    (head,) = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in head["env"]}
    seconds = int(variables["RAY_JOB_STOP_WAIT_TIME_S"])
    assert 3 < seconds < 30, "longer than Ray's default, shorter than the grace of a pod"
    (start,) = (one for one in only(overlay, "cluster.yaml")["head_start_ray_commands"] if "--head" in one)
    assert f"RAY_JOB_STOP_WAIT_TIME_S={seconds} " in start


def test_ray_still_reads_the_variable_that_lengthens_its_wait():
    module = pytest.importorskip("ray.dashboard.modules.job.job_supervisor")
    assert "RAY_JOB_STOP_WAIT_TIME_S" in Path(os.fspath(module.__file__)).read_text()
