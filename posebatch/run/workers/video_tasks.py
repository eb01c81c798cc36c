"""The CPU tasks of a video: probe it, draw its preview, publish it, derive its tracks, record what failed.

Publishing and drawing need SciPy and Pillow, which take a process more than a second of a core to load. They are loaded
by the first task that needs them, so that a run begins sooner. That time does not count for the task: on a busy machine
it can be longer than a task may stall.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from posebatch.core.videos import Segment, SourceVideo, VideoPlan
from posebatch.dataset.publication import CommittedRecord, publish_failure
from posebatch.dataset.staging import StagingArea
from posebatch.run.context import RunContext
from posebatch.run.tasks import (
    DeriveTask,
    FinalizeTask,
    PreviewTask,
    ProbeResult,
    ProbeTask,
    PublishPreviewTask,
    RecordAttemptTask,
    RecordFailureTask,
    VideoTask,
)
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.run.workers.packet_indexes import packet_index
from posebatch.storage.open import open_video, relist
from posebatch.video.probe import probe


def perform(task: VideoTask, context: RunContext) -> object:  # noqa: PLR0911 - one task each
    """Perform one task in this process. The function that it dispatches to documents the result."""
    match task:
        case ProbeTask():
            return probe_video(task, context)
        case PreviewTask():
            with heartbeat.waiting():
                from posebatch.run.workers.previews import draw_preview  # noqa: PLC0415 - see above
            return draw_preview(task, context)
        case FinalizeTask():
            with heartbeat.waiting():
                from posebatch.run.workers.finalize import finalize_video  # noqa: PLC0415
            return finalize_video(task, context)
        case PublishPreviewTask():
            with heartbeat.waiting():
                from posebatch.run.workers.finalize import attach_preview  # noqa: PLC0415
            return attach_preview(task.video, task.preview, context)
        case DeriveTask():
            with heartbeat.waiting():
                from posebatch.run.workers.derive import derive_video  # noqa: PLC0415
            return derive_video(task, context)
        case RecordFailureTask():
            return fail_video(task, context)
        case RecordAttemptTask():
            context.staging(task.video).note_attempt(task.tries, task.kind, task.error)
            return None


def probe_video(task: ProbeTask, context: RunContext) -> ProbeResult:
    """Open a video, plan its segments, and look which of them are staged already.

    A long video whose container has no index is read once, unless that was done before. A whole video that is staged
    needs no cuts.
    """
    video = relist(task.video, context.endpoint_url) if task.relist else task.video
    with open_video(video, context.endpoint_url) as file:
        plan = probe(
            file,
            video.uri,
            context.settings.execution.segment_seconds,
            context.settings.limits,
            context.settings.sampling.video_track,
        )
    staging = context.staging(video)
    keys = staging.staged_keys()
    plan = cut_by_scan(plan, video, keys, context)
    return ProbeResult(video, plan, staged_segments(staging, plan, keys))


def cut_by_scan(plan: VideoPlan, video: SourceVideo, staged_keys: Collection[str], context: RunContext) -> VideoPlan:
    """The plan with the segments of a scan, if the video needs one and is not staged as a whole."""
    if not plan.needs_scan or context.staging(video).segment_key(Segment()) in staged_keys:
        return plan
    step = context.settings.execution.segment_seconds / plan.info.time_base
    return replace(plan, segments=packet_index(video, context).segments(step))


def staged_segments(staging: StagingArea, plan: VideoPlan, keys: Collection[str]) -> frozenset[Segment]:
    """The segments of a plan that are among the staged ``keys``."""
    return frozenset(segment for segment in plan.segments if staging.segment_key(segment) in keys)


def fail_video(task: RecordFailureTask, context: RunContext) -> CommittedRecord:
    """Publish the commit record of a failed video, and clear its staging area."""
    committed = publish_failure(context.store(), task.video.output_path, task.record)
    context.staging(task.video).clear()
    return committed
