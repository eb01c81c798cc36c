"""Hostile file names: each video has one result, below the output, that every reader can read."""

from __future__ import annotations

import os
import re
import subprocess
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

import duckdb
import pandas as pd
import pytest
from faults.plain_runs import plain_command
from faults.suite import FULL
from hypothesis import given
from hypothesis import strategies as st
from support.s3_server import S3Server
from support.tiny_video import write_tiny_video

from posebatch.core.errors import InputError
from posebatch.core.videos import SourceVideo
from posebatch.dataset.layout import artifact_keys, record_key
from posebatch.dataset.output_paths import (
    HASH_DIGITS,
    MAX_SEGMENT_BYTES,
    check_case_collisions,
    encode_output_path,
    merges_names,
)
from posebatch.dataset.tables.readers import read_videos
from posebatch.dataset.tables.schemas import COLUMNS
from posebatch.storage import s3 as s3_module
from posebatch.storage.local import LocalStore
from posebatch.storage.s3 import S3Store

LONG = "n" * 250
SHORTENED = encode_output_path(LONG)

HOSTILE = [
    "plain.mp4",
    "../up.mp4",
    "../../../../etc/passwd.mp4",
    "a/../../b.mp4",
    "./here.mp4",
    "a/./b.mp4",
    "/etc/passwd.mp4",
    "//double.mp4",
    "a//b.mp4",
    "..\\windows.mp4",
    "C:\\autoexec.mp4",
    "line\nbreak.mp4",
    "failed: s3\r\n0 videos.mp4",
    "tab\there.mp4",
    "red\x1b[31m\x1b]0;title\x07.mp4",
    "delete\x7f.mp4",
    "c1\x9b31m.mp4",
    "\uff0e\uff0e\uff0ffullwidth.mp4",
    "\u202egnp.mp4",
    "\u2066isolate\u2069.mp4",
    "zero\u200bwidth.mp4",
    "zerowidth.mp4",
    "line\u2028separator.mp4",
    "caf\u00e9.mp4",
    "cafe\u0301.mp4",
    "A.mp4",
    "a.mp4",
    "\u0410.mp4",
    "%2e%2e/percent.mp4",
    "%.mp4",
    "%25.mp4",
    "_state/x.mp4",
    "_state/leases/x.mp4",
    "runs/x.mp4",
    "poses/x.mp4",
    ".hidden/x.mp4",
    "._apple/x.mp4",
    "width=9/x.mp4",
    "Width=9/x.mp4",
    "video=elsewhere/x.mp4",
    "dt=1/x.mp4",
    "dt=one/x.mp4",
    "dt=1/dt=2/x.mp4",
    "dt=50%/x.mp4",
    "dt=__HIVE_DEFAULT_PARTITION__/x.mp4",
    "=1/x.mp4",
    "victim.mp4",
    "victim.mp4.parquet/evil.mp4",
    "victim.mp4.gif/evil.mp4",
    "victim.mp4.PARQUET/evil.mp4",
    f"{LONG}/x.mp4",
    f"{SHORTENED}/x.mp4",
    "k" * 1000 + ".mp4",
    "d/" * 480 + "deep.mp4",
    "[1].mp4",
    "*?{x}.mp4",
    "quote'\".mp4",
    "semi;colon.mp4",
    " .mp4",
    "-rf.mp4",
    "~.mp4",
]
"""Keys of an archive in S3; none is a folder of another."""

OVERLONG_FOR_A_FILE_SYSTEM = 255

FRAMES = 2
"""Frames of each video here."""


# --- output paths ----------------------------------------------------------------------------------------------------

FOLDER_NAMES = st.one_of(
    st.sampled_from(["", ".", "..", "_state", "runs", "a", "A", "x.parquet", "x.GIF", "x", "dt=1", "pts=1", "%", LONG]),
    st.sampled_from([SHORTENED, f"~{'0' * HASH_DIGITS}", "\u202e", "x=\x00", "=", "e\u0301", "\u00e9", "\\", "x=%41"]),
    st.text(st.characters(codec="utf-8"), max_size=8),
)
KEYS = st.lists(FOLDER_NAMES, min_size=1, max_size=7).map("/".join)


def results(path: str) -> list[str]:
    """The keys of all objects that are published for a path of the archive."""
    encoded = encode_output_path(path)
    return [record_key(encoded), *artifact_keys(encoded)]


@given(key=KEYS)
def test_output_paths_stay_below_the_data_folders(key: str) -> None:
    root = Path("/output/root")
    for result in results(key):
        target = Path(os.path.normpath(root / result))
        assert target == root / result
        assert target.is_relative_to(root / result.split("/")[0])
        assert not target.is_relative_to(root / "_state")
        assert not target.is_relative_to(root / "runs")


@given(first=KEYS, second=KEYS)
def test_output_paths_are_unique(first: str, second: str) -> None:
    if first != second:
        assert not set(results(first)) & set(results(second))


@given(path=KEYS, suffix=st.sampled_from(["", ".parquet", ".gif", ".PARQUET"]), below=KEYS)
def test_output_path_is_never_a_folder_of_another(path: str, suffix: str, below: str) -> None:
    other = f"{path}{suffix}/{below}"
    for result in results(path):
        assert not any(theirs.startswith(f"{result}/") for theirs in results(other))


@pytest.mark.parametrize("path", [LONG, f"{LONG}/x.mp4", f"a/{LONG}/{LONG}.mp4", "d/" * 500 + "x.mp4"])
def test_shortened_name_cannot_be_taken_by_another_source(path: str) -> None:
    result = encode_output_path(path)
    assert encode_output_path(result) != result


@pytest.mark.parametrize("column", sorted(COLUMNS))
def test_folder_named_like_a_column_is_encoded(column: str) -> None:
    for name in (column, column.upper(), column.title()):
        assert encode_output_path(f"{name}=1/x.mp4") == f"{name}%3D1/x.mp4"


PARTITIONS = {
    "dt=2026-01-02/x": "dt=2026-01-02/x",
    "camera=\u00fc b/x": "camera=\u00fc b/x",
    "x==/y": "x==/y",
    "dt=50%/x": "dt%3D50%25/x",
    "x=\x01=2/y": "x%3D%01%3D2/y",
    "dt=__HIVE_DEFAULT_PARTITION__/x": "dt%3D__HIVE_DEFAULT_PARTITION__/x",
    "_x=1/y": "%5Fx%3D1/y",
    os.fsdecode(b"x=\xff/y"): "x%3D%FF/y",
}


@pytest.mark.parametrize(("path", "expected"), PARTITIONS.items(), ids=ascii)
def test_readable_partitions_are_kept(path: str, expected: str) -> None:
    assert encode_output_path(path) == expected


# --- from names to a dataset -----------------------------------------------------------------------------------------


def check_dataset(root: Path, expected: set[str]) -> None:
    """Assert that pandas on the folders and DuckDB with a glob read every video once."""
    for table in ("poses", "frames", "videos"):
        by_pandas = pd.read_parquet(root / table)
        pattern = f"{root}/{table}/**/*.parquet".replace("'", "''")
        by_duckdb = duckdb.sql(f"SELECT video FROM '{pattern}'").df()
        assert set(by_pandas["video"].unique()) == set(by_duckdb["video"].unique()) == expected
        assert len(by_pandas) == len(by_duckdb) == len(expected) * (1 if table == "videos" else FRAMES)


def text_of(path: str) -> str:
    """A name as the tables hold it."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def local_names() -> Iterable[str]:
    """The keys that are valid file names on disk."""
    for key in HOSTILE:
        names = key.split("/")
        fits = all(len(name.encode()) <= OVERLONG_FOR_A_FILE_SYSTEM for name in names)
        if fits and not {"", ".", ".."} & set(names):
            yield key
    yield os.fsdecode(b"caf\xe9.mp4")
    yield os.fsdecode(b"x=\xff/latin.mp4")


@pytest.mark.slow
def test_folder_of_hostile_names_becomes_one_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, output = tmp_path / "in", tmp_path / "out"
    names = [*local_names()]
    assert len(names) > 40
    for name in names:
        write_tiny_video(archive / name, FRAMES)
    outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(output)}
    posebatch = plain_command(monkeypatch)
    assert posebatch("run", str(archive), "--output", str(output)) == 0
    stdout = capsys.readouterr().out
    assert f"{len(names)} published, 0 up to date, 0 failed" in stdout
    assert posebatch("verify", "--output", str(output)) == 0
    check_dataset(output, {text_of(f"{archive}/{name}") for name in names})
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(output)} == outside
    assert all(path.resolve().is_relative_to(output) for path in output.rglob("*"))


@pytest.mark.parametrize("evil_first", [False, True])
@pytest.mark.parametrize("folder", ["victim.mp4.parquet", "victim.mp4.gif", "victim.mp4.Parquet"])
def test_folder_never_blocks_the_output_of_another_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, evil_first: bool
) -> None:
    names = ["victim.mp4", f"{folder}/evil.mp4"]
    for name in reversed(names) if evil_first else names:
        path = write_tiny_video(tmp_path / "in" / name)
        command = ("run", str(tmp_path / "in"), "--output", str(tmp_path / "out"))
        assert plain_command(monkeypatch)(*command) == 0, path
    assert len(read_videos(str(tmp_path / "out"))) == 2


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    s3_module.s3_client.cache_clear()
    return s3_server


@pytest.mark.slow
@pytest.mark.s3
def test_bucket_of_hostile_keys_becomes_one_dataset(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client, bucket = s3.client(), f"names-{uuid4().hex[:8]}"
    client.create_bucket(Bucket=bucket)
    client.create_bucket(Bucket=f"{bucket}-out")
    content = write_tiny_video(tmp_path / "x.mp4", FRAMES).read_bytes()
    on_disks = {*local_names()}
    keys = [key for key in HOSTILE if FULL or key not in on_disks or "victim" in key]
    for key in keys:
        client.put_object(Bucket=bucket, Key=key, Body=content)
    client.put_object(Bucket=bucket, Key="console/folder.mp4/", Body=b"")
    posebatch = plain_command(monkeypatch)
    output = f"s3://{bucket}-out/data"
    assert posebatch("run", f"s3://{bucket}/", "--output", output) == 0
    assert f"{len(keys)} published, 0 up to date, 0 failed" in capsys.readouterr().out
    assert posebatch("run", f"s3://{bucket}/", "--output", output) == 0
    assert f"0 published, {len(keys)} up to date" in capsys.readouterr().out
    assert posebatch("verify", "--output", output) == 0
    written = [stored.key for stored in S3Store(f"s3://{bucket}-out").list()]
    assert all(key.startswith("data/") for key in written)
    assert len([key for key in written if key.startswith("data/videos/")]) == len(keys)
    for key in written:  # like a reader who copies the dataset to a disk
        target = tmp_path / "copy" / key
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(f"{bucket}-out", key, str(target))
    check_dataset(tmp_path / "copy" / "data", {f"s3://{bucket}/{key}" for key in keys})
    assert {stored.key for stored in S3Store(f"s3://{bucket}").list()} == set(keys)


# --- links -----------------------------------------------------------------------------------------------------------


def test_output_replaces_file_links_and_follows_folder_links(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "out")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("untouched")
    (tmp_path / "out" / "poses").mkdir(parents=True)
    (tmp_path / "out" / "poses" / "a.parquet").symlink_to(elsewhere / "precious")
    (tmp_path / "out" / "frames").symlink_to(elsewhere)  # another disk of the operator
    store.put("poses/a.parquet", b"rows")
    store.put("frames/a.parquet", b"rows")
    assert (elsewhere / "precious").read_text() == "untouched"
    assert not (tmp_path / "out" / "poses" / "a.parquet").is_symlink()
    assert (elsewhere / "a.parquet").read_bytes() == b"rows"
    (tmp_path / "out" / "poses" / "b.parquet").symlink_to(elsewhere / "precious")
    store.delete("poses/b.parquet")
    assert (elsewhere / "precious").read_text() == "untouched"


def test_folders_beyond_the_path_limit_do_not_hide_other_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("above.mp4", "zzz/below.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    nearly = (4096 - len(str(tmp_path)) - 100) // 2
    monkeypatch.chdir(tmp_path)
    try:
        for depth in range(2100):
            os.mkdir("d")
            os.chdir("d")
            if depth % 300 == 0:
                Path("x.mp4").touch()
            if depth == nearly:
                Path("x" * 200 + ".mp4").touch()  # reachable by its folder, not by its path
        keys = [stored.key for stored in LocalStore(tmp_path).list()]
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # Python and pytest would recurse too deeply
    assert {"above.mp4", "zzz/below.mp4"} < set(keys)
    assert sum(key.endswith("d/x.mp4") for key in keys) == len(range(0, (4096 - len(str(tmp_path))) // 2, 300))


# --- case collisions -------------------------------------------------------------------------------


def video(path: str) -> SourceVideo:
    return SourceVideo(f"/in/{path}", encode_output_path(path), "e", 1, 0.0)


CLASHES: dict[str, tuple[list[str], bool]] = {
    "nothing": ([], False),
    "one": (["a.mp4"], False),
    "two": (["a.mp4", "b.mp4"], False),
    "case": (["A.mp4", "b.mp4", "a.mp4"], True),
    "case of a folder": (["X/a.mp4", "x/a.mp4"], True),
    "folders that are merged, files that are not": (["X/a.mp4", "x/b.mp4"], False),
    "accents": (["caf\u00e9.mp4", "cafe\u0301.mp4"], True),
    "sharp s": (["stra\u00dfe.mp4", "STRASSE.mp4"], True),
    "look-alikes": (["\u0430.mp4", "a.mp4"], False),
}


@pytest.mark.parametrize(("paths", "clash"), CLASHES.values(), ids=CLASHES)
def test_case_collisions_are_refused_by_name(tmp_path: Path, paths: list[str], clash: bool) -> None:
    store = LocalStore(tmp_path)

    def check(merges: bool) -> None:
        check_case_collisions(store, lambda: map(video, paths), lambda _: merges)

    check(merges=False)
    if not clash:
        check(merges=True)
        return
    with pytest.raises(InputError, match="takes their names for the same") as raised:
        check(merges=True)
    named = re.findall(r"/in/(\S+?)(?: and|:)", str(raised.value))
    assert len(named) == 2
    assert set(named) <= set(paths)


def test_s3_has_no_case_collisions() -> None:
    class Far(S3Store):
        def __init__(self) -> None:
            self.root = "s3://bucket"

    check_case_collisions(Far(), lambda: map(video, ["A.mp4", "a.mp4"]), lambda _: True)


def test_run_with_case_collisions_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("A.mp4", "a.mp4"):
        write_tiny_video(tmp_path / "in" / name)
    monkeypatch.setattr(check_case_collisions, "__defaults__", (lambda _: True,))
    assert plain_command(monkeypatch)("run", str(tmp_path / "in"), "--output", str(tmp_path / "out")) == 2
    stderr = capsys.readouterr().err
    assert "A.mp4" in stderr
    assert "a.mp4" in stderr
    assert not (tmp_path / "out" / "videos").exists()


@pytest.mark.parametrize(
    ("alike", "merged"),
    [
        pytest.param(lambda name: name, False, id="a disk that merges nothing"),
        pytest.param(str.casefold, True, id="case"),
        pytest.param(lambda name: unicodedata.normalize("NFD", name), True, id="accents"),
    ],
)
def test_merging_disk_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alike: object, merged: bool) -> None:
    def exists(path: Path) -> bool:  # like a disk that compares names in this way
        assert callable(alike)
        return any(alike(entry.name) == alike(path.name) for entry in path.parent.iterdir())

    monkeypatch.setattr(os.path, "lexists", exists)
    assert merges_names(str(tmp_path)) is merged
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_merges_names_agrees_with_this_disk(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    if not merges_names(str(tmp_path)):
        assert not (tmp_path / "A").exists()


def test_encoded_names_fit_file_systems() -> None:
    assert all(
        len(name.encode()) <= MAX_SEGMENT_BYTES for key in HOSTILE for name in encode_output_path(key).split("/")
    )
