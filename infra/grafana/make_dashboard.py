"""Writes posebatch.json, the Grafana dashboard: ``python infra/grafana/make_dashboard.py``.

A dashboard by hand is a thousand lines, nearly all of them the same. Here is what differs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("posebatch.json")

SCHEMA_VERSION = 39
"""Of Grafana 10.4. Later versions of Grafana migrate it by themselves."""

COLUMNS = 24
HEIGHT = 8

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
JOB = 'job=~"$job"'


@dataclass(frozen=True)
class Panel:
    """A panel of the dashboard."""

    title: str
    unit: str
    """As Grafana calls it."""
    queries: dict[str, str] = field(default_factory=dict)
    """Queries by their legend, where JOB stands for the filter."""
    kind: str = "timeseries"
    width: int = 8
    description: str = ""


def rate(metric: str, by: str = "job") -> str:
    """A counter as a rate a second."""
    return f"sum by ({by}) (rate(ray_posebatch_{metric}{{JOB}}[$__rate_interval]))"


def of_run(metric: str, by: str = "job") -> str:
    """A counter of the runs that go on; Ray keeps those of ended runs as long as the node lives."""
    return f"sum by ({by}) (ray_posebatch_{metric}{{JOB}} and on (SessionName, WorkerId) ray_posebatch_run_info)"


def gauge(metric: str, by: str = "job") -> str:
    """A gauge, which is there while a run goes on."""
    return f"max by ({by}) (ray_posebatch_{metric}{{JOB}})"


def since(metric: str) -> str:
    """Seconds since the time that a gauge holds."""
    return f"time() - {gauge(metric)}"


COMPLETED = 'max by (job) (max_over_time(ray_posebatch_run_end_timestamp_seconds{JOB,exit_code=~"0|3|4"}[7d]))'
ENDS = "max by (exit_code) (max_over_time(ray_posebatch_run_end_timestamp_seconds{JOB}[7d]))"
TASK_BUCKETS = "sum by (task, le) (rate(ray_posebatch_task_seconds_bucket{JOB}[$__rate_interval]))"

ROWS: dict[str, list[Panel]] = {
    "Nights": [
        Panel(
            "Since the last completed run",
            "s",
            {"{{job}}": f"time() - {COMPLETED}"},
            "stat",
            4,
            "Runs with exit code 0, 3 or 4. PosebatchNightMissing fires after 26 hours.",
        ),
        Panel("Ends of runs", "dateTimeAsIso", {"exit code {{exit_code}}": f"1000 * {ENDS}"}, "stat", 8),
        Panel("Run", "none", {"{{run_id}}, posebatch {{version}}": gauge("run_info", "run_id, version")}, "stat", 6),
        Panel("Running for", "s", {"{{job}}": since("run_start_timestamp_seconds")}, "stat", 3),
        Panel("Waited for the lease", "s", {"{{job}}": gauge("lease_wait_seconds")}, "stat", 3),
    ],
    "Lag behind the archive": [
        Panel("Videos not published", "short", {"{{job}}": gauge("lag_videos")}),
        Panel("Bytes not published", "bytes", {"{{job}}": gauge("lag_bytes")}),
        Panel("Age of the oldest source in work", "s", {"{{job}}": gauge("lag_oldest_seconds")}),
    ],
    "Work": [
        Panel("Videos by outcome", "short", {"{{outcome}}": of_run("videos_total", "outcome")}),
        Panel(
            "Failed and partial videos",
            "short",
            {
                "failed: {{error_kind}}": of_run("videos_failed_total", "error_kind"),
                "partial: {{when}}": of_run("videos_partial_total", "when"),
            },
        ),
        Panel(
            "Frames and persons a second", "short", {"frames": rate("frames_total"), "persons": rate("persons_total")}
        ),
        Panel("Seconds of video a second", "short", {"{{job}}": rate("video_seconds_total")}),
        Panel(
            "Processes busy, by stage",
            "short",
            {"{{stage}}": rate("stage_seconds_total", "stage")},
            description="Seconds of work a second. A long wait means that decoding is slower than the networks.",
        ),
        Panel(
            "Seconds of a task, 95 of 100 are faster", "s", {"{{task}}": f"histogram_quantile(0.95, {TASK_BUCKETS})"}
        ),
    ],
    "Workers and queue": [
        Panel("Workers", "short", {"{{state}}": gauge("workers", "state")}),
        Panel("Workers that died", "short", {"{{job}}": of_run("workers_died_total")}),
        Panel(
            "Since the last progress",
            "s",
            {"{{job}}": since("last_progress_timestamp_seconds")},
            description="PosebatchNoProgress fires after 20 minutes.",
        ),
        Panel("Tasks that wait", "short", {"{{kind}}": gauge("queue_tasks", "kind")}),
        Panel("Tasks in flight", "short", {"{{kind}}": gauge("tasks_in_flight", "kind")}),
        Panel(
            "Errors and retries of tasks a second",
            "short",
            {
                "error: {{error_kind}}": rate("task_errors_total", "error_kind"),
                "again: {{error_kind}}": rate("retries_total", "error_kind"),
            },
        ),
    ],
    "Store": [
        Panel("Staged bytes a second", "Bps", {"{{job}}": rate("staged_bytes_total")}, width=12),
        Panel("Repeated requests a second", "reqps", {"{{job}}": rate("storage_retries_total")}, width=12),
    ],
}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(
            {
                "type": "row",
                "title": title,
                "id": len(panels) + 1,
                "collapsed": False,
                "panels": [],
                "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
            }
        )
        y, x = y + 1, 0
        for panel in row:
            if x + panel.width > COLUMNS:
                x, y = 0, y + HEIGHT
            panels.append(_panel(panel, len(panels) + 1, x, y))
            x += panel.width
        y += HEIGHT
    return {
        "uid": "posebatch",
        "title": "posebatch",
        "description": "Runs of posebatch: docs/metrics.md describes the metrics.",
        "tags": ["posebatch"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_data_source(), _jobs()]},
        "annotations": {"list": []},
        "links": [],
        "panels": panels,
    }


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": query.replace("JOB", JOB),
            "legendFormat": legend,
            "range": panel.kind == "timeseries",
            "instant": panel.kind != "timeseries",
        }
        for index, (legend, query) in enumerate(panel.queries.items())
    ]
    options: dict[str, Any] = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
    if panel.kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "textMode": "auto"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": panel.width, "x": x, "y": y},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": options,
        "targets": targets,
    }


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}


def _jobs() -> dict[str, Any]:
    query = "label_values(ray_posebatch_run_end_timestamp_seconds, job)"
    return {
        "name": "job",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "jobs"},
        "definition": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def text() -> str:
    """The content of posebatch.json."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
