"""Tracks and motion of a published video again, from its stored tables: no network, no pixel.

The commit record stays present all the time. First a record is put that lists no tracks and no motion, and poses as
being renewed; then the objects; then the whole record. A process that dies in between leaves the first record. The next
run derives the video again, and its tables have the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import IO, Final, TypeVar

import numpy as np

from posebatch.core.errors import ObjectNotFoundError, StorageError, StorageUnavailableError
from posebatch.core.records import BEING_RENEWED, PublishedObject, VideoRecord
from posebatch.dataset.layout import ARTIFACTS, FRAMES, MOTION, POSES, TRACKS, Artifact
from posebatch.dataset.publication import CommittedRecord, Publication, read_record
from posebatch.dataset.tables.blocks import stored_blocks
from posebatch.dataset.tables.derived import stored_poses, stored_provenance, stored_track_ids
from posebatch.dataset.tables.parquet import write_parquet
from posebatch.dataset.tables.schemas import POSES_SCHEMA
from posebatch.motion.blocks import FrameBlock
from posebatch.motion.tracking.links import Links
from posebatch.run.context import RunContext
from posebatch.run.tasks import DeriveTask
from posebatch.run.workers.finalize import Spool, publish_movement, publish_table
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.run.workers.movement import MovementTables, MovementTotals, link_persons
from posebatch.storage.open import open_source
from posebatch.storage.spool import spooled


@dataclass(frozen=True)
class StoredTables:
    """The open tables of a video that is published."""

    poses: IO[bytes]
    frames: IO[bytes]

    def blocks(self) -> Iterator[FrameBlock]:
        """All frames in order."""
        return stored_blocks(self.frames, self.poses)


def derive_video(task: DeriveTask, context: RunContext) -> CommittedRecord:
    """Derive tracks and motion of a published video, and renew its commit record.

    ``poses`` are written only if a track id has changed. Memory holds a few thousand frames and a row group of each
    table. Raises `StorageError` if the stored tables are damaged, and `PutRefusedError` (retryable) when another run
    publishes the video meanwhile.
    """
    publication = Publication.begin(context.store(), task.video.output_path)
    record = read_record(publication.store, task.video.output_path)
    if record is None or record.info is None:
        raise StorageUnavailableError(f"{task.video.uri}: its commit record is gone; the next run computes it again")
    with ExitStack() as opened:
        tables = StoredTables(*(opened.enter_context(_open(each, publication, context)) for each in (POSES, FRAMES)))
        files = {each.kind: opened.enter_context(spooled()) for each in (POSES, TRACKS, MOTION)}
        poses = _proven(record, tables, publication)
        links = None if context.motion_fingerprint is None else link_persons(tables.blocks(), record.info, context)
        is_renewed = _write_poses(files[POSES.kind], tables, links)
        totals = None if links is None else _write_movement(files, tables, links, record, context)
        others = [each for each in record.objects if each.kind not in files]
        publication = publication.marked(_marked(record, poses, others))
        if is_renewed:
            poses = publish_table(POSES, files[POSES.kind], poses.rows, publication, poses.fingerprint)
        objects = [poses, *others, *publish_movement(files, totals, publication, context)]
    return publication.commit(
        replace(
            record,
            tracks=totals.tracks if totals else None,
            grade=totals.grade if totals else None,
            objects=tuple(sorted(objects, key=lambda each: _ORDER[each.kind])),
        )
    )


_PIECE_BYTES: Final = 1 << 20


_ORDER: Final[Mapping[str, int]] = {artifact.kind: position for position, artifact in enumerate(ARTIFACTS)}


def _open(artifact: Artifact, publication: Publication, context: RunContext) -> IO[bytes]:
    """A published table, in the version that was there when the publication began."""
    key = artifact.key(publication.output_path)
    etag, uri = publication.seen[key], publication.store.uri(key)
    if etag is None:
        raise ObjectNotFoundError(f"{uri}: its commit record lists it, but it is gone")
    return open_source(uri, etag, context.endpoint_url)


def _proven(record: VideoRecord, tables: StoredTables, publication: Publication) -> PublishedObject:
    """The entry of the poses table in the commit record, with its size and checksum.

    Raises `StorageError` if its bytes are not those that were published. A record of poses that were being renewed
    states none, nor does one of an earlier version.
    """
    poses = next(each for each in record.objects if each.kind == POSES.kind)
    digest, size_bytes = hashlib.sha256(), 0
    while piece := tables.poses.read(_PIECE_BYTES):
        heartbeat.beat()
        digest.update(piece)
        size_bytes += len(piece)
    sha256 = digest.hexdigest()
    if poses.sha256 not in (None, sha256):
        raise StorageError(f"{publication.store.uri(poses.key)}: its bytes are not those that were published (sha256)")
    return replace(poses, size_bytes=size_bytes, sha256=sha256)


def _marked(record: VideoRecord, poses: PublishedObject, others: list[PublishedObject]) -> VideoRecord:
    """The commit record while the objects are replaced."""
    renewed = replace(poses, size_bytes=BEING_RENEWED, sha256=None)
    return replace(record, tracks=None, grade=None, objects=(renewed, *others))


def _write_poses(file: Spool, tables: StoredTables, links: Links | None) -> bool:
    """Write poses with the ids of ``links``, unless the stored ids are these; returns whether it did."""
    stored = stored_track_ids(tables.poses)
    track_ids = np.full(len(stored), -1, np.int32) if links is None else links.track_ids
    if np.array_equal(track_ids, stored):
        return False
    pieces = stored_poses(tables.poses, track_ids)
    write_parquet(file, POSES_SCHEMA, _beating(pieces), stored_provenance(tables.poses))
    return True


def _write_movement(
    files: Mapping[str, Spool], tables: StoredTables, links: Links, record: VideoRecord, context: RunContext
) -> MovementTotals:
    assert record.info is not None
    metadata, video = stored_provenance(tables.poses), record.video
    writer = MovementTables(files[TRACKS.kind], files[MOTION.kind], links, video, record.info, metadata, context)
    with writer:
        for block in tables.blocks():
            writer.add(block)
    return writer.totals


Item = TypeVar("Item")


def _beating(items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        heartbeat.beat()
        yield item
