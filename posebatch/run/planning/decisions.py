"""What to do with each video: a pure function of its listing, the summary of its commit record, and the settings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from posebatch.core.fingerprints import digest
from posebatch.core.records import VideoRecord, VideoStatus
from posebatch.core.redaction import utf8_text
from posebatch.core.similarity import OKS_NMS_THR
from posebatch.core.videos import SourceVideo
from posebatch.dataset.layout import MOTION, PREVIEW_KINDS
from posebatch.run.context import RunContext


class Action(Enum):
    """What a run does with a video."""

    COMPUTE = "compute"
    """Decode it, estimate poses, publish."""
    PREVIEW = "preview"
    """Only make the preview: the tables are up to date."""
    DERIVE = "derive"
    """Only derive tracks and motion from the stored tables, and make the preview if it is missing: no network runs."""
    DONE = "done"
    """Nothing: it is published and up to date."""
    QUARANTINED = "quarantined"
    """Nothing: it failed before, and its source is the same."""
    COLD = "cold"
    """Nothing: its source must be restored from a cold storage class first."""
    PASSED_OVER = "passed over"
    """Nothing: it is named like a video, but is a text or the like."""


SETTINGS_CHANGED: Final = "settings or weights have changed"


RECORD_DAMAGED: Final = "its commit record is damaged"


MOTION_CHANGED: Final = "poses are up to date, the settings of tracks and motion have changed"


UP_TO_DATE: Final = "up to date"


WITHOUT_OKS_NMS: Final = f"up to date, with its rows from before OKS-NMS; --oks-nms-thr {OKS_NMS_THR} computes it again"


@dataclass(frozen=True)
class Decision:
    """What to do with a video, and why."""

    action: Action
    reason: str
    partial: str | None = None
    """The damage of a video that is done but was published only in part."""
    may_differ: bool = False
    """An earlier version published the rows, and may have taken the picture for another; see `older_pictures`."""


@dataclass(frozen=True)
class CommitOutcome:
    """How work on a video ended, as far as decisions need it. Most videos of an archive share one outcome."""

    status: VideoStatus
    settings_fingerprint: str
    error_kind: str | None = None
    error: str | None = None
    """None for a video that is published whole."""
    has_frames: bool = True
    """Whether there is a frame to draw a preview of."""
    previews: tuple[str, ...] = ()
    """Fingerprints of the published previews."""
    motion: str | None = None
    """Fingerprint of the published tracks and motion; None without them."""
    is_being_derived: bool = False
    """See `VideoRecord.is_being_derived`."""
    may_differ: bool = False
    """See `Decision.may_differ`."""


@dataclass(frozen=True)
class CommitSummary:
    """The part of a commit record that decisions need."""

    source_etag: bytes
    """Digest of the ETag of the source that the record is about."""
    outcome: CommitOutcome

    @classmethod
    def of(cls, record: VideoRecord) -> CommitSummary:
        """The summary of a record; the same before it is written and after it is read."""
        outcome = CommitOutcome(
            record.status,
            record.settings_fingerprint,
            record.error_kind,
            None if record.status == "ok" or record.error is None else utf8_text(record.error),
            bool(record.frames_processed),
            tuple(published.fingerprint for published in record.objects if published.kind in PREVIEW_KINDS),
            next((published.fingerprint for published in record.objects if published.kind == MOTION.kind), None),
            record.is_being_derived,
            record.info is not None and record.info.coded_width == 0,
        )
        return cls(digest(record.etag), outcome)


DAMAGED: Final = CommitSummary(b"", CommitOutcome("failed", ""))
"""Stands for the summary of a commit record that cannot be read."""


def decide(video: SourceVideo, summary: CommitSummary | None, context: RunContext) -> Decision:
    """What to do with a video. ``summary`` is that of its commit record; None if it has no record."""
    decision = _decide_readable(video, summary, context)
    if video.cold_class and decision.action in (Action.COMPUTE, Action.PREVIEW):
        return Decision(Action.COLD, f"{decision.reason}; to be restored, stored as {video.cold_class}")
    return decision


def _decide_readable(video: SourceVideo, summary: CommitSummary | None, context: RunContext) -> Decision:
    """The same for a video whose source can be read."""
    if summary is None:
        return Decision(Action.COMPUTE, "new")
    if summary is DAMAGED:
        return Decision(Action.COMPUTE, RECORD_DAMAGED)
    if summary.source_etag != digest(video.etag):
        return Decision(Action.COMPUTE, "the source has changed")
    outcome = summary.outcome
    if outcome.status != "failed":
        return _decide_published(outcome, context)
    if not context.settings.selection.retry_failed:
        return Decision(Action.QUARANTINED, f"{outcome.error_kind}: {outcome.error}")
    return Decision(Action.COMPUTE, f"failed before ({outcome.error_kind}), tried again as asked")


def _decide_published(outcome: CommitOutcome, context: RunContext) -> Decision:
    earlier = context.keeps_rows_without_oks_nms and outcome.settings_fingerprint == context.fingerprint_without_oks_nms
    if outcome.settings_fingerprint != context.data_fingerprint and not earlier:
        return Decision(Action.COMPUTE, SETTINGS_CHANGED)
    if context.settings.selection.on_existing == "overwrite":
        return Decision(Action.COMPUTE, "up to date, done again as asked")
    if reason := _lacks_motion(outcome, context):
        return Decision(Action.DERIVE, reason, may_differ=outcome.may_differ)
    if not _preview_is_current(outcome, context):
        reason = "the tables are up to date, the preview is not"
        return Decision(Action.PREVIEW, reason, may_differ=outcome.may_differ)
    reason = WITHOUT_OKS_NMS if earlier else UP_TO_DATE
    damage = outcome.error if outcome.status == "partial" else None
    return Decision(Action.DONE, reason, damage, outcome.may_differ)


def decide_derivation(summary: CommitSummary, context: RunContext) -> Decision:
    """What `posebatch derive` does with a published video: the settings of the networks do not matter.

    With ``--no-track`` tracks and motion that are there are removed.
    """
    if summary is DAMAGED:
        return Decision(Action.DERIVE, "its commit record may have been renewed")  # if not, the worker reports it
    outcome = summary.outcome
    if outcome.status == "failed":
        return Decision(Action.QUARANTINED, f"{outcome.error_kind}: {outcome.error}")
    if reason := _lacks_motion(outcome, context):
        return Decision(Action.DERIVE, reason)
    if context.motion_fingerprint is None and outcome.motion is not None:
        return Decision(Action.DERIVE, "its tracks and motion are removed as asked")
    if not _preview_is_current(outcome, context):
        return Decision(Action.PREVIEW, "the tables are up to date, the preview is not")
    return Decision(Action.DONE, UP_TO_DATE, outcome.error if outcome.status == "partial" else None)


def _lacks_motion(outcome: CommitOutcome, context: RunContext) -> str | None:
    """Why tracks and motion of a published video must be derived; None if they are up to date.

    With ``--no-track`` those that are there stay.
    """
    if outcome.is_being_derived:
        return "its tracks were being derived when a run was killed"
    wanted = context.motion_fingerprint
    if wanted is None or outcome.motion == wanted:
        return None
    return "poses are up to date, tracks and motion are missing" if outcome.motion is None else MOTION_CHANGED


def lacks_preview(record: VideoRecord, context: RunContext) -> bool:
    """Whether a published video needs a preview, or another one."""
    return not _preview_is_current(CommitSummary.of(record).outcome, context)


def _preview_is_current(outcome: CommitOutcome, context: RunContext) -> bool:
    wanted = set(context.preview_fingerprints.values())
    if not wanted or not outcome.has_frames:
        return True
    if outcome.error_kind == "preview" and not context.settings.selection.retry_failed:
        return True  # drawing it failed before, and the same frames would fail again
    return wanted <= set(outcome.previews)
