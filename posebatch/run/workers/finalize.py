"""Publication of one video: write its tables from the staged segments, put them, and last put the commit record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from tempfile import SpooledTemporaryFile
from typing import TypeAlias

from posebatch.core.errors import StorageUnavailableError
from posebatch.core.fingerprints import sampling_identity
from posebatch.core.frames import FramePoses
from posebatch.core.records import DecodeReport, PublishedObject, StageSeconds, VideoRecord
from posebatch.core.version import __version__
from posebatch.core.videos import SourceVideo, VideoPlan
from posebatch.dataset.layout import FRAMES, POSES, PREVIEW, Artifact
from posebatch.dataset.publication import CommittedRecord, Publication, read_record
from posebatch.dataset.staging import StagingArea
from posebatch.dataset.tables.parquet import TableWriter
from posebatch.dataset.tables.rows import DATA_TABLES, provenance
from posebatch.run.context import RunContext
from posebatch.run.tasks import FinalizeTask, PreviewOutcome
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.storage.spool import spooled

Spool: TypeAlias = "SpooledTemporaryFile[bytes]"


@dataclass(frozen=True)
class Totals:
    """Sums over all segments of a video."""

    frames_processed: int
    persons: int
    decode: DecodeReport
    seconds: StageSeconds
    device: str


def finalize_video(task: FinalizeTask, context: RunContext) -> CommittedRecord:
    """Publish a video from its staged segments: poses, frames, preview, and last the commit record.

    Each staged segment is read once. Memory holds one staged segment and one row group of each table, however long the
    video. Raises `PutRefusedError` (retryable) when another run publishes the video meanwhile.
    """
    staging = context.staging(task.video)
    publication = Publication.begin(context.store(), task.video.output_path)
    with spooled() as poses_file, spooled() as frames_file:
        totals = _write_tables(poses_file, frames_file, staging, task, context)
        publication = publication.withdrawn()
        objects = (
            _publish_table(POSES, poses_file, totals.persons, publication, context),
            _publish_table(FRAMES, frames_file, totals.frames_processed, publication, context),
            *_publish_preview(publication, staging, task.preview, context),
        )
    committed = publication.commit(_record(task, context, totals, objects))
    staging.clear()
    return committed


def attach_preview(video: SourceVideo, preview: PreviewOutcome, context: RunContext) -> CommittedRecord:
    """Publish the staged preview of a video whose tables are published already, and renew its commit record."""
    store = context.store()
    publication = Publication.begin(store, video.output_path)
    record = read_record(store, video.output_path)
    if record is None:
        raise StorageUnavailableError(f"{video.uri}: its commit record is gone; the next run computes the video again")
    staging = context.staging(video)
    tables = (published for published in record.objects if published.kind != PREVIEW.kind)
    objects = (*tables, *_publish_preview(publication, staging, preview, context))
    kept = (None, None) if record.error_kind == "preview" else (record.error_kind, record.error)
    error_kind, error = ("preview", preview.error) if preview.error else kept
    renewed = replace(record, objects=objects, error_kind=error_kind, error=error)
    committed = publication.commit(renewed)
    staging.clear()
    return committed


def staged_frames(staging: StagingArea, plan: VideoPlan) -> Iterator[Sequence[FramePoses]]:
    """The processed frames of a video from its staged segments, a piece at a time."""
    for segment in plan.segments:
        pieces, _ = staging.read_segment(segment)
        for frames in pieces:
            heartbeat.beat()
            yield frames


def _write_tables(
    poses_file: Spool, frames_file: Spool, staging: StagingArea, task: FinalizeTask, context: RunContext
) -> Totals:
    """Write both tables in one pass over the staged segments."""
    info = task.plan.info
    sampling, models = (
        sampling_identity(context.settings.sampling),
        {"detector": context.detector, "pose": context.pose},
    )
    metadata = provenance(task.video, info, sampling, models, context.data_fingerprint)
    (poses_rows, poses_schema), (frames_rows, frames_schema) = DATA_TABLES[POSES.kind], DATA_TABLES[FRAMES.kind]
    decode, seconds, device = DecodeReport(), StageSeconds(), ""
    with ExitStack() as opened:
        poses_writer = opened.enter_context(TableWriter(poses_file, poses_schema, metadata))
        frames_writer = opened.enter_context(TableWriter(frames_file, frames_schema, metadata))
        for segment in task.plan.segments:
            pieces, report = staging.read_segment(segment)
            for frames in pieces:
                heartbeat.beat()
                poses_writer.add(poses_rows(frames, task.video.uri, info.time_base))
                frames_writer.add(frames_rows(frames, task.video.uri, info.time_base))
            decode, seconds, device = decode + report.decode, seconds + report.seconds, report.device
    return Totals(frames_writer.rows, poses_writer.rows, decode, seconds, device)


def _publish_table(
    artifact: Artifact, file: Spool, rows: int, publication: Publication, context: RunContext
) -> PublishedObject:
    heartbeat.beat()
    file.seek(0)
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    put = publication.put(artifact, file)
    return PublishedObject(artifact.kind, put.key, rows, put.size_bytes, context.data_fingerprint, sha256)


def _publish_preview(
    publication: Publication, staging: StagingArea, preview: PreviewOutcome | None, context: RunContext
) -> tuple[PublishedObject, ...]:
    if preview is None or preview.error is not None or context.preview_fingerprint is None:
        return ()
    gif = staging.store.read(staging.preview_key)
    put, sha256 = publication.put(PREVIEW, gif), hashlib.sha256(gif).hexdigest()
    return (
        PublishedObject(PREVIEW.kind, put.key, preview.frames, put.size_bytes, context.preview_fingerprint, sha256),
    )


def _record(
    task: FinalizeTask, context: RunContext, totals: Totals, objects: tuple[PublishedObject, ...]
) -> VideoRecord:
    error_kind, error = _problem(task, totals)
    info, decode = task.plan.info, totals.decode
    span_s = 0.0
    if decode.first_pts is not None and decode.last_pts is not None:
        span_s = float((decode.last_pts - decode.first_pts) * info.time_base)
    presented = decode.frames_decoded + decode.frames_damaged
    return VideoRecord(
        video=task.video.uri,
        etag=task.video.etag,
        size_bytes=task.video.size_bytes,
        last_modified=task.video.last_modified,
        status="partial" if decode.frames_damaged or decode.ends_early or info.matrix_ignored else "ok",
        error_kind=error_kind,
        error=error,
        attempts=task.attempts,
        info=replace(
            info,
            avg_fps=(presented - 1) / span_s if span_s else info.avg_fps,
            duration_s=info.duration_s or span_s,
        ),
        is_vfr=_is_vfr(decode, presented),
        frames_decoded=decode.frames_decoded,
        frames_processed=totals.frames_processed,
        timestamps_repaired=decode.timestamps_repaired,
        frames_resized=decode.frames_resized,
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


def _problem(task: FinalizeTask, totals: Totals) -> tuple[str | None, str | None]:
    """The error kind and the message for the commit record of a published video; (None, None) if all went well."""
    problems, decode = [], totals.decode
    if decode.frames_damaged:
        problems.append(f"{decode.frames_damaged} frames are damaged; see the column status of its frames table")
    if decode.ends_early:
        in_header = task.plan.info.frames_in_header
        promised = f", {in_header} promised by its header" if in_header else ""
        problems.append(f"the file ends early: {decode.frames_decoded} frames decoded{promised}")
    if task.plan.info.matrix_ignored:
        problems.append("its display matrix shears or zooms the picture, which was not done")
    if problems:
        return "damaged", f"{task.video.uri}: {'; '.join(problems)}"
    return ("preview", task.preview.error) if task.preview and task.preview.error else (None, None)


def _is_vfr(decode: DecodeReport, presented: int) -> bool | None:
    """Whether the frame rate varies: frame intervals differ by more than 2 ticks and 10 %.

    Smaller differences come from rounding to ticks. None with fewer than 3 frames, and with damaged frames.
    """
    if decode.min_interval is None or decode.max_interval is None or presented < 3 or decode.frames_damaged:
        return None
    spread = decode.max_interval - decode.min_interval
    return spread > 2 and spread > 0.1 * decode.min_interval
