"""Tracks and motion of published videos from their stored tables: what is written, what stays, and kills in between."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.factories import staged_file
from support.upkeep_factories import PLAN, context_of, source

from posebatch import read_motion, read_tracks
from posebatch.core.errors import ObjectNotFoundError, StorageError
from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.core.records import DecodeReport, SegmentReport, VideoRecord
from posebatch.core.videos import Segment, VideoPlan
from posebatch.dataset.layout import record_key
from posebatch.dataset.publication import read_record
from posebatch.dataset.staging import StagingArea
from posebatch.dataset.verify import verify
from posebatch.run.tasks import DeriveTask, FinalizeTask
from posebatch.run.workers.derive import derive_video
from posebatch.run.workers.finalize import finalize_video
from posebatch.storage.local import LocalStore
from posebatch.storage.store import StoredObject

NAME = "a.mp4"
KEYS = ("poses/a.mp4.parquet", "tracks/a.mp4.parquet", "motion/a.mp4.parquet")


class KilledError(Exception):
    """Stands for the death of the process."""


class DyingStore(LocalStore):
    """A store whose process dies before or after its n-th change."""

    left: float = float("inf")
    calls: int = 0

    def _change(self, act: Callable[[], StoredObject | None]) -> StoredObject | None:
        self.calls += 1
        if self.left <= 0:
            raise KilledError
        self.left -= 1
        done = act()
        if self.left <= 0:
            raise KilledError
        return done

    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        stored = self._change(lambda: super(DyingStore, self).put_if(key, content, etag))
        assert stored is not None
        return stored

    def delete(self, key: str, etag: str | None = None) -> None:
        self._change(lambda: super(DyingStore, self).delete(key, etag))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DyingStore:
    store = DyingStore(str(tmp_path / "out"))
    monkeypatch.setattr("posebatch.run.context.open_store", lambda *_: store)
    return store


def walking(index: int, persons: int) -> FramePoses:
    """People side by side who move to the right, 100 px high."""
    rng = np.random.default_rng(index)
    keypoints = np.zeros((persons, 17, 3), np.float32)
    boxes = np.zeros((persons, 4), np.float32)
    for person in range(persons):
        x, heights = 60 + 150 * person + 2 * index, np.linspace(10, 100, 17)
        keypoints[person, :, 0] = x + 10 * np.sin(np.arange(17) + index / 5) + rng.normal(0, 0.5, 17)
        keypoints[person, :, 1] = heights + rng.normal(0, 0.5, 17)
        keypoints[person, :, 2] = 0.9
        boxes[person] = (x - 20, 5, x + 20, 105)
    scores = np.full(persons, 0.9, np.float32)
    return FramePoses(FrameRecord(index, 10 * index, False, "ok"), boxes, scores, scores, keypoints)


def publish(root: Path, frames: int = 40, persons: int = 2, cuts: int = 2, **chosen: object) -> VideoRecord:
    """Publish a video of some seconds in ``cuts`` segments."""
    context = context_of(root, **chosen)
    starts = np.linspace(0, frames, cuts + 1).astype(int).tolist()
    segments = tuple(Segment(i, a, b - a) for i, (a, b) in enumerate(pairwise(starts)))
    info = replace(PLAN.info, width=640, height=360)
    area = StagingArea.of(context.store(), source(NAME), context.data_fingerprint)
    for segment, a, b in zip(segments, starts[:-1], starts[1:], strict=True):
        found = [walking(index, persons) for index in range(a, b)]
        area.stage(segment, staged_file(found, SegmentReport(DecodeReport(b - a))))
    return finalize_video(FinalizeTask(source(NAME), VideoPlan(info, segments), 1), context).record


def derive(root: Path, **chosen: object) -> VideoRecord:
    context = replace(context_of(root, **chosen), detector="", pose="", only_derives=True)
    return derive_video(DeriveTask(source(NAME)), context).record


def contents(store: LocalStore) -> dict[str, bytes]:
    keys = [stored.key for folder in ("poses/", "frames/", "tracks/", "motion/") for stored in store.list(folder)]
    return {key: store.read(key) for key in keys}


@pytest.mark.parametrize("persons", [0, 1, 2])
def test_published_tables_are_proven_and_can_be_read(store: DyingStore, tmp_path: Path, persons: int) -> None:
    record = publish(Path(store.root), persons=persons)
    assert record.tracks == persons
    assert (record.grade is None) == (persons == 0)
    assert [each.kind for each in record.objects] == ["poses", "frames", "tracks", "motion"]
    assert read_record(store, NAME) == record
    assert verify(store, deep=True).problems == ()
    tracks, motion = read_tracks(store.root), read_motion(store.root)
    assert tracks["track_id"].tolist() == list(range(persons))
    assert len(motion) == 40 * persons
    assert motion.columns[:6].tolist() == ["video", "track_id", "frame_index", "pts", "time_s", "person"]


@pytest.mark.parametrize("cuts", [1, 2, 5])
def test_tables_do_not_depend_on_segments(store: DyingStore, cuts: int) -> None:
    publish(Path(store.root), cuts=3)
    before = contents(store)
    publish(Path(store.root), cuts=cuts, on_existing="overwrite")
    assert contents(store) == before


def test_another_cutoff_changes_motion_alone(store: DyingStore) -> None:
    record, before = publish(Path(store.root)), contents(store)
    derived, after = derive(Path(store.root), cutoff_hz=2.0), contents(store)
    assert {key for key in after if after[key] != before[key]} <= {KEYS[1], KEYS[2]}
    assert after[KEYS[2]] != before[KEYS[2]]
    assert derived.objects[:2] == record.objects[:2]
    assert verify(store, deep=True).problems == ()


def test_the_same_settings_give_the_same_bytes(store: DyingStore) -> None:
    """From stored tables as from staged segments."""
    record, before = publish(Path(store.root)), contents(store)
    assert derive(Path(store.root)) == record
    assert contents(store) == before


@pytest.mark.parametrize("persons", [0, 2])
def test_tracks_are_added_and_removed(store: DyingStore, persons: int) -> None:
    whole, tracked = publish(Path(store.root), persons=persons), contents(store)
    bare = publish(Path(store.root), persons=persons, track=False)
    assert (bare.tracks, bare.grade, [each.kind for each in bare.objects]) == (None, None, ["poses", "frames"])
    untracked = contents(store)
    assert set(untracked) == {"poses/a.mp4.parquet", "frames/a.mp4.parquet"}
    assert verify(store, deep=True).problems == ()
    assert derive(Path(store.root)) == replace(whole, run_id=whole.run_id)
    assert contents(store) == tracked
    assert derive(Path(store.root), track=False) == bare
    assert contents(store) == untracked


@pytest.mark.parametrize("tracked_before", [True, False])
@pytest.mark.parametrize("chosen", [{"cutoff_hz": 2.0}, {"track": False}, {"linker": "greedy-oks"}])
def test_killed_after_each_change_and_derived_again_is_undisturbed(
    store: DyingStore, tracked_before: bool, chosen: dict[str, object]
) -> None:
    root = Path(store.root)
    publish(root, track=tracked_before)
    expected, undisturbed = derive(root, **chosen), contents_after(store)
    points = 0
    while True:
        publish(root, track=tracked_before)
        store.left = points
        try:
            derive(root, **chosen)
        except KilledError:
            pass
        else:
            break
        finally:
            store.left = float("inf")
        record = read_record(store, NAME)
        assert record is not None, "the record never vanishes"
        problems = verify(store).problems
        if record.is_being_derived:
            assert any("being derived" in problem for problem in problems)
        else:
            assert problems == ()
        assert derive(root, **chosen) == expected
        assert contents_after(store) == undisturbed
        points += 1
    assert points >= 3


def contents_after(store: LocalStore) -> dict[str, bytes]:
    assert verify(store, deep=True).problems == ()
    return contents(store)


def test_damaged_poses_are_not_used(store: DyingStore) -> None:
    record = publish(Path(store.root))
    content = bytearray(store.read(KEYS[0]))
    content[len(content) // 2] ^= 1
    store.put(KEYS[0], bytes(content))
    with pytest.raises(StorageError, match="not those that were published"):
        derive(Path(store.root), cutoff_hz=2.0)
    assert read_record(store, NAME) == record


def test_missing_poses_are_reported(store: DyingStore) -> None:
    publish(Path(store.root))
    LocalStore.delete(store, KEYS[0])
    with pytest.raises(ObjectNotFoundError, match="gone"):
        derive(Path(store.root), cutoff_hz=2.0)


def test_motion_states_its_settings(store: DyingStore) -> None:
    publish(Path(store.root), cutoff_hz=3.0)
    metadata = pq.read_schema(io.BytesIO(store.read(KEYS[2]))).metadata
    assert json.loads(metadata[b"posebatch.motion"])["cutoff_hz"] == 3.0
    assert record_key(NAME) == "videos/a.mp4.parquet"
