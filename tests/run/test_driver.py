"""The driver: a run that ends early still leaves a summary, and the ledger as it was."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.driver_runs import kept_signal_handlers, working_pool
from support.fake_pool import FAST, FakePool, Task, no_fault, process
from support.memory_store import MemoryStore
from support.tiny_video import write_tiny_video

from posebatch.core.errors import RunAbortedError, StorageUnavailableError
from posebatch.core.settings import settings_from
from posebatch.core.videos import SourceVideo
from posebatch.run.context import RunContext
from posebatch.run.driver import _job, _schedule, run_job
from posebatch.run.failure_policy import SchedulerLimits
from posebatch.run.meter import RunMeter
from posebatch.run.planning.commit_index import FEW_VIDEOS, CommitIndex
from posebatch.run.planning.inputs import InputListing, VideoList
from posebatch.run.preparation import Prepared
from posebatch.run.progress import Progress
from posebatch.run.run_folder import RunFolder
from posebatch.run.stop_request import StopRequest
from posebatch.run.tally import Tally
from posebatch.run.tasks import SegmentTask
from posebatch.run.workers.video_tasks import perform
from posebatch.storage.local import LocalStore
from posebatch.storage.store import StoredObject


def prepared_on(store: MemoryStore) -> Prepared:
    """A run over so many videos that the commit records are listed."""
    videos = VideoList()
    for i in range(FEW_VIDEOS + 1):
        videos.add(SourceVideo(f"/in/{i}.mp4", f"{i}.mp4", "e", 1, 1.0))
    return Prepared(RunContext("run-1", settings_from({}), "/out", "d@1", "p@1"), store, InputListing(videos))


def run_that_ends_early(store: MemoryStore, stop: StopRequest, message: str) -> None:
    prepared = prepared_on(store)
    folder, meter = RunFolder(store, prepared.context), RunMeter(Tally())
    with pytest.raises(RunAbortedError, match=message), ExitStack() as indexes:
        _schedule(
            _job(prepared, []), folder, stop, lambda _: pytest.fail("no pool"), indexes, SchedulerLimits(), None, meter
        )
    written = set(store.contents) - {"videos/0.mp4.parquet"}
    assert written == {f"{folder.key}/summary.json", f"{folder.key}/videos.parquet"}
    assert json.loads(store.contents[f"{folder.key}/summary.json"])["finished"] is False


def test_driver_aborts_when_the_commit_records_cannot_be_listed():
    class Down(MemoryStore):
        def list(self, prefix: str = "") -> Iterator[StoredObject]:
            raise StorageUnavailableError("the store did not answer")

    run_that_ends_early(Down(), StopRequest(), "the commit records cannot be read: the store did not answer")


def test_driver_stops_while_the_commit_records_are_listed():
    store, stop = MemoryStore(), StopRequest()
    store.put("videos/0.mp4.parquet", b"a record")
    stop.request("SIGTERM")
    run_that_ends_early(store, stop, "stopped by SIGTERM")


def test_driver_that_is_terminated_writes_its_summary_and_releases_the_lease_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A cluster kills it soon after SIGTERM: only the ledger and the workers may still be open then."""
    write_tiny_video(tmp_path / "a.mp4")
    output = LocalStore(tmp_path / "out")
    left: dict[str, tuple[bool, bool]] = {}

    def note(step: str) -> None:
        (summary,) = (json.loads(output.read(one.key)) for one in output.list("runs/") if "summary" in one.key)
        (lease,) = (json.loads(output.read(one.key)) for one in output.list("_state/leases/"))
        left[step] = (summary["finished"], lease["ended"])

    def terminated(_: Task) -> object:
        signal.raise_signal(signal.SIGTERM)
        raise RunAbortedError("the scheduler goes on until it looks at the stop")

    @contextmanager
    def pool(context: RunContext, _stop: StopRequest, _progress: Progress) -> Iterator[FakePool]:
        try:
            yield FakePool(context, no_fault, lambda _: False, terminated)
        finally:
            note("workers")

    def save(index: CommitIndex, *_: object) -> None:
        note("ledger")

    monkeypatch.setattr(CommitIndex, "__exit__", save)
    with kept_signal_handlers(), pytest.raises(RunAbortedError):
        run_job([str(tmp_path / "a.mp4")], output.root, settings_from({}), pool, FAST)
    assert left == {"ledger": (False, True), "workers": (False, True)}
    assert [*left] == ["ledger", "workers"]


def test_driver_writes_the_report_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_tiny_video(tmp_path / "a.mp4")
    output = LocalStore(tmp_path / "out")
    with kept_signal_handlers():
        run_job([str(tmp_path / "a.mp4")], output.root, settings_from({"report": True}), working_pool, FAST)
    (page,) = (one.key for one in output.list("runs/") if one.key.endswith("/report.html"))
    assert f"report   {output.root}/{page}" in capsys.readouterr().out.splitlines()
    assert b"a.mp4" in output.read(page)
    assert b"<canvas" in output.read("reports/a.mp4.html")


def test_driver_ends_well_when_the_report_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(*_: object, **__: object) -> None:
        raise StorageUnavailableError("the store is full")

    write_tiny_video(tmp_path / "a.mp4")
    monkeypatch.setattr("posebatch.report.pages.writing.write_report", fail)
    with kept_signal_handlers():
        settings = settings_from({"report": True})
        outcome = run_job([str(tmp_path / "a.mp4")], str(tmp_path / "out"), settings, working_pool, FAST)
    assert outcome.exit_code == 0
    assert "the report could not be written: the store is full" in capsys.readouterr().err


def test_every_line_of_a_run_is_json_if_that_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "in").mkdir()
    write_tiny_video(tmp_path / "in" / "a.mp4")
    (tmp_path / "in" / "b.mp4").write_bytes(b"no video")

    @contextmanager
    def pool(context: RunContext, _stop: StopRequest, _progress: Progress) -> Iterator[FakePool]:
        def really(task: Task) -> object:
            return process(task, context) if isinstance(task, SegmentTask) else perform(task, context)

        yield FakePool(context, no_fault, lambda _: False, really)

    with kept_signal_handlers():
        run_job([str(tmp_path / "in")], str(tmp_path / "out"), settings_from({"log_format": "json"}), pool, FAST)
    printed = capsys.readouterr()
    begin, end = (json.loads(line) for line in printed.out.splitlines())
    between = [json.loads(line) for line in printed.err.splitlines()]
    assert (begin["event"], end["event"]) == ("run_started", "run_finished")
    assert {line["run_id"] for line in [begin, *between, end]} == {end["run_id"]}
    assert [line["video"] for line in between if line["event"] == "video_failed"] == [str(tmp_path / "in" / "b.mp4")]
    assert (end["published"], end["failed"], end["exit_code"]) == (1, 1, 3)
