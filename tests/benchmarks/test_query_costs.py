"""The benchmark of queries: its output is one that `compact` takes, and its S3 server counts what readers ask for."""

from pathlib import Path

import pytest
from benchmarks.folder_s3 import output_address, serving, take_counts
from benchmarks.made_up_output import FRAMES, make_output
from benchmarks.query_costs import QueryCost, QueryFigures, ask, query_text, questions

from posebatch.dataset.compaction.compaction import compact
from posebatch.dataset.verify import verify
from posebatch.storage.local import LocalStore
from posebatch.storage.open import open_store

VIDEOS = 20


def test_questions_are_answered_alike_from_small_and_from_compacted_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    make_output(tmp_path / "out", VIDEOS)
    done = compact(LocalStore(tmp_path / "out"))
    assert (done.taken, done.left) == (VIDEOS, ())
    assert verify(LocalStore(tmp_path / "out")).compaction_behind == 0
    with serving(tmp_path, 0.0) as address:
        store = open_store(output_address("out"), address)
        assert len(list(store.list("motion/"))) == VIDEOS
        assert take_counts(address)["list"] == 1
        for question in questions(VIDEOS)[:1]:
            small, large = (
                ask(output_address("out"), address, "S3", question, files, VIDEOS) for files in ("small", "compacted")
            )
            assert small.rows == large.rows == FRAMES
            assert small.requests["get"] >= 2 * VIDEOS - 1
            assert 0 < large.requests["get"] < small.requests["get"]


def test_fewer_videos_are_multiplied_and_marked():
    costs = [
        QueryCost(question.name, store, files, videos, seconds, {"get": requests}, 1000, 1, 1.0)
        for question in questions(1000)
        for store in ("local", "S3")
        for files, videos, seconds, requests in [("small", 100, 2.0, 200), ("compacted", 1000, 1.0, 20)]
    ]
    text = query_text(QueryFigures(1000, 10, 1.0, 1.0, 1.0, 1.0, 10, 1, costs))
    assert "20.0 (x10)" in text
    assert "2000 (x10)" in text
    assert "100x" in text
