import errno
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO
from uuid import uuid4

import numpy as np
import pytest
from faults.s3_proxy import Fault, running_proxy
from support.factories import publish_record, staged_file
from support.s3_server import S3Server
from support.upkeep_factories import INFO, PLAN

from posebatch.core.errors import (
    DamagedRecordError,
    ObjectNotFoundError,
    PutRefusedError,
    StorageError,
    StorageUnavailableError,
    UnsupportedError,
)
from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.core.records import DecodeReport, SegmentReport, StageSeconds, VideoRecord
from posebatch.core.settings import settings_from
from posebatch.core.videos import Segment, SourceVideo, VideoPlan
from posebatch.dataset.layout import ARTIFACTS, FRAMES, POSES, PREVIEW, PREVIEWS, Artifact, artifact_keys
from posebatch.dataset.publication import Publication, publish_failure, read_published_frames, read_record
from posebatch.dataset.staging import FailedAttempts, StagingArea
from posebatch.run.context import RunContext
from posebatch.run.tasks import FinalizeTask, PreviewOutcome
from posebatch.run.workers.finalize import attach_preview, finalize_video
from posebatch.storage import retry, s3
from posebatch.storage.local import LocalStore
from posebatch.storage.s3 import S3Store
from posebatch.storage.store import Store, StoredObject

VIDEO = SourceVideo("/in/a.mp4", "a.mp4", "etag-1", 10, 1.5)
FIRST, SECOND = PLAN.segments


class RecordingStore(Store):
    """A local store that records all changes in order."""

    def __init__(self, root: Path) -> None:
        self.inner = LocalStore(root)
        self.root = self.inner.root
        self.changes: list[tuple[str, str]] = []
        self.fail_at: str | None = None
        self.unsupporting = False

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return self.inner.list(prefix)

    def read(self, key: str) -> bytes:
        return self.inner.read(key)

    def head(self, key: str) -> StoredObject:
        return self.inner.head(key)

    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        if key == self.fail_at:
            raise StorageUnavailableError(f"{key}: scripted")
        self.changes.append(("put", key))
        return self.inner.put(key, content)

    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        if key == self.fail_at:
            raise StorageUnavailableError(f"{key}: scripted")
        if self.unsupporting:
            raise UnsupportedError(f"{key}: scripted")
        self.changes.append(("put", key))
        return self.inner.put_if(key, content, etag)

    def age_s(self, key: str) -> float:
        return self.inner.age_s(key)

    def delete(self, key: str, etag: str | None = None) -> None:
        if self.unsupporting and etag is not None:
            raise UnsupportedError(f"{key}: scripted")
        self.changes.append(("delete", key))
        self.inner.delete(key, etag)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordingStore:
    store = RecordingStore(tmp_path / "out")
    monkeypatch.setattr("posebatch.run.context.open_store", lambda *_: store)
    return store


def context(**chosen) -> RunContext:
    return RunContext("run-1", settings_from(chosen), "/out", "d@1", "p@1")


PLAIN, GIF, ALL = context(), context(preview="gif"), context(preview=list(PREVIEWS))
ALL_DRAWN = PreviewOutcome({artifact.kind: 4 for artifact in PREVIEWS.values()})


def frames_of(segment: Segment, persons: int = 1) -> list[FramePoses]:
    start = segment.first_packet
    rng = np.random.default_rng(start)
    return [
        FramePoses(
            FrameRecord(i, 10 * i, i == start, "ok"),
            *(rng.random(shape).astype(np.float32) for shape in ((persons, 4), (persons,), (persons,))),
            rng.random((persons, 17, 3)).astype(np.float32),
        )
        for i in range(start, start + 2)
    ]


def stage(store: Store, ctx: RunContext = PLAIN, plan: VideoPlan = PLAN, persons: int = 1) -> StagingArea:
    work = StagingArea.of(store, VIDEO, ctx.data_fingerprint)
    for segment in plan.segments:
        start = 10 * segment.first_packet
        report = DecodeReport(2, 0, False, start, start + 10, 10, 10)
        staged = SegmentReport(report, StageSeconds(1, 2, 3, 7), "cpu")
        work.stage(segment, staged_file(frames_of(segment, persons), staged))
    return work


def left(store: Store, prefix: str = "") -> set[str]:
    return {stored.key for stored in store.list(prefix)}


def changed(store: RecordingStore) -> list[tuple[str, str]]:
    """The changes outside of _state/."""
    return [(operation, key) for operation, key in store.changes if not key.startswith("_state/")]


# --- keys ----------------------------------------------------------------------------------------------------------


def test_work_id_depends_on_source_and_data_fingerprint(tmp_path: Path):
    store = LocalStore(tmp_path)

    def work_id(video: SourceVideo = VIDEO, ctx: RunContext = PLAIN) -> str:
        return StagingArea.of(store, video, ctx.data_fingerprint).work_id

    same = {
        work_id(),
        work_id(replace(VIDEO, last_modified=9.0)),
        work_id(ctx=replace(PLAIN, run_id="run-2")),
        work_id(ctx=context(preview="gif", workers=3, segment_seconds=1)),
    }
    others = [
        work_id(replace(VIDEO, etag="etag-2")),
        work_id(replace(VIDEO, uri="/in/b.mp4")),
        work_id(replace(VIDEO, output_path="b.mp4")),
        work_id(ctx=context(stride=2)),
        work_id(ctx=replace(PLAIN, pose="p@2")),
    ]
    assert len(same) == 1
    assert len({*others} - same) == len(others)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (Segment(), Segment(), True),
        (Segment(0, 0, 100), Segment(0, 0, 50), False),
        (Segment(), Segment(0, 0, 100), False),
        (Segment(1, 50, 50, 5, None), Segment(1, 25, 50, 3, 9), False),
        (Segment(1, 1, 11), Segment(0, 11, 1), False),
    ],
)
def test_segment_keys_differ_for_different_splits(tmp_path: Path, first, second, same):
    work = StagingArea(LocalStore(tmp_path), "w")
    assert (work.segment_key(first) == work.segment_key(second)) is same


# --- staging -------------------------------------------------------------------------------------------------------


def test_staging_area_is_empty_at_first(store: RecordingStore):
    work = StagingArea.of(store, VIDEO, "f")
    assert work.staged_keys() == set()
    assert work.failed_attempts() == FailedAttempts()
    work.clear()
    with pytest.raises(ObjectNotFoundError):
        work.read_segment(FIRST)


def test_staged_segments_are_read_back_and_cleared(store: RecordingStore):
    work = stage(store)
    other = replace(work, work_id="other")
    other.stage(FIRST, staged_file([]))
    other.note_attempt(FailedAttempts(1), "worker_died", "x")
    work.note_attempt(FailedAttempts(2), "worker_died", "killed")
    assert work.staged_keys() == {work.segment_key(FIRST), work.segment_key(SECOND)}
    pieces, report = work.read_segment(SECOND)
    assert [frame.record.frame_index for frames in pieces for frame in frames] == [2, 3]
    assert (report.decode.first_pts, report.seconds.total, report.device) == (20, 7, "cpu")
    work.clear()
    assert work.staged_keys() == set()
    assert work.failed_attempts() == FailedAttempts()
    assert other.staged_keys() == {other.segment_key(FIRST)}
    assert other.failed_attempts() == FailedAttempts(1)


def test_failed_attempts_are_stored(store: RecordingStore):
    work = StagingArea.of(store, VIDEO, "f")
    work.note_attempt(FailedAttempts(1), "worker_died", "killed")
    work.note_attempt(FailedAttempts(2, 1), "storage_unavailable", "slow down")
    assert StagingArea.of(store, VIDEO, "f").failed_attempts() == FailedAttempts(2, 1)
    (key,) = left(store, "_state/attempts/")
    assert json.loads(store.read(key)) == {
        "attempts": 2,
        "kills": 1,
        "error_kind": "storage_unavailable",
        "error": "slow down",
    }


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"attempts": null}', b"\xff"])
def test_failed_attempts_name_a_damaged_file(store: RecordingStore, content: bytes):
    work = StagingArea.of(store, VIDEO, "f")
    work.note_attempt(FailedAttempts(1), "worker_died", "killed")
    (key,) = left(store, "_state/attempts/")
    store.put(key, content)
    with pytest.raises(StorageError, match=f"{key}: not a count of attempts; delete it"):
        work.failed_attempts()


# --- records -------------------------------------------------------------------------------------------------------

RECORD = VideoRecord("/in/a.mp4", "etag-1", 10, 1.5, "ok", "f", "run-1", "0")


def test_record_is_read_back(store: RecordingStore):
    assert read_record(store, "a.mp4") is None
    publish_record(store, "a.mp4", RECORD)
    assert read_record(store, "a.mp4") == RECORD
    assert left(store) == {"videos/a.mp4.parquet"}


def test_read_record_names_a_damaged_record(store: RecordingStore):
    store.put("videos/a.mp4.parquet", b"half")
    with pytest.raises(DamagedRecordError, match=r"videos/a\.mp4\.parquet: a commit record cannot be read"):
        read_record(store, "a.mp4")


def test_publish_failure_removes_older_artifacts_first(store: RecordingStore):
    for key in artifact_keys("a.mp4"):
        store.put(key, b"old")
    for key in artifact_keys("b.mp4"):
        store.put(key, b"another video's")
    store.changes.clear()
    failed = replace(RECORD, status="failed", error_kind="damaged", error="no frame")
    publish_failure(store, "a.mp4", failed)
    assert store.changes == [
        ("delete", "poses/a.mp4.parquet"),
        ("delete", "frames/a.mp4.parquet"),
        ("delete", "tracks/a.mp4.parquet"),
        ("delete", "motion/a.mp4.parquet"),
        *(("delete", artifact.key("a.mp4")) for artifact in PREVIEWS.values()),
        ("put", "videos/a.mp4.parquet"),
    ]
    assert read_record(store, "a.mp4") == failed
    assert left(store, "poses/") == {"poses/b.mp4.parquet"}


# --- publication ---------------------------------------------------------------------------------------------------


def test_finalize_puts_the_record_last(store: RecordingStore):
    store.put("previews/a.mp4.gif", b"of an older version")
    stage(store)
    store.changes.clear()
    record = finalize_video(FinalizeTask(VIDEO, PLAN, 2), PLAIN).record
    assert changed(store) == [
        ("put", "poses/a.mp4.parquet"),
        ("put", "frames/a.mp4.parquet"),
        ("put", "tracks/a.mp4.parquet"),
        ("put", "motion/a.mp4.parquet"),
        ("delete", "previews/a.mp4.gif"),
        ("put", "videos/a.mp4.parquet"),
    ]
    last_put = max(i for i, (operation, _) in enumerate(store.changes) if operation == "put")
    cleared = [
        i for i, (operation, key) in enumerate(store.changes) if operation == "delete" and key.startswith("_state/")
    ]
    assert cleared
    assert min(cleared) > last_put, "staged segments are removed after the record is written"
    assert left(store, "_state/staging/") == set()
    assert read_record(store, "a.mp4") == record
    assert (record.status, record.attempts, record.frames_processed, record.persons) == ("ok", 2, 4, 4)
    assert record.seconds == StageSeconds(2, 4, 6, 14)
    assert [(published.kind, published.rows) for published in record.objects[:2]] == [("poses", 4), ("frames", 4)]
    assert all(published.size_bytes == store.head(published.key).size_bytes for published in record.objects)
    frames = list(read_published_frames(store, "a.mp4"))
    assert [frame.record for frame in frames] == [frame.record for s in PLAN.segments for frame in frames_of(s)]


def test_finalize_puts_the_record_after_the_preview(store: RecordingStore):
    work = stage(store, GIF)
    store.put(work.preview_key(PREVIEW), b"GIF89a")
    store.changes.clear()
    record = finalize_video(FinalizeTask(VIDEO, PLAN, 1, PreviewOutcome({"preview": 4})), GIF).record
    assert [key for operation, key in changed(store)] == [
        "poses/a.mp4.parquet",
        "frames/a.mp4.parquet",
        "tracks/a.mp4.parquet",
        "motion/a.mp4.parquet",
        "previews/a.mp4.gif",
        "videos/a.mp4.parquet",
    ]
    assert {operation for operation, _ in changed(store)} == {"put"}
    assert store.read("previews/a.mp4.gif") == b"GIF89a"
    assert [(published.kind, published.rows) for published in record.objects][-1] == ("preview", 4)
    assert record.objects[-1].fingerprint == GIF.preview_fingerprints["preview"]


@pytest.mark.parametrize("broken", ["poses/a.mp4.parquet", "frames/a.mp4.parquet", "videos/a.mp4.parquet"])
def test_interrupted_publication_can_be_repeated(store: RecordingStore, broken: str):
    stage(store)
    store.fail_at = broken
    with pytest.raises(StorageUnavailableError):
        finalize_video(FinalizeTask(VIDEO, PLAN, 1), PLAIN)
    assert read_record(store, "a.mp4") is None
    assert len(left(store, "_state/staging/")) == 2, "staged segments stay"
    store.fail_at = None
    record = finalize_video(FinalizeTask(VIDEO, PLAN, 1), PLAIN).record
    assert read_record(store, "a.mp4") == record


def test_full_disk_during_publication_is_retryable(store: RecordingStore, monkeypatch: pytest.MonkeyPatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    stage(store)
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", full)
    with pytest.raises(StorageUnavailableError, match="the disk is full; make room"):
        finalize_video(FinalizeTask(VIDEO, PLAN, 1), PLAIN)
    assert read_record(store, "a.mp4") is None


@pytest.mark.parametrize("fails_at", ["poses", "frames", "videos"])
def test_no_record_references_half_overwritten_tables(store: RecordingStore, fails_at: str):
    """Otherwise a run with the former settings would find its record beside tables of other settings."""
    stage(store)
    finalize_video(FinalizeTask(VIDEO, PLAN, 1), PLAIN)
    other = context(stride=2)
    work = StagingArea.of(store, VIDEO, other.data_fingerprint)
    for segment in PLAN.segments:
        work.stage(segment, staged_file(frames_of(segment, persons=2)))
    store.fail_at = f"{fails_at}/a.mp4.parquet"
    with pytest.raises(StorageUnavailableError):
        finalize_video(FinalizeTask(VIDEO, PLAN, 1), other)
    assert read_record(store, "a.mp4") is None
    store.fail_at = None
    assert finalize_video(FinalizeTask(VIDEO, PLAN, 1), other).record == read_record(store, "a.mp4")


def test_repeated_publication_writes_equal_bytes(store: RecordingStore, tmp_path: Path):
    contents = []
    for run_id, plan in (("run-1", PLAN), ("run-2", VideoPlan(INFO, (FIRST, SECOND)))):
        stage(store, plan=plan)
        finalize_video(FinalizeTask(VIDEO, plan, 1), replace(PLAIN, run_id=run_id))
        contents.append([store.read(artifact.key("a.mp4")) for artifact in (POSES, FRAMES)])
    assert contents[0] == contents[1], "no run id, no clock"


def test_video_without_persons_has_an_empty_poses_table(store: RecordingStore):
    stage(store, persons=0)
    record = finalize_video(FinalizeTask(VIDEO, PLAN, 1), PLAIN).record
    assert record.status == "ok"
    rows = {published.kind: published.rows for published in record.objects}
    assert rows == {"poses": 0, "frames": 4, "tracks": 0, "motion": 0}
    assert [len(frame) for frame in read_published_frames(store, "a.mp4")] == [0] * 4


@pytest.mark.parametrize(
    ("preview", "ctx"), [(None, PLAIN), (PreviewOutcome(error="cannot be drawn"), GIF)], ids=["unwanted", "failed"]
)
def test_publication_removes_an_older_preview(store: RecordingStore, preview, ctx):
    store.put("previews/a.mp4.gif", b"of an older version")
    stage(store, ctx)
    record = finalize_video(FinalizeTask(VIDEO, PLAN, 1, preview), ctx).record
    assert left(store, "previews/") == set()
    assert {published.kind for published in record.objects} == {"poses", "frames", "tracks", "motion"}


# --- late writers ------------------------------------------------------------------------------------------------

HALF = context(stride=2)


def contents(store: Store) -> dict[str, bytes]:
    """All published objects."""
    return {stored.key: store.read(stored.key) for stored in store.list() if not stored.key.startswith("_state/")}


def stage_previews(store: Store, content: bytes) -> None:
    for artifact in PREVIEWS.values():
        store.put(StagingArea.of(store, VIDEO, ALL.data_fingerprint).preview_key(artifact), content)


@pytest.mark.parametrize("older", [False, True], ids=["nothing there", "an older version there"])
@pytest.mark.parametrize("artifact", [*ARTIFACTS, None], ids=lambda artifact: artifact.kind if artifact else "record")
def test_late_publication_is_refused(store: RecordingStore, artifact: Artifact | None, older: bool):
    if older:
        stage(store, persons=3)
        stage_previews(store, b"of old")
        finalize_video(FinalizeTask(VIDEO, PLAN, 1, ALL_DRAWN), ALL)
    late = Publication.begin(store, "a.mp4")
    stage(store, ALL, persons=2)
    stage_previews(store, b"of now")
    finalize_video(FinalizeTask(VIDEO, PLAN, 1, ALL_DRAWN), ALL)
    published = contents(store)
    with pytest.raises(PutRefusedError):
        late.commit(RECORD) if artifact is None else late.put(artifact, b"late")
    assert contents(store) == published


@pytest.mark.parametrize(
    ("at", "before"),
    [
        ("poses/a.mp4.parquet", True),
        ("poses/a.mp4.parquet", False),
        ("frames/a.mp4.parquet", True),
        ("frames/a.mp4.parquet", False),
        ("videos/a.mp4.parquet", True),
    ],
)
def test_refused_publication_succeeds_when_repeated(
    store: RecordingStore, monkeypatch: pytest.MonkeyPatch, at: str, before: bool
):
    """Another process publishes another version right before or after one put of this one."""
    other = LocalStore(store.root)
    stage(store, HALF, persons=2)
    stage(store)
    put_if = store.put_if

    def overtaken(key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        if key != at:
            return put_if(key, content, etag)
        monkeypatch.setattr(store, "put_if", put_if)
        put = None if before else put_if(key, content, etag)
        with monkeypatch.context() as patch:
            patch.setattr("posebatch.run.context.open_store", lambda *_: other)
            finalize_video(FinalizeTask(VIDEO, PLAN, 1), HALF)
        return put or put_if(key, content, etag)

    monkeypatch.setattr(store, "put_if", overtaken)
    with pytest.raises(PutRefusedError):
        finalize_video(FinalizeTask(VIDEO, PLAN, 1), PLAIN)
    theirs = read_record(store, "a.mp4")
    assert theirs is not None
    assert theirs.settings_fingerprint == HALF.data_fingerprint
    assert sum(len(frame) for frame in read_published_frames(store, "a.mp4")) == theirs.persons == 8
    finalize_video(FinalizeTask(VIDEO, PLAN, 1), PLAIN)
    ours = read_record(store, "a.mp4")
    assert ours is not None
    assert ours.settings_fingerprint == PLAIN.data_fingerprint
    assert sum(len(frame) for frame in read_published_frames(store, "a.mp4")) == ours.persons == 4


def test_publication_works_without_conditional_puts(store: RecordingStore):
    store.unsupporting = True
    for persons in (1, 2):
        store.put("previews/a.mp4.gif", b"of an older version")
        stage(store, persons=persons)
        record = finalize_video(FinalizeTask(VIDEO, PLAN, 1), PLAIN).record
        assert sum(len(frame) for frame in read_published_frames(store, "a.mp4")) == record.persons == 4 * persons
        assert left(store, "previews/") == set()
    publish_failure(store, "a.mp4", replace(RECORD, status="failed"))
    assert set(contents(store)) == {"videos/a.mp4.parquet"}


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.parametrize(("folder", "older"), [("poses", True), ("frames", False), ("videos", False), ("videos", True)])
def test_late_put_of_a_dead_worker_is_refused(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, folder: str, older: bool
):
    bucket = f"late-{uuid4().hex[:8]}"
    s3_server.client().create_bucket(Bucket=bucket)
    monkeypatch.setattr(retry, "DEFAULT_POLICY", retry.RetryPolicy(attempts=1))  # a dead worker does not retry
    with running_proxy(s3_server, conditional=True) as proxy:
        for name, value in proxy.environment().items():
            monkeypatch.setenv(name, value)
        s3.s3_client.cache_clear()
        store, dead, successor = S3Store(f"s3://{bucket}"), in_bucket(PLAIN, bucket), in_bucket(HALF, bucket)
        if older:
            stage(store, persons=3)
            finalize_video(FinalizeTask(VIDEO, PLAN, 1), in_bucket(PLAIN, bucket))
        stage(store, dead)
        stage(store, successor, persons=2)
        proxy.plan.faults.append(Fault("late_put", key=f"/{folder}/", most=1))
        with pytest.raises(StorageUnavailableError):
            finalize_video(FinalizeTask(VIDEO, PLAN, 1), dead)
        record = finalize_video(FinalizeTask(VIDEO, PLAN, 1), successor).record
        (late,) = [request for request in proxy.log if request.fault == "late_put"]
        assert late.status == 412, "it has arrived and was refused"
        assert read_record(store, "a.mp4") == record
        assert sum(len(frame) for frame in read_published_frames(store, "a.mp4")) == record.persons == 8
    s3.s3_client.cache_clear()


def in_bucket(ctx: RunContext, bucket: str) -> RunContext:
    return replace(ctx, output=f"s3://{bucket}")


# --- a preview later -----------------------------------------------------------------------------------------------


def test_attach_preview_renews_the_record(store: RecordingStore):
    stage(store)
    before = finalize_video(FinalizeTask(VIDEO, PLAN, 1), PLAIN).record
    work = StagingArea.of(store, VIDEO, GIF.data_fingerprint)
    store.put(work.preview_key(PREVIEW), b"GIF89a")
    store.changes.clear()
    after = attach_preview(VIDEO, PreviewOutcome({"preview": 4}), GIF).record
    assert changed(store) == [("put", "previews/a.mp4.gif"), ("put", "videos/a.mp4.parquet")]
    assert after.objects[:-1] == before.objects
    assert (after.objects[-1].kind, after.objects[-1].rows) == ("preview", 4)
    assert replace(after, objects=()) == replace(before, objects=())
    assert left(store, "_state/staging/") == set()


@pytest.mark.parametrize(
    ("complaint", "outcome", "expected"),
    [
        pytest.param((None, None), PreviewOutcome(error="no"), ("preview", "no"), id="fails"),
        pytest.param(("preview", "old"), PreviewOutcome(error="no"), ("preview", "no"), id="fails again"),
        pytest.param(("preview", "old"), PreviewOutcome({"preview": 4}), (None, None), id="succeeds this time"),
        pytest.param(("damaged", "2 fr"), PreviewOutcome({"preview": 4}), ("damaged", "2 fr"), id="of a partial video"),
        pytest.param(("damaged", "2 frames"), PreviewOutcome(error="no"), ("preview", "no"), id="both"),
    ],
)
def test_attach_preview_updates_the_error_of_the_record(store: RecordingStore, complaint, outcome, expected):
    stage(store)
    record = finalize_video(FinalizeTask(VIDEO, PLAN, 1), PLAIN).record
    status = "partial" if complaint[0] == "damaged" else "ok"
    publish_record(store, "a.mp4", replace(record, status=status, error_kind=complaint[0], error=complaint[1]))
    store.put(StagingArea.of(store, VIDEO, GIF.data_fingerprint).preview_key(PREVIEW), b"GIF89a")
    renewed = attach_preview(VIDEO, outcome, GIF).record
    assert (renewed.error_kind, renewed.error) == expected
    assert renewed.status == status
    assert read_record(store, "a.mp4") == renewed


@pytest.mark.parametrize(
    ("values", "drawn", "kinds"),
    [
        pytest.param({"preview": ["mp4"]}, {"preview_mp4": 4}, ["preview", "preview_mp4"], id="the GIF stays"),
        pytest.param(
            {"preview": ["mp4"], "privacy": "blur-faces"},
            {"preview_mp4": 4},
            ["preview_mp4"],
            id="shows what is hidden",
        ),
        pytest.param({"preview": ["gif", "mp4"]}, {"preview_mp4": 4}, ["preview", "preview_mp4"], id="current"),
        pytest.param({"preview": ["gif"], "preview_scale": 0.3}, {}, [], id="not current, not drawn"),
    ],
)
def test_attach_preview_keeps_others(store: RecordingStore, values, drawn, kinds):
    work = stage(store, GIF)
    store.put(work.preview_key(PREVIEW), b"GIF89a")
    finalize_video(FinalizeTask(VIDEO, PLAN, 1, PreviewOutcome({"preview": 4})), GIF)
    stage_previews(store, b"of now")
    after = attach_preview(VIDEO, PreviewOutcome(drawn), context(**values)).record
    assert [published.kind for published in after.objects if published.kind.startswith("preview")] == kinds
    assert {key.split("/")[0] for key in contents(store) if key.startswith("preview")} == {
        {artifact.kind: artifact.folder for artifact in PREVIEWS.values()}[kind] for kind in kinds
    }


def test_publication_keeps_the_previews_that_could_be_drawn(store: RecordingStore):
    stage(store, ALL)
    stage_previews(store, b"of now")
    drawn = PreviewOutcome({"preview": 4, "preview_sheet": 1}, "mp4: this build of FFmpeg cannot write it")
    record = finalize_video(FinalizeTask(VIDEO, PLAN, 1, drawn), ALL).record
    assert [published.kind for published in record.objects][-2:] == ["preview", "preview_sheet"]
    assert (record.status, record.error_kind) == ("ok", "preview")
    assert record.persons, "a missing encoder costs no keypoints"


def test_attach_preview_without_record_is_retryable(store: RecordingStore):
    with pytest.raises(StorageUnavailableError, match="its commit record is gone"):
        attach_preview(VIDEO, PreviewOutcome({"preview": 4}), GIF)
