"""A video in flight: its state between planning and its commit record, with its failed attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from posebatch.core.errors import PosebatchError, WorkerCrashError
from posebatch.core.records import VideoRecord
from posebatch.core.version import __version__
from posebatch.core.videos import Segment, SourceVideo, VideoPlan
from posebatch.dataset.staging import NO_FAILED_ATTEMPTS, FailedAttempts
from posebatch.run.context import RunContext
from posebatch.run.failure_policy import SchedulerLimits
from posebatch.run.planning.decisions import Action
from posebatch.run.planning.planner import Planned
from posebatch.run.tasks import (
    ClipTask,
    DeriveTask,
    FinalizeTask,
    PreviewOutcome,
    PreviewTask,
    ProbeResult,
    ProbeTask,
    RecordFailureTask,
    SegmentTask,
    Task,
)

Step = Segment | type | str
"""A part of the work on a video, by which attempts are counted."""


PROBE_AGAIN_STEP = "probe again"
"""The step of an attempt that ended because the source changed or the staged data is gone."""


def step_of(task: Task) -> Step:
    """The step of a video that a task is an attempt at: a segment, or the kind of the task."""
    return task.segment if isinstance(task, SegmentTask) else type(task)


def begin_flight(planned: Planned, context: RunContext, limits: SchedulerLimits) -> tuple[VideoInFlight, Task]:
    """The state of a video that needs work, and its first task.

    A small video is taken for a clip; the worker finds out whether it is one. One that has crashed a worker before runs
    alone.
    """
    video, action = planned.video, planned.decision.action
    if action is Action.DERIVE:
        return VideoInFlight(video, preview_only=True, is_derivation=True, tables_stay=True), DeriveTask(video)
    if action is Action.PREVIEW:
        return VideoInFlight(video, preview_only=True, tables_stay=context.only_derives), PreviewTask(video, None)
    if limits.clips_together > 1 and video.size_bytes <= limits.clip_bytes:
        flight = VideoInFlight(video, planned.failed_attempts, is_clip=True)
        return flight, replace(flight.clip_task(), alone=planned.failed_attempts.kills > 0)
    return VideoInFlight(video, planned.failed_attempts), ProbeTask(video)


class Flights:
    """The videos in flight, by address."""

    def __init__(self, clips_together: int) -> None:
        self._clips_together = clips_together
        self._flights: dict[str, VideoInFlight] = {}
        self._clips: set[str] = set()

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def addresses(self) -> Collection[str]:
        """The addresses of the videos."""
        return self._flights.keys()

    @property
    def load(self) -> float:
        """How many videos they count for: a clip is a share of the group that it will be in."""
        clips = len(self._clips)
        return len(self._flights) - clips + clips / self._clips_together

    def get(self, uri: str) -> VideoInFlight | None:
        """The video at an address, if it is in flight."""
        return self._flights.get(uri)

    def add(self, flight: VideoInFlight) -> None:
        """Begin a video."""
        self._flights[flight.video.uri] = flight
        if flight.is_clip:
            self._clips.add(flight.video.uri)

    def count_as_one(self, flight: VideoInFlight) -> None:
        """Count a video as one from now on: it is no clip after all."""
        self._clips.discard(flight.video.uri)

    def end(self, flight: VideoInFlight) -> None:
        """End a video."""
        del self._flights[flight.video.uri]
        self._clips.discard(flight.video.uri)


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
    is_clip: bool = False
    """Whether all work on it is one task. A clip that turns out to be long is none any more."""
    plan: VideoPlan | None = None
    """None until the video is probed; always None for a clip."""
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

    def count_uncounted(self, task: Task, error: PosebatchError) -> int:
        """Note an uncounted retry of a task; returns how many there were because of such an error."""
        self._uncounted[step_of(task), type(error)] += 1
        return self.uncounted_of(task, error)

    def uncounted_of(self, task: Task, error: PosebatchError) -> int:
        """Uncounted retries of a task in this run because of such an error."""
        return self._uncounted[step_of(task), type(error)]

    def expects(self, task: Task) -> bool:
        """Whether the end of a task still matters.

        It does not if the task was for another version of the source, for segments that are planned no more, or for a
        video whose failure is being recorded.
        """
        if task.video.etag != self.video.etag or (self.is_failing and not isinstance(task, RecordFailureTask)):
            return False
        if isinstance(task, ClipTask):
            return self.is_clip
        return not isinstance(task, SegmentTask) or task.segment in self.unstaged

    def begin(self, probed: ProbeResult) -> list[SegmentTask]:
        """Take the plan of a probe; returns the segments to process, in order."""
        self.video, self.plan, self.is_clip = probed.video, probed.plan, False
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
        self.plan, self.unstaged, self.preview_only, self.is_clip, self.frames_cut = None, set(), False, False, 0

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

    def again(self, task: Task, alone: bool = False) -> Task:
        """A task once more, ``alone`` in its worker if that is wanted. One that states the attempts is made anew."""
        match task:
            case SegmentTask():
                return replace(task, alone=alone or task.alone)
            case ClipTask():
                return replace(self.clip_task(), alone=alone or task.alone, again=True)
            case FinalizeTask():
                return self.finalize_task()
            case _:
                return task

    def clip_task(self) -> ClipTask:
        """The task that does all the work on a clip."""
        return ClipTask(self.video, self.failed_attempts.attempts + 1)

    def finalize_task(self) -> FinalizeTask:
        """The task that publishes the video; all its segments are staged."""
        assert self.plan is not None
        return FinalizeTask(self.video, self.plan, self.failed_attempts.attempts + 1, self.preview)
