"""A video in flight: its state between planning and its commit record, with its failed attempts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from posebatch.core.errors import PosebatchError, WorkerCrashError
from posebatch.core.records import VideoRecord
from posebatch.core.version import __version__
from posebatch.core.videos import Segment, SourceVideo, VideoPlan
from posebatch.dataset.staging import NO_FAILED_ATTEMPTS, FailedAttempts
from posebatch.run.context import RunContext
from posebatch.run.planning.decisions import Action
from posebatch.run.planning.planner import Planned
from posebatch.run.tasks import (
    DeriveTask,
    FinalizeTask,
    PreviewOutcome,
    PreviewTask,
    ProbeResult,
    ProbeTask,
    RecordFailureTask,
    SegmentTask,
    VideoTask,
)

Step = Segment | type | str
"""A part of the work on a video, by which attempts are counted."""


PROBE_AGAIN_STEP = "probe again"
"""The step of an attempt that ended because the source changed or the staged data is gone."""


def step_of(task: SegmentTask | VideoTask) -> Step:
    """The step of a video that a task is an attempt at: a segment, or the kind of the task."""
    return task.segment if isinstance(task, SegmentTask) else type(task)


def begin_flight(planned: Planned, context: RunContext) -> tuple[VideoInFlight, VideoTask]:
    """The state of a video that needs work, and its first task."""
    video, action = planned.video, planned.decision.action
    if action is Action.DERIVE:
        return VideoInFlight(video, preview_only=True, is_derivation=True, tables_stay=True), DeriveTask(video)
    if action is Action.PREVIEW:
        return VideoInFlight(video, preview_only=True, tables_stay=context.only_derives), PreviewTask(video, None)
    return VideoInFlight(video, planned.failed_attempts), ProbeTask(video)


@dataclass
class VideoInFlight:
    """A video that is being processed."""

    video: SourceVideo
    earlier: FailedAttempts = NO_FAILED_ATTEMPTS
    """Failed attempts of earlier runs."""
    preview_only: bool = False
    """Whether poses and frames are published, and only the preview is missing."""
    is_derivation: bool = False
    """Whether its tracks and motion are derived in this run from the published tables."""
    tables_stay: bool = False
    """Whether poses and frames are published and must not be replaced, not even by the record of a failure."""
    plan: VideoPlan | None = None
    """None until the video is probed."""
    unstaged: set[Segment] = field(default_factory=set)
    """Segments of the plan that are not staged yet."""
    frames_cut: int = 0
    """Sum of `SegmentResult.frames_cut` over the segments that this run has staged."""
    preview: PreviewOutcome | None = None
    """None until the preview is drawn or given up."""
    preview_failures: int = 0
    """Failed attempts at the preview; counted apart, so that they never cost the tables."""
    is_failing: bool = False
    """Whether its failure is being recorded."""
    _failures: Counter[Step] = field(default_factory=Counter)
    """Failed attempts in this run, by step."""
    _crashes: int = 0
    """Worker crashes in this run, over all steps: a wholly corrupt file must not crash one worker per segment."""
    _uncounted: Counter[tuple[Step, type]] = field(default_factory=Counter)
    """Uncounted retries in this run, by step and error."""

    @property
    def failed_attempts(self) -> FailedAttempts:
        """Over all runs. The attempts are those of the worst step, or the crashes if these are more."""
        attempts = max([self._crashes, *self._failures.values()])
        return FailedAttempts(self.earlier.attempts + attempts, self.earlier.kills + self._crashes)

    def count_failure(self, step: Step, error: PosebatchError) -> None:
        """Count a failed attempt at a step."""
        self._failures[step] += 1
        self._crashes += isinstance(error, WorkerCrashError)

    def failures_at(self, step: Step) -> int:
        """Failed attempts at a step in this run."""
        return self._failures[step]

    def count_uncounted(self, task: SegmentTask | VideoTask, error: PosebatchError) -> int:
        """Note an uncounted retry of a task; returns how many there were because of such an error."""
        self._uncounted[step_of(task), type(error)] += 1
        return self.uncounted_of(task, error)

    def uncounted_of(self, task: SegmentTask | VideoTask, error: PosebatchError) -> int:
        """Uncounted retries of a task in this run because of such an error."""
        return self._uncounted[step_of(task), type(error)]

    def expects(self, task: SegmentTask | VideoTask) -> bool:
        """Whether the end of a task still matters.

        It does not if the task was for another version of the source, for segments that are planned no more, or for a
        video whose failure is being recorded.
        """
        if task.video.etag != self.video.etag or (self.is_failing and not isinstance(task, RecordFailureTask)):
            return False
        return not isinstance(task, SegmentTask) or task.segment in self.unstaged

    def begin(self, probed: ProbeResult) -> list[SegmentTask]:
        """Take the plan of a probe; returns the segments to process, in order."""
        self.video, self.plan = probed.video, probed.plan
        segments = [segment for segment in probed.plan.segments if segment not in probed.staged]
        self.unstaged = set(segments)
        return [SegmentTask(self.video, probed.plan.info, segment) for segment in segments]

    def begin_as_one_segment(self) -> SegmentTask:
        """Drop the segments of the plan and process the video from its beginning, as one."""
        assert self.plan is not None
        whole = Segment()
        self.plan = replace(self.plan, segments=(whole,))
        self.unstaged, self.frames_cut = {whole}, 0
        return SegmentTask(self.video, self.plan.info, whole)

    def forget_plan(self) -> None:
        """Drop all that was learnt of a source that is no more."""
        self.plan, self.unstaged, self.preview_only, self.frames_cut = None, set(), False, 0

    def failure_record(self, error: PosebatchError, context: RunContext) -> VideoRecord:
        """The commit record of the video if it failed with ``error``."""
        return VideoRecord(
            video=self.video.uri,
            etag=self.video.etag,
            size_bytes=self.video.size_bytes,
            last_modified=self.video.last_modified,
            status="failed",
            settings_fingerprint=context.data_fingerprint,
            run_id=context.run_id,
            posebatch_version=__version__,
            error_kind=error.kind,
            error=str(error),
            attempts=max(1, self.failed_attempts.attempts),
            info=self.plan.info if self.plan else None,
            detector=context.detector,
            pose=context.pose,
        )

    def finalize_task(self) -> FinalizeTask:
        """The task that publishes the video; all its segments are staged."""
        assert self.plan is not None
        return FinalizeTask(self.video, self.plan, self.failed_attempts.attempts + 1, self.preview)
