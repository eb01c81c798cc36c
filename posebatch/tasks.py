"""The CPU tasks around the segments of a video: probe it, draw its preview, publish it, record its failure.

Each is one job, a small frozen description, and one story that any process can perform.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from posebatch.commits import Committed, Tries, Work, publish_failure, read_published_frames, read_record
from posebatch.errors import PreviewError, StorageUnavailableError
from posebatch.finalize import FinalizeJob, PreviewOutcome, attach_preview, finalize_video, staged_frames
from posebatch.inputs import relist
from posebatch.plan import RunContext
from posebatch.render import AnnotatedFrame, draw_skeletons, encode_gif
from posebatch.storage import open_source, open_store
from posebatch.types import FrameBatch, FramePoses, Segment, SourceVideo, VideoInfo, VideoPlan, VideoRecord, VideoTask
from posebatch.video import Packing, SegmentDecoder, probe
from posebatch.watch import watch

PREVIEW_BATCH_FRAMES = 8


@dataclass(frozen=True)
class ProbeJob(VideoTask):
    """Look at a video and at what is staged of it."""

    stage = "probe"
    relist: bool = False
    """Whether the object has changed since it was listed, so that its etag must be read anew."""


@dataclass(frozen=True)
class Probed:
    """What a probe found."""

    video: SourceVideo
    plan: VideoPlan
    staged: frozenset[Segment]
    """Segments of the plan that an earlier run has staged."""


@dataclass(frozen=True)
class PreviewJob(VideoTask):
    """Draw a video's preview and stage it."""

    stage = "preview"
    plan: VideoPlan | None
    """None: from the published tables; otherwise from the plan's staged segments."""


@dataclass(frozen=True)
class AttachJob(VideoTask):
    """Publish the staged preview of a video whose tables are published."""

    stage = "publish the preview"
    preview: PreviewOutcome


@dataclass(frozen=True)
class FailJob(VideoTask):
    """Record that a video failed."""

    stage = "record the failure"
    record: VideoRecord


@dataclass(frozen=True)
class NoteAttemptJob(VideoTask):
    """Remember a try in vain beyond this run."""

    stage = "note an attempt"
    tries: Tries
    kind: str
    error: str


TaskJob = ProbeJob | PreviewJob | FinalizeJob | AttachJob | FailJob | NoteAttemptJob


def perform(job: TaskJob, context: RunContext) -> object:
    """Do one job; what it returns is said with the story that does it."""
    match job:
        case ProbeJob():
            return probe_video(job, context)
        case PreviewJob():
            return draw_preview(job, context)
        case FinalizeJob():
            return finalize_video(job, context)
        case AttachJob():
            return attach_preview(job.video, job.preview, context)
        case FailJob():
            return fail_video(job, context)
        case NoteAttemptJob():
            _work(job.video, context).note_attempt(job.tries, job.kind, job.error)
            return None


def probe_video(job: ProbeJob, context: RunContext) -> Probed:
    """Open a video, cut it into segments, and see which of them are staged already."""
    video = relist(job.video, context.endpoint_url) if job.relist else job.video
    with open_source(video.uri, video.etag, context.endpoint_url) as file:
        plan = probe(file, video.uri, context.settings.execution.segment_seconds, context.settings.limits)
    work = _work(video, context)
    keys = work.staged_keys()
    staged = frozenset(segment for segment in plan.segments if work.segment_key(segment) in keys)
    return Probed(video, plan, staged)


def draw_preview(job: PreviewJob, context: RunContext) -> int:
    """Decode a video once more, draw its persons, and stage the GIF; returns its number of frames."""
    work = _work(job.video, context)
    info, poses = _poses_to_draw(job, context, work)
    scale, kpt_thr = context.settings.preview.preview_scale, context.settings.estimator.kpt_thr
    with open_source(job.video.uri, job.video.etag, context.endpoint_url) as file:
        decoder = SegmentDecoder(
            file,
            job.video.uri,
            Segment(),
            info,
            context.settings.sampling,
            PREVIEW_BATCH_FRAMES,
            packing=Packing(scale=scale),
            limits=context.settings.limits,
        )
        with closing(iter(decoder)) as batches:
            annotated = (
                AnnotatedFrame(
                    float(frame.record.pts * info.time_base), draw_skeletons(image, frame.keypoints, kpt_thr, scale)
                )
                for frame, image in _paired(poses, batches)
            )
            gif, frames = encode_gif(annotated)
    work.store.put(work.preview_key, gif)
    return frames


def fail_video(job: FailJob, context: RunContext) -> Committed:
    """Publish a failed video's commit record and drop what is staged of it."""
    store = open_store(context.output, context.endpoint_url)
    committed = publish_failure(store, job.video.output_path, job.record)
    _work(job.video, context).clear()
    return committed


def _poses_to_draw(job: PreviewJob, context: RunContext, work: Work) -> tuple[VideoInfo, Iterator[FramePoses]]:
    if job.plan is not None:
        return job.plan.info, chain.from_iterable(staged_frames(work, job.plan))
    record = read_record(work.store, job.video.output_path)
    if record is None or record.info is None:
        raise StorageUnavailableError(f"{job.video.uri}: its commit record has gone; the next run does it anew")
    return record.info, read_published_frames(work.store, job.video.output_path)


def _paired(
    poses: Iterator[FramePoses], batches: Iterator[FrameBatch]
) -> Iterator[tuple[FramePoses, NDArray[np.uint8]]]:
    """Each decodable frame's poses with its image; both come in order, and undecodable frames have no image."""
    for batch in batches:
        watch.moved()
        decoded = (record for record in batch.records if record.status == "ok")
        assert isinstance(batch.images, np.ndarray)
        for record, image in zip(decoded, batch.images, strict=True):
            frame = next((one for one in poses if one.record.frame_index >= record.frame_index), None)
            if frame is None or frame.record.frame_index != record.frame_index:
                raise PreviewError(f"frame {record.frame_index} of the video is not in its tables")
            yield frame, image


def _work(video: SourceVideo, context: RunContext) -> Work:
    return Work.of(open_store(context.output, context.endpoint_url), video, context.data_fingerprint)
