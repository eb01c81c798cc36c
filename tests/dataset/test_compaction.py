"""`posebatch compact`: the tables that it writes, and what readers, `verify` and `gc` make of them."""

import builtins
import importlib.util
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import deltalake
import duckdb
import hypothesis.strategies as st
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from faults.suite import FULL
from hypothesis import HealthCheck, given, settings
from support.compaction_factories import (
    READERS,
    assert_compacted,
    assert_same_rows,
    fail,
    publish_some,
    read_all,
    remove_video,
)
from support.s3_server import S3Server
from support.upkeep_factories import EARLIER_VIDEOS, make_version_3, publish, publish_earlier, with_version

import posebatch
from posebatch.cli import main
from posebatch.core.errors import InputError, NewerOutputError, OutputHeldError, PutRefusedError
from posebatch.dataset.compaction import compaction as compaction_module
from posebatch.dataset.compaction import delta, files, snapshot
from posebatch.dataset.compaction.compaction import compact
from posebatch.dataset.compaction.leases import hold_compaction
from posebatch.dataset.compaction.names import ALL_TABLES, PATH
from posebatch.dataset.gc import AgeLimit, remove, unreferenced
from posebatch.dataset.layout import record_key
from posebatch.dataset.publication import read_record
from posebatch.dataset.tables.records import record_to_bytes
from posebatch.dataset.verify import verify
from posebatch.storage.local import LocalStore
from posebatch.storage.open import open_store

ODD = ["dt=1/ü é/100%.mp4", "dt=1/_raw/a=b.mp4", "dt=a b/#?&+.mp4", "dt=1/clip.mp4/x.mp4", "dt='/\u202e\"$.mp4"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output without compacted tables; tests work on copies."""
    out = tmp_path_factory.mktemp("published")
    publish_some(out)
    return out


@pytest.fixture(scope="module")
def published_and_compacted(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compacted") / "out"
    shutil.copytree(published, out)
    compact(LocalStore(out))
    return out


@pytest.fixture
def root(tmp_path: Path, published: Path) -> str:
    shutil.copytree(published, tmp_path / "out")
    return str(tmp_path / "out")


@pytest.fixture
def compacted(tmp_path: Path, published_and_compacted: Path) -> str:
    shutil.copytree(published_and_compacted, tmp_path / "out")
    return str(tmp_path / "out")


@pytest.fixture
def on_s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    bucket = f"b{uuid.uuid4().hex}"
    s3_server.client().create_bucket(Bucket=bucket)
    return f"s3://{bucket}/out ü=1"


# --- what it writes ----------------------------------------------------------------------------------------------


def test_compact_refuses_what_is_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["compact", "--output", str(tmp_path)]) == 2
    assert "no output of posebatch" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="nothing to compact"):
        compact(LocalStore(tmp_path))


def test_compact_refuses_a_root_that_the_library_would_decode(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    publish(tmp_path / "a%41", "a.mp4")
    assert main(["compact", "--output", str(tmp_path / "a%41")]) == 2
    assert "percent sign" in capsys.readouterr().err
    assert read_all(str(tmp_path / "a%41"), True)["videos"].shape[0] == 1


def test_compact_takes_every_video_once(root: str, capsys: pytest.CaptureFixture[str]):
    assert main(["compact", "--output", root]) == 0
    assert "4 videos taken, 0 dropped, 4 videos in the tables" in capsys.readouterr().out
    assert_compacted(root)
    assert main(["compact", "--output", root]) == 0
    assert "0 videos taken, 0 dropped, 4 videos in the tables; 0 files" in capsys.readouterr().out
    assert deltalake.DeltaTable(f"{root}/compact/videos").version() == 1


def test_other_libraries_read_the_tables(compacted: str):
    for name in ALL_TABLES:
        address, rows = f"{compacted}/compact/{name}", len(READERS[name](compacted))
        table = deltalake.DeltaTable(address)
        dataset = table.to_pyarrow_dataset()
        assert dataset.count_rows() == rows
        assert len(table.to_pandas()) == rows
        assert duckdb.sql("SELECT count(*) FROM dataset").fetchall() == [(rows,)]
        assert pl.scan_delta(address).select(pl.len()).collect().item() == rows
    poses = deltalake.DeltaTable(f"{compacted}/compact/poses").to_pyarrow_dataset()
    assert duckdb.sql("SELECT count(*) FROM poses WHERE dt >= '2026-01-01'").fetchall() == [(poses.count_rows(),)]
    frame = pl.scan_delta(f"{compacted}/compact/poses").filter(pl.col("dt") == "2026-01-02").collect()
    assert set(frame[PATH]) == {"dt=2026-01-02/c.mp4"}


def test_tables_are_partitioned_by_the_day_of_publication_without_folders(tmp_path: Path):
    publish(tmp_path, "a.mp4"), publish(tmp_path, "b.mp4")
    os.utime(tmp_path / "videos/b.mp4.parquet", (1.7e9, 1.7e9))
    compact(LocalStore(tmp_path))
    partitions = deltalake.DeltaTable(tmp_path / "compact/poses").partitions()
    assert {"published_day": "2023-11-14"} in partitions
    assert len(partitions) == 2
    assert_compacted(str(tmp_path))


def test_rows_are_sorted_and_files_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "TARGET_BYTES", 1)
    for number in (3, 1, 2):
        publish(tmp_path, f"{number}.mp4")
    compact(LocalStore(tmp_path))
    written = [pq.read_table(path) for path in (tmp_path / "compact/poses").rglob("*.parquet")]
    assert sorted(set(table[PATH].to_pylist()).pop() for table in written) == ["1.mp4", "2.mp4", "3.mp4"]
    assert all(table["frame_index"].to_pylist() == sorted(table["frame_index"].to_pylist()) for table in written)
    assert_compacted(str(tmp_path))


def test_checkpoints_of_the_log_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(delta, "CHECKPOINT_VERSIONS", 2)
    for number in range(3):
        publish(tmp_path, f"{number}.mp4")
        compact(LocalStore(tmp_path))
    assert (tmp_path / "compact/videos/_delta_log/00000000000000000002.checkpoint.parquet").exists()
    assert_compacted(str(tmp_path))


@pytest.mark.parametrize("target_bytes", [1, 128 << 20] if FULL else [1])
def test_compact_follows_all_changes(root: str, monkeypatch: pytest.MonkeyPatch, target_bytes: int):
    """New, replaced, removed, failed then ok, ok then failed, a new partition, small batches, small files or one."""
    monkeypatch.setattr(files, "TARGET_BYTES", target_bytes)
    store = LocalStore(root)
    compact(store)
    publish(root, "dt=2026-01-01/aa.mp4", persons=3)
    publish(root, "dt=2026-01-03/e.mp4")
    publish(root, "dt=2026-01-01/b.mp4", persons=1, stride=2)
    publish(root, "dt=2026-01-02/d.mp4")
    fail(store, "dt=2026-01-01/a.mp4")
    remove_video(store, "dt=2026-01-02/c.mp4")
    assert_same_rows(root)
    done = compact(store, batch_videos=2)
    assert (done.taken, done.dropped, done.videos, done.batches) == (5, 4, 5, 3)
    assert_compacted(root)
    for name in read_all(root, False)["videos"]["video"].str.removeprefix("/in/"):
        remove_video(store, name)
    assert compact(store).videos == 0
    assert deltalake.DeltaTable(f"{root}/compact/poses").to_pyarrow_dataset().count_rows() == 0


def test_new_rows_join_small_files_of_their_partition(compacted: str):
    publish(compacted, "dt=2026-01-01/c.mp4")
    compact(LocalStore(compacted))
    assert len(deltalake.DeltaTable(f"{compacted}/compact/poses").partitions()) == 2
    assert len(deltalake.DeltaTable(f"{compacted}/compact/poses").file_uris()) == 2
    assert_compacted(compacted)


def test_odd_names_come_out_as_they_are(tmp_path: Path):
    from posebatch.dataset.output_paths import encode_output_path  # noqa: PLC0415

    root = str(tmp_path / "out %zz ü")
    for name in ODD:
        publish(root, encode_output_path(name))
    compact(LocalStore(root))
    assert_compacted(root)
    assert len(deltalake.DeltaTable(Path(root, "compact/poses").as_uri()).partitions()) == 3


def test_outputs_of_earlier_versions_are_taken(tmp_path: Path):
    publish(tmp_path, "new.mp4")
    publish(tmp_path, "third.mp4"), make_version_3(LocalStore(tmp_path), "third.mp4")
    for number, columns in enumerate(EARLIER_VIDEOS.values()):
        publish_earlier(tmp_path, f"{number}.mp4", columns)
    compact(LocalStore(tmp_path))
    assert_compacted(str(tmp_path))


def test_columns_of_a_later_version_are_added(root: str, monkeypatch: pytest.MonkeyPatch):
    """A compaction that lacks columns of today gets them; older rows have null there."""
    store = LocalStore(root)
    for module in (compaction_module, snapshot):
        monkeypatch.setattr(module, "SCHEMA_VERSION", 3)
    from posebatch.dataset.compaction import columns  # noqa: PLC0415

    today = dict(columns.PLAIN_SCHEMAS)
    for name, column in (("frames", "time_status"), ("videos", "grade")):
        monkeypatch.setitem(columns.PLAIN_SCHEMAS, name, today[name].remove(today[name].get_field_index(column)))
    compact(store)
    monkeypatch.undo()
    publish(root, "dt=2026-01-01/new.mp4")
    compact(store)
    rows = deltalake.DeltaTable(f"{root}/compact/videos").to_pandas()
    assert "grade" in rows
    assert "time_status" in deltalake.DeltaTable(f"{root}/compact/frames").to_pandas()


def test_newer_compactions_are_refused(compacted: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshot, "SCHEMA_VERSION", 1)
    with pytest.raises(NewerOutputError, match="compact/videos"):
        compact(LocalStore(compacted))
    with pytest.raises(NewerOutputError, match="compact/videos"):
        read_all(compacted, True)


# --- what it leaves out -------------------------------------------------------------------------------------------


def test_damaged_tables_are_left_out_and_named(root: str, capsys: pytest.CaptureFixture[str]):
    damaged = Path(root, "motion/dt=2026-01-01/a.mp4.parquet")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    Path(root, "videos/dt=2026-01-02/d.mp4.parquet").write_bytes(b"no record")
    Path(root, "poses/dt=2026-01-02/c.mp4.parquet").unlink()
    assert main(["compact", "--output", root]) == 3
    out = capsys.readouterr().out
    assert "problem: dt=2026-01-01/a.mp4: motion/dt=2026-01-01/a.mp4.parquet: its bytes are not those" in out
    assert "problem: dt=2026-01-02/d.mp4: videos/" in out
    assert "problem: dt=2026-01-02/c.mp4: " in out
    assert "1 video taken" in out
    verdict = verify(LocalStore(root))
    assert (verdict.compacted, verdict.compaction_behind) == (1, 2)
    assert not [problem for problem in verdict.problems if "compact/" in problem]


@pytest.mark.parametrize("has_checksum", [True, False])
def test_a_video_that_is_published_again_meanwhile_is_left_to_the_next_compaction(
    root: str, monkeypatch: pytest.MonkeyPatch, has_checksum: bool
):
    """Its record is read, then another process replaces everything, then its tables are read."""
    store, name = LocalStore(root), "dt=2026-01-01/a.mp4"
    if not has_checksum:
        record = read_record(store, name)
        assert record is not None
        objects = tuple(replace(published, sha256=None) for published in record.objects)
        store.put(record_key(name), record_to_bytes(replace(record, objects=objects)))
    fetch = LocalStore.fetch

    def publishing(self: LocalStore, key: str) -> tuple[bytes, str]:
        if key == f"poses/{name}.parquet":
            monkeypatch.undo()
            publish(root, name, persons=3)
        return fetch(self, key)

    monkeypatch.setattr(LocalStore, "fetch", publishing)
    done = compact(store)
    assert [(video.path, video.is_problem) for video in done.left] == [(name, False)]
    assert_same_rows(root)
    compact(store)
    assert_compacted(root)


def test_a_newer_video_ends_the_compaction(root: str):
    record = Path(root, "videos/dt=2026-01-01/a.mp4.parquet")
    record.write_bytes(with_version(record.read_bytes(), 99))
    with pytest.raises(NewerOutputError, match=r"a\.mp4"):
        compact(LocalStore(root))


# --- readers ------------------------------------------------------------------------------------------------------


def test_readers_add_what_is_newer(compacted: str):
    store = LocalStore(compacted)
    publish(compacted, "dt=2026-01-01/a.mp4", persons=3)
    publish(compacted, "new.mp4", persons=1)
    remove_video(store, "dt=2026-01-01/b.mp4")
    assert_same_rows(compacted)
    poses = Path(compacted, "poses/dt=2026-01-02/c.mp4.parquet")
    os.utime(poses)  # written again with the same bytes, by a process that was taken for dead
    assert_same_rows(compacted)
    Path(compacted, "tracks/new.mp4.parquet").unlink()
    assert_same_rows(compacted)


def test_a_query_of_a_table_without_small_files_finds_no_rows(compacted: str):
    shutil.rmtree(Path(compacted, "tracks"))
    assert posebatch.connect(compacted).sql("SELECT count(*) FROM tracks").fetchall() == [(0,)]


@pytest.mark.parametrize("match", ["dt=2026-01-01/*", "*/[ab].mp4"])
def test_readers_match_paths_and_choose_columns(compacted: str, match: str):
    publish(compacted, "dt=2026-01-01/a.mp4", persons=3)
    chosen = {"match": match, "columns": ["video"]}
    expected = read_all(compacted, False, **chosen)
    for name, frame in read_all(compacted, True, **chosen).items():
        pd.testing.assert_frame_equal(frame, expected[name])


def test_readers_use_the_compaction(compacted: str, monkeypatch: pytest.MonkeyPatch):
    expected = read_all(compacted, False)

    def refuse(self: LocalStore, key: str) -> bytes:
        raise AssertionError(f"{key} was read")

    monkeypatch.setattr(LocalStore, "read", refuse)
    for name, frame in read_all(compacted, True).items():
        pd.testing.assert_frame_equal(frame, expected[name])


def test_readers_go_without_the_library(compacted: str, monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "deltalake" else find(name))
    monkeypatch.setattr(builtins, "__import__", _without_deltalake(builtins.__import__))
    with pytest.warns(UserWarning, match=r"posebatch\[compact\]"):
        assert len(read_all(compacted, True)["videos"]) == 4
    assert verify(LocalStore(compacted)).compaction_unchecked
    assert list(unreferenced(LocalStore(compacted), AgeLimit(1e12, 3600))) == []
    assert main(["compact", "--output", compacted]) == 2


def _without_deltalake(original):
    def importing(name, *arguments, **keywords):
        if name.partition(".")[0] == "deltalake":
            raise ModuleNotFoundError(name)
        return original(name, *arguments, **keywords)

    return importing


def test_a_query_lists_and_reads_the_named_table_alone(compacted: str, monkeypatch: pytest.MonkeyPatch):
    prefixes = []
    original = LocalStore.list

    def listing(self: LocalStore, prefix: str = ""):
        prefixes.append(prefix)
        return original(self, prefix)

    monkeypatch.setattr(LocalStore, "list", listing)
    database = posebatch.connect(compacted)
    assert prefixes == ["videos/"]
    database.sql("SELECT count(*) FROM motion").fetchall()
    assert prefixes == ["videos/", "motion/", "compact/videos/_delta_log/"]


# --- two at once --------------------------------------------------------------------------------------------------


def test_a_second_compaction_is_refused(root: str, capsys: pytest.CaptureFixture[str]):
    store = LocalStore(root)
    with hold_compaction(store, "compact-1", False, print, print):
        with pytest.raises(OutputHeldError), hold_compaction(store, "compact-2", False, print, print):
            pass
        assert main(["compact", "--output", root]) == 2
        assert main(["gc", "--delete", "--output", root]) == 0  # nothing is compacted yet
    assert main(["compact", "--output", root]) == 0
    with hold_compaction(store, "compact-1", False, print, print):
        assert main(["gc", "--delete", "--output", root]) == 2
    assert "compact-1" in capsys.readouterr().err


@pytest.mark.parametrize("at", ["poses", "videos"])
def test_two_compactions_without_a_lease_do_no_harm(root: str, monkeypatch: pytest.MonkeyPatch, at: str):
    """A second one runs as a whole right before a transaction of the first."""
    store, commit = LocalStore(root), delta.Table.commit

    def racing(self: delta.Table, *arguments) -> int:
        if self._address.endswith(f"/{at}"):
            monkeypatch.undo()
            compact(store)
        return commit(self, *arguments)

    monkeypatch.setattr(delta.Table, "commit", racing)
    with pytest.raises(PutRefusedError, match="meanwhile"):
        compact(store)
    assert_same_rows(root)
    compact(store)
    assert_compacted(root)


# --- verify -------------------------------------------------------------------------------------------------------


def _commit(root: str, name: str, added, removed) -> None:
    """A transaction by hand, which `videos` then states: what a fault of the code would leave."""
    store = LocalStore(root)
    held = snapshot.open_snapshot(store)
    table = delta.open_table(held._access, f"compact/{name}")
    schema = compaction_module.table_schema(name, held.partitioning)
    version = table.commit(delta.Commit(added, removed, {}, {}), schema)
    videos = delta.open_table(held._access, "compact/videos")
    videos.commit(
        delta.Commit([], [], {f"posebatch.{name}": version}, {}),
        compaction_module.table_schema("videos", held.partitioning),
    )


def test_verify_finds_missing_and_doubled_rows(compacted: str):
    held = snapshot.open_snapshot(LocalStore(compacted))
    (file, *_) = held.files("motion")
    _commit(compacted, "motion", [], [file])
    assert any("0 rows of dt=2026-01-01/a.mp4" in problem for problem in verify(LocalStore(compacted)).problems)
    again = replace(file, path="again.parquet")
    content = Path(compacted, "compact/motion", file.path).read_bytes()
    Path(compacted, "compact/motion/again.parquet").write_bytes(content)
    _commit(compacted, "motion", [file, again], [])
    (problem,) = verify(LocalStore(compacted)).problems
    assert "compact/motion: " in problem
    assert "rows of dt=2026-01-01/a.mp4, its record says" in problem


def test_verify_finds_rows_of_no_video_wrong_statistics_and_lost_files(compacted: str):
    store = LocalStore(compacted)
    held = snapshot.open_snapshot(store)
    (file,) = [file for file in held.files("frames") if dict(file.partition)["dt"] == "2026-01-01"]
    table = pq.read_table(Path(compacted, "compact/frames", file.path), partitioning=None)
    names = [name.replace("/b.", "/z.") for name in table[PATH].to_pylist()]
    pq.write_table(
        table.set_column(table.schema.get_field_index(PATH), PATH, [names]),
        Path(compacted, "compact/frames", file.path),
    )
    problems = "\n".join(verify(store).problems)
    assert "0 rows of dt=2026-01-01/b.mp4" in problems
    assert "4 rows of dt=2026-01-01/z.mp4, which compact/videos does not have" in problems
    assert "outside of its statistics" in problems
    Path(compacted, "compact/frames", file.path).unlink()
    assert any(file.path in problem for problem in verify(store).problems)


def test_deep_verify_finds_a_changed_value(compacted: str):
    store = LocalStore(compacted)
    (path,) = Path(compacted, "compact/poses/dt=2026-01-01").glob("*.parquet")
    table = pq.read_table(path, partitioning=None)
    column = table.schema.get_field_index("nose_x")
    values = table["nose_x"].to_numpy().copy()
    values[3] += 1
    pq.write_table(table.set_column(column, table.schema.field(column), [values]), path)
    assert verify(store).problems == ()
    (problem,) = verify(store, deep=True).problems
    assert problem == "compact/poses: dt=2026-01-01/a.mp4 differs from poses/ in nose_x"


def test_verify_counts_what_is_newer(compacted: str, capsys: pytest.CaptureFixture[str]):
    publish(compacted, "new.mp4")
    assert main(["verify", "--output", compacted]) == 0
    assert "compacted tables: 4 videos; 1 not compacted yet" in capsys.readouterr().out


# --- gc -----------------------------------------------------------------------------------------------------------


def test_gc_removes_files_of_no_table_after_the_limit(compacted: str):
    store = LocalStore(compacted)
    publish(compacted, "dt=2026-01-01/a.mp4", persons=3)
    compact(store)
    stray = Path(compacted, "compact/poses/dt=2026-01-01", "0" * 32 + ".parquet")
    stray.write_bytes(b"x")
    foreign = Path(compacted, "compact/poses/notes.txt")
    foreign.write_bytes(b"x")
    for path in Path(compacted, "compact").rglob("*"):
        os.utime(path, (1e9, 1e9))
    limit = AgeLimit(2e9, 7 * 86_400)
    assert [leftover.key for leftover in unreferenced(store, limit)] == [str(stray.relative_to(compacted))]
    for leftover in unreferenced(store, limit):
        assert remove(store, leftover, limit)
    assert_compacted(compacted)
    # files that a transaction removed long ago
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delta.time, "time", lambda: 1.7e9)
        publish(compacted, "dt=2026-01-01/a.mp4", persons=1)
        compact(store)
    for path in Path(compacted, "compact").rglob("*"):
        os.utime(path, (1e9, 1e9))
    replaced = list(unreferenced(store, limit))
    assert {leftover.key.split("/")[1] for leftover in replaced} == {"poses", "frames", "tracks", "motion", "videos"}
    for leftover in replaced:
        remove(store, leftover, limit)
    assert_compacted(compacted)


def test_gc_keeps_the_files_that_readers_use_after_a_killed_compaction(compacted: str, monkeypatch: pytest.MonkeyPatch):
    store, commit = LocalStore(compacted), delta.Table.commit
    publish(compacted, "dt=2026-01-01/a.mp4", persons=3)

    def killed(self: delta.Table, *arguments) -> int:
        if self._address.endswith("/videos"):
            raise KeyboardInterrupt
        return commit(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(delta.Table, "commit", killed)
        patch.setattr(delta.time, "time", lambda: 1.7e9)
        with pytest.raises(KeyboardInterrupt):
            compact(store)
    for path in Path(compacted, "compact").rglob("*.parquet"):
        os.utime(path, (1e9, 1e9))
    limit = AgeLimit(2e9, 7 * 86_400)
    for leftover in list(unreferenced(store, limit)):
        assert remove(store, leftover, limit)
    assert_same_rows(compacted)
    compact(store)
    assert_compacted(compacted)


# --- S3, and any order of events ------------------------------------------------------------------------------------


@pytest.mark.s3
def test_compaction_on_s3(on_s3: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch):
    url = s3_server.endpoint_url
    monkeypatch.delenv("AWS_ENDPOINT_URL"), monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    publish_some(on_s3, url)
    command = ["--output", on_s3, "--endpoint-url", url]
    assert main(["compact", *command]) == 0
    assert_compacted(on_s3, url)
    store = open_store(on_s3, url)
    publish(on_s3, "dt=2026-01-01/a.mp4", persons=3, endpoint_url=url)
    remove_video(store, "dt=2026-01-02/c.mp4")
    assert_same_rows(on_s3, url)
    held = snapshot.open_snapshot(store)
    table = delta.open_table(held._access, "compact/poses")
    assert main(["compact", *command]) == 0
    with pytest.raises(PutRefusedError):  # the put of a commit is conditional
        table.commit(delta.Commit([], [], {"x": 1}, {}), compaction_module.table_schema("poses", held.partitioning))
    assert_compacted(on_s3, url)
    assert main(["gc", *command]) == 0


@pytest.mark.s3
def test_compact_with_wrong_credentials_says_so(
    on_s3: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    publish(on_s3, "a.mp4", endpoint_url=s3_server.endpoint_url)
    access = snapshot.delta_access

    def denied(root: str, endpoint_url: str | None = None):
        found = access(root, endpoint_url)
        return replace(found, options={**found.options, "AWS_SECRET_ACCESS_KEY": "wrongwrong"})

    for module in (snapshot, compaction_module):
        monkeypatch.setattr(module, "delta_access", denied)
    assert main(["compact", "--output", on_s3]) == 1
    err = capsys.readouterr().err
    assert "compact/" in err
    assert "Traceback" not in err
    assert "wrongwrong" not in err


EVENTS = st.lists(
    st.tuples(st.sampled_from(["publish", "remove", "fail", "compact"]), st.integers(0, 3), st.integers(0, 2)),
    max_size=6,
)


@settings(max_examples=60 if FULL else 2, suppress_health_check=list(HealthCheck))
@given(events=EVENTS)
def test_small_files_are_what_readers_return_after_any_events(tmp_path_factory: pytest.TempPathFactory, events):
    root = tmp_path_factory.mktemp("out")
    store = LocalStore(root)
    publish(root, "dt=0/first.mp4")
    for event, video, persons in events:
        name = f"dt={video % 2}/{video}.mp4"
        match event:
            case "publish":
                publish(root, name, persons)
            case "remove":
                remove_video(store, name)
            case "fail":
                fail(store, name)
            case "compact":
                compact(store)
    assert_same_rows(str(root))
    compact(store)
    assert_compacted(str(root))
