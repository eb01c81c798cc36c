"""Runs that only derive: which videos, without which tasks, and the job `posebatch derive`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.fake_pool import ALWAYS, FAST, Archive, FakePool, Times, no_fault
from support.upkeep_factories import make_version_3

from posebatch.core.errors import InputError, InternalError, OutputError, StorageUnavailableError
from posebatch.core.settings import settings_from
from posebatch.dataset.layout import record_key
from posebatch.dataset.tables.records import record_to_bytes
from posebatch.dataset.verify import verify
from posebatch.run.context import RunContext
from posebatch.run.derivation import derive_job
from posebatch.run.outcome import RunOutcome
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.decisions import Action
from posebatch.run.planning.planner import decisions
from posebatch.run.pool import Pool
from posebatch.run.progress import Progress
from posebatch.run.stop_request import StopRequest
from posebatch.run.tasks import DeriveTask, PreviewTask, ProbeTask, PublishPreviewTask, RecordAttemptTask, SegmentTask
from posebatch.run.workers.video_tasks import perform
from posebatch.storage.local import LocalStore

COMPUTING = (ProbeTask, SegmentTask)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path)
    archive.add("a.mp4", "b.mp4")
    archive.run()
    return archive


def tables(archive: Archive) -> dict[str, bytes]:
    folders = ("poses/", "frames/", "tracks/", "motion/", "previews/")
    return {stored.key: archive.store.read(stored.key) for folder in folders for stored in archive.store.list(folder)}


def derive(archive: Archive, match: str = "*", fault=no_fault, **chosen) -> RunOutcome:
    @contextmanager
    def open_pool(context: RunContext, _: StopRequest, __: Progress) -> Iterator[Pool]:
        pool = FakePool(context, fault, lambda _: False, lambda task: perform(task, context))
        archive.pools.append(pool)
        yield pool

    return derive_job(archive.store.root, settings_from(chosen), match, open_pool, FAST)


def counts(outcome: RunOutcome) -> tuple[int, int, int, int]:
    tally = outcome.tally
    return tally.published, tally.derived, tally.up_to_date, tally.failed


def test_run_with_nothing_to_do_derives_nothing(archive: Archive) -> None:
    assert counts(archive.run()) == (0, 0, 2, 0)


def test_run_derives_what_an_earlier_version_published(archive: Archive) -> None:
    """Without a segment or a probe, and with the bytes of a run of this version.

    Poses in which nobody is followed stay as they were written.
    """
    whole = tables(archive)
    for name in ("a.mp4", "b.mp4"):
        make_version_3(archive.store, name)
    assert verify(archive.store, deep=True).problems == ()
    planned = decisions(archive.videos(), CommitIndex.load(archive.store, 0), archive.context())
    assert {one.decision.action for one in planned} == {Action.DERIVE}
    assert counts(archive.run()) == (0, 2, 0, 0)
    assert archive.submitted(*COMPUTING) == []
    same = {key for key in whole if key.startswith(("tracks/", "motion/"))}
    assert {key: tables(archive)[key] for key in same} == {key: whole[key] for key in same}
    assert verify(archive.store, deep=True).problems == ()
    assert counts(archive.run()) == (0, 0, 2, 0)


def test_run_without_tracks_leaves_those_that_are_there(archive: Archive) -> None:
    before = tables(archive)
    assert counts(archive.run(track=False)) == (0, 0, 2, 0)
    assert tables(archive) == before


def test_run_derives_with_other_settings_of_motion(archive: Archive) -> None:
    before = tables(archive)
    outcome = archive.run(cutoff_hz=2.0)
    assert counts(outcome) == (0, 2, 0, 0)
    assert outcome.exit_code == 0
    assert archive.submitted(*COMPUTING) == []
    after = tables(archive)
    assert {key for key in before if before[key] == after[key]} >= {"poses/a.mp4.parquet", "frames/a.mp4.parquet"}


def test_preview_is_drawn_after_the_derivation(archive: Archive) -> None:
    outcome = archive.run(cutoff_hz=2.0, preview="gif")
    assert counts(outcome) == (0, 2, 0, 0)
    kinds = [type(task) for task in archive.submitted(DeriveTask, PreviewTask, PublishPreviewTask)]
    assert sorted(kind.__name__ for kind in kinds) == sorted(["DeriveTask", "PreviewTask", "PublishPreviewTask"] * 2)
    assert verify(archive.store, deep=True).problems == ()


@pytest.mark.parametrize(
    ("error", "tries"),
    [(InternalError, 1), (StorageUnavailableError, FAST.max_storage_retries + 3)],
    ids=["for good", "until given up"],
)
def test_failed_derivation_is_reported_and_what_is_published_stays(
    archive: Archive, error: type[Exception], tries: int
) -> None:
    before, record = tables(archive), archive.record("a.mp4")
    outcome = archive.run(Times(error, DeriveTask, "a", ALWAYS), cutoff_hz=2.0)
    assert counts(outcome) == (0, 1, 0, 1)
    assert outcome.exit_code == 3
    assert len([task for task in archive.submitted(DeriveTask) if task.video.output_path == "a.mp4"]) == tries
    assert archive.submitted(RecordAttemptTask) == []
    assert archive.record("a.mp4") == record
    assert {key: tables(archive)[key] for key in before if "/a." in key} == {
        key: before[key] for key in before if "/a." in key
    }


# --- posebatch derive ---------------------------------------------------------------------------------------------


def test_derive_of_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nothing has been published here"):
        derive_job(str(tmp_path / "none"), settings_from({}))


def test_derive_of_no_match_names_what_is_there(archive: Archive) -> None:
    with pytest.raises(InputError, match=r"--match 'ski/\*' fits none of 2 published videos: a.mp4, ..."):
        derive_job(archive.store.root, settings_from({}), "ski/*")


def test_derive_changes_matching_videos_alone_and_once(archive: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    before = tables(archive)
    assert counts(derive(archive, "a*", cutoff_hz=2.0)) == (0, 1, 0, 0)
    assert "1 derived from stored poses" in capsys.readouterr().out
    changed = {key for key, content in tables(archive).items() if before[key] != content}
    assert changed <= {"tracks/a.mp4.parquet", "motion/a.mp4.parquet"}
    assert counts(derive(archive, "a*", cutoff_hz=2.0)) == (0, 0, 1, 0)


def test_derive_does_not_need_the_videos(archive: Archive) -> None:
    for path in archive.root.iterdir():
        path.unlink()
    assert counts(derive(archive, cutoff_hz=2.0)) == (0, 2, 0, 0)
    assert archive.submitted(*COMPUTING) == []
    assert verify(archive.store, deep=True).problems == ()


def test_derive_leaves_failed_videos(archive: Archive) -> None:
    failed = archive.record("a.mp4")
    (archive.root / "c.mp4").write_bytes(b"")
    archive.run()
    assert archive.record("c.mp4").status == "failed"
    outcome = derive(archive, cutoff_hz=2.0)
    assert counts(outcome) == (0, 2, 0, 0)
    assert outcome.tally.quarantined == 1
    assert archive.record("a.mp4").settings_fingerprint == failed.settings_fingerprint


def test_derive_reports_lost_tables_and_computes_nothing(archive: Archive) -> None:
    archive.store.delete("poses/a.mp4.parquet")
    record = archive.record("a.mp4")
    outcome = derive(archive, cutoff_hz=2.0)
    assert counts(outcome) == (0, 1, 0, 1)
    assert "it is gone" in outcome.problems[0].reason
    assert archive.submitted(*COMPUTING) == []
    assert archive.record("a.mp4") == record


def test_derive_reports_a_damaged_record_and_derives_the_others(archive: Archive) -> None:
    archive.store.put(record_key("a.mp4"), b"half")
    outcome = derive(archive, cutoff_hz=2.0)
    assert (counts(outcome), outcome.exit_code) == ((0, 1, 0, 1), 3)
    (problem,) = outcome.problems
    assert problem.video == archive.store.uri(record_key("a.mp4"))
    assert "a commit record cannot be read" in problem.reason
    assert archive.store.read(record_key("a.mp4")) == b"half"


def test_derive_finishes_what_a_killed_one_began(archive: Archive) -> None:
    undisturbed = tables(archive)
    record = archive.record("a.mp4")
    from posebatch.run.workers.derive import _marked  # noqa: PLC0415 - the record in between

    store = LocalStore(archive.store.root)
    others = [each for each in record.objects if each.kind == "frames"]
    store.put(record_key("a.mp4"), record_to_bytes(_marked(record, record.objects[0], others)))
    assert any("being derived" in problem for problem in verify(store).problems)
    assert counts(archive.run()) == (0, 1, 1, 0)
    assert tables(archive) == undisturbed
    assert archive.record("a.mp4") == record
