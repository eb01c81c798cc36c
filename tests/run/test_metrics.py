"""The metrics of a run say the same as its summary; their definitions follow the rules of Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from support.fake_pool import FAST, FakePool, Fault, Task, Times, no_fault, process
from support.recorded_metrics import RecordedMetrics
from support.tiny_video import write_tiny_video

from posebatch.core.errors import (
    ObjectNotFoundError,
    OutputHeldError,
    RunAbortedError,
    StorageUnavailableError,
)
from posebatch.core.settings import settings_from
from posebatch.dataset.lease import hold_lease
from posebatch.run import metrics
from posebatch.run.context import RunContext
from posebatch.run.driver import run_job
from posebatch.run.meter import RunMeter
from posebatch.run.metrics import METRICS, Metric
from posebatch.run.pool import Capacity
from posebatch.run.progress import Progress
from posebatch.run.stop_request import StopRequest
from posebatch.run.tally import Tally
from posebatch.run.tasks import SegmentTask
from posebatch.run.work_queue import QueueDepth
from posebatch.run.workers.video_tasks import perform
from posebatch.storage.local import LocalStore

UNITS = {
    "counter": re.compile(r"_total$"),
    "histogram": re.compile(r"_seconds$"),
    "gauge": re.compile(r"_(seconds|bytes|info|videos|tasks|workers|in_flight)$"),
}


def test_names_are_unique():
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_every_definition_is_exported():
    assert {*METRICS} == {value for value in vars(metrics).values() if isinstance(value, Metric)}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_metric_has_a_name_and_labels_as_prometheus_wants_them(metric: Metric):
    assert re.fullmatch(r"posebatch(_[a-z]+)+", metric.name)
    assert UNITS[metric.kind].search(metric.name)
    assert metric.kind == "counter" or not metric.name.endswith("_total")
    assert metric.help.endswith(".")
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) and label != "video" for label in metric.labels)
    assert bool(metric.buckets) == (metric.kind == "histogram")


# --- runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_tiny_video(tmp_path / "in" / name)
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "in" / "text.ts").write_bytes(b"export const answer = 42;\n")
    return tmp_path / "in"


def run(
    archive: Path, fault: Fault = no_fault, at_start: Any = lambda _: None
) -> tuple[RecordedMetrics, dict[str, Any]]:
    """Metrics and summary of a run."""
    sink, output = RecordedMetrics(), archive.parent / "out"

    @contextmanager
    def pool(context: RunContext, _: StopRequest, progress: Progress) -> Iterator[FakePool]:
        def really(task: Task) -> object:
            return process(task, context) if isinstance(task, SegmentTask) else perform(task, context)

        progress.meter.connect(sink)
        at_start(sink)
        yield FakePool(context, fault, lambda _: False, really)

    before = {*output.glob("runs/*/summary.json")}
    settings = settings_from({"segment_seconds": 0.2})
    try:
        run_job([str(archive)], str(output), settings, pool, FAST)
    finally:
        (path,) = {*output.glob("runs/*/summary.json")} - before
    return sink, json.loads(path.read_text())


def outcomes(summary: dict[str, Any]) -> dict[tuple[str, ...], float]:
    names = {"no_video": "no_videos"}
    counted = ("published", "derived", "up_to_date", "failed", "quarantined", "no_video")
    return {(name,): summary[names.get(name, name)] for name in counted if summary[names.get(name, name)]}


def test_metrics_say_the_same_as_the_summary(archive: Path):
    sink, summary = run(archive)
    assert sink.counted(metrics.VIDEOS) == outcomes(summary) == {("published",): 2, ("failed",): 1, ("no_video",): 1}
    assert sink.counted(metrics.VIDEOS_FAILED) == {("not_a_video",): 1}
    assert sink.counted(metrics.FRAMES) == {(): summary["frames"]}
    assert sink.counted(metrics.PERSONS) == {(): summary["persons"]}
    assert sink.counted(metrics.VIDEO_SECONDS) == {(): pytest.approx(summary["video_seconds"])}
    assert sink.counted(metrics.RUNS) == {("3",): 1}
    assert sink.gauges[metrics.RUN_INFO] == {(summary["run_id"], summary["posebatch_version"]): 1}
    assert [*sink.gauges[metrics.RUN_END]] == [("3",)]
    segments = len(sink.observed[metrics.TASK_SECONDS]["segment",])
    assert segments > 2
    assert len(sink.observed[metrics.TASK_SECONDS]["publish",]) == 2


def test_nothing_lags_and_nothing_is_in_flight_after_a_run(archive: Path):
    at_start: list[dict[Any, Any]] = []
    sink, _ = run(archive, at_start=lambda sink: at_start.append(deepcopy(sink.gauges)))
    sizes = sum(path.stat().st_size for path in archive.iterdir())
    assert at_start[0][metrics.LAG_VIDEOS][()] == 4
    assert 0 < at_start[0][metrics.LAG_BYTES][()] <= sizes
    assert at_start[0][metrics.LAG_OLDEST][()] >= 0
    for metric in (metrics.LAG_VIDEOS, metrics.LAG_BYTES, metrics.LAG_OLDEST):
        assert sink.gauges[metric] == {(): 0}
    assert {*sink.gauges[metrics.IN_FLIGHT].values()} == {0}
    assert {*sink.gauges[metrics.QUEUE].values()} == {0}


def test_later_run_counts_what_was_done_before(archive: Path):
    run(archive)
    write_tiny_video(archive / "c.mp4")  # without work there are no workers, and no metrics on one machine
    sink, summary = run(archive)
    counted = {("published",): 1, ("up_to_date",): 2, ("quarantined",): 1, ("no_video",): 1}
    assert sink.counted(metrics.VIDEOS) == outcomes(summary) == counted
    assert sink.counted(metrics.VIDEOS_FAILED) == {}


def test_errors_and_retries_are_counted_by_kind(archive: Path):
    fault, kind = Times(StorageUnavailableError, SegmentTask, "a.mp4", times=2, segment=0), "storage_unavailable"
    sink, summary = run(archive, fault)
    assert summary["published"] == 2
    assert sink.counted(metrics.RETRIES) == {(kind,): 2}
    assert sink.counted(metrics.TASK_ERRORS) == {(kind,): 2, ("not_a_video",): 1}


def test_failure_without_a_record_is_counted_by_the_kind_of_its_last_error(archive: Path):
    sink, summary = run(archive, Times(ObjectNotFoundError, SegmentTask, "a.mp4", times=1, segment=0))
    assert summary["failed"] == 2
    assert sum(sink.counted(metrics.VIDEOS_FAILED).values()) == 2
    assert sink.counted(metrics.VIDEOS_FAILED)[ObjectNotFoundError.kind,] == 1


def test_run_that_is_aborted_says_so(archive: Path, monkeypatch: pytest.MonkeyPatch):
    recorded: list[RecordedMetrics] = []
    with pytest.raises(RunAbortedError):
        run(archive, lambda _: StorageUnavailableError("down"), at_start=recorded.append)
    assert recorded[0].counted(metrics.RUNS) == {("1",): 1}


def test_run_that_another_one_keeps_out_is_reported_to_the_cluster(archive: Path, monkeypatch: pytest.MonkeyPatch):
    """It has no workers, so that it connects to Ray for this alone."""
    sink = RecordedMetrics()
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:1")
    monkeypatch.setattr("posebatch.run.workers.ray_metrics.report_to_cluster", lambda meter: meter.connect(sink))
    store = LocalStore(archive.parent / "out")
    with hold_lease(store, "other", False, lambda _: None, lambda _: None), pytest.raises(OutputHeldError):
        run_job([str(archive)], store.root, settings_from({}))
    assert sink.counted(metrics.LEASE_REFUSED) == {(): 1}
    assert sink.counted(metrics.RUNS) == {("2",): 1}


# --- the meter alone ----------------------------------------------------------------------------------------------


def test_late_sink_gets_what_was_counted_before_it():
    tally, sink = Tally(videos_total=3, up_to_date=2), RecordedMetrics()
    meter = RunMeter(tally)
    meter.update()
    meter.connect(sink)
    tally.up_to_date = 3
    meter.update()
    meter.update()
    assert sink.counted(metrics.VIDEOS) == {("up_to_date",): 3}


def test_workers_and_queue_are_gauges():
    sink, meter = RecordedMetrics(), RunMeter(Tally())
    meter.connect(sink)
    meter.note_capacity(Capacity(0, 0, 0, workers=4, ready=3, died=2))
    meter.note_queue(QueueDepth(segments=5, clips=8, cpu_tasks=6, paused=7))
    meter.update()
    assert sink.gauges[metrics.WORKERS] == {("wanted",): 4, ("ready",): 3}
    assert sink.gauges[metrics.QUEUE] == {("segments",): 5, ("clips",): 8, ("cpu_tasks",): 6, ("paused",): 7}
    assert sink.counted(metrics.WORKERS_DIED) == {(): 2}


def test_update_when_due_sends_now_and_then():
    now = [0.0]
    tally, sink = Tally(), RecordedMetrics()
    meter = RunMeter(tally, clock=lambda: now[0])
    meter.connect(sink)
    tally.frames = 1
    meter.update_when_due()
    assert sink.counted(metrics.FRAMES) == {}
    now[0] = 5.0
    meter.update_when_due()
    assert sink.counted(metrics.FRAMES) == {(): 1}


def test_docs_list_every_metric():
    text = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(posebatch_\w+)` \| (\w+) \| (.*?) \| (.+) \|$", text, re.MULTILINE)
    assert rows == [
        (metric.name, metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.help.rstrip("."))
        for metric in METRICS
    ]
