"""`posebatch gc`, and outputs in which several versions of posebatch have written; docs/upkeep.md tells the same."""

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
from posebatch.dataset.gc import SECONDS_PER_DAY, AgeLimit, Unreferenced, age_limit, remove, unreferenced
from posebatch.dataset.layout import record_key
from posebatch.dataset.lease import FOLDER, hold_lease
from posebatch.dataset.publication import CommittedRecord, publish_failure, read_record
from posebatch.dataset.staging import FailedAttempts, StagingArea
from posebatch.dataset.tables import parquet, schemas
from posebatch.dataset.tables.readers import read_frames, read_poses, read_videos
from posebatch.dataset.verify import verify
from posebatch.run import scheduler
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
    """All but the leases of those who had the output."""
    return {found.key for found in store.list() if not found.key.startswith(FOLDER)}


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of the same."""
    files = [root / key for key in sorted(keys(LocalStore(root)))]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def age(store: LocalStore, days: float, *prefixes: str) -> None:
    """Let objects have been written so long ago."""
    for found in [one for prefix in prefixes for one in store.list(prefix)]:
        then = found.last_modified - days * SECONDS_PER_DAY
        os.utime(Path(store.root, found.key), (then, then))


def week_hence(store: Store) -> AgeLimit:
    """A limit by which all that is there now is old."""
    limit = age_limit(store, 7)
    return replace(limit, now=limit.now + 8 * SECONDS_PER_DAY)


def litter(store: Store) -> set[str]:
    """What killed runs leave; none of it is needed."""
    left = {f"{STAGED}000000000-2.arrow", f"{STAGED}preview.gif", ATTEMPTS, SCRATCH}
    left |= {"poses/gone.mp4.parquet", "frames/dt=1/gone.mp4.parquet", "previews/gone.mp4.gif"}
    for key in left:
        store.put(key, b"12345")
    return left


FAILED = VideoRecord("/in/c.mp4", "etag-1", 10, 1.5, "failed", "f", "run-1", "0", "damaged", "no frame")


@pytest.fixture
def out(tmp_path: Path) -> LocalStore:
    """Two published videos, one of them with a preview, and one that failed."""
    publish(tmp_path / "out", "dt=1/a.mp4", preview="gif")
    publish(tmp_path / "out", "b.mp4", persons=0)
    publish_failure(LocalStore(tmp_path / "out"), "c.mp4", FAILED)
    return LocalStore(tmp_path / "out")


# --- what is found -------------------------------------------------------------------------------------------------


def test_nothing_is_found_in_nothing(tmp_path: Path):
    store = LocalStore(tmp_path)
    assert age_limit(store, 7).now == 0
    assert list(unreferenced(store, age_limit(store, 7))) == []
    assert keys(store) == set()


def test_a_published_dataset_is_needed_however_old(out: LocalStore):
    assert list(unreferenced(out, week_hence(out))) == []


@pytest.fixture(params=["local", "S3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The same dataset on a disk and in a bucket."""
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


def test_what_is_old_is_found_and_taken_away(store: Store):
    needed, left = keys(store), litter(store)
    assert list(unreferenced(store, age_limit(store, 1 / 24))) == [], "nothing is old yet"
    limit = week_hence(store)
    found = list(unreferenced(store, limit))
    assert {one.key for one in found} == {key for key in left if not key.startswith(STAGED)} | {STAGED}
    assert sum(one.objects for one in found) == len(left)
    assert sum(one.size_bytes for one in found) == 5 * len(left)
    assert all(7.9 < one.age_s / SECONDS_PER_DAY < 9 for one in found)
    assert keys(store) == needed | left, "only shown"
    assert all(remove(store, one, limit) for one in found)
    assert keys(store) == needed
    assert verify(store, deep=True).problems == ()


AGES = [
    pytest.param([], set(), id="all new"),
    pytest.param([STAGED], {STAGED}, id="staging"),
    pytest.param([f"{STAGED}0"], set(), id="staging to which something was added"),
    pytest.param([ATTEMPTS], {ATTEMPTS}, id="attempts"),
    pytest.param([SCRATCH], {SCRATCH}, id="scratch"),
    pytest.param(["poses/gone"], {"poses/gone.mp4.parquet"}, id="poses"),
    pytest.param(["frames/dt=1/gone"], {"frames/dt=1/gone.mp4.parquet"}, id="frames"),
    pytest.param(["previews/gone"], {"previews/gone.mp4.gif"}, id="preview"),
    pytest.param(["poses/dt=1/a", "videos/", "frames/dt=1/a", "previews/dt=1/a", "poses/b"], set(), id="published"),
]


@pytest.mark.parametrize(("old", "found"), AGES)
def test_only_what_is_old_is_found(out: LocalStore, old: list[str], found: set[str]):
    litter(out)
    age(out, 8, *old)
    assert {one.key for one in unreferenced(out, age_limit(out, 7))} == found
    age(out, -2, *old)
    assert list(unreferenced(out, age_limit(out, 7))) == []


def test_what_a_record_does_not_vouch_for_is_no_longer_needed(out: LocalStore):
    """The objects of an older version of a video, which a run was killed before it could take away."""
    out.put("previews/b.mp4.gif", b"older")
    out.put("poses/c.mp4.parquet", b"of a video that has failed since")
    found = {one.key: one.why for one in unreferenced(out, week_hence(out))}
    assert found == dict.fromkeys(["previews/b.mp4.gif", "poses/c.mp4.parquet"], "no commit record references it")


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
def test_what_is_not_known_stays(out: LocalStore, key: str):
    out.put(key, b"mine")
    assert list(unreferenced(out, week_hence(out))) == []


def test_names_that_are_no_text_stay(out: LocalStore):
    Path(out.root, "poses", os.fsdecode(b"a\xff.parquet")).write_bytes(b"mine")
    assert list(unreferenced(out, week_hence(out))) == []


def test_the_data_of_a_damaged_record_stay(out: LocalStore):
    """They may be all that is left of the video."""
    out.put(record_key("b.mp4"), b"half")
    assert list(unreferenced(out, week_hence(out))) == []
    out.delete(record_key("b.mp4"))
    assert {one.key for one in unreferenced(out, week_hence(out))} == {"poses/b.mp4.parquet", "frames/b.mp4.parquet"}


# --- the clock -----------------------------------------------------------------------------------------------------


class SkewedStore(LocalStore):
    """A store whose clock is not this machine's."""

    skew_s = -30 * SECONDS_PER_DAY

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        for found in super().list(prefix):
            yield replace(found, last_modified=found.last_modified + self.skew_s)

    def head(self, key: str) -> StoredObject:
        found = super().head(key)
        return replace(found, last_modified=found.last_modified + self.skew_s)


@pytest.mark.parametrize("days", [-30, 30])
def test_age_is_by_the_clock_of_the_store(out: LocalStore, days: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SkewedStore, "skew_s", days * SECONDS_PER_DAY)
    store = SkewedStore(out.root)
    left = litter(store)
    assert list(unreferenced(store, age_limit(store, 1))) == []
    age(out, 2, *left)
    limit = age_limit(store, 1)
    found = list(unreferenced(store, limit))
    assert sum(one.objects for one in found) == len(left)
    assert all(remove(store, one, limit) for one in found)


@pytest.mark.parametrize("days", [0, 0.04, -1, float("nan"), float("-inf")])
def test_a_limit_that_is_too_short(out: LocalStore, days: float):
    with pytest.raises(SettingsError, match=r"must be at least 0\.042 \(an hour\), got"):
        age_limit(out, days)


# --- beside a run --------------------------------------------------------------------------------------------------


def found_of(store: Store, limit: AgeLimit, key: str) -> Unreferenced:
    (found,) = (one for one in unreferenced(store, limit) if one.key == key)
    return found


@pytest.fixture
def late(out: LocalStore) -> tuple[LocalStore, AgeLimit]:
    litter(out)
    age(out, 8, "_state/", "poses/gone", "frames/dt=1/gone", "previews/gone")
    return out, age_limit(out, 7)


def test_data_that_a_run_has_committed_meanwhile_stay(late: tuple[LocalStore, AgeLimit]):
    out, limit = late
    found = found_of(out, limit, "poses/gone.mp4.parquet")
    record = publish(out.root, "gone.mp4")
    age(out, 8, "poses/gone")  # as if they had been the same bytes all the time
    assert remove(out, found, limit) is False
    assert read_record(out, "gone.mp4") == record
    assert verify(out, deep=True).problems == tuple(p for p in verify(out).problems if "gone.mp4" in p)
    assert "poses/gone.mp4.parquet" in keys(out)


def test_data_that_a_run_is_about_to_commit_stay(late: tuple[LocalStore, AgeLimit]):
    out, limit = late
    found = found_of(out, limit, "poses/gone.mp4.parquet")
    out.put("poses/gone.mp4.parquet", b"new")
    assert remove(out, found, limit) is False
    assert out.read("poses/gone.mp4.parquet") == b"new"


def test_staging_that_a_run_has_taken_up_again_stays(late: tuple[LocalStore, AgeLimit]):
    out, limit = late
    found = found_of(out, limit, STAGED)
    out.put(f"{STAGED}000000002-2.arrow", b"new")
    assert remove(out, found, limit) is False
    assert len(list(out.list(STAGED))) == 3


def test_attempts_that_are_counted_meanwhile_stay(late: tuple[LocalStore, AgeLimit]):
    out, limit = late
    found = found_of(out, limit, ATTEMPTS)
    StagingArea(out, WORK_ID).note_attempt(FailedAttempts(2), "worker_died", "killed")
    assert remove(out, found, limit) is False
    assert StagingArea(out, WORK_ID).failed_attempts() == FailedAttempts(2)


@pytest.mark.parametrize("key", [STAGED, ATTEMPTS, SCRATCH, "poses/gone.mp4.parquet"])
def test_what_has_gone_meanwhile_is_not_said_to_be_removed(late: tuple[LocalStore, AgeLimit], key: str):
    out, limit = late
    found = found_of(out, limit, key)
    for one in list(out.list(key)):
        out.delete(one.key)
    assert remove(out, found, limit) is False


def test_a_run_does_again_what_was_taken_away(out: LocalStore):
    work = stage(out, "d.mp4", context_of(out.root))
    for found in unreferenced(out, week_hence(out)):
        assert remove(out, found, week_hence(out))
    assert work.staged_keys() == set()
    with pytest.raises(ObjectNotFoundError):
        finalize_video(FinalizeTask(source("d.mp4"), PLAN, 1), context_of(out.root))
    publish(out.root, "d.mp4")
    assert verify(out, deep=True).problems == ()


# --- the command ---------------------------------------------------------------------------------------------------


def test_it_shows_and_takes_nothing_away(out: LocalStore, capsys: pytest.CaptureFixture[str]):
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


def test_it_takes_away_when_told(out: LocalStore, capsys: pytest.CaptureFixture[str]):
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


def test_it_says_what_it_kept(out: LocalStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    age(out, 9, *litter(out))
    before = tree(Path(out.root))
    monkeypatch.setattr("posebatch.cli.upkeep.remove", lambda *_: False)
    assert main(["gc", "--output", out.root, "--delete"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"kept {STAGED}: it is in use again, or is gone"
    assert lines[-1] == "0 objects, 0.0 MB removed"
    assert tree(Path(out.root)) == before


@pytest.mark.parametrize("days", ["0", "0.01", "nan", "-7"])
def test_it_refuses_a_short_limit(out: LocalStore, days: str, capsys: pytest.CaptureFixture[str]):
    age(out, 9, *litter(out))
    before = tree(Path(out.root))
    assert main(["gc", "--output", out.root, f"--older-than-days={days}", "--delete"]) == 2
    assert "--older-than-days must be at least 0.042 (an hour)" in capsys.readouterr().err
    assert tree(Path(out.root)) == before


def test_in_a_bucket(store: Store, capsys: pytest.CaptureFixture[str]):
    litter(store)
    endpoint = ["--endpoint-url", store.client.meta.endpoint_url] if isinstance(store, S3Store) else []
    assert main(["gc", "--output", store.root, "--older-than-days", "0.05", "--delete", *endpoint]) == 0
    said = capsys.readouterr().out
    assert said.endswith("0 objects, 0.0 MB removed\n")
    assert ("a lifecycle rule of the bucket removes those" in said) is isinstance(store, S3Store)


def test_verify_deep(out: LocalStore, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", "--output", out.root, "--deep"]) == 0
    said = capsys.readouterr().out
    assert re.fullmatch(r"clean: 3 videos \(1 failed\), 8 frames, 8 persons; 0\.\d MB read\n", said)
    content = out.read("poses/dt=1/a.mp4.parquet")
    out.put("poses/dt=1/a.mp4.parquet", content[:9] + bytes([content[9] ^ 1]) + content[10:])
    assert main(["verify", "--output", out.root]) == 0
    assert capsys.readouterr().out.startswith("clean: 3 videos (1 failed), 8 frames, 8 persons\n")
    assert main(["verify", "--output", out.root, "--deep"]) == 3
    assert "problem: poses/dt=1/a.mp4.parquet: its bytes are not those that were" in capsys.readouterr().out


def test_verify_deep_says_what_older_records_cannot_prove(out: LocalStore, capsys: pytest.CaptureFixture[str]):
    make_earlier(out, "b.mp4", FIRST_VIDEOS)
    assert main(["verify", "--output", out.root, "--deep"]) == 0
    assert "not proven: 2 objects have no checksum" in capsys.readouterr().out
    assert main(["verify", "--output", out.root]) == 0
    assert "not proven" not in capsys.readouterr().out


def test_verify_says_how_far_it_is(
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
    """A video of each version, in both orders of their names: readers take their columns from the first file."""
    order = list(GENERATIONS.items())
    order = order if request.param == "first comes first" else order[::-1]
    records = [
        publish(tmp_path, f"{name}.mp4") if columns is None else publish_earlier(tmp_path, f"{name}.mp4", columns)
        for name, (_, columns) in zip("abc", order, strict=True)
    ]
    return tmp_path, records


def test_records_of_all_versions(mixed: tuple[Path, list[VideoRecord]]):
    root, records = mixed
    assert [read_record(LocalStore(root), f"{name}.mp4") for name in "abc"] == records
    assert verify(LocalStore(root), deep=True).problems == ()


def test_readers_of_all_versions(mixed: tuple[Path, list[VideoRecord]]):
    root, records = mixed
    found = read_videos(str(root))
    assert list(found.columns) == schemas.VIDEOS_SCHEMA.names
    assert found["wait_seconds"].isna().sum() == 1
    assert found["video"].tolist() == [record.video for record in records]
    shas = [[one["sha256"] for one in objects] for objects in found["objects"]]
    assert shas == [[one.sha256 for one in record.objects] for record in records]
    assert read_videos(str(root), columns=["wait_seconds", "video"]).columns.tolist() == ["wait_seconds", "video"]
    assert (len(read_poses(str(root))), len(read_frames(str(root)))) == (24, 12)


def test_a_column_that_an_earlier_version_did_not_have_is_null(tmp_path: Path):
    publish_earlier(tmp_path, "a.mp4", FIRST_VIDEOS)
    assert read_videos(str(tmp_path), columns=["wait_seconds"])["wait_seconds"].isna().tolist() == [True]
    assert read_videos(str(tmp_path)).columns.tolist() == schemas.VIDEOS_SCHEMA.names


def test_pandas_reads_all_versions(mixed: tuple[Path, list[VideoRecord]]):
    root, records = mixed
    found = pd.read_parquet(root / "videos")
    assert found["video"].tolist() == [record.video for record in records]
    assert [[one["key"] for one in objects] for objects in found["objects"]] == [
        [one.key for one in record.objects] for record in records
    ]
    assert (len(pd.read_parquet(root / "poses")), len(pd.read_parquet(root / "frames"))) == (24, 12)


def test_duckdb_reads_all_versions(mixed: tuple[Path, list[VideoRecord]]):
    root, records = mixed
    videos = [record.video for record in records]
    files = f"{root}/videos/**/*.parquet"
    named = duckdb.sql(f"select video, unnest(objects).rows as rows from '{files}' order by video").fetchall()
    assert named == [(record.video, one.rows) for record in records for one in record.objects]
    whole = duckdb.sql(f"select * from read_parquet('{files}', union_by_name=true) order by video").df()
    assert whole["video"].tolist() == videos
    assert whole["wait_seconds"].isna().sum() == 1
    for kind, rows in (("poses", 24), ("frames", 12)):
        assert duckdb.sql(f"select count(*) from '{root}/{kind}/**/*.parquet'").fetchall() == [(rows,)]


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_duckdb_reads_the_checksums_beside_records_without(tmp_path: Path, names: str):
    """They are a part of `objects`, because DuckDB refuses `select *` where a later file lacks a column."""
    publish_earlier(tmp_path, f"{names[0]}.mp4", SECOND_VIDEOS)
    publish(tmp_path, f"{names[1]}.mp4")
    whole = duckdb.sql(f"select * from '{tmp_path}/videos/**/*.parquet' order by video").df()
    assert whole["video"].tolist() == ["/in/a.mp4", "/in/b.mp4"]


# --- later versions are refused ------------------------------------------------------------------------------------

LATER = schemas.SCHEMA_VERSION + 1


def make_later(store: Store, *prefixes: str) -> None:
    for found in [one for prefix in prefixes for one in store.list(prefix)]:
        store.put(found.key, with_version(store.read(found.key), LATER))


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
    assert len(read(out.root, "dt=1/*")) > 0, "the others are read"


@pytest.mark.parametrize("command", [["gc", "--delete"], ["verify"], ["verify", "--deep"]])
def test_commands_refuse_later_versions(out: LocalStore, command: list[str], capsys: pytest.CaptureFixture[str]):
    age(out, 9, *litter(out))
    make_later(out, "videos/b.mp4")
    before = tree(Path(out.root))
    assert main([*command, "--output", out.root]) == 2
    said = capsys.readouterr()
    assert f"/videos/b.mp4.parquet: written by a newer posebatch, as schema version {LATER}" in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert tree(Path(out.root)) == before


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.setattr(scheduler, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.01)
    archive = Archive(tmp_path)
    archive.add("a.mp4", "b.mp4")
    return archive


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("on_existing", ["skip", "overwrite", "error"])
def test_a_run_refuses_later_versions(
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


def test_nothing_is_done_to_a_video_of_a_later_version(archive: Archive):
    archive.run()
    make_later(archive.store, "videos/b", "poses/b", "frames/b")
    before = {key: archive.store.read(key) for key in keys(archive.store) if "/b.mp4" in key}
    with pytest.raises(NewerOutputError, match=rf"/videos/b\.mp4\.parquet: .*version {LATER}"):
        archive.run(on_existing="overwrite")
    assert {key: archive.store.read(key) for key in keys(archive.store) if "/b.mp4" in key} == before


def test_a_later_version_that_publishes_meanwhile_is_no_failure_of_the_video(archive: Archive):
    """Else a record of the failure would be written over it."""
    archive.run()

    def fault(job):
        if isinstance(job, PublishPreviewTask) and job.video.output_path == "b.mp4":
            make_later(archive.store, "videos/b")

    with pytest.raises(NewerOutputError):
        archive.run(fault, preview="gif")
    assert not archive.submitted(RecordFailureTask)
    with pytest.raises(NewerOutputError):
        read_record(archive.store, "b.mp4")


def test_a_preview_of_later_tables_is_left_out(archive: Archive):
    """A newer posebatch was killed between its tables and its record; what it left is read by nobody here."""
    archive.run()
    make_later(archive.store, "poses/b")
    archive.run(preview="gif")
    assert "written by a newer posebatch" in str(archive.record("b.mp4").error)
    assert "previews/b.mp4.gif" not in keys(archive.store)


# --- staged by another version -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["earlier", "later"])
def test_what_another_version_staged_is_done_again(archive: Archive, monkeypatch: pytest.MonkeyPatch, version: str):
    schema = schemas.STAGED_SCHEMA
    other = schema.remove(2) if version == "earlier" else schema.append(schemas.pa.field("tracks", schemas.pa.int32()))
    video = archive.video("a.mp4")
    work = StagingArea.of(archive.store, video, archive.context().data_fingerprint)
    archive.run()
    clean = {key: archive.store.read(key) for key in keys(archive.store) if key.startswith(("poses/", "frames/"))}
    (done,) = [job.plan for job in archive.submitted(FinalizeTask) if job.video.output_path == "a.mp4"]
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
def before_the_upgrade(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """Both videos published by the first version, whose rows were others."""
    with monkeypatch.context() as earlier:
        earlier.setattr(fingerprints, "PIPELINE_VERSION", 0)
        archive.run()
    for name in ("a.mp4", "b.mp4"):
        make_earlier(archive.store, name, FIRST_VIDEOS)
    return archive


def stop_after_the_first(archive: Archive) -> None:
    def stop(runner, completion):
        if isinstance(completion.result, CommittedRecord):
            runner.stop("the test")

    archive.after = stop
    with pytest.raises(RunAbortedError, match="stopped by the test"):
        archive.run()
    archive.after = lambda *_: None


def test_an_interrupted_upgrade_is_one_dataset_and_is_completed(before_the_upgrade: Archive):
    archive = before_the_upgrade
    stop_after_the_first(archive)
    halves = [archive.record(name) for name in ("a.mp4", "b.mp4")]
    assert sorted(all(one.sha256 for one in record.objects) for record in halves) == [False, True]
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


def test_who_goes_back_amid_an_upgrade_is_refused(before_the_upgrade: Archive, monkeypatch: pytest.MonkeyPatch):
    archive = before_the_upgrade
    stop_after_the_first(archive)
    before = tree(Path(archive.store.root))
    monkeypatch.setattr(parquet, "SCHEMA_VERSION", 1)
    monkeypatch.setattr(fingerprints, "PIPELINE_VERSION", 0)
    with pytest.raises(NewerOutputError, match=r"schema version 2; .* knows versions up to 1"):
        archive.run()
    published = {path: one for path, one in tree(Path(archive.store.root)).items() if "/_state/" not in path}
    assert published == {path: one for path, one in before.items() if "/_state/" not in path}


@pytest.mark.parametrize("folder", ["frames", "videos"])
def test_an_upgrade_that_is_killed_within_a_video(before_the_upgrade: Archive, folder: str):
    """Its new tables lie under the old record: deep `verify` tells, and the same command mends it."""
    archive = before_the_upgrade
    old = {key: archive.store.read(key) for key in keys(archive.store)}
    archive.run()
    for key in [record_key("a.mp4")] if folder == "videos" else ["frames/a.mp4.parquet", record_key("a.mp4")]:
        archive.store.put(key, old[key])
    problems = verify(archive.store, deep=True).problems
    assert any(problem.startswith("poses/a.mp4.parquet: ") for problem in problems)
    assert all("a.mp4" in problem for problem in problems)
    assert facts(archive.run()) == (1, 1, 0, 0)
    assert verify(archive.store, deep=True).problems == ()


def test_a_new_schema_alone_does_nothing_again(archive: Archive):
    archive.run()
    make_earlier(archive.store, "b.mp4", SECOND_VIDEOS)
    assert facts(archive.run()) == (0, 2, 0, 0)
    assert facts(archive.run(on_existing="overwrite")) == (2, 0, 0, 0)
    assert verify(archive.store, deep=True).without_checksum == 0


def test_a_preview_joins_tables_of_an_earlier_version(archive: Archive):
    archive.run()
    make_earlier(archive.store, "b.mp4", FIRST_VIDEOS)
    assert facts(archive.run(preview="gif")) == (2, 0, 0, 0)
    assert [bool(one.sha256) for one in archive.record("b.mp4").objects] == [False, False, True]
    assert verify(archive.store, deep=True).problems == ()


# --- the page ------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_page_parse():
    told = re.findall(
        r"^posebatch (.*?)(?:\s+#.*)?$", "\n".join(re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.S)), re.M
    )
    assert len(told) == 5
    for arguments in told:
        assert callable(build_parser().parse_args(shlex.split(arguments)).command)


def test_the_query_of_the_page(mixed: tuple[Path, list[VideoRecord]], monkeypatch: pytest.MonkeyPatch):
    root, records = mixed
    monkeypatch.chdir(root)
    (query,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.S)
    assert len(duckdb.sql(query.replace("out/", "")).df()) == len(records)


def test_nothing_is_taken_away_while_a_run_has_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = LocalStore(tmp_path)
    with hold_lease(store, "the-run", False, print, print):
        assert main(["gc", "--output", store.root]) == 0, "to look is allowed"
        assert main(["gc", "--output", store.root, "--delete"]) == 2
    assert "run the-run (process" in capsys.readouterr().err
    assert main(["gc", "--output", store.root, "--delete"]) == 0
