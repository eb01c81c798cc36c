"""What to do with each video: a pure function of its listing, its commit record and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from posebatch.settings import Settings, data_fingerprint, preview_fingerprint
from posebatch.types import SourceVideo, VideoRecord


@dataclass(frozen=True)
class RunContext:
    """What every part of a run needs to know; shipped to each worker once."""

    run_id: str
    settings: Settings
    output: str
    """Root of the output, local path or ``s3://``."""
    detector: str
    """Identity of the detector: its name and the sha256 of its weights."""
    pose: str
    """Identity of the pose network."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Variables that processes elsewhere need: how to reach S3, credentials among them, so never to be shown."""

    @property
    def endpoint_url(self) -> str | None:
        """The S3-compatible store to talk to."""
        return self.settings.selection.endpoint_url

    @property
    def data_fingerprint(self) -> str:
        """Identifies what shapes poses and frames, besides the source."""
        return data_fingerprint(self.settings, self.detector, self.pose)

    @property
    def preview_fingerprint(self) -> str | None:
        """Identifies what shapes a preview; None when none is wanted."""
        return preview_fingerprint(self.settings) if self.settings.preview.wanted else None


class Action(Enum):
    """What a run does with a video."""

    COMPUTE = "compute"
    """Decode, infer, publish."""
    PREVIEW = "preview"
    """The tables are up to date; only the preview is made."""
    DONE = "done"
    """Published and up to date."""
    QUARANTINED = "quarantined"
    """Failed before, and nothing has changed since."""


@dataclass(frozen=True)
class Decision:
    """What to do with a video, and why."""

    action: Action
    reason: str
    partial: str | None = None
    """What is wrong with a video that is done as well as it can be."""


def decide(video: SourceVideo, record: VideoRecord | None, context: RunContext) -> Decision:
    """What to do with a video whose commit record is ``record`` (None: never finished)."""
    selection = context.settings.selection
    if record is None:
        return Decision(Action.COMPUTE, "new")
    if record.etag != video.etag:
        return Decision(Action.COMPUTE, "the source has changed")
    if record.status == "failed" and not selection.retry_failed:
        return Decision(Action.QUARANTINED, f"{record.error_kind}: {record.error}")
    if record.status == "failed":
        return Decision(Action.COMPUTE, f"failed before ({record.error_kind}), tried again as asked")
    return _decide_published(record, context)


def _decide_published(record: VideoRecord, context: RunContext) -> Decision:
    if record.settings_fingerprint != context.data_fingerprint:
        return Decision(Action.COMPUTE, "settings or weights have changed")
    if context.settings.selection.on_existing == "overwrite":
        return Decision(Action.COMPUTE, "up to date, done again as asked")
    if not _preview_is_current(record, context):
        return Decision(Action.PREVIEW, "the tables are up to date, the preview is not")
    return Decision(Action.DONE, "up to date", record.error if record.status == "partial" else None)


def _preview_is_current(record: VideoRecord, context: RunContext) -> bool:
    wanted = context.preview_fingerprint
    if wanted is None or not record.frames_processed:
        return True
    if record.error_kind == "preview" and not context.settings.selection.retry_failed:
        return True  # it failed before; the same frames will fail again
    return any(one.kind == "preview" and one.fingerprint == wanted for one in record.objects)
