"""The metrics of a run: the one place that says their names, kinds, labels and meaning.

`posebatch.run.meter` gives them their values, and a `MetricsSink` exports them. docs/metrics.md, the dashboard and the
alert rules in ``infra/`` use these names with the prefix that Ray adds, see `Metric.exported_name`.

No label holds a path, an address or another value of which an archive may have many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

RAY_PREFIX: Final = "ray_"


@dataclass(frozen=True)
class Metric:
    """The definition of a metric.

    >>> Metric("posebatch_frames_total", "counter", "Frames processed.").exported_name
    'ray_posebatch_frames_total'
    """

    name: str
    """Its unit is its suffix, as Prometheus wants it: ``_seconds``, ``_bytes``, and ``_total`` for counters."""
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of the buckets of a histogram."""

    @property
    def exported_name(self) -> str:
        """Its name at Ray's Prometheus endpoint."""
        return f"{RAY_PREFIX}{self.name}"


RUN_INFO: Final = Metric("posebatch_run_info", "gauge", "1 for the run that goes on.", ("run_id", "version"))
RUN_START: Final = Metric("posebatch_run_start_timestamp_seconds", "gauge", "Start of the run, Unix time.")
RUN_END: Final = Metric(
    "posebatch_run_end_timestamp_seconds", "gauge", "End of the run, Unix time, by its exit code.", ("exit_code",)
)
RUNS: Final = Metric("posebatch_runs_total", "counter", "Runs that ended, by exit code.", ("exit_code",))
LAST_PROGRESS: Final = Metric(
    "posebatch_last_progress_timestamp_seconds", "gauge", "Last time that any task made progress, Unix time."
)
LEASE_WAIT: Final = Metric(
    "posebatch_lease_wait_seconds", "gauge", "Seconds that the run waited for the lease of the output."
)
LEASE_REFUSED: Final = Metric(
    "posebatch_lease_refused_total", "counter", "Runs that ended at once because another run holds the output."
)
VIDEOS: Final = Metric(
    "posebatch_videos_total",
    "counter",
    "Videos by outcome: published, derived, up_to_date, failed, quarantined (failed in an earlier run), no_video.",
    ("outcome",),
)
VIDEOS_FAILED: Final = Metric(
    "posebatch_videos_failed_total", "counter", "Videos that failed in this run, by kind of error.", ("error_kind",)
)
VIDEOS_PARTIAL: Final = Metric(
    "posebatch_videos_partial_total",
    "counter",
    "Videos that are published in part, among those published, derived or up to date; when: this_run or before.",
    ("when",),
)
FRAMES: Final = Metric("posebatch_frames_total", "counter", "Frames processed.")
PERSONS: Final = Metric("posebatch_persons_total", "counter", "Persons found in these frames.")
VIDEO_SECONDS: Final = Metric("posebatch_video_seconds_total", "counter", "Seconds of video processed.")
STAGED_BYTES: Final = Metric("posebatch_staged_bytes_total", "counter", "Bytes of staged segments.")
STAGE_SECONDS: Final = Metric(
    "posebatch_stage_seconds_total",
    "counter",
    "Seconds of all processes by stage: decode, detect, pose, wait (of the networks for frames) and stage of a "
    "segment or clip; and the CPU tasks, such as probe, preview and publish. Stages of a segment overlap.",
    ("stage",),
)
TASK_SECONDS: Final = Metric(
    "posebatch_task_seconds",
    "histogram",
    "Seconds of a task in its process: segment, clip, or the CPU tasks, such as probe and publish.",
    ("task",),
    (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0),
)
TASK_ERRORS: Final = Metric(
    "posebatch_task_errors_total", "counter", "Tasks that ended with an error, by its kind.", ("error_kind",)
)
RETRIES: Final = Metric(
    "posebatch_retries_total", "counter", "Tasks that began again after an error, by its kind.", ("error_kind",)
)
STORAGE_RETRIES: Final = Metric(
    "posebatch_storage_retries_total", "counter", "Requests to a store that were repeated, inside of all tasks."
)
QUEUE: Final = Metric(
    "posebatch_queue_tasks",
    "gauge",
    "Tasks that wait: segments, clips or cpu_tasks for a worker, paused for the end of a pause before a retry.",
    ("kind",),
)
IN_FLIGHT: Final = Metric(
    "posebatch_tasks_in_flight", "gauge", "Tasks in a process: segments, clips or cpu_tasks.", ("kind",)
)
WORKERS: Final = Metric("posebatch_workers", "gauge", "Workers of the run, by state: wanted, ready.", ("state",))
WORKERS_DIED: Final = Metric(
    "posebatch_workers_died_total", "counter", "Workers that died, with their node or alone, loading or at work."
)
LAG_VIDEOS: Final = Metric(
    "posebatch_lag_videos", "gauge", "Videos of the inputs that are neither published nor failed, as far as known."
)
LAG_BYTES: Final = Metric("posebatch_lag_bytes", "gauge", "Bytes of these videos.")
LAG_OLDEST: Final = Metric(
    "posebatch_lag_oldest_seconds",
    "gauge",
    "Age of the oldest source that is found to need work and is neither published nor failed; 0 without one.",
)

METRICS: Final = (
    *(RUN_INFO, RUN_START, RUN_END, RUNS, LAST_PROGRESS, LEASE_WAIT, LEASE_REFUSED),
    *(VIDEOS, VIDEOS_FAILED, VIDEOS_PARTIAL, FRAMES, PERSONS, VIDEO_SECONDS, STAGED_BYTES),
    *(STAGE_SECONDS, TASK_SECONDS, TASK_ERRORS, RETRIES, STORAGE_RETRIES),
    *(QUEUE, IN_FLIGHT, WORKERS, WORKERS_DIED, LAG_VIDEOS, LAG_BYTES, LAG_OLDEST),
)
"""All metrics of a run."""


class MetricsSink(Protocol):
    """Exports metrics. Its methods never raise and return at once."""

    def add(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Raise a counter by ``value`` > 0."""

    def set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Set a gauge."""

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Add a value to a histogram."""
