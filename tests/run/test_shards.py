"""Runs with --shard: what each lists, which records it looks at, and its ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from faults.plain_runs import plain_command
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cached_records import records_converted_once  # noqa: F401 - a fixture of this module
from support.factories import publish_record
from support.memory_store import MemoryStore
from support.tiny_video import write_tiny_video

from posebatch.core.errors import InputError
from posebatch.core.fingerprints import digest
from posebatch.core.records import VideoRecord
from posebatch.core.selection_settings import SelectionSettings
from posebatch.core.settings import settings_from
from posebatch.core.shards import Shard
from posebatch.core.videos import SourceVideo
from posebatch.dataset.layout import LEDGER_KEY, ledger_key, record_key
from posebatch.dataset.output_paths import check_case_collisions
from posebatch.run.context import RunContext
from posebatch.run.planning.commit_index import CommitIndex, Scope
from posebatch.run.planning.decisions import Action
from posebatch.run.planning.inputs import InputListing, VideoList, list_inputs, parse_inputs
from posebatch.run.planning.ledger import Ledger
from posebatch.run.planning.planner import decisions
from posebatch.storage.local import LocalStore

CONTEXT = RunContext("run-1", settings_from({"track": False}), "/out", "d@1", "p@1")


# --- the listing ------------------------------------------------------------------------------------------------------


def list_shard(folder: Path, shard: str | None, *more: str) -> InputListing:
    return list_inputs(parse_inputs([str(folder), *more]), SelectionSettings(shard=shard))


def paths(listing: InputListing) -> list[str]:
    return [video.output_path for video in listing.videos]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for number in range(40):
        for name in (f"{number:02d}.mp4", f"{number:02d}.txt"):
            path = tmp_path / "in" / f"dt={number % 3}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return tmp_path / "in"


@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_shards_list_each_file_once_together(archive: Path, count: int) -> None:
    """64 shards of 40 videos: some are empty, which is no error."""
    whole = list_shard(archive, None)
    shards = [list_shard(archive, f"{number}/{count}") for number in range(1, count + 1)]
    assert sorted(path for shard in shards for path in paths(shard)) == sorted(paths(whole))
    assert sum(shard.passed_over.files for shard in shards) == whole.passed_over.files == 40


def test_shard_does_not_depend_on_what_else_is_listed(archive: Path) -> None:
    alone = list_shard(archive, "2/3")
    other = archive.parent / "other"
    (other / "b").mkdir(parents=True)
    (other / "b" / "x.mp4").touch()
    together = list_shard(archive, "2/3", str(other))
    assert [path for path in paths(together) if path != "b/x.mp4"] == paths(alone)


def test_inputs_without_any_video_are_refused_in_every_shard(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    for number in (1, 2):
        with pytest.raises(InputError, match="no video in"):
            list_shard(tmp_path, f"{number}/2")


def test_two_videos_with_one_output_path_are_refused_by_their_shard(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.mp4").touch()
    refused = 0
    for number in (1, 2, 3):
        try:
            list_shard(tmp_path / "a", f"{number}/3", str(tmp_path / "b"))
        except InputError as error:
            refused += "would both be published as" in str(error)
    assert refused == 1


@pytest.mark.parametrize(
    ("listed", "folder"),
    [
        ([], ""),
        (["a.mp4"], ""),
        (["x/a.mp4"], "x/"),
        (["x/y/a.mp4", "x/y/b.mp4"], "x/y/"),
        (["x/y/a.mp4", "x/z/b.mp4"], "x/"),
        (["x/y/a.mp4", "x/yy/b.mp4"], "x/"),
        (["x/y/a.mp4", "x/y"], "x/"),
        (["x/a.mp4", "y/a.mp4", "x/b.mp4"], ""),
    ],
)
def test_video_list_knows_the_folder_that_holds_all(listed: list[str], folder: str) -> None:
    videos = VideoList()
    for path in listed:
        videos.add(SourceVideo(f"/in/{path}", path, "e", 1, 1.0))
    assert videos.folder == folder


@given(st.lists(st.text("ab/", min_size=1, max_size=6), min_size=1, max_size=8))
def test_folder_of_a_video_list_holds_every_path(listed: list[str]) -> None:
    videos = VideoList()
    for path in listed:
        videos.add(SourceVideo("/in", path, "e", 1, 1.0))
    assert all(path.startswith(videos.folder) for path in listed)
    assert videos.folder in ("", *(path[: path.rfind("/") + 1] for path in listed)) or videos.folder.endswith("/")


def test_shard_is_refused_on_a_file_system_that_equates_names(tmp_path: Path) -> None:
    """Two videos whose names differ in case alone may be in different shards, and neither would see the other."""
    store = LocalStore(tmp_path)
    check_case_collisions(store, lambda: [], lambda _: False, part=Shard(1, 2))
    with pytest.raises(InputError, match=r"--shard 1/2: the file system of the output .* run without --shard"):
        check_case_collisions(store, lambda: [], lambda _: True, part=Shard(1, 2))


# --- records and ledger -----------------------------------------------------------------------------------------------


def videos_in(folder: str, number: int) -> list[SourceVideo]:
    names = [f"{folder}{i:04d}.mp4" for i in range(number)]
    return [SourceVideo(f"/in/{name}", name, "e", 1, 1.0) for name in names]


def publish(store: MemoryStore, *videos: SourceVideo) -> None:
    for video in videos:
        record = VideoRecord(video.uri, "e", 1, 1.0, "ok", CONTEXT.data_fingerprint, "run-0", "0", frames_processed=5)
        publish_record(store, video.output_path, record)


def of(part: Shard | None, videos: list[SourceVideo]) -> list[SourceVideo]:
    return [video for video in videos if part is None or part.holds(digest(video.output_path))]


def night(store: MemoryStore, videos: list[SourceVideo], part: Shard | None = None, folder: str = "") -> list[Action]:
    """What a run decides about its part of the videos; it saves the ledger. Counts its requests from 0."""
    store.requests.clear()
    with CommitIndex.load(store, len(videos), Scope(part, folder), few_videos=0) as index:
        return [planned.decision.action for planned in decisions(of(part, videos), index, CONTEXT)]


def entries(store: MemoryStore, part: Shard | None) -> int:
    return len(Ledger.from_bytes(store.contents[ledger_key(part)]))


def test_each_shard_has_a_ledger_of_its_own_records() -> None:
    store, videos = MemoryStore(), videos_in("", 60)
    publish(store, *videos)
    parts = [Shard(number, 3) for number in (1, 2, 3)]
    for part in parts:
        assert set(night(store, videos, part)) == {Action.DONE}
        assert store.requests == {"list": 1, "get": 2 + len(of(part, videos)), "put": 1}, "two ledgers are not there"
    assert LEDGER_KEY not in store.contents
    assert [entries(store, part) for part in parts] == [len(of(part, videos)) for part in parts]
    for part in parts:
        assert set(night(store, videos, part)) == {Action.DONE}
        assert store.requests == {"list": 1, "get": 1}


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, Shard(2, 4)), (Shard(2, 2), Shard(4, 4)), (Shard(3, 4), Shard(7, 8)), (Shard(1, 2), Shard(3, 6))],
)
def test_shards_of_a_finer_division_begin_with_the_ledger_of_the_coarser_one(
    before: Shard | None, after: Shard
) -> None:
    store, videos = MemoryStore(), videos_in("", 80)
    publish(store, *videos)
    night(store, videos, before)
    assert set(night(store, videos, after)) == {Action.DONE}
    assert store.requests["get"] <= 4, "ledgers, no record"


def test_other_divisions_read_the_records_again_and_decide_the_same() -> None:
    store, videos = MemoryStore(), videos_in("", 60)
    publish(store, *videos[:40])
    decided = {}
    for division in (2, 3, 5):
        decided[division] = [
            action for number in range(division) for action in night(store, videos, Shard(number + 1, division))
        ]
    assert {tuple(sorted(actions, key=str)) for actions in decided.values()} == {
        (*[Action.COMPUTE] * 20, *[Action.DONE] * 40)
    }


def test_run_over_one_folder_lists_the_records_of_that_folder() -> None:
    store, old, new = MemoryStore(), videos_in("dt=1/", 2500), videos_in("dt=2/", 10)
    for video in old:
        store.contents[record_key(video.output_path)] = b"never read"
    publish(store, *new)
    assert set(night(store, new, folder="dt=2/")) == {Action.DONE}
    assert store.requests == {"list": 1, "get": 1 + 10, "put": 1}


def test_ledger_keeps_the_records_of_folders_that_were_not_listed() -> None:
    store, first, second = MemoryStore(), videos_in("a/", 5), videos_in("b/", 7)
    publish(store, *first, *second)
    night(store, first, folder="a/")
    night(store, second, folder="b/")
    assert entries(store, None) == 12
    assert set(night(store, [*first, *second])) == {Action.DONE}
    assert store.requests == {"list": 1, "get": 1}
    store.delete(record_key(first[0].output_path))
    night(store, second, folder="b/")
    assert entries(store, None) == 12, "nobody has looked there"
    night(store, first, folder="a/")
    assert night(store, first, folder="a/")[0] is Action.COMPUTE, "an entry without its record decides nothing"
    night(store, [*first, *second])
    assert entries(store, None) == 11


RECORDS = st.sets(st.integers(0, 19))
NIGHTS = st.lists(
    st.tuples(
        RECORDS, RECORDS, st.sampled_from(["", "a/", "b/"]), st.sampled_from([None, (1, 2), (2, 2), (1, 4), (3, 4)])
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(NIGHTS)
def test_index_decides_as_if_every_record_were_read_whatever_part_and_folder_came_before(nights) -> None:
    store, videos = MemoryStore(), [*videos_in("a/", 10), *videos_in("b/", 10)]
    for added, removed, folder, part in nights:
        publish(store, *(videos[number] for number in added))
        for number in removed:
            store.delete(record_key(videos[number].output_path))
        asked = [video for video in videos if video.output_path.startswith(folder)]
        chosen = None if part is None else Shard(*part)
        expected = [
            Action.DONE if record_key(video.output_path) in store.contents else Action.COMPUTE
            for video in of(chosen, asked)
        ]
        assert night(store, asked, chosen, folder) == expected


def test_runs_of_all_shards_publish_every_video_and_name_their_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("0.mp4", "1.mp4")
    for name in names:
        write_tiny_video(tmp_path / "in" / name)
    command = plain_command(monkeypatch)
    output, owners = tmp_path / "out", {_owner(name, 64) for name in names}
    assert len(owners) == 2
    for number in (1, *owners):
        assert command("run", str(tmp_path / "in"), "--output", str(output), "--no-track", f"--shard={number}/64") == 0
    assert command("plan", str(tmp_path / "in"), "--output", str(output), "--shard=1/64") == 0
    assert "\nno video in this shard\n" in capsys.readouterr().out
    summaries = [json.loads(path.read_bytes()) for path in output.glob("runs/*/summary.json")]
    published = {summary["shard"]: summary["published"] for summary in summaries}
    assert published == {"1/64": 0} | {f"{number}/64": 1 for number in owners}


def _owner(path: str, count: int) -> int:
    return next(number for number in range(1, count + 1) if Shard(number, count).holds(digest(path)))
