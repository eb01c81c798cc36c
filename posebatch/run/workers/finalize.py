"""The story of one video's end: put its staged segments in order, publish the tables, then the commit record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

from posebatch.core.errors import StorageUnavailableError
from posebatch.core.frames import FramePoses
from posebatch.core.records import DecodeReport, PublishedObject, StageSeconds, VideoRecord
from posebatch.core.version import __version__
from posebatch.core.videos import SourceVideo, VideoPlan
from posebatch.dataset.layout import FRAMES, POSES, PREVIEW, Artifact
from posebatch.dataset.publication import CommittedRecord, Publication, read_record
from posebatch.dataset.staging import StagingArea
from posebatch.dataset.tables.parquet import write_parquet
from posebatch.dataset.tables.rows import DATA_TABLES, provenance
from posebatch.run.context import RunContext
from posebatch.run.tasks import FinalizeTask, PreviewOutcome
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.storage.spool import spooled


@dataclass(frozen=True)
class Totals:
    """What the segments of a video add up to."""

    frames_processed: int = 0
    persons: int = 0
    decode: DecodeReport = field(default_factory=DecodeReport)
    seconds: StageSeconds = field(default_factory=StageSeconds)
    device: str = ""


def finalize_video(job: FinalizeTask, context: RunContext) -> CommittedRecord:
    """Publish a video from its staged segments: poses, frames, preview, and last the commit record.

    Reads staged segments, never pixels; holds one staged segment and one row group at a time, however long the video.
    Raises `PutRefusedError` (retryable) when somebody else publishes the video meanwhile.
    """
    store = context.store()
    work = context.staging(job.video)
    publication = Publication.begin(store, job.video.output_path)
    totals = _totals(work, job.plan)
    publication = publication.withdrawn()
    objects = (
        _publish_table(POSES, publication, work, job, context),
        _publish_table(FRAMES, publication, work, job, context),
        *_publish_preview(publication, work, job.preview, context),
    )
    record = _record(job, context, totals, objects)
    committed = publication.commit(record)
    work.clear()
    return committed


def attach_preview(video: SourceVideo, preview: PreviewOutcome, context: RunContext) -> CommittedRecord:
    """Publish the staged preview of a video whose tables are published already, and renew its commit record."""
    store = context.store()
    publication = Publication.begin(store, video.output_path)
    record = read_record(store, video.output_path)
    if record is None:
        raise StorageUnavailableError(f"{video.uri}: its commit record has gone; the next run does it anew")
    work = context.staging(video)
    tables = (published for published in record.objects if published.kind != PREVIEW.kind)
    objects = (*tables, *_publish_preview(publication, work, preview, context))
    kept = (None, None) if record.error_kind == "preview" else (record.error_kind, record.error)
    error_kind, error = ("preview", preview.error) if preview.error else kept
    renewed = replace(record, objects=objects, error_kind=error_kind, error=error)
    committed = publication.commit(renewed)
    work.clear()
    return committed


def _publish_table(
    artifact: Artifact,
    publication: Publication,
    work: StagingArea,
    job: FinalizeTask,
    context: RunContext,
) -> PublishedObject:
    make, schema = DATA_TABLES[artifact.kind]
    info = job.plan.info
    pieces = (make(frames, job.video.uri, info.time_base) for frames in staged_frames(work, job.plan))
    sampling, models = asdict(context.settings.sampling), {"detector": context.detector, "pose": context.pose}
    metadata = provenance(job.video, info, sampling, models, context.data_fingerprint)
    with spooled() as file:
        rows = write_parquet(file, schema, pieces, metadata)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        put = publication.put(artifact, file)
    return PublishedObject(artifact.kind, put.key, rows, put.size_bytes, context.data_fingerprint, sha256)


def _publish_preview(
    publication: Publication, work: StagingArea, preview: PreviewOutcome | None, context: RunContext
) -> tuple[PublishedObject, ...]:
    if preview is None or preview.error is not None or context.preview_fingerprint is None:
        return ()
    gif = work.store.read(work.preview_key)
    put, sha256 = publication.put(PREVIEW, gif), hashlib.sha256(gif).hexdigest()
    return (
        PublishedObject(PREVIEW.kind, put.key, preview.frames, put.size_bytes, context.preview_fingerprint, sha256),
    )


def staged_frames(work: StagingArea, plan: VideoPlan) -> Iterator[Sequence[FramePoses]]:
    """The processed frames of a video from its staged segments, a piece at a time."""
    for segment in plan.segments:
        pieces, _ = work.read_segment(segment)
        for frames in pieces:
            heartbeat.moved()
            yield frames


def _totals(work: StagingArea, plan: VideoPlan) -> Totals:
    totals = Totals()
    for segment in plan.segments:
        pieces, report = work.read_segment(segment)
        for frames in pieces:
            persons = totals.persons + sum(len(frame) for frame in frames)
            totals = replace(totals, frames_processed=totals.frames_processed + len(frames), persons=persons)
        decode, seconds = totals.decode + report.decode, totals.seconds + report.seconds
        totals = replace(totals, decode=decode, seconds=seconds, device=report.device)
    return totals


def _record(
    job: FinalizeTask, context: RunContext, totals: Totals, objects: tuple[PublishedObject, ...]
) -> VideoRecord:
    error_kind, error = _complaint(job, totals)
    info, decode = job.plan.info, totals.decode
    span_s = 0.0
    if decode.first_pts is not None and decode.last_pts is not None:
        span_s = float((decode.last_pts - decode.first_pts) * info.time_base)
    presented = decode.frames_decoded + decode.frames_damaged
    return VideoRecord(
        video=job.video.uri,
        etag=job.video.etag,
        size_bytes=job.video.size_bytes,
        last_modified=job.video.last_modified,
        status="partial" if decode.frames_damaged or decode.ends_early else "ok",
        error_kind=error_kind,
        error=error,
        attempts=job.attempts,
        info=replace(info, avg_fps=(presented - 1) / span_s if span_s else info.avg_fps),
        is_vfr=_is_vfr(decode, presented),
        frames_decoded=decode.frames_decoded,
        frames_processed=totals.frames_processed,
        persons=totals.persons,
        detector=context.detector,
        pose=context.pose,
        settings_fingerprint=context.data_fingerprint,
        posebatch_version=__version__,
        run_id=context.run_id,
        seconds=totals.seconds,
        device=totals.device,
        objects=objects,
    )


def _complaint(job: FinalizeTask, totals: Totals) -> tuple[str | None, str | None]:
    """What the commit record says is wrong with a published video, if anything."""
    complaints, decode = [], totals.decode
    if decode.frames_damaged:
        complaints.append(f"{decode.frames_damaged} frames are damaged; see the column status of its frames table")
    if decode.ends_early:
        promised = (
            f", {job.plan.info.frames_in_header} promised by its header" if job.plan.info.frames_in_header else ""
        )
        complaints.append(f"the file ends early: {decode.frames_decoded} frames decoded{promised}")
    if complaints:
        return "damaged", f"{job.video.uri}: {'; '.join(complaints)}"
    return ("preview", job.preview.error) if job.preview and job.preview.error else (None, None)


def _is_vfr(decode: DecodeReport, presented: int) -> bool | None:
    """Whether the frames' distances differ by more than rounding to ticks explains; None with fewer than 3 frames."""
    if decode.min_interval is None or decode.max_interval is None or presented < 3 or decode.frames_damaged:
        return None
    spread = decode.max_interval - decode.min_interval
    return spread > 2 and spread > 0.1 * decode.min_interval
