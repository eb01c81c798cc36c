"""What to do with each video: a pure function of its listing, its standing by its commit record, and the settings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from posebatch.core.fingerprints import digest
from posebatch.core.records import VideoRecord, VideoStatus
from posebatch.core.redaction import utf8_text
from posebatch.core.videos import SourceVideo
from posebatch.dataset.layout import PREVIEW
from posebatch.run.context import RunContext


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


SETTINGS_CHANGED: Final = "settings or weights have changed"


@dataclass(frozen=True)
class Decision:
    """What to do with a video, and why."""

    action: Action
    reason: str
    partial: str | None = None
    """What is wrong with a video that is done as well as it can be."""


@dataclass(frozen=True)
class CommitOutcome:
    """How work on a video ended, as far as a decision asks; the same for most videos of an archive."""

    status: VideoStatus
    settings_fingerprint: str
    error_kind: str | None = None
    error: str | None = None
    """None for a video that is published whole."""
    has_frames: bool = True
    """Whether there is anything to draw a preview of."""
    previews: tuple[str, ...] = ()
    """Fingerprints of the previews that are published."""


@dataclass(frozen=True)
class CommitSummary:
    """What a decision needs to know of a commit record."""

    source: bytes
    """Digest of the etag of the source that the record is about."""
    ending: CommitOutcome

    @classmethod
    def of(cls, record: VideoRecord) -> CommitSummary:
        """The same before a record is written and after it is read back."""
        ending = CommitOutcome(
            record.status,
            record.settings_fingerprint,
            record.error_kind,
            None if record.status == "ok" or record.error is None else utf8_text(record.error),
            bool(record.frames_processed),
            tuple(one.fingerprint for one in record.objects if one.kind == PREVIEW.kind),
        )
        return cls(digest(record.etag), ending)


def decide(video: SourceVideo, standing: CommitSummary | None, context: RunContext) -> Decision:
    """What to do with a video whose commit record says ``standing`` (None: it has none, it was never finished)."""
    if standing is None:
        return Decision(Action.COMPUTE, "new")
    if standing.source != digest(video.etag):
        return Decision(Action.COMPUTE, "the source has changed")
    ending = standing.ending
    if ending.status != "failed":
        return _decide_published(ending, context)
    if not context.settings.selection.retry_failed:
        return Decision(Action.QUARANTINED, f"{ending.error_kind}: {ending.error}")
    return Decision(Action.COMPUTE, f"failed before ({ending.error_kind}), tried again as asked")


def _decide_published(ending: CommitOutcome, context: RunContext) -> Decision:
    if ending.settings_fingerprint != context.data_fingerprint:
        return Decision(Action.COMPUTE, SETTINGS_CHANGED)
    if context.settings.selection.on_existing == "overwrite":
        return Decision(Action.COMPUTE, "up to date, done again as asked")
    if not _preview_is_current(ending, context):
        return Decision(Action.PREVIEW, "the tables are up to date, the preview is not")
    return Decision(Action.DONE, "up to date", ending.error if ending.status == "partial" else None)


def name_changed_networks(record: VideoRecord, context: RunContext) -> str | None:
    """Which networks a video was done with that the run would not use; None when they are the same.

    ``record`` is the commit record of a video whose decision says `SETTINGS_CHANGED`.
    """
    changes = [
        f"{kind} was {_short(before)}, is {_short(now)}{_hint(kind, before, now)}"
        for kind, before, now in (
            ("detector", record.detector, context.detector),
            ("pose", record.pose, context.pose),
        )
        if before and before != now
    ]
    return "; ".join(changes) or None


def _hint(kind: str, before: str, now: str) -> str:
    """How to keep what is there, where the former network has a name of its own."""
    former, _, _ = before.partition("@")
    return "" if now.startswith(f"{former}@") else f", --{kind} {former} keeps it"


def _short(identity: str) -> str:
    name, _, sha256 = identity.partition("@")
    return f"{name}@{sha256[:8]}"


def _preview_is_current(ending: CommitOutcome, context: RunContext) -> bool:
    wanted = context.preview_fingerprint
    if wanted is None or not ending.has_frames:
        return True
    if ending.error_kind == "preview" and not context.settings.selection.retry_failed:
        return True  # it failed before; the same frames will fail again
    return wanted in ending.previews
