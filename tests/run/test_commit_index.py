"""How videos stand: with a ledger never otherwise than by reading every record, whatever has happened between."""

import functools
import io
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.factories import publish_record
from support.memory_store import MemoryStore

from posebatch.core.errors import StorageError, StorageUnavailableError
from posebatch.core.records import PublishedObject, VideoRecord
from posebatch.core.settings import settings_from
from posebatch.core.videos import SourceVideo
from posebatch.dataset import publication
from posebatch.dataset.layout import LEDGER_KEY, record_key
from posebatch.dataset.publication import CommittedRecord
from posebatch.dataset.staging import FailedAttempts, StagingArea
from posebatch.dataset.tables.records import record_to_bytes
from posebatch.run.context import RunContext
from posebatch.run.planning import commit_index as standings_module
from posebatch.run.planning.commit_index import ASKED_TOGETHER, FEW_VIDEOS, CommitIndex
from posebatch.run.planning.decisions import Action
from posebatch.run.planning.ledger import Ledger
from posebatch.run.planning.planner import decisions


def context(**chosen) -> RunContext:
    return RunContext("run-1", settings_from(chosen), "/out", "d@1", "p@1")


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
    {"objects": (preview(GIF.preview_fingerprint),)},
    {"objects": (preview("other"),)},
]


@pytest.fixture(scope="module", autouse=True)
def _parsed_once() -> Iterator[None]:
    """The same few records are written and read thousands of times here, at milliseconds each."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("record_to_bytes", "record_from_bytes"):
            patched.setattr(publication, name, functools.cache(getattr(publication, name)))
        yield


def with_ledger(store: MemoryStore, videos: int = FEW_VIDEOS + 1) -> CommitIndex:
    standings = CommitIndex(store, videos)
    standings.open()
    return standings


# --- never otherwise -----------------------------------------------------------------------------------------------

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
        standings = with_ledger(self.store)
        list(decisions(asked, standings, PLAIN))
        for number, look in commits:
            standings.note(commit(self.store, number, look))
        if saved:
            standings.save()
            self.ledgers.append(self.store.contents.get(LEDGER_KEY, b""))

    def race(self, number: int, first: int, second: int) -> None:
        """Another run publishes between the listing and the read; later the first version comes back."""
        commit(self.store, number, first)
        standings = with_ledger(self.store)

        def replace_it(_: str) -> None:
            self.store.before_read = lambda _: None
            commit(self.store, number, second)

        self.store.before_read = replace_it
        list(decisions(VIDEOS, standings, PLAIN))
        self.store.before_read = lambda _: None
        standings.save()
        commit(self.store, number, first)


@settings(max_examples=60)
@given(st.lists(EVENTS, max_size=12))
def test_decisions_are_those_of_reading_every_record(events):
    history = History()
    for event in events:
        history.happen(event)
        assert list(with_ledger(history.store).of(VIDEOS)) == list(CommitIndex(history.store, 1).of(VIDEOS))


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("ctx", CONTEXTS)
def test_what_this_run_wrote_reads_the_same_from_the_ledger(look, ctx):
    store = MemoryStore()
    tonight = with_ledger(store)
    tonight.note(publish_record(store, VIDEOS[0].output_path, record_of(VIDEOS[0], **look)))
    tonight.save()
    tomorrow = with_ledger(store)
    store.requests.clear()
    (decided,) = decisions(VIDEOS[:1], tomorrow, ctx)
    assert store.requests == {}
    assert [decided] == list(decisions(VIDEOS[:1], CommitIndex(store, 1), ctx))
    assert store.requests == {"get": 1}


# --- what it costs -------------------------------------------------------------------------------------------------


def archive(number: int) -> list[SourceVideo]:
    return [SourceVideo(f"/in/{i}.mp4", f"{i}.mp4", "e", 1, 1.0) for i in range(number)]


def actions(videos: list[SourceVideo], standings: CommitIndex) -> list[Action]:
    return [planned.decision.action for planned in decisions(videos, standings, PLAIN)]


def full_store(videos: list[SourceVideo]) -> MemoryStore:
    """All have the etag of the first, so that its record does for all."""
    store = MemoryStore()
    content = record_to_bytes(record_of(videos[0])) if videos else b""
    for video in videos:
        store.put(record_key(video.output_path), content)
    store.requests.clear()
    return store


def test_nights_over_many_videos():
    videos = archive(FEW_VIDEOS + 500)
    store = full_store(videos)
    standings = with_ledger(store, len(videos))
    assert set(actions(videos, standings)) == {Action.DONE}
    standings.save()
    assert store.requests == {"list": 2, "get": 1 + 1500, "put": 1}, "no ledger: every record is read, once"

    store.requests.clear()
    standings = CommitIndex(store, len(videos))
    assert standings.open() == standings.open() == ""
    assert set(actions(videos, standings)) == {Action.DONE}
    standings.save()
    assert store.requests == {"list": 2, "get": 1}, "nothing is new: the ledger and its proof"

    new = [replace(video, output_path=f"new/{video.output_path}") for video in videos[:70]]
    changed = publish_record(store, "3.mp4", record_of(videos[3], run_id="run-x"))
    store.requests.clear()
    standings = with_ledger(store, len(videos) + 70)
    assert actions(videos + new, standings) == [Action.DONE] * 1500 + [Action.COMPUTE] * 70
    assert store.requests == {"list": 2, "get": 1 + 1}, "only the record that the ledger does not know"
    for video in new:
        standings.note(publish_record(store, video.output_path, record_of(video)))
    standings.save()

    store.requests.clear()
    standings = with_ledger(store, len(videos) + 70)
    assert set(actions(videos + new, standings)) == {Action.DONE}
    assert store.requests == {"list": 2, "get": 1}, "what a run has written, the next one need not read"
    assert changed.etag


def test_a_first_night_reads_nothing():
    store, videos = MemoryStore(), archive(FEW_VIDEOS + 1)
    standings = CommitIndex(store, len(videos))
    assert standings.open() == ""
    assert set(actions(videos, standings)) == {Action.COMPUTE}
    standings.save()
    assert store.requests == {"list": 1, "get": 1}


@pytest.mark.parametrize("number", [0, 1, ASKED_TOGETHER + 1, FEW_VIDEOS])
def test_few_videos_are_asked_for_one_by_one(number: int):
    videos = archive(number)
    store = full_store(videos[::2])
    standings = with_ledger(store, number)
    assert actions(videos, standings) == [Action.COMPUTE if i % 2 else Action.DONE for i in range(number)]
    standings.save()
    assert store.requests == ({"get": number} if number else {})


def test_records_of_other_videos_stay_in_the_ledger():
    """Two archives go to one output, by commands of their own."""
    one, other = archive(5), [replace(video, output_path=f"b/{video.output_path}") for video in archive(5)]
    store = full_store([*one, *other])
    for videos in (one, other, one, other):
        store.requests.clear()
        standings = with_ledger(store)
        assert set(actions(videos, standings)) == {Action.DONE}
        standings.save()
    assert store.requests == {"list": 1, "get": 1}


def test_what_has_gone_leaves_the_ledger():
    videos = archive(5)
    store = full_store(videos)
    for left in (5, 2, 0):
        for video in videos[left:]:
            store.delete(record_key(video.output_path))
        standings = with_ledger(store)
        list(decisions(videos, standings, PLAIN))
        standings.save()
        assert len(Ledger.from_bytes(store.contents[LEDGER_KEY])) == left


@pytest.mark.parametrize("ledger", [None, b"", b"damaged", b"\x00" * 100], ids=["lost", "empty", "damaged", "zeros"])
def test_a_rebuild_is_said(ledger, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(standings_module, "FEW_VIDEOS", 3)
    videos = archive(4)
    store = full_store(videos)
    if ledger is not None:
        store.put(LEDGER_KEY, ledger)
    standings = CommitIndex(store, 4)
    assert standings.open() == "4 of 4 commit records are not in the ledger: it is being rebuilt by reading them"
    assert set(actions(videos, standings)) == {Action.DONE}
    standings.save()
    assert CommitIndex(store, 4).open() == ""


def test_an_output_that_cannot_be_read_is_no_new_output():
    class Down(MemoryStore):
        def fetch(self, key: str) -> tuple[bytes, str]:
            raise StorageUnavailableError(key)

    with pytest.raises(StorageUnavailableError):
        CommitIndex(Down(), FEW_VIDEOS + 1).open()


def test_a_run_that_was_stopped_while_it_listed_leaves_the_ledger_alone():
    videos = archive(3)
    store = full_store(videos)
    standings = with_ledger(store)
    list(decisions(videos, standings, PLAIN))
    standings.save()
    before = store.contents[LEDGER_KEY]

    def broken_off(found: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        yield next(found)
        raise KeyboardInterrupt

    stopped = CommitIndex(store, FEW_VIDEOS + 1)
    with pytest.raises(KeyboardInterrupt):
        stopped.open(broken_off)
    stopped.save()
    assert store.contents[LEDGER_KEY] == before


# --- attempts ------------------------------------------------------------------------------------------------------


def test_attempts_are_read_where_there_are_any():
    store, videos = MemoryStore(), archive(5)
    standings = CommitIndex(store, len(videos))
    assert [standings.tries(video, "f") for video in videos] == [FailedAttempts()] * 5
    assert store.requests == {"list": 1}
    StagingArea.of(store, videos[2], "f").note_attempt(FailedAttempts(2), "worker_died", "killed")
    StagingArea.of(store, videos[3], "another").note_attempt(FailedAttempts(1), "worker_died", "killed")
    store.requests.clear()
    standings = CommitIndex(store, len(videos))
    assert [standings.tries(video, "f").attempts for video in videos] == [0, 0, 2, 0, 0]
    assert store.requests == {"list": 1, "get": 1}


def test_a_damaged_count_of_attempts_is_named():
    store, (video,) = MemoryStore(), archive(1)
    StagingArea.of(store, video, "f").note_attempt(FailedAttempts(2), "worker_died", "killed")
    (key,) = store.contents
    store.put(key, io.BytesIO(json.dumps([]).encode()))
    with pytest.raises(StorageError, match="not a count of attempts; delete it"):
        CommitIndex(store).tries(video, "f")
