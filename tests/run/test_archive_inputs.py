"""Archives, web addresses and inventories among the inputs of a run."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.archive_factories import tar_bytes, with_flag, zip_bytes
from support.web_server import Answer, running_web_server, serve_range

from posebatch.cli.entry import build_parser
from posebatch.cli.run import _named_inputs
from posebatch.core.errors import ArchiveError, InputError
from posebatch.core.redaction import redacted
from posebatch.core.selection_settings import SelectionSettings
from posebatch.core.videos import SourceVideo
from posebatch.run.planning import archives as archives_module
from posebatch.run.planning.inputs import list_inputs, list_videos, parse_inputs
from posebatch.run.planning.inventory import PREFIX
from posebatch.run.planning.names import PassedOver
from posebatch.run.planning.output_place import check_output_apart
from posebatch.run.planning.video_list import VideoList
from posebatch.run.planning.web_addresses import unsigned
from posebatch.storage import retry
from posebatch.storage.open import find_source, open_video
from posebatch.storage.retry import RetryPolicy

MEMBERS = {
    "cam1/a.mp4": b"a" * 700,
    "cam2/b.MKV": b"b",
    "notes.txt": b"n",
    "__MACOSX/cam1/._a.mp4": b"m",
    "../up.mp4": b"u",
    "inner.zip": b"z",
    "_x.mp4": b"x",
}
VIDEOS = ["%2E./up.mp4", "%5Fx.mp4", "cam1/a.mp4", "cam2/b.MKV"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with archives of each kind between plain videos."""
    root = tmp_path / "in"
    (root / "day=1").mkdir(parents=True)
    (root / "a.mp4").write_bytes(b"plain")
    (root / "day=1" / "x.zip").write_bytes(zip_bytes(MEMBERS))
    (root / "x.tar").write_bytes(tar_bytes(MEMBERS))
    (root / "bad.zip").write_bytes(zip_bytes(MEMBERS)[:-40])
    (root / "c.tar.gz").write_bytes(b"\x1f\x8b")
    (root / "z.mp4").write_bytes(b"plain, too")
    return root


def listed(*named: str | Path, **selection: Any) -> list[SourceVideo]:
    return list(list_videos(parse_inputs([str(name) for name in named]), SelectionSettings(**selection)))


def paths(*named: str | Path, **selection: Any) -> list[str]:
    return [video.output_path for video in listed(*named, **selection)]


def test_archives_of_a_folder_are_counted_and_not_opened_by_default(archive: Path) -> None:
    listing = list_inputs(parse_inputs([str(archive)]), SelectionSettings())
    assert [video.output_path for video in listing.videos] == ["a.mp4", "z.mp4"]
    assert {(reason.what, reason.take_in) for reason, _ in listing.passed_over.by_reason()} == {
        (".zip, archives", "--archives"),
        (".tar, archives", "--archives"),
        (
            ".tar.gz, archives",
            "its members cannot be read by ranges: unpack it, or pack it again as .tar or with zip -0",
        ),
    }


def test_archives_of_a_folder_are_opened_when_asked(archive: Path) -> None:
    listing = list_inputs(parse_inputs([str(archive)]), SelectionSettings(archives=True))
    in_zip, in_tar = ([f"{name}!/{video}" for video in VIDEOS] for name in ("day=1/x.zip", "x.tar"))
    assert sorted(video.output_path for video in listing.videos) == sorted(
        ["a.mp4", "bad.zip", "c.tar.gz", *in_zip, *in_tar, "z.mp4"]
    )
    whats = {reason.what: files for reason, files in listing.passed_over.by_reason()}
    assert whats == {".txt": 2, "__MACOSX/": 2, "archives in an archive": 2}
    for video in listing.videos:
        if "!/" not in video.uri:
            continue
        name = video.uri.partition("!/")[2]
        with open_video(video) as file:
            assert (file.read(), video.size_bytes) == (MEMBERS[name], len(MEMBERS[name]))


def test_archive_that_cannot_be_listed_fails_as_one_video(archive: Path) -> None:
    bad = [video for video in listed(archive, archives=True) if video.uri.endswith(("bad.zip", "tar.gz"))]
    for video, says in zip(bad, ("incomplete", "unpack it"), strict=True):
        with pytest.raises(ArchiveError, match=says):
            open_video(video)
    assert [video.uri for video in listed(archive / "bad.zip", include=("*.mp4",))] == [str(archive / "bad.zip")]


NAMED: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "an archive": ("x.tar", {}, [f"x.tar!/{video}" for video in VIDEOS]),
    "a glob of archives": ("*.tar", {}, [f"x.tar!/{video}" for video in VIDEOS]),
    "a glob of videos": ("*.mp4", {"archives": True}, ["a.mp4", "z.mp4"]),
    "a member": ("x.tar!/cam1/a.mp4", {}, ["x.tar!/cam1/a.mp4"]),
    "a folder in an archive": ("x.tar!/cam2", {}, ["x.tar!/cam2/b.MKV"]),
    "a glob in an archive": ("x.tar!/cam*/*.mp4", {}, ["x.tar!/cam1/a.mp4"]),
    "all of an archive": ("x.tar!/", {}, [f"x.tar!/{video}" for video in VIDEOS]),
    "a member that is not there": ("x.tar!/none.mp4", {}, []),
    "included members": (
        "",
        {"archives": True, "include": ("*.tar!/cam1/*",)},
        ["bad.zip", "c.tar.gz", "x.tar!/cam1/a.mp4"],
    ),
    "excluded members": ("x.tar", {"exclude": ("*!/cam?/*", "*/_x.*")}, ["x.tar!/%2E./up.mp4"]),
    "excluded archives": ("", {"archives": True, "exclude": ("*.zip", "*.tar*")}, ["a.mp4", "z.mp4"]),
}  # fmt: skip


@pytest.mark.parametrize(("named", "selection", "expected"), NAMED.values(), ids=NAMED)
def test_members_are_selected_by_their_path(
    archive: Path, named: str, selection: dict[str, Any], expected: list[str]
) -> None:
    (archive / "day=1" / "x.zip").unlink()
    assert sorted(paths(f"{archive}/{named}", **selection)) == sorted(expected)


def test_archive_in_two_inputs_is_taken_once(archive: Path) -> None:
    assert sorted(paths(archive / "x.tar", f"{archive}/x.tar!/cam1", archive, archives=True)) == sorted(
        set(paths(archive, archives=True))
    )


def test_file_in_a_folder_named_like_an_archive_is_no_member(archive: Path) -> None:
    folder = archive / "x.tar!" / "cam1"
    folder.mkdir(parents=True)
    (folder / "a.mp4").write_bytes(b"another")
    assert "x.tar!/cam1/a.mp4" in paths(archive)
    listing = list_inputs(parse_inputs([str(archive)]), SelectionSettings(archives=True))
    found = [video for video in listing.videos if video.output_path == "x.tar!/cam1/a.mp4"]
    assert [video.size_bytes for video in found] == [700]
    assert (archives_module.LIKE_AN_ARCHIVE, 1) in listing.passed_over.by_reason()
    [named] = listed(folder / "a.mp4")
    with open_video(named) as file:
        assert file.read() == b"another"


@pytest.mark.parametrize("waiting", [0, 3, 4096])
def test_members_come_in_the_order_of_their_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    monkeypatch.setattr(archives_module, "MAX_WAITING", waiting)
    for number in range(40):
        (tmp_path / f"{number:02}.zip").write_bytes(zip_bytes({"b.mp4": b"", "a.mp4": b""}))
        (tmp_path / f"{number:02}a.mp4").write_bytes(b"")
    expected = [
        name for number in range(40) for name in (f"{number:02}.zip!/b", f"{number:02}.zip!/a", f"{number:02}a")
    ]
    assert paths(tmp_path, archives=True) == [f"{name}.mp4" for name in expected]


def test_encrypted_member_is_a_video_that_fails(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(with_flag(zip_bytes({"a.mp4": b"1"}), 1))
    [video] = listed(tmp_path / "x.zip")
    with pytest.raises(ArchiveError, match="encrypted"):
        open_video(video)


# --- web addresses ---------------------------------------------------------------------------------------------------

SECRET = "5ecretSignature"


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "DEFAULT_POLICY", RetryPolicy(attempts=2, first_pause_s=0.001))


def answer_of(files: Mapping[str, bytes]) -> Callable[[str, Mapping[str, str]], Answer]:
    def answer(path: str, asked: Mapping[str, str]) -> Answer:
        name = path.partition("?")[0]
        return serve_range(files[name], {"ETag": '"v1"'}, asked) if name in files else (404, {}, b"")

    return answer


def test_addresses_are_videos_without_their_signature() -> None:
    files = {"/b/a%20b.mp4": b"film", "/b/no-extension": b"x", "/b/x.zip": zip_bytes(MEMBERS)}
    with running_web_server(answer_of(files)) as server:
        named = [f"{server.url}{path}?X-Amz-Signature={SECRET}{i}" for i, path in enumerate([*files, "/b/gone.mp4"])]
        listing = list_inputs(parse_inputs(named), SelectionSettings())
        host = server.url.removeprefix("http://")
        videos = {video.output_path: video for video in listing.videos}
        assert set(videos) == {
            *(f"{host}/b/{name}" for name in ("a b.mp4", "no-extension", "gone.mp4")),
            *(f"{host}/b/x.zip!/{video}" for video in VIDEOS),
        }
        assert SECRET not in repr(list(videos.values()))
        assert (videos[f"{host}/b/gone.mp4"].etag, videos[f"{host}/b/a b.mp4"].etag) == ("", "v1")
        with open_video(videos[f"{host}/b/x.zip!/cam1/a.mp4"]) as file:
            assert file.read() == MEMBERS["cam1/a.mp4"]
        assert {path.partition("?")[2] for _, path, _ in server.requests} == {
            f"X-Amz-Signature={SECRET}{i}" for i in range(4)
        }
        assert unsigned(named[0]) == f"{server.url}/b/a%20b.mp4"


def test_two_addresses_that_differ_in_their_parameters_are_refused() -> None:
    uri = "https://host/get"
    with pytest.raises(InputError, match=re.escape(f"{uri} is listed twice")):
        parse_inputs([f"{uri}?id=1", f"{uri}?id=2"])
    assert len(parse_inputs([f"{uri}?id=1", f"{uri}?id=1"])) == 1


def test_signed_address_on_the_command_line_is_refused() -> None:
    chosen = build_parser().parse_args(["run", f"https://host/a.mp4?X-Amz-Signature={SECRET}", "--output", "out"])
    with pytest.raises(InputError, match="--inputs-from") as raised:
        _named_inputs(chosen)
    assert SECRET not in str(raised.value)
    assert redacted("?X-Goog-Signature=abc&x") == "?X-Goog-Signature=***&x"


def test_video_list_keeps_signatures_and_cold_classes() -> None:
    videos = [
        SourceVideo(f"https://h/{i}", f"h/{i}", "e", 1, 1.0, "GLACIER" * (i % 2), access=f"s{i}") for i in range(1500)
    ]
    kept = VideoList()
    for video in videos:
        kept.add(video)
    assert list(kept) == videos
    assert [video.access for video in kept] == [video.access for video in videos]


# --- inventories -----------------------------------------------------------------------------------------------------

ROWS: list[dict[str, Any]] = [
    {"key": "cam 1/ü+%.mp4", "size": 5, "e_tag": "e1", "storage_class": "STANDARD"},
    {"key": "old.mp4", "size": 1, "e_tag": "e2", "is_latest": False},
    {"key": "deleted.mp4", "size": None, "e_tag": None, "is_delete_marker": True},
    {"key": "cold.mp4", "size": 7, "e_tag": "e3", "storage_class": "DEEP_ARCHIVE"},
    {"key": "tier.mp4", "size": 8, "e_tag": "e4", "storage_class": "INTELLIGENT_TIERING", "tier": "ARCHIVE_ACCESS"},
    {"key": "near.mp4", "size": 9, "e_tag": "e5", "storage_class": "GLACIER_IR"},
    {"key": "folder/", "size": 0, "e_tag": "e6"},
    {"key": "notes.txt", "size": 0, "e_tag": "e7"},
]
TIME = "2026-01-02T03:04:05.000Z"
COLUMNS = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass, " \
    "IntelligentTieringAccessTier, EncryptionStatus"  # fmt: skip
EXPECTED = {
    "archive/cam 1/ü+%25.mp4": ("e1", 5, ""),
    "archive/cold.mp4": ("e3", 7, "DEEP_ARCHIVE"),
    "archive/tier.mp4": ("e4", 8, "ARCHIVE_ACCESS"),
    "archive/near.mp4": ("e5", 9, ""),
}


def as_csv(rows: list[dict[str, Any]], columns: str = COLUMNS) -> bytes:
    from urllib.parse import quote_plus  # noqa: PLC0415

    lines = []
    for row in rows:
        values = {
            **dict.fromkeys(columns.split(", "), ""),
            "Bucket": "archive",
            "Key": quote_plus(row["key"], safe="/"),
            "IsLatest": str(row.get("is_latest", True)).lower(),
            "IsDeleteMarker": str(row.get("is_delete_marker", False)).lower(),
            "Size": "" if row["size"] is None else row["size"],
            "LastModifiedDate": TIME,
            "ETag": row["e_tag"] or "",
            "StorageClass": row.get("storage_class", "STANDARD"),
            "IntelligentTieringAccessTier": row.get("tier", ""),
        }
        lines.append(",".join(f'"{values[column]}"' for column in columns.split(", ")))
    return gzip.compress("\n".join(lines).encode())


def as_parquet(rows: list[dict[str, Any]], without: str = "") -> bytes:
    table = pa.table(
        {
            "bucket": ["archive"] * len(rows),
            "key": [row["key"] for row in rows],
            "is_latest": [row.get("is_latest", True) for row in rows],
            "is_delete_marker": [row.get("is_delete_marker", False) for row in rows],
            "size": pa.array([row["size"] for row in rows], pa.int64()),
            "last_modified_date": pa.array([1767323045000] * len(rows), pa.timestamp("ms", "UTC")),
            "e_tag": [row["e_tag"] for row in rows],
            "storage_class": [row.get("storage_class", "STANDARD") for row in rows],
            "intelligent_tiering_access_tier": [row.get("tier") for row in rows],
            "encryption_status": ["SSE-S3"] * len(rows),
        }
    )
    sink = io.BytesIO()
    pq.write_table(table.drop_columns([without] if without else []), sink)
    return sink.getvalue()


def manifest(folder: Path, files: Mapping[str, bytes], file_format: str, schema: str = COLUMNS) -> str:
    """An inventory that was copied to the disk."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    content = {
        "sourceBucket": "archive",
        "destinationBucket": "arn:aws:s3:::lists",
        "version": "2016-11-30",
        "fileFormat": file_format,
        "fileSchema": schema,
        "files": [{"key": f"inventory/data/{name}", "size": len(content)} for name, content in files.items()],
    }
    (folder / "manifest.json").write_text(json.dumps(content))
    return str(folder / "manifest.json")


@pytest.mark.parametrize("file_format", ["CSV", "Parquet"])
def test_inventory_lists_the_current_objects(tmp_path: Path, file_format: str) -> None:
    write, extension = (as_csv, "csv.gz") if file_format == "CSV" else (as_parquet, "parquet")
    files = {f"1.{extension}": write(ROWS[:3]), f"2.{extension}": write(ROWS[3:])}
    inputs = parse_inputs([PREFIX + manifest(tmp_path, files, file_format)])
    listing = list_inputs(inputs, SelectionSettings())
    found = {video.output_path: (video.etag, video.size_bytes, video.cold_class) for video in listing.videos}
    assert found == EXPECTED
    first = next(iter(listing.videos))
    assert (first.uri, first.last_modified) == ("s3://archive/cam 1/ü+%.mp4", 1767323045.0)
    assert listing.passed_over.by_reason() == [(PassedOver(".txt", "--include '*.txt'"), 1)]
    chosen = list_videos(inputs, SelectionSettings(include=("cam 1/*",)))
    assert [video.output_path for video in chosen] == ["archive/cam 1/ü+%25.mp4"]


def test_inventory_that_lists_a_key_twice_gives_one_video(tmp_path: Path) -> None:
    inputs = parse_inputs([PREFIX + manifest(tmp_path, {"1.csv.gz": as_csv(ROWS[:1] * 2)}, "CSV")])
    assert len(list_inputs(inputs, SelectionSettings()).videos) == 1


def test_output_that_is_listed_in_an_inventory_is_refused(tmp_path: Path) -> None:
    inputs = parse_inputs([PREFIX + manifest(tmp_path, {"1.csv.gz": as_csv(ROWS)}, "CSV")])
    videos = list(list_videos(inputs, SelectionSettings()))
    check_output_apart(inputs, videos, "s3://archive/cam")
    with pytest.raises(InputError, match="cam 1/ü"):
        check_output_apart(inputs, videos, "s3://archive/cam 1/")


SHORT = "Bucket, Key, Size"
BAD_INVENTORIES: dict[str, tuple[Mapping[str, bytes], str, str, str]] = {
    "ORC": ({}, "ORC", "struct<...>", "ORC, which is not read; configure one in CSV or Parquet"),
    "columns missing in CSV": ({}, "CSV", SHORT, "lacks LastModifiedDate, ETag; add them"),
    "versions without the latest": ({}, "CSV", COLUMNS.replace("IsLatest, ", ""), "lacks IsLatest"),
    "columns missing in Parquet": ({"1": as_parquet(ROWS, "e_tag")}, "Parquet", "message", "lacks ETag"),
    "no Parquet": ({"1": b"x" * 100}, "Parquet", "message", "1 is damaged"),
    "cut off": ({"1": as_csv(ROWS)[:-20]}, "CSV", COLUMNS, "1 is damaged"),
    "other columns": ({"1": as_csv(ROWS, f"{COLUMNS}, More")}, "CSV", COLUMNS, "1 is damaged: a row of 12 values"),
}


@pytest.mark.parametrize(("files", "file_format", "schema", "says"), BAD_INVENTORIES.values(), ids=BAD_INVENTORIES)
def test_bad_inventory_is_refused_with_the_reason(
    tmp_path: Path, files: Mapping[str, bytes], file_format: str, schema: str, says: str
) -> None:
    named = PREFIX + manifest(tmp_path, files, file_format, schema)
    with pytest.raises(InputError, match=f"--inventory {tmp_path}.*{says}"):
        list_inputs(parse_inputs([named]), SelectionSettings())


def test_file_that_is_no_manifest_is_refused(tmp_path: Path) -> None:
    for content in ("", "[]", "{}", '{"sourceBucket": "b", "destinationBucket": 1}'):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(InputError, match=r"not the manifest\.json"):
            parse_inputs([f"{PREFIX}{tmp_path}/manifest.json"])
    with pytest.raises(InputError, match="no such manifest"):
        parse_inputs([f"{PREFIX}{tmp_path}/other.json"])
    os.remove(tmp_path / "manifest.json")
    named = PREFIX + manifest(tmp_path, {"1.csv.gz": as_csv(ROWS)}, "CSV")
    (tmp_path / "1.csv.gz").unlink()
    with pytest.raises(InputError, match=r"1\.csv\.gz is gone"):
        list_inputs(parse_inputs([named]), SelectionSettings())


def test_tar_formats_give_one_list(tmp_path: Path) -> None:
    for tar_format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        (tmp_path / "x.tar").write_bytes(tar_bytes(MEMBERS, tar_format))
        assert sorted(paths(tmp_path / "x.tar")) == [f"x.tar!/{video}" for video in VIDEOS]
        assert find_source(str(tmp_path / "x.tar")).size_bytes > 0
