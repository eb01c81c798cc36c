"""All messages from the scheduler to the workers, with their results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from posebatch.core.records import StageSeconds, VideoRecord
from posebatch.core.videos import Segment, SourceVideo, VideoInfo, VideoPlan
from posebatch.dataset.publication import CommittedRecord
from posebatch.dataset.staging import FailedAttempts


@dataclass(frozen=True)
class SegmentTask:
    """Process one segment: decode it, estimate poses, stage the result. A few hundred bytes, no pixels."""

    video: SourceVideo
    info: VideoInfo
    segment: Segment
    alone: bool = False
    """Whether its worker may run no second segment meanwhile: a worker has died while it ran this one."""

    @property
    def name(self) -> str:
        """Its unique name, in messages and in crash reports."""
        return f"{self.video.uri}, segment {self.segment.index}"


@dataclass(frozen=True)
class TaskOnVideo:
    """A CPU task on one video; the base of all of them."""

    stage: ClassVar[str]
    """Name of the task, in messages and in crash reports."""

    video: SourceVideo

    @property
    def name(self) -> str:
        """The address of the video."""
        return self.video.uri


@dataclass(frozen=True)
class SegmentResult:
    """The counts of a staged segment."""

    frames: int
    """Frames processed."""
    persons: int
    """Persons in these frames."""
    video_seconds: float
    """Duration of the segment, seconds."""
    frames_cut: int = 0
    """Frames in which the detector found more than ``max_persons``; the surplus persons are in no row."""
    seconds: StageSeconds = field(default_factory=StageSeconds, compare=False)
    """Time by stage."""
    staging_seconds: float = field(default=0.0, compare=False)
    """Time in which the result was put into the store."""
    staged_bytes: int = field(default=0, compare=False)
    """Size of the staged result."""


@dataclass(frozen=True)
class PreviewOutcome:
    """The result of drawing previews."""

    frames: Mapping[str, int] = field(default_factory=dict)
    """Frames of each staged preview, by the kind of its artifact."""
    error: str | None = None
    """Why a preview is missing; None if all are there."""


@dataclass(frozen=True)
class FinalizeTask(TaskOnVideo):
    """Publish a video whose segments are all staged."""

    stage = "publish"

    plan: VideoPlan
    attempts: int
    """Attempts that the video took, this one included."""
    preview: PreviewOutcome | None = None
    """None if no preview is wanted."""


@dataclass(frozen=True)
class ProbeTask(TaskOnVideo):
    """Read the header of a video, cut it into segments, and look up which are staged."""

    stage = "probe"
    relist: bool = False
    """Whether the object may have changed since it was listed, so its ETag must be read again."""


@dataclass(frozen=True)
class ProbeResult:
    """The plan of a video."""

    video: SourceVideo
    plan: VideoPlan
    staged: frozenset[Segment]
    """Segments of the plan that are staged already."""


@dataclass(frozen=True)
class PreviewTask(TaskOnVideo):
    """Draw the previews of a video and stage them."""

    stage = "preview"
    plan: VideoPlan | None
    """Its staged segments are the source of the poses; None: the published tables are."""


@dataclass(frozen=True)
class PublishPreviewTask(TaskOnVideo):
    """Publish the staged preview of a video whose tables are published."""

    stage = "publish the preview"
    preview: PreviewOutcome


@dataclass(frozen=True)
class DeriveTask(TaskOnVideo):
    """Derive tracks and motion of a published video from its stored tables."""

    stage = "derive"


@dataclass(frozen=True)
class RecordFailureTask(TaskOnVideo):
    """Publish the commit record of a failed video."""

    stage = "record the failure"
    record: VideoRecord


@dataclass(frozen=True)
class RecordAttemptTask(TaskOnVideo):
    """Record a failed attempt, for later runs."""

    stage = "note an attempt"
    tries: FailedAttempts
    kind: str
    error: str


@dataclass(frozen=True)
class ClipTask(TaskOnVideo):
    """Do all the work on a video that is short by its size: probe it, process it, publish it."""

    stage = "clip"

    attempts: int = 1
    """Attempts that the video took, this one included."""
    alone: bool = False
    """See `SegmentTask.alone`."""
    again: bool = False
    """Whether a worker had the clip before in this run, and may have published it before it died."""


@dataclass(frozen=True)
class ClipsTask:
    """Several clips in one call to a worker. The pool returns the end of each `ClipTask`."""

    clips: tuple[ClipTask, ...]

    @property
    def alone(self) -> bool:
        """See `SegmentTask.alone`."""
        return any(clip.alone for clip in self.clips)

    @property
    def name(self) -> str:
        """The name of a single clip. That of several is no task's name, so that a crash report accuses none of them."""
        return self.clips[0].name if len(self.clips) == 1 else f"{len(self.clips)} clips from {self.clips[0].name} on"


@dataclass(frozen=True)
class ClipResult:
    """The result of a clip. One that is not short after all has a `ProbeResult` alone, and is cut as others are."""

    counts: SegmentResult
    end: CommittedRecord | ProbeResult
    """Its commit record. If previews are wanted, its plan: its only segment is staged then."""


VideoTask = (
    ProbeTask | PreviewTask | FinalizeTask | PublishPreviewTask | DeriveTask | RecordFailureTask | RecordAttemptTask
)
"""A task for a CPU alone."""

WorkerTask = SegmentTask | ClipTask
"""A task for a worker, which holds the networks."""

Task = WorkerTask | VideoTask

Call = SegmentTask | ClipsTask | VideoTask
"""What is given to a process at once."""
