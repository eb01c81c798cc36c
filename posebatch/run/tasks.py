"""All messages from the driver to its workers, with their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from posebatch.core.records import VideoRecord
from posebatch.core.videos import Segment, SourceVideo, VideoInfo, VideoPlan
from posebatch.dataset.staging import FailedAttempts


@dataclass(frozen=True)
class SegmentTask:
    """One segment to work on: a few hundred bytes, which is all that travels."""

    video: SourceVideo
    info: VideoInfo
    segment: Segment
    alone: bool = False
    """Whether no other segment may be in its worker meanwhile: a worker has died with this one in it."""

    @property
    def name(self) -> str:
        """What it is called, to people and in a process's box; unlike any other under way."""
        return f"{self.video.uri}, segment {self.segment.index}"


@dataclass(frozen=True)
class TaskOnVideo:
    """A CPU task on one video; what to do with it, each task adds."""

    stage: ClassVar[str]
    """What it is called, to people and in a process's box."""

    video: SourceVideo

    @property
    def name(self) -> str:
        """What it is about."""
        return self.video.uri


@dataclass(frozen=True)
class SegmentResult:
    """What the driver learns of a staged segment."""

    frames: int
    """Frames processed."""
    persons: int
    video_seconds: float
    """How much of the video the segment covers."""
    frames_cut: int = 0
    """Frames in which the detector found more persons than are wanted, so that some are in no row."""


@dataclass(frozen=True)
class PreviewOutcome:
    """How drawing a preview ended."""

    frames: int = 0
    """Frames of the staged preview."""
    error: str | None = None
    """Why there is none."""


@dataclass(frozen=True)
class FinalizeTask(TaskOnVideo):
    """A video whose segments are all staged."""

    stage = "publish"

    plan: VideoPlan
    attempts: int
    """How many tries it took."""
    preview: PreviewOutcome | None = None
    """None when no preview is wanted."""


@dataclass(frozen=True)
class ProbeTask(TaskOnVideo):
    """Look at a video and at what is staged of it."""

    stage = "probe"
    relist: bool = False
    """Whether the object has changed since it was listed, so that its etag must be read anew."""


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found."""

    video: SourceVideo
    plan: VideoPlan
    staged: frozenset[Segment]
    """Segments of the plan that an earlier run has staged."""


@dataclass(frozen=True)
class PreviewTask(TaskOnVideo):
    """Draw a video's preview and stage it."""

    stage = "preview"
    plan: VideoPlan | None
    """None: from the published tables; otherwise from the plan's staged segments."""


@dataclass(frozen=True)
class PublishPreviewTask(TaskOnVideo):
    """Publish the staged preview of a video whose tables are published."""

    stage = "publish the preview"
    preview: PreviewOutcome


@dataclass(frozen=True)
class RecordFailureTask(TaskOnVideo):
    """Record that a video failed."""

    stage = "record the failure"
    record: VideoRecord


@dataclass(frozen=True)
class RecordAttemptTask(TaskOnVideo):
    """Remember a try in vain beyond this run."""

    stage = "note an attempt"
    tries: FailedAttempts
    kind: str
    error: str


VideoTask = ProbeTask | PreviewTask | FinalizeTask | PublishPreviewTask | RecordFailureTask | RecordAttemptTask
