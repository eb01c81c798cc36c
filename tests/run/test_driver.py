"""The driver: a run that ends early still leaves a summary, and the ledger as it was."""

import json
from collections.abc import Iterator

import pytest
from support.memory_store import MemoryStore

from posebatch.core.errors import RunAbortedError, StorageUnavailableError
from posebatch.core.settings import settings_from
from posebatch.core.videos import SourceVideo
from posebatch.run.context import RunContext
from posebatch.run.driver import _schedule
from posebatch.run.failure_policy import SchedulerLimits
from posebatch.run.planning.commit_index import FEW_VIDEOS
from posebatch.run.planning.inputs import InputListing, VideoList
from posebatch.run.preparation import Prepared
from posebatch.run.run_folder import RunFolder
from posebatch.run.stop_request import StopRequest
from posebatch.storage.store import StoredObject


def prepared_on(store: MemoryStore) -> Prepared:
    """A run over so many videos that the commit records are listed."""
    videos = VideoList()
    for i in range(FEW_VIDEOS + 1):
        videos.add(SourceVideo(f"/in/{i}.mp4", f"{i}.mp4", "e", 1, 1.0))
    return Prepared(RunContext("run-1", settings_from({}), "/out", "d@1", "p@1"), store, InputListing(videos))


def run_that_ends_early(store: MemoryStore, stop: StopRequest, message: str) -> None:
    prepared = prepared_on(store)
    folder = RunFolder(store, prepared.context)
    with pytest.raises(RunAbortedError, match=message):
        _schedule(prepared, folder, stop, lambda _: pytest.fail("no pool"), SchedulerLimits())
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
