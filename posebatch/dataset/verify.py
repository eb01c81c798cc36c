"""Check a dataset: every statement of its commit records against the published objects.

Every commit record and a listing of all folders are read. The plain check reads the size of each object and, of each
table, the columns that count and order its rows. The deep check reads every byte of every object. The checks of
tables are in `posebatch.dataset.tables.checks`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from PIL import Image, ImageSequence

from posebatch.core.errors import NewerOutputError, PosebatchError, PreviewError, StorageError
from posebatch.core.records import PublishedObject, VideoRecord
from posebatch.dataset.compaction.checks import RecordFacts, check_compaction, facts_of
from posebatch.dataset.compaction.leftovers import can_judge_compaction
from posebatch.dataset.compaction.snapshot import has_compaction, open_snapshot
from posebatch.dataset.layout import (
    FRAMES,
    MOTION,
    POSES,
    RECORDS,
    TRACKS,
    Artifact,
    artifact_keys,
    artifact_of_kind,
    data_folders,
    record_key,
    recorded_path,
    required_kinds,
)
from posebatch.dataset.tables.checks import check_agreement, check_frames, check_poses, check_rows, check_values
from posebatch.dataset.tables.movement_checks import check_motion, check_tracks, check_untracked
from posebatch.dataset.tables.records import record_from_bytes
from posebatch.storage.store import Store
from posebatch.video.counting import count_frames

VERIFY_THREADS: Final = 8


VERIFIED_AHEAD: Final = 64
"""Videos that are checked at once. Bounds the memory for their problems; only object names grow with the archive."""


@dataclass(frozen=True)
class Verdict:
    """The result of `verify`."""

    videos: int = 0
    """Commit records read."""
    failed: int = 0
    """Commit records of failed videos; they reference no objects."""
    frames: int = 0
    """Rows of the frames tables."""
    persons: int = 0
    """Rows of the poses tables."""
    problems: tuple[str, ...] = ()
    """Everything that is wrong; empty for a correct dataset."""
    bytes_read: int = 0
    """Bytes of objects that the deep check read."""
    without_checksum: int = 0
    """Objects that the deep check read but whose record, of an older version of posebatch, has no checksum."""
    compacted: int | None = None
    """Videos in the compacted tables; None if there are none, or if they were not checked."""
    compaction_behind: int = 0
    """Videos that were published, replaced or removed since the last compaction."""
    compaction_unchecked: bool = False
    """Whether there are compacted tables that this installation cannot read."""


@dataclass(frozen=True)
class _CheckedVideo:
    """The result for one video."""

    path: str
    """Its output path."""
    etag: str
    """The ETag of its record."""
    record: VideoRecord | None
    problems: list[str]
    bytes_read: int = 0
    without_checksum: int = 0


def verify(store: Store, deep: bool = False, on_progress: Callable[[Verdict], None] | None = None) -> Verdict:
    """Check that every published object exists and has the size, schema and rows that its commit record states.

    Also: frames are in order, without gaps or duplicates; poses and frames tables agree on persons; no object lies in
    the folders without a record; compacted tables hold the rows that the records state. With ``deep`` also: checksums,
    every value, all metadata, and that pictures decode.
    ``on_progress`` is called after each video with the sums so far. Raises `NewerOutputError` if a later version of
    posebatch has published here.
    """
    verdict = Verdict()
    problems: list[str] = []
    referenced: set[str] = set()
    facts: dict[str, RecordFacts] = {}
    has_tables = has_compaction(store)
    listed = (recorded_path(stored.key) for stored in store.list(RECORDS))
    paths = (path for path in listed if path is not None)
    with ThreadPoolExecutor(VERIFY_THREADS) as threads:
        while chunk := list(islice(paths, VERIFIED_AHEAD)):
            for video in threads.map(lambda path: _check_video(store, path, deep), chunk):
                verdict = _add(verdict, video)
                problems += video.problems
                referenced.update(published.key for published in (video.record.objects if video.record else ()))
                if has_tables and video.record is not None:
                    facts[video.path] = facts_of(video.etag, video.record)
                if on_progress is not None:
                    on_progress(verdict)
    problems += _orphans(store, referenced)
    if has_tables:
        verdict, found = _with_compaction(store, verdict, facts, deep)
        problems += found
    if not verdict.videos:
        problems.append(f"{store.root}: no commit record below videos/: nothing has been published here")
    return replace(verdict, problems=tuple(problems))


def _add(verdict: Verdict, video: _CheckedVideo) -> Verdict:
    """The sums with one more video."""
    record = video.record
    counted = replace(
        verdict,
        videos=verdict.videos + 1,
        bytes_read=verdict.bytes_read + video.bytes_read,
        without_checksum=verdict.without_checksum + video.without_checksum,
    )
    if record is None:
        return counted
    return replace(
        counted,
        failed=counted.failed + (record.status == "failed"),
        frames=counted.frames + record.frames_processed,
        persons=counted.persons + record.persons,
    )


def _with_compaction(
    store: Store, verdict: Verdict, facts: dict[str, RecordFacts], deep: bool
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict with that on the compacted tables, and their problems."""
    if not can_judge_compaction():
        return replace(verdict, compaction_unchecked=True), ()
    snapshot = open_snapshot(store)
    if snapshot is None:  # killed before its first batch was complete
        return verdict, ()
    checked = check_compaction(store, snapshot, facts, deep)
    return replace(verdict, compacted=checked.videos, compaction_behind=checked.behind), checked.problems


def _check_video(store: Store, path: str, deep: bool) -> _CheckedVideo:
    key = record_key(path)
    try:
        content, etag = store.fetch(key)
        record = record_from_bytes(content)
    except NewerOutputError as error:
        raise NewerOutputError(f"{store.uri(key)}: {error}") from error
    except StorageError as error:
        return _CheckedVideo(path, "", None, [f"{key}: {error}"])
    problems = list(_check_record(path, record))
    contents: dict[str, bytes] = {}
    if record.is_being_derived:
        # its poses may be replaced at any moment, and the record states no size of them
        problems.append(f"{key}: its tracks are being derived, or were when a process was killed: run or derive again")
        return _CheckedVideo(path, etag, record, problems)
    for published in record.objects:
        try:
            if deep:
                contents[published.key] = store.read(published.key)
            size = len(contents[published.key]) if deep else store.head(published.key).size_bytes
            problems += _check_size(published, size)
        except PosebatchError as error:
            problems.append(f"{published.key}: {error}")
    try:
        problems += [] if problems else _check_tables(record, contents.__getitem__ if deep else store.read)
        problems += [] if problems or not deep else _check_contents(record, contents)
    except PosebatchError as error:
        problems.append(f"{key}: {error}")
    without_checksum = sum(published.sha256 is None for published in record.objects if deep)
    return _CheckedVideo(path, etag, record, problems, sum(map(len, contents.values())), without_checksum)


def _check_record(path: str, record: VideoRecord) -> Iterator[str]:
    """Contradictions within a commit record."""
    key, own_keys = record_key(path), artifact_keys(path)
    for published in record.objects:
        artifact = artifact_of_kind(published.kind)
        if artifact is None:
            yield f"{key}: references {published.key} as {published.kind!r}, which this version does not know"
            continue
        if published.key not in own_keys:
            yield f"{key}: references {published.key}, which belongs to another video"
        stated = published.rows if artifact.stated_rows is None else artifact.stated_rows(record)
        if published.rows != stated:
            yield f"{published.key}: its record states {published.rows} rows in one place and {stated} in another"
    if record.status != "failed":
        kinds = {published.kind for published in record.objects}
        yield from (f"{key}: references no {kind} table" for kind in required_kinds() if kind not in kinds)
        if len(kinds & {TRACKS.kind, MOTION.kind}) == 1 or (record.tracks is None) == (TRACKS.kind in kinds):
            yield f"{key}: references only some of tracks, motion and their number"


def _check_size(published: PublishedObject, size_bytes: int) -> Iterator[str]:
    if size_bytes != published.size_bytes:
        yield f"{published.key}: {size_bytes} bytes, its record says {published.size_bytes}"


def _check_tables(record: VideoRecord, read: Callable[[str], bytes]) -> list[str]:
    """Problems of a video's tables, by the columns that count and order their rows."""
    if record.status == "failed":
        return []
    by_kind = {published.kind: published for published in record.objects}
    frames, poses = by_kind.pop(FRAMES.kind), by_kind.pop(POSES.kind)
    tracks, motion = by_kind.pop(TRACKS.kind, None), by_kind.pop(MOTION.kind, None)
    frames_problems, persons_by_frame = check_frames(read(frames.key), frames.rows)
    of_poses = read(poses.key)
    poses_problems = check_poses(of_poses, poses.rows, persons_by_frame)
    problems = [f"{frames.key}: {problem}" for problem in frames_problems]
    problems += [f"{poses.key}: {problem}" for problem in poses_problems]
    for kind, published in by_kind.items():
        schemas = _known(kind).schemas
        if schemas:
            problems += [f"{published.key}: {x}" for x in check_rows(read(published.key), schemas, published.rows)]
    if problems:
        return problems
    if tracks is None or motion is None:
        return [f"{poses.key}: {problem}" for problem in check_untracked(of_poses)]
    of_tracks = read(tracks.key)
    problems = [f"{tracks.key}: {problem}" for problem in check_tracks(of_tracks, tracks.rows)]
    if not problems:
        found = check_motion(read(motion.key), motion.rows, of_tracks, of_poses, persons_by_frame[:, 0])
        problems = [f"{motion.key}: {problem}" for problem in found]
    return problems


def _check_contents(record: VideoRecord, contents: dict[str, bytes]) -> list[str]:
    """Problems of a video's objects by all of their bytes. Call it if the other checks have found nothing."""
    problems = []
    for published in record.objects:
        content = contents[published.key]
        if published.sha256 not in (None, hashlib.sha256(content).hexdigest()):
            problems.append(f"{published.key}: its bytes are not those that were published (sha256)")
            continue
        artifact = _known(published.kind)
        if artifact.schemas:
            problems += [f"{published.key}: {problem}" for problem in check_values(content, published, record)]
        problems += [f"{published.key}: {problem}" for problem in _check_pictures(content, artifact, published.rows)]
        if artifact.identified_by == "data" and published.fingerprint != record.settings_fingerprint:
            problems.append(f"{published.key}: its record states one fingerprint for it and another for the video")
    if not problems and record.status != "failed":
        by_kind = {published.kind: published.key for published in record.objects}
        frames, poses = contents[by_kind[FRAMES.kind]], contents[by_kind[POSES.kind]]
        problems += [f"{by_kind[POSES.kind]}: {problem}" for problem in check_agreement(frames, poses)]
    return problems


def _known(kind: str) -> Artifact:
    """The artifact of a kind that `_check_record` has found to be known."""
    artifact = artifact_of_kind(kind)
    assert artifact is not None
    return artifact


def _check_pictures(content: bytes, artifact: Artifact, frames: int) -> list[str]:
    """Problems of a picture file or a film; none for other artifacts."""
    if artifact.image_format is None and not artifact.is_film:
        return []
    try:
        counted = count_frames(content) if artifact.is_film else count_images(content, artifact.image_format or "")
    except PosebatchError as error:
        return [str(error)]
    return [] if counted == frames else [f"{counted} frames, its record says {frames}"]


def _orphans(store: Store, referenced: set[str]) -> list[str]:
    return [
        f"{stored.key}: no commit record references it (a run is in progress, or was killed: run again)"
        for folder in data_folders()
        for stored in store.list(f"{folder}/")
        if stored.key not in referenced
    ]


def count_images(content: bytes, image_format: str) -> int:
    """Decode all frames of a picture file in one of Pillow's formats; returns their number. Raises `PreviewError`."""
    try:
        with Image.open(io.BytesIO(content), formats=[image_format]) as image:
            return sum(frame.load() is not None for frame in ImageSequence.Iterator(image))
    except (OSError, ValueError, EOFError, SyntaxError, IndexError, Image.DecompressionBombError) as error:
        # the exceptions by which Pillow reports damage
        raise PreviewError(f"not a readable {image_format}: {error}") from error
