"""Gives the metrics of a run their values, from its tally and from what happens to its tasks and videos."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from posebatch.core.records import VideoRecord
from posebatch.core.version import __version__
from posebatch.run import metrics
from posebatch.run.flights import Step, step_of
from posebatch.run.metric_values import MetricValues
from posebatch.run.metrics import MetricsSink
from posebatch.run.planning.planner import Decide
from posebatch.run.pool import Capacity, Completion
from posebatch.run.tally import Tally
from posebatch.run.tasks import Call, ClipResult, ClipsTask, ClipTask, SegmentResult, SegmentTask, Task
from posebatch.run.unpublished import UnpublishedSources
from posebatch.run.work_queue import QueueDepth

SEND_SECONDS: Final = 5.0
"""Time between two updates of the metrics. Ray exports them every 10 s."""


class RunMeter:
    """Everything that the metrics of one run need to know. No method raises or waits."""

    def __init__(
        self,
        tally: Tally,
        run_id: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``clock``: Unix time, seconds."""
        self._tally, self._clock = tally, clock
        self._values = MetricValues()
        self._unpublished = UnpublishedSources()
        self._in_flight = {"segments": 0, "clips": 0, "cpu_tasks": 0}
        # of the videos in flight, by address: the steps that failed and did not begin again, with the kind of the error
        self._failed_steps: dict[str, dict[Step, str]] = {}
        self._next_update = 0.0
        self._values.set(metrics.RUN_INFO, 1, run_id=run_id, version=__version__)
        self._values.set(metrics.RUN_START, clock())
        self.note_progress()

    @property
    def is_connected(self) -> bool:
        """Whether the metrics are exported."""
        return self._values.is_connected

    def connect(self, sink: MetricsSink) -> None:
        """Export the metrics from now on."""
        self._values.connect(sink)
        self.update()

    def watching(self, decide: Decide) -> Decide:
        """``decide``, whose decisions are noted: see `UnpublishedSources`."""
        return self._unpublished.watching(decide)

    # --- what happens in a run ------------------------------------------------------------------------------------

    def waited_for_lease(self, seconds: float) -> None:
        """Note how long the run has waited for the output."""
        self._values.set(metrics.LEASE_WAIT, seconds)

    def lease_refused(self) -> None:
        """Note that another run holds the output."""
        self._values.count(metrics.LEASE_REFUSED)

    def note_queue(self, depth: QueueDepth) -> None:
        """Note the tasks that wait."""
        for kind, tasks in vars(depth).items():
            self._values.set(metrics.QUEUE, tasks, kind=kind)

    def note_capacity(self, capacity: Capacity) -> None:
        """Note the workers."""
        self._values.set(metrics.WORKERS, capacity.workers if capacity.requested else 0, state="wanted")
        self._values.set(metrics.WORKERS, capacity.ready, state="ready")
        self._values.count_to(metrics.WORKERS_DIED, capacity.died)

    def note_progress(self) -> None:
        """Note that a task has made progress."""
        self._values.set(metrics.LAST_PROGRESS, self._clock())

    def task_submitted(self, call: Call) -> None:
        """Count the tasks of a call in flight."""
        for task in call.clips if isinstance(call, ClipsTask) else (call,):
            self._count_begun(task)

    def _count_begun(self, task: Task) -> None:
        """Count a task; it is a retry if the same step of the video ended with an error before."""
        self._in_flight[_kind(task)] += 1
        if error_kind := self._failed_steps.get(task.video.uri, {}).pop(step_of(task), None):
            self._values.count(metrics.RETRIES, error_kind=error_kind)

    def task_ended(self, completion: Completion) -> None:
        """Count the end of a task."""
        task = completion.task
        self._in_flight[_kind(task)] -= 1
        self._values.count(metrics.STORAGE_RETRIES, completion.storage_retries)
        self.note_progress()
        if completion.error is not None:
            kind = completion.error.kind
            self._values.count(metrics.TASK_ERRORS, error_kind=kind)
            self._failed_steps.setdefault(task.video.uri, {})[step_of(task)] = kind
            return
        name = "segment" if isinstance(task, SegmentTask) else task.stage.replace(" ", "_")
        self._values.observe(metrics.TASK_SECONDS, completion.seconds, task=name)
        if isinstance(completion.result, SegmentResult):
            self._count_segment(completion.result)
        elif isinstance(completion.result, ClipResult):
            self._count_segment(completion.result.counts)
        elif not isinstance(task, SegmentTask | ClipTask):
            self._values.count(metrics.STAGE_SECONDS, completion.seconds, stage=name)

    def video_recorded(self, record: VideoRecord) -> None:
        """Count a video whose commit record was written."""
        if record.status == "failed":
            self._values.count(metrics.VIDEOS_FAILED, error_kind=record.error_kind or "error")
        self._settle(record.video)

    def video_failed(self, uri: str) -> None:
        """Count a video that is reported as failed, unless it has a commit record, which was counted before."""
        *_, kind = ["error", *self._failed_steps.get(uri, {}).values()]
        if self._settle(uri):
            self._values.count(metrics.VIDEOS_FAILED, error_kind=kind)

    def run_ended(self, exit_code: int) -> None:
        """Note the end of the run, and send all metrics."""
        self._values.count(metrics.RUNS, exit_code=str(exit_code))
        self._values.set(metrics.RUN_END, self._clock(), exit_code=str(exit_code))
        self.update()

    # --- the metrics that follow from the tally -------------------------------------------------------------------

    def update_when_due(self) -> None:
        """`update`, unless that was done a moment ago. May be called at any rate."""
        if self._clock() >= self._next_update:
            self.update()

    def update(self) -> None:
        """Send all metrics."""
        self._next_update = self._clock() + SEND_SECONDS
        self._take_tally()
        self._take_lag()
        for kind, tasks in self._in_flight.items():
            self._values.set(metrics.IN_FLIGHT, tasks, kind=kind)
        self._values.send()

    def _take_tally(self) -> None:
        tally = self._tally
        outcomes = {
            "published": tally.published,
            "derived": tally.derived,
            "up_to_date": tally.up_to_date,
            "failed": tally.failed,
            "quarantined": tally.quarantined,
            "no_video": tally.no_videos,
        }
        for outcome, videos in outcomes.items():
            self._values.count_to(metrics.VIDEOS, videos, outcome=outcome)
        self._values.count_to(metrics.VIDEOS_PARTIAL, tally.partial - tally.partial_before, when="this_run")
        self._values.count_to(metrics.VIDEOS_PARTIAL, tally.partial_before, when="before")
        self._values.count_to(metrics.FRAMES, tally.frames)
        self._values.count_to(metrics.PERSONS, tally.persons)
        self._values.count_to(metrics.VIDEO_SECONDS, tally.video_seconds)

    def _take_lag(self) -> None:
        tally, oldest = self._tally, self._unpublished.oldest()
        self._values.set(metrics.LAG_VIDEOS, max(0, tally.videos_total - tally.videos_done))
        self._values.set(metrics.LAG_BYTES, max(0, tally.bytes_total - self._unpublished.settled_bytes))
        self._values.set(metrics.LAG_OLDEST, 0 if oldest is None else max(0.0, self._clock() - oldest))

    def _count_segment(self, result: SegmentResult) -> None:
        self._values.count(metrics.STAGED_BYTES, result.staged_bytes)
        for stage in ("decode", "detect", "pose", "wait"):
            self._values.count(metrics.STAGE_SECONDS, getattr(result.seconds, stage), stage=stage)
        self._values.count(metrics.STAGE_SECONDS, result.staging_seconds, stage="stage")

    def _settle(self, uri: str) -> bool:
        self._failed_steps.pop(uri, None)
        return self._unpublished.settle(uri)


def _kind(task: Task) -> str:
    match task:
        case SegmentTask():
            return "segments"
        case ClipTask():
            return "clips"
        case _:
            return "cpu_tasks"
