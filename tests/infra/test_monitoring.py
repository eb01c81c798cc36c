"""Dashboard and alert rules ask for metrics and labels that exist, and the rules fire when they should."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from posebatch.run.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
RULES = INFRA / "prometheus" / "posebatch-alerts.yaml"
DASHBOARD: dict[str, Any] = json.loads((INFRA / "grafana" / "posebatch.json").read_text())
ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]

NAMES = {
    "PosebatchRunAborted",
    "PosebatchVideosFailed",
    "PosebatchNightMissing",
    "PosebatchDeadlineReached",
    "PosebatchLeaseHeld",
    "PosebatchNoProgress",
    "PosebatchWorkersDying",
    "PosebatchStorageRetries",
    "PosebatchLagGrows",
}

PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS: list[dict[str, Any]] = [target for panel in PANELS for target in panel["targets"]]
QUERIES = [target["expr"] for target in TARGETS] + [alert["expr"] for alert in ALERTS]

OF_ALL = {"job", "SessionName", "WorkerId"}
"""Labels that Prometheus and Ray add to every series."""

EXPORTED = {metric.exported_name: {*metric.labels, *OF_ALL} for metric in METRICS if metric.kind != "histogram"} | {
    f"{metric.exported_name}{suffix}": {*metric.labels, *OF_ALL, "le"}
    for metric in METRICS
    if metric.kind == "histogram"
    for suffix in ("_bucket", "_count", "_sum")
}
"""The labels of each series that Ray exports, by its name. tests/run/test_metrics_scrape.py compares with Ray."""

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool: Debian's package prometheus")


def promtool(folder: Path, *arguments: str) -> str:
    """What promtool prints; it must find nothing wrong."""
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def labels_of(query: str) -> set[str]:
    """All labels by which a query selects or groups."""
    selected = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query)
    grouped = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", query)
    return {*selected, *(label.strip() for group in grouped for label in group.split(","))}


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        ("up", set()),
        ('x{job=~"a|b",exit_code!="0"}', {"job", "exit_code"}),
        ("sum by (stage, le) (x) and on (WorkerId) y", {"stage", "le", "WorkerId"}),
    ],
)
def test_labels_of_a_query_are_found(query: str, labels: set[str]):
    assert labels_of(query) == labels


@pytest.mark.parametrize("query", QUERIES)
def test_query_asks_for_series_and_labels_that_exist(query: str):
    names = re.findall(r"\bray_\w+", query)
    assert names
    assert {*names} <= {*EXPORTED}
    # metrics of one query have the labels in common by which it groups; those in a selector belong to its metric
    assert labels_of(query) <= set.union(*(EXPORTED[name] for name in names))
    for name, selector in re.findall(r"\b(ray_\w+)\{([^}]*)\}", query):
        assert labels_of(selector) <= EXPORTED[name]


def test_every_metric_is_shown_or_watched():
    asked = {name for query in QUERIES for name in re.findall(r"\bray_\w+", query)}
    not_asked = {metric.name for metric in METRICS if not any(name.startswith(metric.exported_name) for name in asked)}
    assert not_asked == {"posebatch_runs_total"}, "counts what run_end_timestamp_seconds shows; for other uses"


# --- the dashboard ------------------------------------------------------------------------------------------------


def test_dashboard_is_what_its_script_writes():
    path = INFRA / "grafana" / "make_dashboard.py"
    spec = importlib.util.spec_from_file_location("make_dashboard", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "make_dashboard", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        assert (INFRA / "grafana" / "posebatch.json").read_text() == module.text(), f"run python {path}"


def test_dashboard_has_the_structure_of_grafana():
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= {*DASHBOARD}
    assert {panel["type"] for panel in PANELS} <= {"timeseries", "stat"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len({*ids}) == len(ids)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "job"}
    for panel in PANELS:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len({*refs}) == len(refs)


def test_panels_do_not_overlap():
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target["expr"])
def test_legend_names_labels_of_its_query(target: dict[str, Any]):
    assert {*re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])} <= labels_of(target["expr"])


@needs_promtool
def test_queries_of_the_dashboard_are_valid(tmp_path: Path):
    """As recording rules, which promtool parses."""
    plain = [target["expr"].replace("$__rate_interval", "5m").replace("$job", ".*") for target in TARGETS]
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(plain)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(plain)} rules found" in promtool(tmp_path, "check", "rules", "rules.yaml")


# --- the alerts ---------------------------------------------------------------------------------------------------


def test_alerts_have_the_names_of_the_runbook():
    assert {alert["alert"] for alert in ALERTS} == NAMES
    assert len(ALERTS) == len(NAMES)
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"
        assert alert["annotations"]["summary"].endswith(".")


def test_runbook_has_a_heading_for_each_alert():
    runbook = ROOT / "docs" / "runbook.md"
    if not runbook.exists():
        pytest.skip("there is no docs/runbook.md")
    headings = {*re.findall(r"^#+ +(\w+)$", runbook.read_text(), re.MULTILINE)}
    assert headings >= NAMES


@needs_promtool
def test_alerts_fire_when_they_should(tmp_path: Path):
    shutil.copy(RULES, tmp_path)
    shutil.copy(Path(__file__).with_name("alert_cases.yaml"), tmp_path)
    promtool(tmp_path, "check", "rules", RULES.name)
    promtool(tmp_path, "test", "rules", "alert_cases.yaml")


def test_every_alert_has_a_case_where_it_fires():
    cases = yaml.safe_load(Path(__file__).with_name("alert_cases.yaml").read_text())["tests"]
    fired = {rule["alertname"] for case in cases for rule in case["alert_rule_test"] if rule.get("exp_alerts")}
    assert fired == NAMES
