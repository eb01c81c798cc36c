"""Ray's own Prometheus endpoint shows the metrics of a run as they are defined, with the counts of its summary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.factories import audio_only, corrupt_middle, video_bytes
from support.ray_head import RayHead
from support.scraping import Scraped, scraping

from posebatch.run import metrics
from posebatch.run.metrics import METRICS, Metric

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


def of(scraped: Scraped, run_id: str, metric: Metric, suffix: str = "") -> dict[tuple[str, ...], float]:
    """The series of a metric by the values of its labels; each must have exactly the labels of its definition."""
    found = {}
    for (name, labels), value in scraped.of_run(run_id).items():
        if name == metric.exported_name + suffix:
            assert {label for label, _ in labels} == {*metric.labels}, name
            found[tuple(dict(labels)[label] for label in metric.labels)] = value
    return found


def newest_summary(output: Path) -> dict[str, Any]:
    return json.loads(max(output.glob("runs/*/summary.json")).read_text())


def test_metrics_of_a_submitted_job_and_of_a_night_without_work_are_scraped(ray_head: RayHead, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(video_bytes(frames=20, fps=10))
    (tmp_path / "in" / "audio.mp4").write_bytes(audio_only())
    (tmp_path / "in" / "damaged.mp4").write_bytes(corrupt_middle(video_bytes(frames=40, fps=10, faststart=True)))
    arguments = [tmp_path / "in", "--output", tmp_path / "out", "--workers", "1", "--segment-seconds", "1"]
    variables = {**os.environ, **ray_head.environment()}
    submitting = {name: value for name, value in variables.items() if name != "RAY_ADDRESS"}
    submit = [Path(sys.executable).parent / "ray", "job", "submit", "--address", ray_head.dashboard_url,
              "--working-dir", ROOT, "--", sys.executable, "jobs/extract_poses.py"]  # fmt: skip
    with scraping(ray_head.folder) as scraped:
        job = subprocess.run(
            [*submit, *arguments], env=submitting, capture_output=True, text=True, timeout=600, check=False
        )
        first = newest_summary(tmp_path / "out")
        assert first["finished"], job.stdout + job.stderr
        again = subprocess.run(
            [sys.executable, "jobs/extract_poses.py", *arguments],
            env={**variables, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert again.returncode == 0, again.stdout + again.stderr
    assert_same(scraped, first)
    assert of(scraped, first["run_id"], metrics.VIDEOS) == {("published",): 2, ("failed",): 1}
    assert of(scraped, first["run_id"], metrics.VIDEOS_PARTIAL) == {("this_run",): 1}
    assert of(scraped, first["run_id"], metrics.VIDEOS_FAILED) == {("no_video_stream",): 1}
    assert of(scraped, first["run_id"], metrics.WORKERS) == {("wanted",): 1, ("ready",): 1}
    stages = of(scraped, first["run_id"], metrics.STAGE_SECONDS)
    assert {(stage,) for stage in ("decode", "detect", "stage", "publish")} <= {*stages}
    tasks = of(scraped, first["run_id"], metrics.TASK_SECONDS, "_count")
    assert (tasks["clip",], tasks["segment",] >= 4) == (2, True), "clips that are longer than a segment come back"
    assert of(scraped, first["run_id"], metrics.STAGED_BYTES)[()] > 1000

    second = newest_summary(tmp_path / "out")
    assert second["run_id"] != first["run_id"]
    assert_same(scraped, second)
    assert of(scraped, second["run_id"], metrics.VIDEOS) == {("up_to_date",): 2, ("quarantined",): 1}


def assert_same(scraped: Scraped, summary: dict[str, Any]) -> None:
    """What Ray shows of a run is defined, and says the same as its summary."""
    run_id, defined = summary["run_id"], {metric.exported_name: metric for metric in METRICS}
    assert {name: defined[name].kind for name in scraped.kinds} == scraped.kinds
    outcomes = {outcome: value for (outcome,), value in of(scraped, run_id, metrics.VIDEOS).items()}
    assert outcomes == {name: summary[name] for name in outcomes}
    assert sum(outcomes.values()) == summary["videos_total"] - summary["videos_left"]
    assert of(scraped, run_id, metrics.FRAMES).get((), 0) == summary["frames"]
    assert of(scraped, run_id, metrics.PERSONS).get((), 0) == summary["persons"]
    assert of(scraped, run_id, metrics.RUNS) == {(str(summary["exit_code"]),): 1}
    assert [*of(scraped, run_id, metrics.RUN_END)] == [(str(summary["exit_code"]),)]
    assert of(scraped, run_id, metrics.LAG_VIDEOS) == {(): summary["videos_left"]}
