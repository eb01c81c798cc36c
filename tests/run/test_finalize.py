"""Publication from staged segments: how often each is read, and the same bytes as each table written alone."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from support.factories import staged_file
from support.upkeep_factories import PLAN

from posebatch.core.errors import ObjectNotFoundError
from posebatch.core.fingerprints import sampling_identity
from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.core.records import DecodeReport, SegmentReport
from posebatch.core.settings import settings_from
from posebatch.core.videos import SourceVideo
from posebatch.dataset.publication import read_record
from posebatch.dataset.staging import StagingArea
from posebatch.dataset.tables.parquet import write_parquet
from posebatch.dataset.tables.rows import DATA_TABLES, provenance
from posebatch.dataset.tables.schemas import ROW_GROUP_ROWS
from posebatch.run.context import RunContext
from posebatch.run.tasks import FinalizeTask
from posebatch.run.workers.finalize import finalize_video
from posebatch.storage.local import LocalStore
from posebatch.storage.store import StoredObject

VIDEO = SourceVideo("/in/a.mp4", "a.mp4", "etag-1", 10, 1.5)
CONTEXT = RunContext("run-1", settings_from({}), "/out", "d@1", "p@1")
UNTRACKED = replace(CONTEXT, settings=settings_from({"track": False}))
TABLES = ("poses", "frames")
TRACKED_TABLES = (*TABLES, "tracks", "motion")


class LoggingStore(LocalStore):
    """A local store that logs its calls, in order."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.calls: list[tuple[str, str]] = []

    def read(self, key: str) -> bytes:
        self.calls.append(("read", key))
        return super().read(key)

    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        self.calls.append(("put", key))
        return super().put_if(key, content, etag)

    def delete(self, key: str, etag: str | None = None) -> None:
        self.calls.append(("delete", key))
        super().delete(key, etag)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoggingStore:
    store = LoggingStore(tmp_path / "out")
    monkeypatch.setattr("posebatch.run.context.open_store", lambda *_: store)
    return store


def random_frames(first: int, count: int, persons: int) -> list[FramePoses]:
    rng = np.random.default_rng(first)
    shapes = ((persons, 4), (persons,), (persons,), (persons, 17, 3))
    return [
        FramePoses(
            FrameRecord(index, 10 * index, index == first, "ok"),
            *(rng.random(shape).astype(np.float32) for shape in shapes),
        )
        for index in range(first, first + count)
    ]


def stage(store: LoggingStore, frames_each: int = 2, persons: int = 1) -> StagingArea:
    staging = StagingArea.of(store, VIDEO, CONTEXT.data_fingerprint)
    for number, segment in enumerate(PLAN.segments):
        frames = random_frames(number * frames_each, frames_each, persons)
        report = SegmentReport(DecodeReport(frames_each), device="cpu")
        staging.stage(segment, staged_file(frames, report))
    store.calls.clear()
    return staging


@pytest.mark.parametrize(("context", "reads", "tables"), [(UNTRACKED, 1, TABLES), (CONTEXT, 2, TRACKED_TABLES)])
def test_staged_segments_are_read_before_anything_is_changed(
    store: LoggingStore, context: RunContext, reads: int, tables: tuple[str, ...]
) -> None:
    """Twice, as persons are linked over the whole video before a row is written; once without tracks."""
    staging = stage(store)
    finalize_video(FinalizeTask(VIDEO, PLAN, 1), context)
    expected = [
        *(("read", staging.segment_key(segment)) for _ in range(reads) for segment in PLAN.segments),
        *(("put", f"{table}/a.mp4.parquet") for table in (*tables, "videos")),
    ]
    assert store.calls[: len(expected)] == expected
    assert not [key for call, key in store.calls[len(expected) :] if call != "delete" or not key.startswith("_state/")]


def test_missing_segment_leaves_the_published_video_as_it_was(store: LoggingStore) -> None:
    stage(store)
    committed = finalize_video(FinalizeTask(VIDEO, PLAN, 1), UNTRACKED)
    staging = stage(store)
    store.delete(staging.segment_key(PLAN.segments[1]))
    store.calls.clear()
    with pytest.raises(ObjectNotFoundError):
        finalize_video(FinalizeTask(VIDEO, PLAN, 2), CONTEXT)
    assert {call for call, _ in store.calls} == {"read"}
    assert read_record(store, "a.mp4") == committed.record


def test_video_that_another_process_has_published_meanwhile_is_done(store: LoggingStore) -> None:
    """A process on a host that was cut off goes on, and removes the staged segments before its successor reads them."""
    stage(store)
    committed = finalize_video(FinalizeTask(VIDEO, PLAN, 1), CONTEXT)
    store.calls.clear()
    assert finalize_video(FinalizeTask(VIDEO, PLAN, 1), CONTEXT) == committed
    assert {call for call, _ in store.calls} == {"read"}


@pytest.mark.parametrize("persons", [0, 1, 2])
def test_tables_of_one_pass_are_those_written_alone(store: LoggingStore, persons: int) -> None:
    """With more rows than a row group, cut in pieces that do not fit it."""
    each = ROW_GROUP_ROWS // 2 + 700
    stage(store, each, persons)
    record = finalize_video(FinalizeTask(VIDEO, PLAN, 1), UNTRACKED).record
    assert (record.frames_processed, record.persons, record.frames_decoded) == (2 * each, 2 * each * persons, 2 * each)
    assert [(published.kind, published.rows) for published in record.objects] == [
        ("poses", 2 * each * persons),
        ("frames", 2 * each),
    ]
    frames = [frame for number in range(2) for frame in random_frames(number * each, each, persons)]
    models = {"detector": CONTEXT.detector, "pose": CONTEXT.pose}
    metadata = provenance(
        VIDEO, PLAN.info, sampling_identity(CONTEXT.settings.sampling), models, CONTEXT.data_fingerprint
    )
    for kind in TABLES:
        rows_of, schema = DATA_TABLES[kind]
        alone = io.BytesIO()
        write_parquet(alone, schema, [rows_of(frames, VIDEO.uri, PLAN.info.time_base)], metadata)
        assert store.read(f"{kind}/a.mp4.parquet") == alone.getvalue()
