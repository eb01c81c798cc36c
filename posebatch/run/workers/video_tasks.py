"""The CPU tasks around the segments of a video: probe it, draw its preview, publish it, record its failure.

Each is one job, a small frozen description, and one story that any process can perform.
"""

from __future__ import annotations

from posebatch.dataset.publication import CommittedRecord, publish_failure
from posebatch.run.context import RunContext
from posebatch.run.planning.inputs import relist
from posebatch.run.tasks import (
    FinalizeTask,
    PreviewTask,
    ProbeResult,
    ProbeTask,
    PublishPreviewTask,
    RecordAttemptTask,
    RecordFailureTask,
    VideoTask,
)
from posebatch.run.workers.finalize import attach_preview, finalize_video
from posebatch.run.workers.previews import draw_preview
from posebatch.storage.open import open_source
from posebatch.video.probe import probe


def perform(job: VideoTask, context: RunContext) -> object:
    """Do one job; what it returns is said with the story that does it."""
    match job:
        case ProbeTask():
            return probe_video(job, context)
        case PreviewTask():
            return draw_preview(job, context)
        case FinalizeTask():
            return finalize_video(job, context)
        case PublishPreviewTask():
            return attach_preview(job.video, job.preview, context)
        case RecordFailureTask():
            return fail_video(job, context)
        case RecordAttemptTask():
            context.staging(job.video).note_attempt(job.tries, job.kind, job.error)
            return None


def probe_video(job: ProbeTask, context: RunContext) -> ProbeResult:
    """Open a video, cut it into segments, and see which of them are staged already."""
    video = relist(job.video, context.endpoint_url) if job.relist else job.video
    with open_source(video.uri, video.etag, context.endpoint_url) as file:
        plan = probe(file, video.uri, context.settings.execution.segment_seconds, context.settings.limits)
    work = context.staging(video)
    keys = work.staged_keys()
    staged = frozenset(segment for segment in plan.segments if work.segment_key(segment) in keys)
    return ProbeResult(video, plan, staged)


def fail_video(job: RecordFailureTask, context: RunContext) -> CommittedRecord:
    """Publish a failed video's commit record and drop what is staged of it."""
    store = context.store()
    committed = publish_failure(store, job.video.output_path, job.record)
    context.staging(job.video).clear()
    return committed
