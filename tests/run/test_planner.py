"""Planning ahead of a run: videos in bulk or one by one, and the end of the thread."""

import threading
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
from posebatch.run.outcome import Problems
from posebatch.run.planning.commit_index import FEW_VIDEOS, CommitIndex
from posebatch.run.planning.planner import Planned, Planner, SkippedVideos
from posebatch.run.tally import Tally


def context(**chosen) -> RunContext:
    return RunContext("run-1", settings_from({"track": False, **chosen}), "/out", "d@1", "p@1")


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


def planned(
    videos: Iterable[SourceVideo], store: MemoryStore, many: bool = False, skipped_together: int = 4096, **chosen
) -> Iterator:
    planner = Planner(videos, CommitIndex.load(store, FEW_VIDEOS + many), context(**chosen), skipped_together)
    try:
        while not planner.exhausted:
            item = planner.poll(0.01)
            if item is not None:
                yield item
    finally:
        planner.close()


def essence(item: Planned | SkippedVideos) -> object:
    if isinstance(item, Planned):
        return item.video.output_path
    return (item.up_to_date, item.quarantined, item.partial, item.size_bytes, len(item.problems))


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
def test_planner_skips_videos_without_work_in_bulk(many, looks, chosen, items):
    store, videos = archive(looks)
    assert [essence(item) for item in planned(videos, store, many, skipped_together=4, **chosen)] == items


def test_planner_keeps_the_reasons_of_skipped_videos():
    store, videos = archive("dpf")
    (skipped,) = planned(videos, store)
    partial, failed = skipped.problems
    assert (partial.video, partial.decision.partial) == (videos[1], "why /in/1")
    assert (failed.video, failed.decision.reason) == (videos[2], "damaged: why /in/2")


@pytest.mark.parametrize(("chosen", "attempts"), [({}, [0, 2]), ({"retry_failed": True}, [0, 0])])
def test_planner_adds_the_failed_attempts_of_earlier_runs(chosen, attempts):
    store, videos = archive("nn")
    StagingArea.of(store, videos[1], context().data_fingerprint).note_attempt(
        FailedAttempts(2), "worker_died", "killed"
    )
    assert [item.failed_attempts.attempts for item in planned(videos, store, **chosen)] == attempts


def test_planner_stops_amid_a_long_listing_when_closed():
    store, (video,) = archive("d")

    def endless() -> Iterator[SourceVideo]:
        while True:
            yield video

    planner = Planner(endless(), CommitIndex.load(store, 1), context(), skipped_together=100)
    assert planner.poll(60) is not None
    planner.close()
    assert "planner" not in {thread.name for thread in threading.enumerate()}


def test_planner_aborts_the_run_when_the_records_cannot_be_read():
    class Down(MemoryStore):
        def fetch(self, key: str) -> tuple[bytes, str]:
            raise StorageUnavailableError("the store did not answer")

    _, videos = archive("n")
    with pytest.raises(RunAbortedError, match="cannot be read: the store did not answer"):
        list(planned(videos, Down()))


def test_planner_counts_cold_videos_without_a_request_for_them():
    store, videos = archive("nndn")
    cold = [replace(video, cold_class="GLACIER" if number != 1 else "") for number, video in enumerate(videos)]
    *skipped, planned_video, last = planned(cold, store)
    assert (planned_video.video, [one.cold.videos for one in skipped], last.cold.videos) == (videos[1], [1], 1)
    tally, problems = Tally(4), Problems(10)
    for one in (*skipped, last):
        one.count_in(tally, problems)
    assert (tally.cold.videos, tally.up_to_date, tally.videos_done, problems.in_order()) == (2, 1, 3, ())
