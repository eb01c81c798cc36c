"""Publication of one video: write its tables from its segments, put them, and last put the commit record."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from tempfile import SpooledTemporaryFile
from typing import IO, TypeAlias

from posebatch.core.errors import ObjectNotFoundError, StorageUnavailableError
from posebatch.core.fingerprints import preview_fingerprint, sampling_identity
from posebatch.core.frames import FramePoses
from posebatch.core.records import DecodeReport, PublishedObject, SegmentReport, StageSeconds, VideoRecord
from posebatch.core.version import __version__
from posebatch.core.videos import Segment, SourceVideo, VideoPlan
from posebatch.dataset.layout import FRAMES, MOTION, POSES, PREVIEWS, TRACKS, Artifact
from posebatch.dataset.publication import CommittedRecord, Publication, fetch_if_readable, read_record
from posebatch.dataset.staging import StagingArea
from posebatch.dataset.tables.blocks import frame_block
from posebatch.dataset.tables.derived import with_track_ids
from posebatch.dataset.tables.parquet import TableWriter
from posebatch.dataset.tables.rows import DATA_TABLES, provenance
from posebatch.motion.tracking.links import Links
from posebatch.run.context import RunContext
from posebatch.run.planning.decisions import Action, CommitSummary, decide
from posebatch.run.tasks import FinalizeTask, PreviewOutcome
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.run.workers.judgement import avg_fps, duration_s, is_vfr, problems_of
from posebatch.run.workers.movement import MovementTables, MovementTotals, link_persons
from posebatch.storage.open import open_source
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
    movement: MovementTotals | None = None
    """None with ``--no-track``."""


ReadSegment: TypeAlias = Callable[[Segment], tuple[Iterator[list[FramePoses]], SegmentReport]]
"""Reads the rows of a segment in pieces, and its report: `StagingArea.read_segment`, or from memory."""


def finalize_video(task: FinalizeTask, context: RunContext) -> CommittedRecord:
    """Publish a video from its staged segments, and remove these. Raises as `publish_video`.

    If the staged segments are gone because another process has published the video, the result is that one's commit
    record: a process on a host that was cut off goes on, while its task is given to another.
    """
    try:
        return _publish_staged(task, context)
    except ObjectNotFoundError:
        committed = fetch_if_readable(context.store(), task.video.output_path)
        if not isinstance(committed, CommittedRecord) or not _is_done(task.video, committed.record, context):
            raise
        return committed


def _is_done(video: SourceVideo, record: VideoRecord, context: RunContext) -> bool:
    return decide(video, CommitSummary.of(record), context).action is Action.DONE


def _publish_staged(task: FinalizeTask, context: RunContext) -> CommittedRecord:
    staging = context.staging(task.video)
    committed = publish_video(task, staging.read_segment, context)
    staging.clear()
    return committed


def publish_video(task: FinalizeTask, read_segment: ReadSegment, context: RunContext) -> CommittedRecord:
    """Publish a video whose segments are all done: poses, frames, tracks, motion, preview, and last the commit record.

    Each segment is read twice: persons are linked over the whole video before any row is written. With ``--no-track``
    it is read once. Memory holds one segment and one row group of each table, however long the video. Raises
    `PutRefusedError` (retryable) when another run publishes the video meanwhile.
    """
    publication = Publication.begin(context.store(), task.video.output_path)
    with ExitStack() as opened:
        files = {artifact.kind: opened.enter_context(spooled()) for artifact in (POSES, FRAMES, TRACKS, MOTION)}
        links = links_of_segments(read_segment, task.plan, context)
        totals = _write_tables(files, links, read_segment, task, context)
        publication = publication.withdrawn()
        fingerprint = context.data_fingerprint
        objects = (
            publish_table(POSES, files["poses"], totals.persons, publication, fingerprint),
            publish_table(FRAMES, files["frames"], totals.frames_processed, publication, fingerprint),
            *publish_movement(files, totals.movement, publication, context),
            *_publish_previews(publication, context.staging(task.video), task.preview, context),
        )
    return publication.commit(_record(task, context, totals, objects))


def attach_preview(video: SourceVideo, preview: PreviewOutcome, context: RunContext) -> CommittedRecord:
    """Publish the staged previews of a video whose tables are published already, and renew its commit record."""
    store = context.store()
    publication = Publication.begin(store, video.output_path)
    record = read_record(store, video.output_path)
    if record is None:
        raise StorageUnavailableError(f"{video.uri}: its commit record is gone; the next run computes the video again")
    staging = context.staging(video)
    renewed = _publish_previews(publication, staging, preview, context)
    objects = (*_kept_objects(record, preview, context), *renewed)
    kept = (None, None) if record.error_kind == "preview" else (record.error_kind, record.error)
    error_kind, error = ("preview", preview.error) if preview.error else kept
    committed = publication.commit(replace(record, objects=objects, error_kind=error_kind, error=error))
    staging.clear()
    return committed


def frames_of_segments(read_segment: ReadSegment, plan: VideoPlan) -> Iterator[Sequence[FramePoses]]:
    """The processed frames of a video from its segments, a piece at a time."""
    for segment in plan.segments:
        pieces, _ = read_segment(segment)
        for frames in pieces:
            heartbeat.beat()
            yield frames


def links_of_segments(read_segment: ReadSegment, plan: VideoPlan, context: RunContext) -> Links | None:
    """Who is who over a video whose segments are all done; None with ``--no-track``."""
    if context.motion_fingerprint is None:
        return None
    blocks = (frame_block(frames, plan.info.time_base) for frames in frames_of_segments(read_segment, plan))
    return link_persons(blocks, plan.info, context)


def _write_tables(
    files: Mapping[str, Spool], links: Links | None, read_segment: ReadSegment, task: FinalizeTask, context: RunContext
) -> Totals:
    """Write all tables in one pass over the segments."""
    info, uri = task.plan.info, task.video.uri
    sampling = sampling_identity(context.settings.sampling)
    models = {"detector": context.detector, "pose": context.pose}
    metadata = provenance(task.video, info, sampling, models, context.data_fingerprint)
    (poses_rows, poses_schema), (frames_rows, frames_schema) = DATA_TABLES[POSES.kind], DATA_TABLES[FRAMES.kind]
    decode, seconds, device, movement = DecodeReport(), StageSeconds(), "", None
    with ExitStack() as opened:
        poses_writer = opened.enter_context(TableWriter(files[POSES.kind], poses_schema, metadata))
        frames_writer = opened.enter_context(TableWriter(files[FRAMES.kind], frames_schema, metadata))
        if links is not None:
            tables = MovementTables(files[TRACKS.kind], files[MOTION.kind], links, uri, info, metadata, context)
            movement = opened.enter_context(tables)
        for segment in task.plan.segments:
            pieces, report = read_segment(segment)
            for frames in pieces:
                heartbeat.beat()
                rows, first = poses_rows(frames, uri, info.time_base), poses_writer.rows_added
                if links is not None and movement is not None:
                    rows = with_track_ids(rows, links.track_ids[first : first + rows.num_rows])
                    movement.add(frame_block(frames, info.time_base))
                poses_writer.add(rows)
                frames_writer.add(frames_rows(frames, uri, info.time_base))
            decode, seconds, device = decode + report.decode, seconds + report.seconds, report.device
    moved = movement.totals if movement else None
    return Totals(frames_writer.rows, poses_writer.rows, decode, seconds, device, moved)


def publish_table(
    artifact: Artifact, file: IO[bytes], rows: int, publication: Publication, fingerprint: str
) -> PublishedObject:
    """Put a table; returns the entry of the commit record."""
    heartbeat.beat()
    file.seek(0)
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    put = publication.put(artifact, file)
    return PublishedObject(artifact.kind, put.key, rows, put.size_bytes, fingerprint, sha256)


def publish_movement(
    files: Mapping[str, Spool], totals: MovementTotals | None, publication: Publication, context: RunContext
) -> tuple[PublishedObject, ...]:
    """Put the tables ``tracks`` and ``motion``, if there are any; returns their entries of the commit record."""
    if totals is None or context.motion_fingerprint is None:
        return ()
    return (
        publish_table(TRACKS, files[TRACKS.kind], totals.tracks, publication, context.motion_fingerprint),
        publish_table(MOTION, files[MOTION.kind], totals.motion_rows, publication, context.motion_fingerprint),
    )


def _publish_previews(
    publication: Publication, staging: StagingArea, preview: PreviewOutcome | None, context: RunContext
) -> tuple[PublishedObject, ...]:
    """Put the staged previews; returns their entries of the commit record."""
    frames = {} if preview is None else preview.frames
    published = []
    for artifact in PREVIEWS.values():
        if artifact.kind in frames and artifact.kind in context.preview_fingerprints:
            key, fingerprint = staging.preview_key(artifact), context.preview_fingerprints[artifact.kind]
            etag = staging.store.head(key).etag
            with open_source(staging.store.uri(key), etag, context.endpoint_url) as file:
                published.append(publish_table(artifact, file, frames[artifact.kind], publication, fingerprint))
    return tuple(published)


def _kept_objects(record: VideoRecord, preview: PreviewOutcome, context: RunContext) -> Iterator[PublishedObject]:
    """The objects that stay when previews are published.

    Previews of the wanted kinds stay if they are current. Those of other kinds stay, but not beside ``--privacy``:
    they may show what it hides.
    """
    forms = {artifact.kind: form for form, artifact in PREVIEWS.items()}
    for published in record.objects:
        kind = published.kind
        if kind not in forms:
            yield published
            continue
        is_current = published.fingerprint == preview_fingerprint(context.settings, forms[kind])
        is_wanted = kind in context.preview_fingerprints
        if kind not in preview.frames and (is_current or not (is_wanted or context.settings.preview.privacy)):
            yield published


def _record(
    task: FinalizeTask, context: RunContext, totals: Totals, objects: tuple[PublishedObject, ...]
) -> VideoRecord:
    info, decode = task.plan.info, totals.decode
    problems = problems_of(info, decode)
    error_kind, error = _error(task, problems)
    return VideoRecord(
        video=task.video.uri,
        etag=task.video.etag,
        size_bytes=task.video.size_bytes,
        last_modified=task.video.last_modified,
        status="partial" if problems else "ok",
        error_kind=error_kind,
        error=error,
        attempts=task.attempts,
        info=replace(info, avg_fps=avg_fps(info, decode), duration_s=duration_s(info, decode)),
        is_vfr=is_vfr(decode),
        frames_decoded=decode.frames_decoded,
        frames_processed=totals.frames_processed,
        timestamps_repaired=decode.timestamps_repaired,
        frames_resized=decode.frames_resized,
        persons=totals.persons,
        tracks=totals.movement.tracks if totals.movement else None,
        grade=totals.movement.grade if totals.movement else None,
        detector=context.detector,
        pose=context.pose,
        settings_fingerprint=context.data_fingerprint,
        posebatch_version=__version__,
        run_id=context.run_id,
        seconds=totals.seconds,
        device=totals.device,
        objects=objects,
    )


def _error(task: FinalizeTask, problems: Sequence[str]) -> tuple[str | None, str | None]:
    """The error kind and the message for the commit record of a published video; (None, None) if all went well."""
    if problems:
        return "damaged", f"{task.video.uri}: {'; '.join(problems)}"
    return ("preview", task.preview.error) if task.preview and task.preview.error else (None, None)
