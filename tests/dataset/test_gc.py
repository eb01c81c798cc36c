"""`posebatch gc`, and outputs that several versions of posebatch have written; see docs/upkeep.md."""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from support.factories import staged_file
from support.fake_pool import Archive, facts
from support.s3_server import S3Server
from support.upkeep_factories import (
    EARLIER_VIDEOS,
    FIRST_VIDEOS,
    PLAN,
    SECOND_VIDEOS,
    context_of,
    make_earlier,
    publish,
    publish_earlier,
    source,
    stage,
    with_version,
)

from posebatch.cli.entry import build_parser, main
from posebatch.core import fingerprints
from posebatch.core.errors import NewerOutputError, ObjectNotFoundError, RunAbortedError, SettingsError
from posebatch.core.records import VideoRecord
from posebatch.core.shards import Shard
from posebatch.dataset.gc import (
    SECONDS_PER_DAY,
    AgeLimit,
    Unreferenced,
    age_limit,
    check_is_output,
    remove,
    unreferenced,
)
from posebatch.dataset.layout import record_key
from posebatch.dataset.lease import hold_lease
from posebatch.dataset.lease_place import FOLDER
from posebatch.dataset.publication import CommittedRecord, publish_failure, read_record
from posebatch.dataset.staging import FailedAttempts, StagingArea
from posebatch.dataset.tables import parquet, schemas
from posebatch.dataset.tables.readers import read_frames, read_poses, read_videos
from posebatch.dataset.verify import verify
from posebatch.run.tasks import FinalizeTask, PublishPreviewTask, RecordFailureTask
from posebatch.run.workers.finalize import finalize_video
from posebatch.storage.local import LocalStore
from posebatch.storage.s3 import S3Store
from posebatch.storage.store import Store, StoredObject

PAGE = Path(__file__).resolve().parents[2] / "docs/upkeep.md"

WORK_ID, SCRATCH_ID = "0" * 31 + "1", "a" * 32
STAGED = f"_state/staging/{WORK_ID}/"
ATTEMPTS = f"_state/attempts/{WORK_ID}.json"
SCRATCH = f"_state/tmp/{SCRATCH_ID}"


def keys(store: Store) -> set[str]:
    """All keys but those of leases."""
    return {stored.key for stored in store.list() if not stored.key.startswith(FOLDER)}


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of the same objects on a disk."""
    files = [root / key for key in sorted(keys(LocalStore(root)))]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def age(store: LocalStore, days: float, *prefixes: str) -> None:
    """Set the time of objects to some days earlier."""
    for stored in [stored for prefix in prefixes for stored in store.list(prefix)]:
        then = stored.last_modified - days * SECONDS_PER_DAY
        os.utime(Path(store.root, stored.key), (then, then))


def week_hence(store: Store) -> AgeLimit:
    """An age limit that all present objects exceed."""
    limit = age_limit(store, 7)
    return replace(limit, now=limit.now + 8 * SECONDS_PER_DAY)


def litter(store: Store) -> set[str]:
    """Leave unreferenced objects, as killed runs do; returns their keys."""
    left = {f"{STAGED}000000000-2.arrow", f"{STAGED}preview.gif", ATTEMPTS, SCRATCH}
    left |= {"poses/gone.mp4.parquet", "frames/dt=1/gone.mp4.parquet", "previews/gone.mp4.gif"}
    for key in left:
        store.put(key, b"12345")
    return left


FAILED = VideoRecord("/in/c.mp4", "etag-1", 10, 1.5, "failed", "f", "run-1", "0", "damaged", "no frame")


@pytest.fixture
def out(tmp_path: Path) -> LocalStore:
    """Two published videos, one of them with a preview, and a failed one."""
    publish(tmp_path / "out", "dt=1/a.mp4", preview="gif")
    publish(tmp_path / "out", "b.mp4", persons=0)
    publish_failure(LocalStore(tmp_path / "out"), "c.mp4", FAILED)
    return LocalStore(tmp_path / "out")


# --- unreferenced -------------------------------------------------------------------------------------------------


def test_gc_finds_nothing_in_an_empty_output(tmp_path: Path):
    store = LocalStore(tmp_path)
    assert age_limit(store, 7).now == 0
    assert list(unreferenced(store, age_limit(store, 7))) == []
    assert keys(store) == set()


def test_gc_keeps_a_published_dataset_of_any_age(out: LocalStore):
    assert list(unreferenced(out, week_hence(out))) == []


@pytest.fixture(params=["local", "S3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A dataset on a disk, and the same in a bucket."""
    if request.param == "local":
        root, endpoint_url = str(tmp_path / "out"), None
    else:
        server: S3Server = request.getfixturevalue("s3_server")
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        bucket = f"gc-{abs(hash(str(tmp_path))):x}"
        server.client().create_bucket(Bucket=bucket)
        root, endpoint_url = f"s3://{bucket}/some/out", server.endpoint_url
    publish(root, "dt=1/a.mp4", endpoint_url=endpoint_url, preview="gif")
    return S3Store(root, endpoint_url) if endpoint_url else LocalStore(root)


def test_gc_removes_old_unreferenced_objects(store: Store):
    needed, left = keys(store), litter(store)
    assert list(unreferenced(store, age_limit(store, 1 / 24))) == [], "nothing is old yet"
    limit = week_hence(store)
    leftovers = list(unreferenced(store, limit))
    assert {leftover.key for leftover in leftovers} == {key for key in left if not key.startswith(STAGED)} | {STAGED}
    assert sum(leftover.objects for leftover in leftovers) == len(left)
    assert sum(leftover.size_bytes for leftover in leftovers) == 5 * len(left)
    assert all(7.9 < leftover.age_s / SECONDS_PER_DAY < 9 for leftover in leftovers)
    assert keys(store) == needed | left, "only listed"
    assert all(remove(store, leftover, limit) for leftover in leftovers)
    assert keys(store) == needed
    assert verify(store, deep=True).problems == ()


AGES = [
    pytest.param([], set(), id="all new"),
    pytest.param([STAGED], {STAGED}, id="staging"),
    pytest.param([f"{STAGED}0"], set(), id="staging with a new object"),
    pytest.param([ATTEMPTS], {ATTEMPTS}, id="attempts"),
    pytest.param([SCRATCH], {SCRATCH}, id="scratch"),
    pytest.param(["poses/gone"], {"poses/gone.mp4.parquet"}, id="poses"),
    pytest.param(["frames/dt=1/gone"], {"frames/dt=1/gone.mp4.parquet"}, id="frames"),
    pytest.param(["previews/gone"], {"previews/gone.mp4.gif"}, id="preview"),
    pytest.param(["poses/dt=1/a", "videos/", "frames/dt=1/a", "previews/dt=1/a", "poses/b"], set(), id="published"),
]


@pytest.mark.parametrize(("old", "found"), AGES)
def test_gc_finds_only_objects_older_than_the_limit(out: LocalStore, old: list[str], found: set[str]):
    litter(out)
    age(out, 8, *old)
    assert {leftover.key for leftover in unreferenced(out, age_limit(out, 7))} == found
    age(out, -2, *old)
    assert list(unreferenced(out, age_limit(out, 7))) == []


def test_gc_finds_artifacts_that_the_record_does_not_reference(out: LocalStore):
    """Objects of an older version of a video stay if a run is killed before it removes them."""
    out.put("previews/b.mp4.gif", b"older")
    out.put("poses/c.mp4.parquet", b"of a video that has failed since")
    reasons = {leftover.key: leftover.why for leftover in unreferenced(out, week_hence(out))}
    assert reasons == dict.fromkeys(["previews/b.mp4.gif", "poses/c.mp4.parquet"], "no commit record references it")


@pytest.mark.parametrize(
    "key",
    [
        "notes.parquet",
        "poses/notes.txt",
        "poses/_SUCCESS",
        "poses/_temporary/a.parquet",
        "poses/.hidden/a.mp4.parquet",
        "poses/_a.parquet",
        "poses/.parquet",
        "poses/a.gif",
        "previews/a.parquet",
        "videos/z.parquet.bak",
        "runs/run-0/videos.parquet",
        "_state/lease.json",
        "_state/staging/notes.txt",
        "_state/staging/mine/0-1.arrow",
        "_state/attempts/notes.json",
        "_state/tmp/notes",
        "other/poses/a.parquet",
    ],
)
def test_gc_keeps_foreign_files(out: LocalStore, key: str):
    out.put(key, b"mine")
    assert list(unreferenced(out, week_hence(out))) == []


def test_gc_keeps_files_whose_names_are_not_utf8(out: LocalStore):
    Path(out.root, "poses", os.fsdecode(b"a\xff.parquet")).write_bytes(b"mine")
    assert list(unreferenced(out, week_hence(out))) == []


def test_gc_keeps_the_data_of_a_damaged_record(out: LocalStore):
    """The data may be all that is left of the video."""
    out.put(record_key("b.mp4"), b"half")
    assert list(unreferenced(out, week_hence(out))) == []
    out.delete(record_key("b.mp4"))
    assert {leftover.key for leftover in unreferenced(out, week_hence(out))} == {
        "poses/b.mp4.parquet",
        "frames/b.mp4.parquet",
        "tracks/b.mp4.parquet",
        "motion/b.mp4.parquet",
    }


# --- the clock -----------------------------------------------------------------------------------------------------


class SkewedStore(LocalStore):
    """A store with another clock than this machine."""

    skew_s = -30 * SECONDS_PER_DAY

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        for stored in super().list(prefix):
            yield replace(stored, last_modified=stored.last_modified + self.skew_s)

    def head(self, key: str) -> StoredObject:
        stored = super().head(key)
        return replace(stored, last_modified=stored.last_modified + self.skew_s)


@pytest.mark.parametrize("days", [-30, 30])
def test_gc_measures_age_by_the_clock_of_the_store(out: LocalStore, days: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SkewedStore, "skew_s", days * SECONDS_PER_DAY)
    store = SkewedStore(out.root)
    left = litter(store)
    assert list(unreferenced(store, age_limit(store, 1))) == []
    age(out, 2, *left)
    limit = age_limit(store, 1)
    leftovers = list(unreferenced(store, limit))
    assert sum(leftover.objects for leftover in leftovers) == len(left)
    assert all(remove(store, leftover, limit) for leftover in leftovers)


@pytest.mark.parametrize("days", [0, 0.04, -1, float("nan"), float("-inf")])
def test_age_limit_refuses_less_than_an_hour(out: LocalStore, days: float):
    with pytest.raises(SettingsError, match=r"must be at least 0\.042 \(an hour\), got"):
        age_limit(out, days)


# --- beside a run --------------------------------------------------------------------------------------------------


def leftover_of(store: Store, limit: AgeLimit, key: str) -> Unreferenced:
    (leftover,) = (candidate for candidate in unreferenced(store, limit) if candidate.key == key)
    return leftover


@pytest.fixture
def late(out: LocalStore) -> tuple[LocalStore, AgeLimit]:
    litter(out)
    age(out, 8, "_state/", "poses/gone", "frames/dt=1/gone", "previews/gone")
    return out, age_limit(out, 7)


def test_gc_keeps_data_that_a_run_has_committed_meanwhile(late: tuple[LocalStore, AgeLimit]):
    out, limit = late
    leftover = leftover_of(out, limit, "poses/gone.mp4.parquet")
    record = publish(out.root, "gone.mp4")
    age(out, 8, "poses/gone")  # as if the run had not rewritten the bytes
    assert remove(out, leftover, limit) is False
    assert read_record(out, "gone.mp4") == record
    assert verify(out, deep=True).problems == tuple(p for p in verify(out).problems if "gone.mp4" in p)
    assert "poses/gone.mp4.parquet" in keys(out)


def test_gc_keeps_data_that_a_run_is_about_to_commit(late: tuple[LocalStore, AgeLimit]):
    out, limit = late
    leftover = leftover_of(out, limit, "poses/gone.mp4.parquet")
    out.put("poses/gone.mp4.parquet", b"new")
    assert remove(out, leftover, limit) is False
    assert out.read("poses/gone.mp4.parquet") == b"new"


def test_gc_keeps_staging_that_a_run_uses_again(late: tuple[LocalStore, AgeLimit]):
    out, limit = late
    leftover = leftover_of(out, limit, STAGED)
    out.put(f"{STAGED}000000002-2.arrow", b"new")
    assert remove(out, leftover, limit) is False
    assert len(list(out.list(STAGED))) == 3


def test_gc_keeps_attempts_that_are_counted_meanwhile(late: tuple[LocalStore, AgeLimit]):
    out, limit = late
    leftover = leftover_of(out, limit, ATTEMPTS)
    StagingArea(out, WORK_ID).note_attempt(FailedAttempts(2), "worker_died", "killed")
    assert remove(out, leftover, limit) is False
    assert StagingArea(out, WORK_ID).failed_attempts() == FailedAttempts(2)


@pytest.mark.parametrize("key", [STAGED, ATTEMPTS, SCRATCH, "poses/gone.mp4.parquet"])
def test_gc_does_not_count_objects_that_are_already_gone(late: tuple[LocalStore, AgeLimit], key: str):
    out, limit = late
    leftover = leftover_of(out, limit, key)
    for stored in list(out.list(key)):
        out.delete(stored.key)
    assert remove(out, leftover, limit) is False


def test_run_repeats_segments_that_gc_removed(out: LocalStore):
    work = stage(out, "d.mp4", context_of(out.root))
    for leftover in unreferenced(out, week_hence(out)):
        assert remove(out, leftover, week_hence(out))
    assert work.staged_keys() == set()
    with pytest.raises(ObjectNotFoundError):
        finalize_video(FinalizeTask(source("d.mp4"), PLAN, 1), context_of(out.root))
    publish(out.root, "d.mp4")
    assert verify(out, deep=True).problems == ()


# --- the command ---------------------------------------------------------------------------------------------------


def test_gc_command_lists_without_removing(out: LocalStore, capsys: pytest.CaptureFixture[str]):
    left = litter(out)
    age(out, 9, *left)
    before = tree(Path(out.root))
    assert main(["gc", "--output", out.root]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"would remove {STAGED}  (2 objects, 0.0 MB, 9.0 days old): "
        "segments of a video that was not finished, or not with these settings"
    )
    assert lines[-1] == "7 objects, 0.0 MB to remove; nothing was removed, --delete does it"
    assert len(lines) == 7
    assert tree(Path(out.root)) == before


def test_gc_command_removes_with_delete(out: LocalStore, capsys: pytest.CaptureFixture[str]):
    needed, left = keys(out), litter(out)
    age(out, 9, *left)
    out.put("poses/young.mp4.parquet", b"12345")
    assert main(["gc", "--output", out.root, "--older-than-days", "8.5", "--delete"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("removed ") for line in lines[:-1])
    assert lines[-1] == "7 objects, 0.0 MB removed"
    assert keys(out) == needed | {"poses/young.mp4.parquet"}
    assert main(["gc", "--output", out.root, "--delete"]) == 0
    assert capsys.readouterr().out == "0 objects, 0.0 MB removed\n"


def test_gc_command_names_objects_that_it_kept(
    out: LocalStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    age(out, 9, *litter(out))
    before = tree(Path(out.root))
    monkeypatch.setattr("posebatch.cli.upkeep.remove", lambda *_: False)
    assert main(["gc", "--output", out.root, "--delete"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"kept {STAGED}: it is in use again, or is gone"
    assert lines[-1] == "0 objects, 0.0 MB removed"
    assert tree(Path(out.root)) == before


@pytest.mark.parametrize("days", ["0", "0.01", "nan", "-7"])
def test_gc_command_refuses_a_short_limit(out: LocalStore, days: str, capsys: pytest.CaptureFixture[str]):
    age(out, 9, *litter(out))
    before = tree(Path(out.root))
    assert main(["gc", "--output", out.root, f"--older-than-days={days}", "--delete"]) == 2
    assert "--older-than-days must be at least 0.042 (an hour)" in capsys.readouterr().err
    assert tree(Path(out.root)) == before


FOREIGN = [
    pytest.param([], id="an empty folder"),
    pytest.param(["videos/a.mp4", "videos/b.mp4", "notes.parquet"], id="an archive"),
    pytest.param(["dt=1/a.mp4.parquet"], id="a folder of an output"),
    pytest.param(["out/videos/a.mp4.parquet", "out/_state/leases/0000000001.json"], id="a folder above an output"),
    pytest.param(["poses/a.mp4.parquet", "frames/a.mp4.parquet"], id="tables without any record"),
    pytest.param(["runs/exp-1/loss.csv", "_state/notes.json"], id="names that others use, too"),
]


@pytest.mark.parametrize("command", [["gc"], ["gc", "--delete"]], ids=" ".join)
@pytest.mark.parametrize("there", FOREIGN)
def test_gc_command_refuses_what_is_no_output(
    tmp_path: Path, there: list[str], command: list[str], capsys: pytest.CaptureFixture[str]
):
    store = LocalStore(tmp_path / "other")
    for key in there:
        store.put(key, b"mine")
    age(store, 9, "")
    before = {stored.key for stored in store.list()}
    assert main([*command, "--output", store.root]) == 2
    printed = capsys.readouterr()
    assert f"--output {store.root}: no output of posebatch" in printed.err
    assert printed.out == ""
    assert {stored.key for stored in store.list()} == before, "no lease is left behind"


@pytest.mark.parametrize("trace", ["videos/a.mp4.parquet", "runs/1/settings.yaml", f"{FOLDER}0000000001.json"])
def test_check_is_output_accepts_any_trace_of_a_run(tmp_path: Path, trace: str):
    store = LocalStore(tmp_path)
    store.put(trace, b"ours")
    check_is_output(store)


@pytest.mark.s3
@pytest.mark.parametrize(
    "command", [["gc", "--delete"], ["verify"], ["plan", "s3://{bucket}-none/v"], ["run", "s3://{bucket}-none/v"]]
)
def test_commands_refuse_a_missing_bucket(
    command: list[str], s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """As input or as output: a wrong address, like a wrong prefix."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    words = [word.format(bucket="gc-missing") for word in command]
    arguments = ["--output", "s3://gc-missing-none/out", "--endpoint-url", s3_server.endpoint_url]
    assert main([*words, *arguments]) == 2
    assert re.search(r"s3://gc-missing-none/\S*: no such bucket; check its name", capsys.readouterr().err)


@pytest.mark.s3
@pytest.mark.parametrize("command", ["plan", "run"])
def test_run_and_plan_refuse_an_output_in_a_missing_bucket(
    archive: Archive,
    command: str,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    arguments = ["--output", "s3://gc-missing-none/out", "--endpoint-url", s3_server.endpoint_url]
    assert main([command, str(archive.root), *arguments]) == 2
    assert "no such bucket" in capsys.readouterr().err


def test_gc_command_mentions_incomplete_uploads_of_s3(store: Store, capsys: pytest.CaptureFixture[str]):
    litter(store)
    endpoint = ["--endpoint-url", store.client.meta.endpoint_url] if isinstance(store, S3Store) else []
    assert main(["gc", "--output", store.root, "--older-than-days", "0.05", "--delete", *endpoint]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("0 objects, 0.0 MB removed\n")
    assert ("a lifecycle rule of the bucket removes those" in printed) is isinstance(store, S3Store)


def test_verify_command_deep_finds_a_changed_byte(out: LocalStore, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", "--output", out.root, "--deep"]) == 0
    printed = capsys.readouterr().out
    assert re.fullmatch(r"clean: 3 videos \(1 failed\), 8 frames, 8 persons; 0\.\d MB read\n", printed)
    content = out.read("poses/dt=1/a.mp4.parquet")
    out.put("poses/dt=1/a.mp4.parquet", content[:9] + bytes([content[9] ^ 1]) + content[10:])
    assert main(["verify", "--output", out.root]) == 0
    assert capsys.readouterr().out.startswith("clean: 3 videos (1 failed), 8 frames, 8 persons\n")
    assert main(["verify", "--output", out.root, "--deep"]) == 3
    assert "problem: poses/dt=1/a.mp4.parquet: its bytes are not those that were" in capsys.readouterr().out


def test_verify_command_counts_objects_without_checksum(out: LocalStore, capsys: pytest.CaptureFixture[str]):
    make_earlier(out, "b.mp4", FIRST_VIDEOS)
    assert main(["verify", "--output", out.root, "--deep"]) == 0
    assert "not proven: 2 objects have no checksum" in capsys.readouterr().out
    assert main(["verify", "--output", out.root]) == 0
    assert "not proven" not in capsys.readouterr().out


def test_verify_command_prints_progress(
    out: LocalStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert main(["verify", "--output", out.root, "--deep"]) == 0
    assert capsys.readouterr().err == "", "not at once"
    monkeypatch.setattr("posebatch.cli.upkeep.LOG_SECONDS", 0.0)
    assert main(["verify", "--output", out.root, "--deep"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"3 videos, 8 frames so far, 0\.\d MB read", lines[-1])
    assert len(lines) == 3


# --- earlier versions are read with today's ------------------------------------------------------------------------

GENERATIONS = {**EARLIER_VIDEOS, "today": None}


@pytest.fixture(params=["first comes first", "today comes first"])
def mixed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[VideoRecord]]:
    """A video of each version, in both orders of names, because readers take the columns from the first file."""
    order = list(GENERATIONS.items())
    order = order if request.param == "first comes first" else order[::-1]
    records = [
        publish(tmp_path, f"{name}.mp4") if columns is None else publish_earlier(tmp_path, f"{name}.mp4", columns)
        for name, (_, columns) in zip("abc", order, strict=True)
    ]
    return tmp_path, records


def test_records_of_all_versions_are_read_and_verified(mixed: tuple[Path, list[VideoRecord]]):
    root, records = mixed
    assert [read_record(LocalStore(root), f"{name}.mp4") for name in "abc"] == records
    assert verify(LocalStore(root), deep=True).problems == ()


def test_readers_read_all_versions(mixed: tuple[Path, list[VideoRecord]]):
    root, records = mixed
    videos = read_videos(str(root))
    assert list(videos.columns) == schemas.VIDEOS_SCHEMA.names
    assert videos["wait_seconds"].isna().sum() == 1
    assert videos["video"].tolist() == [record.video for record in records]
    shas = [[published["sha256"] for published in objects] for objects in videos["objects"]]
    assert shas == [[published.sha256 for published in record.objects] for record in records]
    assert read_videos(str(root), columns=["wait_seconds", "video"]).columns.tolist() == ["wait_seconds", "video"]
    assert (len(read_poses(str(root))), len(read_frames(str(root)))) == (24, 12)


def test_readers_fill_missing_columns_with_nulls(tmp_path: Path):
    publish_earlier(tmp_path, "a.mp4", FIRST_VIDEOS)
    assert read_videos(str(tmp_path), columns=["wait_seconds"])["wait_seconds"].isna().tolist() == [True]
    assert read_videos(str(tmp_path)).columns.tolist() == schemas.VIDEOS_SCHEMA.names


def test_pandas_reads_all_versions(mixed: tuple[Path, list[VideoRecord]]):
    root, records = mixed
    videos = pd.read_parquet(root / "videos")
    assert videos["video"].tolist() == [record.video for record in records]
    assert [[published["key"] for published in objects] for objects in videos["objects"]] == [
        [published.key for published in record.objects] for record in records
    ]
    assert (len(pd.read_parquet(root / "poses")), len(pd.read_parquet(root / "frames"))) == (24, 12)


def test_duckdb_reads_all_versions(mixed: tuple[Path, list[VideoRecord]]):
    root, records = mixed
    videos = [record.video for record in records]
    files = f"{root}/videos/**/*.parquet"
    named = duckdb.sql(f"select video, unnest(objects).rows as rows from '{files}' order by video").fetchall()
    assert named == [(record.video, published.rows) for record in records for published in record.objects]
    whole = duckdb.sql(f"select * from read_parquet('{files}', union_by_name=true) order by video").df()
    assert whole["video"].tolist() == videos
    assert whole["wait_seconds"].isna().sum() == 1
    for kind, rows in (("poses", 24), ("frames", 12)):
        assert duckdb.sql(f"select count(*) from '{root}/{kind}/**/*.parquet'").fetchall() == [(rows,)]


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_duckdb_reads_records_with_and_without_checksums(tmp_path: Path, names: str):
    """DuckDB refuses `select *` if a later file lacks a column, so the query says ``union_by_name``."""
    publish_earlier(tmp_path, f"{names[0]}.mp4", SECOND_VIDEOS)
    publish(tmp_path, f"{names[1]}.mp4")
    whole = duckdb.sql(
        f"select * from read_parquet('{tmp_path}/videos/**/*.parquet', union_by_name = true) order by video"
    ).df()
    assert whole["video"].tolist() == ["/in/a.mp4", "/in/b.mp4"]


# --- later versions are refused ------------------------------------------------------------------------------------

LATER = schemas.SCHEMA_VERSION + 1


def make_later(store: Store, *prefixes: str) -> None:
    for stored in [stored for prefix in prefixes for stored in store.list(prefix)]:
        store.put(stored.key, with_version(store.read(stored.key), LATER))


@pytest.mark.parametrize(("folder", "read"), [("poses", read_poses), ("frames", read_frames), ("videos", read_videos)])
def test_readers_refuse_later_versions(out: LocalStore, folder: str, read):
    make_later(out, f"{folder}/b.mp4")
    with pytest.raises(NewerOutputError) as refused:
        read(out.root)
    assert re.fullmatch(
        rf"{out.root}/{folder}/b\.mp4\.parquet: written by a newer posebatch, as schema version {LATER}; this is "
        rf"posebatch [\d.]+, which knows versions up to {LATER - 1}: upgrade it, or choose another output",
        str(refused.value),
    )
    assert len(read(out.root, "dt=1/*")) > 0, "the other videos are read"


@pytest.mark.parametrize("command", [["gc", "--delete"], ["verify"], ["verify", "--deep"]])
def test_commands_refuse_later_versions(out: LocalStore, command: list[str], capsys: pytest.CaptureFixture[str]):
    age(out, 9, *litter(out))
    make_later(out, "videos/b.mp4")
    before = tree(Path(out.root))
    assert main([*command, "--output", out.root]) == 2
    printed = capsys.readouterr()
    assert f"/videos/b.mp4.parquet: written by a newer posebatch, as schema version {LATER}" in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert tree(Path(out.root)) == before


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path)
    archive.add("a.mp4", "b.mp4")
    return archive


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("on_existing", ["skip", "overwrite", "error"])
def test_run_and_plan_refuse_later_versions(
    archive: Archive, command: str, on_existing: str, capsys: pytest.CaptureFixture[str]
):
    publish(archive.store.root, "a.mp4")
    make_later(archive.store, "videos/", "poses/", "frames/")
    before = tree(Path(archive.store.root))
    named = [str(archive.root), "--output", archive.store.root, "--on-existing", on_existing]
    assert main([command, *named]) == 2
    assert f"as schema version {LATER}" in capsys.readouterr().err
    after = tree(Path(archive.store.root))
    assert {path: facts for path, facts in after.items() if "/runs/" not in path} == before


def test_run_leaves_a_video_of_a_later_version_unchanged(archive: Archive):
    archive.run()
    make_later(archive.store, "videos/b", "poses/b", "frames/b")
    before = {key: archive.store.read(key) for key in keys(archive.store) if "/b.mp4" in key}
    with pytest.raises(NewerOutputError, match=rf"/videos/b\.mp4\.parquet: .*version {LATER}"):
        archive.run(on_existing="overwrite")
    assert {key: archive.store.read(key) for key in keys(archive.store) if "/b.mp4" in key} == before


def test_going_back_to_an_earlier_version_computes_the_videos_of_the_later_one_again(archive: Archive):
    """As docs/upkeep.md says: remove their commit records, and run."""
    archive.run()
    before = {key: archive.store.read(key) for key in keys(archive.store) if not key.startswith(("_state/", "videos/"))}
    make_later(archive.store, "videos/b", "poses/b", "frames/b")
    archive.store.delete(record_key("b.mp4"))
    outcome = archive.run()
    assert (outcome.tally.published, outcome.tally.up_to_date) == (1, len(list(archive.videos())) - 1)
    assert {key: archive.store.read(key) for key in before} == before
    assert verify(archive.store, deep=True).problems == ()


def test_run_records_no_failure_when_a_later_version_publishes(archive: Archive):
    """Otherwise the record of the failure would overwrite the newer one."""
    archive.run()

    def fault(task):
        if isinstance(task, PublishPreviewTask) and task.video.output_path == "b.mp4":
            make_later(archive.store, "videos/b")

    with pytest.raises(NewerOutputError):
        archive.run(fault, preview="gif")
    assert not archive.submitted(RecordFailureTask)
    with pytest.raises(NewerOutputError):
        read_record(archive.store, "b.mp4")


def test_run_draws_no_preview_of_tables_of_a_later_version(archive: Archive):
    """A newer posebatch was killed between its tables and its record."""
    archive.run()
    make_later(archive.store, "poses/b")
    archive.run(preview="gif")
    assert "written by a newer posebatch" in str(archive.record("b.mp4").error)
    assert "previews/b.mp4.gif" not in keys(archive.store)


# --- staged by another version -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["earlier", "later"])
def test_run_repeats_segments_that_another_version_staged(archive: Archive, version: str):
    schema = schemas.STAGED_SCHEMA
    other = schema.remove(2) if version == "earlier" else schema.append(schemas.pa.field("tracks", schemas.pa.int32()))
    video = archive.video("a.mp4")
    work = StagingArea.of(archive.store, video, archive.context().data_fingerprint)
    archive.run()
    clean = {key: archive.store.read(key) for key in keys(archive.store) if key.startswith(("poses/", "frames/"))}
    (done,) = [task.plan for task in archive.submitted(FinalizeTask) if task.video.output_path == "a.mp4"]
    archive.store.delete(record_key("a.mp4"))
    sink = schemas.pa.BufferOutputStream()
    with schemas.pa.ipc.new_file(sink, other) as writer:
        writer.write_batch(
            schemas.pa.RecordBatch.from_pylist([], schema=other), custom_metadata=_report_of(staged_file([]).getvalue())
        )
    for segment in done.segments:
        archive.store.put(work.segment_key(segment), sink.getvalue().to_pybytes())
    assert facts(archive.run()) == (1, 1, 0, 0)
    assert verify(archive.store, deep=True).problems == ()
    assert {key: archive.store.read(key) for key in clean} == clean
    assert archive.left_behind() == []


def _report_of(content: bytes) -> dict[str, str]:
    file = schemas.pa.ipc.open_file(content)
    return {"report": file.get_batch_with_custom_metadata(0)[1][b"report"].decode()}


# --- an upgrade ----------------------------------------------------------------------------------------------------


@pytest.fixture
def old_output(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """Both videos published by the first version, with other rows."""
    with monkeypatch.context() as earlier:
        earlier.setattr(fingerprints, "PIPELINE_VERSION", 0)
        archive.run()
    for name in ("a.mp4", "b.mp4"):
        make_earlier(archive.store, name, FIRST_VIDEOS)
    return archive


def published_part(files: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return {path: size_and_time for path, size_and_time in files.items() if "/_state/" not in path}


def stop_after_the_first(archive: Archive) -> None:
    def stop_run(stop, completion):
        if isinstance(completion.result, CommittedRecord):
            stop.request("the test")

    archive.after = stop_run
    with pytest.raises(RunAbortedError, match="stopped by the test"):
        archive.run()
    archive.after = lambda *_: None


def test_upgrade_that_is_interrupted_is_continued(old_output: Archive):
    archive = old_output
    stop_after_the_first(archive)
    halves = [archive.record(name) for name in ("a.mp4", "b.mp4")]
    assert sorted(all(published.sha256 for published in record.objects) for record in halves) == [False, True]
    verdict = verify(archive.store, deep=True)
    assert (verdict.problems, verdict.videos, verdict.without_checksum) == ((), 2, 2)
    root = archive.store.root
    assert len(read_videos(root)) == len(pd.read_parquet(f"{root}/videos")) == 2
    assert len(read_poses(root)) == len(pd.read_parquet(f"{root}/poses")) == verdict.persons
    assert list(unreferenced(archive.store, age_limit(archive.store, 7))) == []

    assert facts(archive.run()) == (1, 1, 0, 0)
    verdict = verify(archive.store, deep=True)
    assert (verdict.problems, verdict.videos, verdict.without_checksum) == ((), 2, 0)
    assert facts(archive.run()) == (0, 2, 0, 0)
    assert archive.left_behind() == []


def test_upgrade_cannot_be_continued_by_the_old_version(old_output: Archive, monkeypatch: pytest.MonkeyPatch):
    archive = old_output
    stop_after_the_first(archive)
    before = tree(Path(archive.store.root))
    monkeypatch.setattr(parquet, "SCHEMA_VERSION", 1)
    monkeypatch.setattr(fingerprints, "PIPELINE_VERSION", 0)
    with pytest.raises(NewerOutputError, match=r"schema version 4; .* knows versions up to 1"):
        archive.run()
    after = tree(Path(archive.store.root))
    assert published_part(after) == published_part(before)


@pytest.mark.parametrize("folder", ["frames", "videos"])
def test_upgrade_that_is_killed_within_a_video_is_repaired(old_output: Archive, folder: str):
    """New tables lie under the old record: deep `verify` finds them, and the same command repairs the video."""
    archive = old_output
    old = {key: archive.store.read(key) for key in keys(archive.store)}
    archive.run()
    for key in [record_key("a.mp4")] if folder == "videos" else ["frames/a.mp4.parquet", record_key("a.mp4")]:
        archive.store.put(key, old[key])
    problems = verify(archive.store, deep=True).problems
    assert any(problem.startswith("poses/a.mp4.parquet: ") for problem in problems)
    assert all("a.mp4" in problem for problem in problems)
    assert facts(archive.run()) == (1, 1, 0, 0)
    assert verify(archive.store, deep=True).problems == ()


def test_upgrade_of_the_schema_alone_recomputes_nothing(archive: Archive):
    archive.run()
    make_earlier(archive.store, "b.mp4", SECOND_VIDEOS)
    outcome = archive.run()
    assert (facts(outcome), outcome.tally.derived) == ((0, 1, 0, 0), 1)
    assert facts(archive.run(on_existing="overwrite")) == (2, 0, 0, 0)
    assert verify(archive.store, deep=True).without_checksum == 0


def test_preview_is_added_to_tables_of_an_earlier_version(archive: Archive):
    archive.run()
    make_earlier(archive.store, "b.mp4", FIRST_VIDEOS)
    outcome = archive.run(preview="gif")
    assert (facts(outcome), outcome.tally.derived) == ((1, 0, 0, 0), 1)
    without = [published.kind for published in archive.record("b.mp4").objects if not published.sha256]
    assert without == ["frames"], "poses were written again, with their track ids"
    assert verify(archive.store, deep=True).problems == ()


# --- the page ------------------------------------------------------------------------------------------------------


def test_upkeep_page_shows_valid_commands():
    commands = re.findall(
        r"^posebatch (.*?)(?:\s+#.*)?$", "\n".join(re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.S)), re.M
    )
    assert len(commands) == 6
    for arguments in commands:
        assert callable(build_parser().parse_args(shlex.split(arguments)).command)


def test_upkeep_page_shows_a_valid_query(mixed: tuple[Path, list[VideoRecord]], monkeypatch: pytest.MonkeyPatch):
    root, records = mixed
    monkeypatch.chdir(root)
    (query,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.S)
    assert len(duckdb.sql(query.replace("out/", "")).df()) == len(records)


@pytest.mark.parametrize("part", [None, Shard(3, 64)])
def test_gc_command_does_not_remove_while_a_run_holds_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: Shard | None
) -> None:
    store = LocalStore(tmp_path)
    with hold_lease(store, "the-run", False, print, print, part):
        assert main(["gc", "--output", store.root]) == 0, "listing is allowed"
        assert main(["gc", "--output", store.root, "--delete"]) == 2
    assert "run the-run (process" in capsys.readouterr().err
    assert main(["gc", "--output", store.root, "--delete"]) == 0
