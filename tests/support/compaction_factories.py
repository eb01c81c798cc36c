"""Outputs with compacted tables for tests, and what must be true of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import posebatch
from posebatch.core.records import VideoRecord
from posebatch.dataset.publication import publish_failure, read_record
from posebatch.dataset.tables import readers
from posebatch.dataset.verify import verify
from posebatch.storage.open import open_store
from posebatch.storage.store import Store
from support.upkeep_factories import publish

READERS: dict[str, Callable[..., pd.DataFrame]] = {
    "poses": posebatch.read_poses,
    "frames": posebatch.read_frames,
    "tracks": posebatch.read_tracks,
    "motion": posebatch.read_motion,
    "videos": posebatch.read_videos,
}


def fail(store: Store, name: str) -> None:
    """Publish a video as failed."""
    publish_failure(
        store,
        name,
        VideoRecord(f"/in/{name}", "etag-1", 10, 1.5, "failed", "f", "run-1", "0", "damaged", "no frame"),
    )


def remove_video(store: Store, name: str) -> None:
    """Remove all that is published of a video, as a user may do."""
    record = read_record(store, name)
    store.delete(f"videos/{name}.parquet")
    for published in record.objects if record else ():
        store.delete(published.key)


def read_all(root: str, use_compaction: bool, **chosen) -> dict[str, pd.DataFrame]:
    """Every table of an output, by the readers, with or without its compacted tables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "FEW_FILES", 0 if use_compaction else 1 << 30)
        return {name: read(root, **chosen) for name, read in READERS.items()}


def assert_same_rows(root: str, endpoint_url: str | None = None) -> None:
    """The readers and SQL return what the small files alone hold."""
    plain = read_all(root, False, endpoint_url=endpoint_url)
    for name, frame in read_all(root, True, endpoint_url=endpoint_url).items():
        pd.testing.assert_frame_equal(frame, plain[name])
    database = posebatch.connect(root, endpoint_url)
    for name, frame in plain.items():
        assert database.sql(f"SELECT count(*) FROM {name}").fetchall() == [(len(frame),)]
        counts = frame.groupby(frame["video"].astype(str), observed=True).size().to_dict()
        assert dict(database.sql(f"SELECT video, count(*) FROM {name} GROUP BY ALL").fetchall()) == counts


def assert_compacted(root: str, endpoint_url: str | None = None) -> None:
    """The compacted tables are up to date and proven, and readers return what the small files hold."""
    verdict = verify(open_store(root, endpoint_url), deep=True)
    assert verdict.problems == ()
    assert (verdict.compacted, verdict.compaction_behind) == (verdict.videos, 0)
    assert_same_rows(root, endpoint_url)


def publish_some(root: str | Path, endpoint_url: str | None = None) -> None:
    """Videos in two partitions: with persons, without, without tracks, and failed."""
    publish(root, "dt=2026-01-01/a.mp4", endpoint_url=endpoint_url)
    publish(root, "dt=2026-01-01/b.mp4", persons=0, endpoint_url=endpoint_url)
    publish(root, "dt=2026-01-02/c.mp4", persons=1, endpoint_url=endpoint_url, track=False)
    fail(open_store(str(root), endpoint_url), "dt=2026-01-02/d.mp4")
