"""Planning ahead of a run: what comes in bulk, what one by one, and how it ends."""

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
from support.factories import publish_record
from support.memory_store import MemoryStore

from posebatch.core.errors import RunAbortedError, StorageUnavailableError
from posebatch.core.records import VideoRecord
from posebatch.core.settings import settings_from
from posebatch.core.videos import SourceVideo
from posebatch.dataset.staging import FailedAttempts, StagingArea
from posebatch.run.context import RunContext
from posebatch.run.planning import commit_index as standings_module
from posebatch.run.planning import planner as planner_module
from posebatch.run.planning.commit_index import FEW_VIDEOS, CommitIndex
from posebatch.run.planning.planner import Notice, Planned, Planner, SkippedVideos
from posebatch.storage.store import StoredObject


def context(**chosen) -> RunContext:
    return RunContext("run-1", settings_from(chosen), "/out", "d@1", "p@1")


def archive(looks: str) -> tuple[MemoryStore, list[SourceVideo]]:
    """A video for each letter: (d)one, (p)artial, (f)ailed, or new."""
    store = MemoryStore()
    videos = [SourceVideo(f"/in/{i}", str(i), "e", 10**i, 1.0) for i in range(len(looks))]
    for video, look in zip(videos, looks, strict=True):
        status = {"d": "ok", "p": "partial", "f": "failed"}.get(look)
        if status is not None:
            record = VideoRecord(video.uri, "e", 1, 1.0, status, context().data_fingerprint, "r", "0")
            publish_record(store, video.output_path, replace(record, error_kind="damaged", error=f"why {video.uri}"))
    return store, videos


def planned(videos: Iterable[SourceVideo], store: MemoryStore, many: bool = False, **chosen) -> Iterator:
    planner = Planner(videos, CommitIndex(store, FEW_VIDEOS + many), context(**chosen))
    try:
        while not planner.exhausted:
            item = planner.poll(0.01)
            if item is not None:
                yield item
    finally:
        planner.close()


def told(item: Planned | SkippedVideos | Notice) -> object:
    match item:
        case SkippedVideos():
            return (item.up_to_date, item.quarantined, item.partial, item.size_bytes, len(item.complained))
        case Planned():
            return item.video.output_path
        case _:
            return item.text


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    ("looks", "chosen", "items"),
    [
        pytest.param("", {}, [], id="nothing"),
        pytest.param("n", {}, ["0"], id="new"),
        pytest.param("d", {}, [(1, 0, 0, 1, 0)], id="done"),
        pytest.param("dpf", {}, [(2, 1, 1, 111, 2)], id="nothing to do"),
        pytest.param("dnpfn", {}, [(1, 0, 0, 1, 0), "1", (1, 1, 1, 1100, 2), "4"], id="in their order"),
        pytest.param("nddddd", {}, ["0", (4, 0, 0, 11110, 0), (1, 0, 0, 100000, 0)], id="at most four together"),
        pytest.param("dndndn", {"limit": 1}, [(1, 0, 0, 1, 0), "1", (1, 0, 0, 100, 0)], id="up to the limit"),
        pytest.param("dfd", {"retry_failed": True}, [(1, 0, 0, 1, 0), "1", (1, 0, 0, 100, 0)], id="tried again"),
    ],
)
def test_what_needs_no_work_is_told_together(monkeypatch: pytest.MonkeyPatch, many, looks, chosen, items):
    monkeypatch.setattr(planner_module, "PASSED_TOGETHER", 4)
    store, videos = archive(looks)
    assert [told(item) for item in planned(videos, store, many, **chosen)] == items


def test_the_reasons_are_told():
    store, videos = archive("dpf")
    (passed,) = planned(videos, store)
    partial, failed = passed.complained
    assert (partial.video, partial.decision.partial) == (videos[1], "why /in/1")
    assert (failed.video, failed.decision.reason) == (videos[2], "damaged: why /in/2")


def test_a_notice_comes_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(standings_module, "FEW_VIDEOS", 1)
    store, videos = archive("ddn")
    notice, passed, new = planned(videos, store, many=True)
    assert "2 of 2 commit records are not in the ledger" in notice.text
    assert (told(passed), told(new)) == ((2, 0, 0, 11, 0), "2")


@pytest.mark.parametrize(("chosen", "attempts"), [({}, [0, 2]), ({"retry_failed": True}, [0, 0])])
def test_attempts_of_earlier_runs(chosen, attempts):
    store, videos = archive("nn")
    StagingArea.of(store, videos[1], context().data_fingerprint).note_attempt(
        FailedAttempts(2), "worker_died", "killed"
    )
    assert [item.tries.attempts for item in planned(videos, store, **chosen)] == attempts


class Endless(MemoryStore):
    """Its listing never ends."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        while True:
            time.sleep(0.001)
            yield StoredObject("videos/a.parquet", "e", 1, 1.0)


def test_closing_breaks_the_listing_off():
    _, videos = archive("n")
    planner = Planner(videos, CommitIndex(Endless(), FEW_VIDEOS + 1), context())
    time.sleep(0.05)
    planner.close()
    assert "planner" not in {thread.name for thread in threading.enumerate()}


def test_closing_ends_a_long_pass(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planner_module, "PASSED_TOGETHER", 100)
    store, (video,) = archive("d")

    def endless() -> Iterator[SourceVideo]:
        while True:
            yield video

    planner = Planner(endless(), CommitIndex(store), context())
    assert planner.poll(60) is not None
    planner.close()
    assert "planner" not in {thread.name for thread in threading.enumerate()}


def test_a_listing_that_fails_ends_the_run():
    class Down(MemoryStore):
        def list(self, prefix: str = "") -> Iterator[StoredObject]:
            raise StorageUnavailableError("the store did not answer")

    _, videos = archive("n")
    with pytest.raises(RunAbortedError, match="cannot be read: the store did not answer"):
        list(planned(videos, Down(), many=True))
