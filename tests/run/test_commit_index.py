"""The commit index: with a ledger it says the same as without, whatever has happened to the output meanwhile."""

import io
import json
from dataclasses import replace
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cached_records import records_converted_once  # noqa: F401 - a fixture of this module
from support.factories import publish_record
from support.memory_store import MemoryStore

from posebatch.core.errors import RunAbortedError, StorageError, StorageUnavailableError
from posebatch.core.records import PublishedObject, VideoRecord
from posebatch.core.settings import settings_from
from posebatch.core.videos import SourceVideo
from posebatch.dataset.layout import LEDGER_KEY, record_key
from posebatch.dataset.publication import CommittedRecord
from posebatch.dataset.staging import FailedAttempts, StagingArea
from posebatch.dataset.tables.records import record_to_bytes
from posebatch.run.context import RunContext
from posebatch.run.planning.commit_index import BATCH_VIDEOS, FEW_VIDEOS, CommitIndex
from posebatch.run.planning.decisions import Action
from posebatch.run.planning.ledger import Ledger
from posebatch.run.planning.planner import decisions
from posebatch.run.stop_request import StopRequest
from posebatch.storage.store import StoredObject


def context(**chosen) -> RunContext:
    return RunContext("run-1", settings_from({"track": False, **chosen}), "/out", "d@1", "p@1")


PLAIN, GIF = context(), context(preview="gif")
CONTEXTS = [
    PLAIN,
    GIF,
    context(stride=2),
    context(retry_failed=True, preview="gif"),
    context(on_existing="overwrite"),
]
VIDEOS = [SourceVideo(f"/in/{i}.mp4", f"{i}.mp4", f"etag-{i}", 10 + i, 1.0) for i in range(8)]


def record_of(video: SourceVideo, **changes) -> VideoRecord:
    whole = VideoRecord(
        video=video.uri,
        etag=video.etag,
        size_bytes=video.size_bytes,
        last_modified=video.last_modified,
        status="ok",
        settings_fingerprint=PLAIN.data_fingerprint,
        run_id="run-0",
        posebatch_version="0",
        frames_processed=5,
    )
    return replace(whole, **changes)


def preview(fingerprint: str | None) -> PublishedObject:
    return PublishedObject("preview", "previews/a.gif", 5, 9, str(fingerprint))


LOOKS = [
    {},
    {"etag": "of an older source"},
    {"settings_fingerprint": "other"},
    {"status": "failed", "error_kind": "damaged", "error": "bytes \udcff", "frames_processed": 0},
    {"status": "failed", "error_kind": "limit", "error": "too long"},
    {"status": "partial", "error_kind": "damaged", "error": "3 frames"},
    {"error_kind": "preview", "error": "cannot be drawn"},
    {"frames_processed": 0},
    {"objects": (preview(GIF.preview_fingerprints["preview"]),)},
    {"objects": (preview("other"),)},
]


def load(store: MemoryStore, videos: int = FEW_VIDEOS + 1) -> CommitIndex:
    """By default with the ledger, as for many videos."""
    return CommitIndex.load(store, videos)


def without_ledger(store: MemoryStore) -> CommitIndex:
    return CommitIndex.load(store, 1)


# --- the same decisions -----------------------------------------------------------------------------------------------

VIDEO = st.integers(0, len(VIDEOS) - 1)
LOOK = st.integers(0, len(LOOKS) - 1)
EVENTS = st.one_of(
    st.tuples(st.just("record"), VIDEO, LOOK),
    st.tuples(st.just("gone"), VIDEO),
    st.tuples(st.just("night"), st.lists(st.tuples(VIDEO, LOOK), max_size=3), st.booleans(), st.integers(0, 99)),
    st.tuples(st.just("ledger lost")),
    st.tuples(st.just("ledger damaged"), st.integers(0, 10**6)),
    st.tuples(st.just("older ledger"), st.integers(0, 10**6)),
    st.tuples(st.just("replaced while it is read"), VIDEO, LOOK, LOOK),
)


def commit(store: MemoryStore, number: int, look: int) -> CommittedRecord:
    return publish_record(store, VIDEOS[number].output_path, record_of(VIDEOS[number], **LOOKS[look]))


class History:
    """An output, and everything that may happen to it."""

    def __init__(self) -> None:
        self.store, self.ledgers = MemoryStore(), [b""]

    def happen(self, event: tuple) -> None:
        match event:
            case ("record", number, look):
                commit(self.store, number, look)
            case ("gone", number):
                self.store.delete(record_key(VIDEOS[number].output_path))
            case ("night", commits, saved, asked):
                self.night(commits, saved, VIDEOS[asked % len(VIDEOS) :])
            case ("ledger lost",):
                self.store.delete(LEDGER_KEY)
            case ("ledger damaged", place):
                content = self.store.contents.get(LEDGER_KEY) or b"x"
                place %= len(content)
                self.store.put(LEDGER_KEY, content[:place] + bytes([content[place] ^ 8]) + content[place + 1 :])
            case ("older ledger", which):
                self.store.put(LEDGER_KEY, self.ledgers[which % len(self.ledgers)])
            case ("replaced while it is read", number, first, second):
                self.race(number, first, second)

    def night(self, commits: list[tuple[int, int]], saved: bool, asked: list[SourceVideo]) -> None:
        index = load(self.store)
        list(decisions(asked, index, PLAIN))
        for number, look in commits:
            index.add(commit(self.store, number, look))
        if saved:
            with index:
                pass
            self.ledgers.append(self.store.contents.get(LEDGER_KEY, b""))

    def race(self, number: int, first: int, second: int) -> None:
        """Another run publishes between the listing and the read; later the first version comes back."""
        commit(self.store, number, first)

        def replace_it(_: str) -> None:
            self.store.before_read = lambda _: None
            commit(self.store, number, second)

        with load(self.store) as index:
            self.store.before_read = replace_it
            list(decisions(VIDEOS, index, PLAIN))
            self.store.before_read = lambda _: None
        commit(self.store, number, first)


@settings(max_examples=60)
@given(st.lists(EVENTS, max_size=12))
def test_index_decides_as_if_every_record_were_read(events):
    history = History()
    for event in events:
        history.happen(event)
        assert list(load(history.store).summaries(VIDEOS)) == list(without_ledger(history.store).summaries(VIDEOS))


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("ctx", CONTEXTS)
def test_index_decides_the_same_on_a_record_it_wrote_and_on_one_it_read(look, ctx):
    store = MemoryStore()
    with load(store) as tonight:
        tonight.add(publish_record(store, VIDEOS[0].output_path, record_of(VIDEOS[0], **look)))
    tomorrow = load(store)
    store.requests.clear()
    (decided,) = decisions(VIDEOS[:1], tomorrow, ctx)
    assert store.requests == {}
    assert [decided] == list(decisions(VIDEOS[:1], without_ledger(store), ctx))
    assert store.requests == {"get": 1}


# --- requests and saving ---------------------------------------------------------------------------------------------


def archive(number: int) -> list[SourceVideo]:
    return [SourceVideo(f"/in/{i}.mp4", f"{i}.mp4", "e", 1, 1.0) for i in range(number)]


def actions(videos: list[SourceVideo], index: CommitIndex) -> list[Action]:
    return [planned.decision.action for planned in decisions(videos, index, PLAIN)]


def full_store(videos: list[SourceVideo]) -> MemoryStore:
    """All videos have the ETag of the first, so its record serves for all."""
    store = MemoryStore()
    content = record_to_bytes(record_of(videos[0])) if videos else b""
    for video in videos:
        store.put(record_key(video.output_path), content)
    store.requests.clear()
    return store


def test_index_of_many_videos_needs_few_requests_each_night():
    videos = archive(FEW_VIDEOS + 500)
    store = full_store(videos)
    with load(store, len(videos)) as index:
        assert set(actions(videos, index)) == {Action.DONE}
    assert store.requests == {"list": 2, "get": 1 + 1500, "put": 1}, "no ledger: every record is read, once"

    store.requests.clear()
    with load(store, len(videos)) as index:
        assert index.notice == ""
        assert set(actions(videos, index)) == {Action.DONE}
    assert store.requests == {"list": 2, "get": 1}, "nothing is new: the ledger and the listing"

    new = [replace(video, output_path=f"new/{video.output_path}") for video in videos[:70]]
    publish_record(store, "3.mp4", record_of(videos[3], run_id="run-x"))
    store.requests.clear()
    with load(store, len(videos) + 70) as index:
        assert actions(videos + new, index) == [Action.DONE] * 1500 + [Action.COMPUTE] * 70
        assert store.requests == {"list": 2, "get": 1 + 1}, "only the record that the ledger does not know"
        for video in new:
            index.add(publish_record(store, video.output_path, record_of(video)))

    store.requests.clear()
    with load(store, len(videos) + 70) as index:
        assert set(actions(videos + new, index)) == {Action.DONE}
    assert store.requests == {"list": 2, "get": 1}, "the next run need not read the records that this run has written"


def test_index_of_an_empty_output_reads_no_record():
    store, videos = MemoryStore(), archive(FEW_VIDEOS + 1)
    with load(store, len(videos)) as index:
        assert index.notice == ""
        assert set(actions(videos, index)) == {Action.COMPUTE}
    assert store.requests == {"list": 1, "get": 1}


@pytest.mark.parametrize("number", [0, BATCH_VIDEOS + 1, FEW_VIDEOS])
def test_index_of_few_videos_reads_their_records_and_lists_none(number: int):
    videos = archive(number)
    store = full_store(videos[::2])
    with load(store, number) as index:
        assert actions(videos, index) == [Action.COMPUTE if i % 2 else Action.DONE for i in range(number)]
        index.add(CommittedRecord("0.mp4", "etag", record_of(VIDEOS[0])))
    assert store.requests == ({"get": number} if number else {})


def test_index_keeps_the_records_of_other_videos_in_the_ledger():
    """Two archives go to one output, by commands of their own."""
    first, second = archive(5), [replace(video, output_path=f"b/{video.output_path}") for video in archive(5)]
    store = full_store([*first, *second])
    for videos in (first, second, first, second):
        store.requests.clear()
        with load(store) as index:
            assert set(actions(videos, index)) == {Action.DONE}
    assert store.requests == {"list": 1, "get": 1}


def test_index_removes_records_that_are_gone_from_the_ledger():
    videos = archive(5)
    store = full_store(videos)
    for left in (5, 2, 0):
        for video in videos[left:]:
            store.delete(record_key(video.output_path))
        with load(store) as index:
            list(decisions(videos, index, PLAIN))
        assert len(Ledger.from_bytes(store.contents[LEDGER_KEY])) == left


@pytest.mark.parametrize("ledger", [None, b"", b"damaged", b"\x00" * 100], ids=["lost", "empty", "damaged", "zeros"])
def test_index_says_that_a_lost_ledger_is_rebuilt(ledger: bytes | None):
    videos = archive(4)
    store = full_store(videos)
    if ledger is not None:
        store.put(LEDGER_KEY, ledger)
    with CommitIndex.load(store, 4, few_videos=3) as index:
        assert index.notice == "4 of 4 commit records are not in the ledger: it is being rebuilt by reading them"
        assert set(actions(videos, index)) == {Action.DONE}
    assert CommitIndex.load(store, 4, few_videos=3).notice == ""


def test_index_does_not_take_an_unreadable_output_for_an_empty_one():
    class Down(MemoryStore):
        def fetch(self, key: str) -> tuple[bytes, str]:
            raise StorageUnavailableError(key)

    with pytest.raises(StorageUnavailableError):
        load(Down())


@pytest.mark.parametrize("few", [0, 9], ids=["listed", "few videos"])
def test_index_calls_a_damaged_record_damaged_in_each_run_until_it_is_written_again(few: int):
    videos = archive(3)
    store = full_store(videos)
    store.put(record_key(videos[1].output_path), b"half")
    for _ in range(2):
        with CommitIndex.load(store, 3, few_videos=few) as index:
            decided = [planned.decision for planned in decisions(videos, index, PLAIN)]
            assert [decision.action for decision in decided] == [Action.DONE, Action.COMPUTE, Action.DONE]
            assert decided[1].reason == "its commit record is damaged"
    publish_record(store, videos[1].output_path, record_of(videos[1]))
    with CommitIndex.load(store, 3, few_videos=few) as index:
        assert set(actions(videos, index)) == {Action.DONE}


def test_index_that_is_only_read_writes_nothing():
    store = full_store(archive(3))
    assert set(actions(archive(3), load(store))) == {Action.DONE}
    assert LEDGER_KEY not in store.contents


def test_index_whose_listing_is_stopped_leaves_the_ledger_alone():
    store = full_store(archive(3))
    with load(store) as index:
        list(decisions(archive(3), index, PLAIN))
    before = store.contents[LEDGER_KEY]
    stop = StopRequest()
    stop.request("SIGTERM")
    with pytest.raises(RunAbortedError, match="stopped by SIGTERM"):
        CommitIndex.load(store, FEW_VIDEOS + 1, on_listed=stop.check)
    assert store.contents[LEDGER_KEY] == before


def test_index_saves_what_it_knows_when_the_run_fails():
    store = full_store(archive(3))

    def fail() -> None:
        with load(store) as index:
            list(decisions(archive(3), index, PLAIN))
            raise RunAbortedError("the run cannot go on")

    with pytest.raises(RunAbortedError, match="cannot go on"):
        fail()
    assert len(Ledger.from_bytes(store.contents[LEDGER_KEY])) == 3


def test_index_that_cannot_be_saved_only_says_so():
    class ReadOnly(MemoryStore):
        def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
            raise StorageUnavailableError("the store is down")

    store, said = ReadOnly(), list[str]()
    store.contents = full_store(archive(3)).contents
    with CommitIndex.load(store, FEW_VIDEOS + 1, say=said.append) as index:
        list(decisions(archive(3), index, PLAIN))
    assert said == ["posebatch: the ledger could not be written, the next run reads more: the store is down"]


# --- failed attempts -------------------------------------------------------------------------------------------------


def test_index_reads_failed_attempts_only_where_there_are_any():
    store, videos = MemoryStore(), archive(5)
    index = load(store, len(videos))
    assert [index.failed_attempts(video, "f") for video in videos] == [FailedAttempts()] * 5
    assert store.requests == {"list": 1}
    StagingArea.of(store, videos[2], "f").note_attempt(FailedAttempts(2), "worker_died", "killed")
    StagingArea.of(store, videos[3], "another").note_attempt(FailedAttempts(1), "worker_died", "killed")
    store.requests.clear()
    index = load(store, len(videos))
    assert [index.failed_attempts(video, "f").attempts for video in videos] == [0, 0, 2, 0, 0]
    assert store.requests == {"list": 1, "get": 1}


def test_index_names_a_damaged_count_of_failed_attempts():
    store, (video,) = MemoryStore(), archive(1)
    StagingArea.of(store, video, "f").note_attempt(FailedAttempts(2), "worker_died", "killed")
    (key,) = store.contents
    store.put(key, io.BytesIO(json.dumps([]).encode()))
    with pytest.raises(StorageError, match="not a count of attempts; delete it"):
        load(store, 1).failed_attempts(video, "f")
