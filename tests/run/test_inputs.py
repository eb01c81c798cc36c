"""Inputs select the right videos, each once and with its own output path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.s3_server import S3Server

from posebatch.core.errors import AccessDeniedError, InputError, ObjectNotFoundError
from posebatch.core.selection_settings import SelectionSettings
from posebatch.core.videos import SourceVideo
from posebatch.dataset.output_paths import MAX_PATH_BYTES, MAX_SEGMENT_BYTES, encode_output_path
from posebatch.run.planning.inputs import (
    InputListing,
    VideoList,
    list_inputs,
    list_videos,
    parse_inputs,
    read_input_list,
)
from posebatch.run.planning.output_place import check_output_outside_inputs
from posebatch.storage import open as open_module
from posebatch.storage import s3 as s3_module
from posebatch.storage.local import LocalStore
from posebatch.storage.open import relist

ALL = SelectionSettings()

ARCHIVE = {
    "a.mp4": 10,
    "b.MKV": 20,
    "notes.txt": 5,
    "._a.mp4": 4,
    ".hidden.mp4": 6,
    "cam1/x.mp4": 1,
    "cam1/y.webm": 2,
    "cam1/day2/z.mov": 3,
    "cam2/x.mp4": 4,
    "cam2/raw.bin": 7,
    "cam10/[1].mp4": 8,
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = tmp_path / "archive"
    for key, size in ARCHIVE.items():
        write(root / key, size)
    return root


def write(path: Path, size: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def listed_paths(*named: Path | str, selection: SelectionSettings = ALL) -> list[str]:
    return [video.output_path for video in list_videos(parse_inputs([str(name) for name in named]), selection)]


# --- inputs ---------------------------------------------------------------------------------------------------


def test_parse_inputs_refuses_an_empty_list() -> None:
    with pytest.raises(InputError, match="no input"):
        parse_inputs([])


ALL_VIDEOS = ["%2Ehidden.mp4", "a.mp4", "b.MKV", "cam1/day2/z.mov", "cam1/x.mp4", "cam1/y.webm", "cam10/[1].mp4"]
ALL_VIDEOS += ["cam2/x.mp4"]

GLOBS: dict[str, list[str]] = {
    "": ALL_VIDEOS,
    "a.mp4": ["a.mp4"],
    "notes.txt": ["notes.txt"],
    "._a.mp4": ["%2E_a.mp4"],
    "cam1": ["day2/z.mov", "x.mp4", "y.webm"],
    "cam1/": ["day2/z.mov", "x.mp4", "y.webm"],
    "cam1/../cam2": ["x.mp4"],
    "*": ["%2Ehidden.mp4", "a.mp4", "b.MKV"],
    "*.mp4": ["%2Ehidden.mp4", "a.mp4"],
    "*.txt": ["notes.txt"],
    "*/*.mp4": ["cam1/x.mp4", "cam10/[1].mp4", "cam2/x.mp4"],
    "cam?/x.*": ["cam1/x.mp4", "cam2/x.mp4"],
    "cam*/x.mp4": ["cam1/x.mp4", "cam2/x.mp4"],
    "cam[13-9]/*": ["cam1/x.mp4", "cam1/y.webm"],
    "cam[!1]/*": ["cam2/x.mp4"],
    "cam2/*": ["x.mp4"],
    "cam2/*.bin": ["raw.bin"],
    "**": ALL_VIDEOS,
    "**/*.mp4": ["%2Ehidden.mp4", "a.mp4", "cam1/x.mp4", "cam10/[1].mp4", "cam2/x.mp4"],
    "**/x.mp4": ["cam1/x.mp4", "cam2/x.mp4"],
    "cam1/**": ["day2/z.mov", "x.mp4", "y.webm"],
    "cam1/**/*.mov": ["day2/z.mov"],
    "cam1/day?/*": ["day2/z.mov"],
    "cam10/[1].mp4": ["[1].mp4"],
    "*.nothing": [],
}


@pytest.mark.parametrize(("named", "expected"), GLOBS.items(), ids=[name or "folder" for name in GLOBS])
def test_inputs_select_files_folders_and_globs(archive: Path, named: str, expected: list[str]) -> None:
    assert listed_paths(f"{archive}/{named}") == expected


def test_source_video_has_address_and_version(archive: Path) -> None:
    [video] = list_videos(parse_inputs([str(archive / "cam1" / "x.mp4")]), ALL)
    stat = (archive / "cam1" / "x.mp4").stat()
    assert (video.uri, video.size_bytes, video.last_modified) == (str(archive / "cam1/x.mp4"), 1, stat.st_mtime)
    assert video.etag == f"1-{stat.st_mtime_ns}"
    assert relist(video, None) == video
    os.utime(video.uri, ns=(1, 1))
    assert relist(video, None).etag == "1-1"
    os.remove(video.uri)
    with pytest.raises(ObjectNotFoundError):
        relist(video, None)


def test_inputs_resolve_relative_paths_and_the_home_folder(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(archive / "cam1")
    monkeypatch.setenv("HOME", str(archive))
    assert listed_paths("x.mp4") == ["x.mp4"]
    assert listed_paths("../cam2") == ["x.mp4"]
    assert listed_paths("*.webm") == ["y.webm"]
    assert listed_paths("~/cam2") == ["x.mp4"]


WRONG = ["nowhere", "nowhere/a.mp4", "nowhere.mp4", "a.mp4/inside.mp4", "gone"]


@pytest.mark.parametrize("named", WRONG)
def test_parse_inputs_names_a_missing_path(archive: Path, named: str) -> None:
    (archive / "gone").symlink_to(archive / "nowhere")
    with pytest.raises(InputError, match=re.escape(f"{archive}/{named}: no such file or folder")):
        parse_inputs([str(archive), f"{archive}/{named}"])


@pytest.mark.parametrize(
    "named", ["http://host/", "https://user:pw@host/a.mp4", "gs://bucket/a", "file:///a.mp4", "s3://", "s3:///key"]
)
def test_parse_inputs_refuses_other_addresses(named: str) -> None:
    with pytest.raises(InputError, match=re.escape(named.replace("user:pw@", ""))):
        parse_inputs([named])


def test_parse_inputs_refuses_a_malformed_glob(archive: Path) -> None:
    with pytest.raises(InputError, match="no valid glob"):
        parse_inputs([f"{archive}/cam[9-1]/*"])


def test_listing_names_an_unreadable_folder(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("cam2"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(AccessDeniedError, match=r"cam2: permission denied"):
        listed_paths(archive)


def test_listing_follows_links_but_no_cycles(archive: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "far.mp4")
    (archive / "cam1" / "link").symlink_to(tmp_path / "elsewhere")
    (archive / "cam1" / "up").symlink_to(archive)
    (archive / "cam1" / "self").symlink_to(archive / "cam1" / "self")
    (archive / "cam1" / "dead.mp4").symlink_to(archive / "nowhere")
    (archive / "cam1" / "file.mp4").symlink_to(archive / "a.mp4")
    in_cam1 = [path.removeprefix("cam1/") for path in listed_paths(archive) if path.startswith("cam1/")]
    assert in_cam1 == ["day2/z.mov", "file.mp4", "link/far.mp4", "x.mp4", "y.webm"]


# --- lists, choices, counts ------------------------------------------------------------------------------------------

LISTS: dict[str, tuple[bytes, list[str]]] = {
    "empty": (b"", []),
    "comments": (b"# all of them\n\n   \n#x\n", []),
    "lines": (b"a.mp4\ns3://b/k\n", ["a.mp4", "s3://b/k"]),
    "spaces": (b"  a b.mp4 \r\nc.mp4", ["a b.mp4", "c.mp4"]),
    "written by Windows": (b"\xef\xbb\xbfa.mp4\r\n", ["a.mp4"]),
    "unicode": ("ü/日.mp4\n".encode(), ["ü/日.mp4"]),
}


@pytest.mark.parametrize(("content", "expected"), LISTS.values(), ids=LISTS)
def test_input_list_reads_lines(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    (tmp_path / "list").write_bytes(content)
    assert read_input_list(str(tmp_path / "list")) == expected


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["missing", "no text"])
def test_input_list_names_an_unreadable_file(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "list").write_bytes(content)
    with pytest.raises(InputError, match=r"--inputs-from .*list: cannot be read"):
        read_input_list(str(tmp_path / "list"))


CHOICES: dict[str, tuple[SelectionSettings, list[str]]] = {
    "all": (ALL, ALL_VIDEOS),
    "one folder": (SelectionSettings(include=("cam1/*",)), ["cam1/day2/z.mov", "cam1/x.mp4", "cam1/y.webm"]),
    "by name": (SelectionSettings(include=("x.*",)), ["cam1/x.mp4", "cam2/x.mp4"]),
    "any name that is included": (SelectionSettings(include=("*.bin", "a.*")), ["a.mp4", "cam2/raw.bin"]),
    "without a folder": (SelectionSettings(exclude=("cam*",)), ["%2Ehidden.mp4", "a.mp4", "b.MKV"]),
    "both": (SelectionSettings(include=("cam1/*",), exclude=("*.webm", "z.*")), ["cam1/x.mp4"]),
    "nothing": (SelectionSettings(exclude=("*",)), []),
}


@pytest.mark.parametrize(("selection", "expected"), CHOICES.values(), ids=CHOICES)
def test_listing_applies_include_and_exclude(archive: Path, selection: SelectionSettings, expected: list[str]) -> None:
    assert listed_paths(archive, selection=selection) == expected


@pytest.mark.parametrize("named", ["", "*", "**/*.mp4"])
@pytest.mark.parametrize("selection", [ALL, SelectionSettings(include=("*.mp4",))], ids=["all", "included"])
def test_listing_skips_appledouble_files(archive: Path, named: str, selection: SelectionSettings) -> None:
    paths = listed_paths(f"{archive}/{named}", selection=selection)
    assert "a.mp4" in paths
    assert "%2E_a.mp4" not in paths


def test_list_inputs_counts_videos_bytes_and_other_files(archive: Path) -> None:
    inputs = parse_inputs([str(archive)])
    assert counts(list_inputs(inputs, ALL)) == (8, 10 + 20 + 6 + 1 + 2 + 3 + 4 + 8, 3)
    assert counts(list_inputs(inputs, SelectionSettings(include=("x.mp4",)))) == (2, 5, 9)


def counts(listing: InputListing) -> tuple[int, int, int]:
    return len(listing.videos), listing.videos.size_bytes, listing.passed_over.files


@pytest.mark.parametrize("count", [0, 1, 1000, 2500])
def test_video_list_returns_its_videos_in_order(count: int) -> None:
    videos = [SourceVideo(f"/in/\udcff{i}.mp4", f"%FF{i}.mp4", f"e{i}", i, i + 0.125) for i in range(count)]
    listed = VideoList()
    for video in videos:
        listed.add(video)
    assert (len(listed), listed.size_bytes) == (count, sum(range(count)))
    first, second = iter(listed), iter(listed)
    assert list(zip(first, second, strict=True)) == list(zip(videos, videos, strict=True))


def test_file_of_several_inputs_is_counted_once(archive: Path) -> None:
    for named, others in (
        ([""], [".bin", ".txt", "._*"]),
        (["", ""], [".bin", ".txt", "._*"]),
        (["", "cam2"], [".bin", ".txt", "._*"]),
        (["", "notes.txt"], [".bin", "._*"]),
        (["notes.txt", "", "cam2/*.bin"], ["._*"]),
        (["*.mp4", "notes.txt"], ["._*"]),
    ):
        listing = list_inputs(parse_inputs([f"{archive}/{name}" for name in named]), ALL)
        found = {reason.what: files for reason, files in listing.passed_over.by_reason()}
        assert found == dict.fromkeys(others, 1), named


@pytest.mark.parametrize("named", ["seq/%04d.png", "seq/frame_%d.jpg", "%05d.tif"])
def test_parse_inputs_says_how_numbered_pictures_become_a_video(archive: Path, named: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"ffmpeg -framerate 25 -i {archive}/{named} -c")):
        parse_inputs([f"{archive}/{named}"])


def test_list_inputs_lists_once(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listings, really = [], LocalStore.list
    monkeypatch.setattr(LocalStore, "list", lambda store, prefix="": listings.append(prefix) or really(store, prefix))
    for named in ([archive], [archive / "cam1", archive / "cam10"]):
        inputs = parse_inputs([str(name) for name in named])
        listings.clear()
        videos = list_inputs(inputs, ALL).videos
        assert list(videos) == list(videos) != []
        assert len(listings) == len(named)


NO_VIDEO: dict[str, tuple[list[str], str]] = {
    "an empty folder": ([], "no video in .*empty"),
    "a folder of other files": (["a.txt", "b/c.jpg"], r"(?s)passed over: 2 files .*\.jpg .*ffmpeg .*\.txt "),
}


@pytest.mark.parametrize(("files", "says"), NO_VIDEO.values(), ids=NO_VIDEO)
def test_list_inputs_refuses_a_folder_without_videos(tmp_path: Path, files: list[str], says: str) -> None:
    (tmp_path / "empty").mkdir()
    for file in files:
        write(tmp_path / "empty" / file)
    inputs = parse_inputs([str(tmp_path / "empty")])
    assert list(list_videos(inputs, ALL)) == []
    with pytest.raises(InputError, match=says):
        list_inputs(inputs, ALL)


def test_listing_returns_a_video_named_twice_once(archive: Path) -> None:
    for named in (["a.mp4", "a.mp4"], ["", "a.mp4"], ["a.mp4", "*.mp4", ""], ["cam1", "cam1/x.mp4", "cam1/"]):
        inputs = parse_inputs([f"{archive}/{name}" for name in named])
        uris = [video.uri for video in list_videos(inputs, ALL)]
        assert len(uris) == len(set(uris)) == len(list_inputs(inputs, ALL).videos)


def test_list_inputs_names_two_videos_with_one_output_path(archive: Path) -> None:
    inputs = parse_inputs([f"{archive}/cam1", f"{archive}/cam2"])
    with pytest.raises(InputError) as raised:
        list_inputs(inputs, ALL)
    for part in (f"{archive}/cam1/x.mp4", f"{archive}/cam2/x.mp4", "'x.mp4'"):
        assert part in str(raised.value)
    assert len(list_inputs(parse_inputs([f"{archive}/cam1", f"{archive}/cam10"]), ALL).videos) == 4


# --- where the output may lie ----------------------------------------------------------------------------------------

APART: dict[str, tuple[str, str, bool]] = {
    "beside": ("archive", "out", True),
    "beside, longer name": ("archive", "archive-poses", True),
    "above": ("archive/cam1", "archive", True),
    "the folder itself": ("archive", "archive", False),
    "below": ("archive", "archive/out", False),
    "far below": ("archive", "archive/x/y/out/", False),
    "below by dots": ("archive", "other/../archive/out", False),
    "below by a link": ("archive", "link/out", False),
    "below an input by a link": ("link", "archive/out", False),
    "beside a file": ("archive/a.mp4", "archive/out", True),
    "beside a glob": ("archive/*.mp4", "archive/out", True),
    "below a deep glob": ("archive/**/*.mp4", "archive/out", False),
    "below a glob of everything": ("archive/**", "archive/out", False),
}


@pytest.mark.parametrize(("named", "output", "fine"), APART.values(), ids=APART)
def test_output_inside_an_input_is_refused(archive: Path, tmp_path: Path, named: str, output: str, fine: bool) -> None:
    (tmp_path / "link").symlink_to(archive)
    (tmp_path / "other").mkdir()
    inputs = parse_inputs([str(archive / "cam2"), f"{tmp_path}/{named}"])
    if fine:
        check_output_outside_inputs(inputs, f"{tmp_path}/{output}")
    else:
        with pytest.raises(InputError, match="lies inside the input"):
            check_output_outside_inputs(inputs, f"{tmp_path}/{output}")


def test_output_inside_the_root_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lies inside the input /"):
        check_output_outside_inputs(parse_inputs(["/"]), str(tmp_path / "out"))


# --- output paths ----------------------------------------------------------------------------------------------------

LONG = "n" * 250
PATHS: dict[str, str] = {
    "": "%",
    "a.mp4": "a.mp4",
    "a/b/c.mp4": "a/b/c.mp4",
    "dt=2026-01-02/cam=1/x.mp4": "dt=2026-01-02/cam=1/x.mp4",
    "two words (1).mp4": "two words (1).mp4",
    "ünï/日本.mp4": "ünï/日本.mp4",
    "100%.mp4": "100%25.mp4",
    "%41.mp4": "%2541.mp4",
    "../up.mp4": "%2E./up.mp4",
    "a/./b/..": "a/%2E/b/%2E.",
    ".hidden/_state/__x": "%2Ehidden/%5Fstate/%5F_x",
    "mid.dle/under_score": "mid.dle/under_score",
    "line\nbreak\t\x00\x7f.mp4": "line%0Abreak%09%00%7F.mp4",
    "\x85": "%C2%85",
    "back\\slash": "back%5Cslash",
    "/rooted//double/": "%/rooted/%/double/%",
    "video=1/person=2/x=3.mp4": "video%3D1/person%3D2/x=3.mp4",
    "status=a=b": "status%3Da=b",
    "videos=1": "videos=1",
    os.fsdecode(b"latin-\xe9.mp4"): "latin-%E9.mp4",
}


@pytest.mark.parametrize(("path", "expected"), PATHS.items(), ids=[ascii(path) or "empty" for path in PATHS])
def test_output_path_encodes_special_characters(path: str, expected: str) -> None:
    assert encode_output_path(path) == expected


@pytest.mark.parametrize("path", [LONG, f"{LONG}/{LONG}", "d/" * 500 + "x.mp4", "日" * 300, "x" * 1000, "/" * 900])
def test_output_path_shortens_long_paths_to_distinct_ones(path: str) -> None:
    encoded = encode_output_path(path)
    assert encoded[:20] == encode_output_path(path[:20])[:20]
    assert re.search(r"~[0-9a-f]{40}$", encoded)
    assert encode_output_path(path + "x") != encoded != encode_output_path("x" + path)


NAMES = st.text(
    st.one_of(
        st.sampled_from("._=%/\\~ \n"),
        st.characters(codec="utf-8"),
        st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF),
    )
)
SHORT = st.one_of(NAMES, st.lists(st.sampled_from(["a", "..", "_x", "video=1", "", "é"]), max_size=6).map("/".join))
LONG_NAMES = st.text(st.sampled_from("aé%_.日"), min_size=60, max_size=400)
ANY = st.one_of(SHORT, st.lists(st.one_of(LONG_NAMES, NAMES), min_size=1, max_size=8).map("/".join))


@given(path=ANY)
def test_output_path_is_safe_on_every_store(path: str) -> None:
    encoded = encode_output_path(path)
    assert len(encoded.encode()) <= MAX_PATH_BYTES  # also: it is UTF-8
    for name in encoded.split("/"):
        assert 0 < len(name.encode()) <= MAX_SEGMENT_BYTES
        assert name[0] not in "._"
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\\]", name)
        assert name.split("=")[0] not in {"video", "frame_index", "pts", "time_s", "person", "track_id", "status"} or (
            "=" not in name
        )


@given(first=ANY, second=ANY)
def test_output_path_is_injective(first: str, second: str) -> None:
    assert (encode_output_path(first) == encode_output_path(second)) == (first == second)


@given(path=SHORT)
def test_output_path_of_a_short_path_can_be_decoded(path: str) -> None:
    encoded = encode_output_path(path)
    if len(path.encode(errors="surrogateescape")) * 3 > MAX_SEGMENT_BYTES:
        return
    names = ["" if name == "%" else unquote(name, errors="surrogateescape") for name in encoded.split("/")]
    assert "/".join(names) == path


def test_output_path_keeps_names_within_the_limit_when_it_shortens() -> None:
    for length in range(640, 760):
        path = "/".join(["p" * 199, "q" * 199, "r" * 74, "s" * 200, "t" * (length - 600)])
        assert max(len(name) for name in encode_output_path(path).split("/")) <= MAX_SEGMENT_BYTES


STRANGE = [
    "a b.mp4",
    "ü.mp4",
    "new\nline.mp4",
    "_under.mp4",
    "100%.mp4",
    "..x.mp4",
    "dt=1/x.mp4",
    "#1?.mp4",
    "x" * 240 + ".mp4",
]


def test_listing_finds_and_reads_strange_local_names(tmp_path: Path) -> None:
    for name in STRANGE:
        write(tmp_path / name, 3)
    latin = os.fsdecode(b"caf\xe9.mp4")
    write(tmp_path / latin, 3)
    videos = list(list_videos(parse_inputs([str(tmp_path)]), ALL))
    assert {video.uri for video in videos} == {f"{tmp_path}/{name}" for name in [*STRANGE, latin]}
    assert {video.output_path for video in videos} == {encode_output_path(name) for name in [*STRANGE, latin]}
    for video in videos:
        assert relist(video, None) == video
        with open_module.open_source(video.uri, video.etag) as file:
            assert file.read() == bytes(3)


# --- S3 --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> str:
    client, name = s3_server.client(), f"inputs-{uuid4().hex[:8]}"
    client.create_bucket(Bucket=name)
    for key, size in ARCHIVE.items():
        client.put_object(Bucket=name, Key=key, Body=bytes(size))
    client.put_object(Bucket=name, Key="cam1/", Body=b"")  # a folder as consoles make them
    return name


@pytest.fixture(scope="module")
def s3(s3_server: S3Server, bucket: str) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        s3_module.s3_client.cache_clear()
        yield f"s3://{bucket}"
    s3_module.s3_client.cache_clear()


S3_NAMED: dict[str, list[str]] = {
    "": sorted(ALL_VIDEOS),
    "/": sorted(ALL_VIDEOS),
    "/a.mp4": ["a.mp4"],
    "/notes.txt": ["notes.txt"],
    "/cam1": ["cam1/day2/z.mov", "cam1/x.mp4", "cam1/y.webm"],
    "/cam1/": ["cam1/day2/z.mov", "cam1/x.mp4", "cam1/y.webm"],
    "/cam1/x": ["cam1/x.mp4"],
    "/ca": ["cam1/day2/z.mov", "cam1/x.mp4", "cam1/y.webm", "cam10/[1].mp4", "cam2/x.mp4"],
    "/*.mp4": ["%2Ehidden.mp4", "a.mp4"],
    "/cam?/*.mp4": ["cam1/x.mp4", "cam2/x.mp4"],
    "/cam[!1]/*": ["cam2/x.mp4"],
    "/**/x.mp4": ["cam1/x.mp4", "cam2/x.mp4"],
    "/cam1/**": ["cam1/day2/z.mov", "cam1/x.mp4", "cam1/y.webm"],
    "/cam10/[1].mp4": ["cam10/[1].mp4"],
    "/cam2/*.bin": ["cam2/raw.bin"],
}


@pytest.mark.s3
@pytest.mark.parametrize(("named", "expected"), S3_NAMED.items())
def test_s3_inputs_select_keys_prefixes_and_globs(s3: str, named: str, expected: list[str]) -> None:
    bucket = s3.removeprefix("s3://")
    assert sorted(listed_paths(s3 + named)) == sorted(f"{bucket}/{path}" for path in expected)


@pytest.mark.s3
def test_s3_source_video_has_address_and_version(s3: str, s3_server: S3Server, bucket: str) -> None:
    [video] = list_videos(parse_inputs([f"{s3}/cam1/x.mp4"]), ALL)
    head = s3_server.client().head_object(Bucket=bucket, Key="cam1/x.mp4")
    assert (video.uri, video.size_bytes) == (f"{s3}/cam1/x.mp4", 1)
    assert video.etag == head["ETag"].strip('"')
    assert relist(video, None).etag == video.etag


@pytest.mark.s3
@pytest.mark.parametrize("named", ["/cam1/none.mp4", "/nowhere/", "/cam3"])
def test_s3_inputs_name_a_missing_key(s3: str, named: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"{s3}{named}: no object has this key")):
        parse_inputs([s3 + named])


@pytest.mark.s3
@pytest.mark.parametrize("named", ["", "/", "/a.mp4", "/prefix/"])
def test_s3_inputs_name_a_missing_bucket(s3: str, named: str) -> None:
    with pytest.raises(ObjectNotFoundError, match=f"{s3}-none"):
        parse_inputs([f"{s3}-none{named}"])


@pytest.mark.s3
@pytest.mark.parametrize("named", ["s3://A!/x", "s3://x y/"])
def test_s3_inputs_refuse_an_impossible_bucket_name(s3: str, named: str) -> None:
    with pytest.raises(InputError, match="no valid bucket or key"):
        parse_inputs([named])


@pytest.mark.s3
@pytest.mark.parametrize("page", [1, 5, 1000])
def test_s3_listing_reads_every_page(s3: str, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    pages: list[int] = []
    client = s3_module.s3_client(None)
    ask = client.list_objects_v2

    def in_small_pages(**request: Any) -> Any:
        answer = ask(**{**request, "MaxKeys": page})
        pages.append(len(answer.get("Contents", ())))
        return answer

    monkeypatch.setattr(client, "list_objects_v2", in_small_pages)
    assert len(listed_paths(s3)) == len(ALL_VIDEOS)
    assert max(pages) == min(page, len(ARCHIVE) + 1)


@pytest.mark.s3
def test_s3_listing_finds_and_reads_strange_keys(s3: str, s3_server: S3Server) -> None:
    client, name = s3_server.client(), f"strange-{uuid4().hex[:8]}"
    client.create_bucket(Bucket=name)
    keys = [
        "a b+c.mp4",
        "ü/日.mp4",
        "new\nline.mp4",
        "_under/.dot.mp4",
        "100%41.mp4",
        "a/../b.mp4",
        "k" * 1000 + ".mp4",
    ]
    for key in keys:
        client.put_object(Bucket=name, Key=key, Body=key.encode())
    videos = list(list_videos(parse_inputs([f"s3://{name}"]), ALL))
    assert {video.uri for video in videos} == {f"s3://{name}/{key}" for key in keys}
    assert {video.output_path for video in videos} == {encode_output_path(f"{name}/{key}") for key in keys}
    for video in videos:
        with open_module.open_source(video.uri, video.etag) as file:
            assert file.read().decode() == video.uri.removeprefix(f"s3://{name}/")


S3_APART: dict[str, tuple[str, str, bool]] = {
    "other bucket": ("", "s3://elsewhere/out", True),
    "longer bucket name": ("", "{s3}-out", True),
    "the bucket itself": ("", "{s3}", False),
    "in the bucket": ("", "{s3}/out/", False),
    "beside a prefix": ("/cam1/", "{s3}/poses", True),
    "below a prefix": ("/cam1", "{s3}/cam1/out", False),
    "begins with a prefix": ("/ca", "{s3}/cab", False),
    "beside a key": ("/a.mp4", "{s3}", True),
    "a folder on disk": ("", "/tmp/out", True),
}


@pytest.mark.s3
@pytest.mark.parametrize(("named", "output", "fine"), S3_APART.values(), ids=S3_APART)
def test_s3_output_inside_an_input_is_refused(s3: str, named: str, output: str, fine: bool) -> None:
    inputs = parse_inputs([s3 + named])
    if fine:
        check_output_outside_inputs(inputs, output.format(s3=s3))
    else:
        with pytest.raises(InputError, match="lies inside the input"):
            check_output_outside_inputs(inputs, output.format(s3=s3))
