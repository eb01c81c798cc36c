"""Files are taken for videos by their names; all others are counted, each with the flag that takes it in."""

from __future__ import annotations

import io
import re
import shlex

import pytest
from support.factories import video_bytes

from posebatch.core.execution_settings import LimitSettings
from posebatch.core.selection_settings import SelectionSettings
from posebatch.run.planning.globs import glob_regex
from posebatch.run.planning.names import (
    EXTENSIONS_BY_DEMUXER,
    MAX_REASONS,
    OTHER_NAMES,
    VIDEO_EXTENSIONS,
    PassedOver,
    PassedOverFiles,
    passed_over,
)
from posebatch.video.container import CONTAINER_FORMATS, open_video
from posebatch.video.limits import Limits

ALL = SelectionSettings()


def reason(key: str, *include: str, exclude: tuple[str, ...] = (), pattern: str | None = None, named: str = ""):
    selection = SelectionSettings(include=include, exclude=exclude)
    regex = None if pattern is None else glob_regex(pattern)
    return passed_over(key, selection, regex, any_name=False, named_to=len(named))


# --- names of videos -------------------------------------------------------------------------------------------------

MUXERS = {
    # demuxer: a muxer whose files it reads, and a codec for it
    "asf": ("asf", "mpeg4"),
    "avi": ("avi", "mpeg4"),
    "dv": ("dv", "dvvideo"),
    "flv": ("flv", "flv"),
    "matroska": ("matroska", "libx264"),
    "mov": ("mp4", "libx264"),
    "mpeg": ("vob", "mpeg2video"),
    "mpegts": ("mpegts", "libx264"),
    "mxf": ("mxf", "mpeg2video"),
    "ogg": ("ogg", "libvpx"),
}


def test_names_are_those_of_the_allowed_demuxers() -> None:
    assert set(EXTENSIONS_BY_DEMUXER) == set(CONTAINER_FORMATS.split(",")) == set(MUXERS)
    listed = " ".join(EXTENSIONS_BY_DEMUXER.values()).split()
    assert len(listed) == len(set(listed)) == len(VIDEO_EXTENSIONS)
    assert all(re.fullmatch(r"\.[a-z0-9-]+", extension) for extension in listed)


@pytest.mark.parametrize("demuxer", MUXERS)
def test_each_demuxer_reads_the_files_that_have_its_names(demuxer: str) -> None:
    container, codec = MUXERS[demuxer]
    look = {"size": (720, 576), "fps": 25} if demuxer == "dv" else {}
    content = video_bytes(container=container, codec=codec, frames=10, **look)
    with open_video(io.BytesIO(content), Limits("a", LimitSettings())) as video:
        assert demuxer in video.container.format.name.split(",")


VIDEOS = ["a.mp4", "A.MP4", "b/c.insv", "x.360", "x.lrv", "x.MOD", "x.tod", "x.qt", "x.mk3d", "x.trp", "x.dvr-ms"]
VIDEOS += [".hidden.mp4", "recycled/a.mp4", "my@eaDir/a.mp4", "x.@eaDir.mp4", "trash/a.mp4", "@eaDir.mp4"]


@pytest.mark.parametrize("key", VIDEOS)
def test_video_is_taken_by_its_name(key: str) -> None:
    assert reason(key) is None


# --- names that are passed over --------------------------------------------------------------------------------------

OTHERS: dict[str, tuple[str, str]] = {
    # key: what is counted, and the flag that takes it in
    "notes.txt": (".txt", "--include '*.txt'"),
    "sub/NOTES.TXT": (".TXT", "--include '*.TXT'"),
    "a.mp4.part": (".part", "--include '*.part'"),
    "a.[b]": (".[b]", "--include '*.[[]b]'"),
    "it's.o'k": (".o'k", """--include '*.o'"'"'k'"""),
    "README": ("no extension", "--include '*'"),
    "ends.": ("no extension", "--include '*'"),
    "": ("no extension", "--include '*'"),
    "a.2026-01-02T03:04:05": ("other names", "--include '*'"),
    "a.x\ny": ("other names", "--include '*'"),
    "._a.mp4": ("._*", "--include '._*'"),
    "sub/._a.mp4": ("._*", "--include '._*'"),
    ".trashed-1700000000-VID_1.mp4": (".trashed-*", "--include '.trashed-*'"),
    "@eaDir/a.mp4": ("@eaDir/", "--include '*@eaDir/*'"),
    "cam1/@eaDir/a.mp4/SYNOVIDEO_FILM.mp4": ("@eaDir/", "--include '*@eaDir/*'"),
    "#recycle/a.mp4": ("#recycle/", "--include '*#recycle/*'"),
    "$RECYCLE.BIN/S-1-5/$R1.mp4": ("$RECYCLE.BIN/", "--include '*$RECYCLE.BIN/*'"),
    "$Recycle.Bin/a.mp4": ("$Recycle.Bin/", "--include '*$Recycle.Bin/*'"),
    "System Volume Information/a.mp4": ("System Volume Information/", "--include '*System Volume Information/*'"),
    ".Trash-1000/files/a.mp4": (".Trash-1000/", "--include '*.Trash-1000/*'"),
    ".Trashes/501/a.mp4": (".Trashes/", "--include '*.Trashes/*'"),
    "DCIM/.thumbnails/a.mp4": (".thumbnails/", "--include '*.thumbnails/*'"),
    "@Recycle/a.mp4": ("@Recycle/", "--include '*@Recycle/*'"),
    "RECYCLER/a.mp4": ("RECYCLER/", "--include '*RECYCLER/*'"),
    "__MACOSX/a.mp4": ("__MACOSX/", "--include '*__MACOSX/*'"),
    ".zfs/snapshot/daily/a.mp4": (".zfs/", "--include '*.zfs/*'"),
    "lost+found/#12.mp4": ("lost+found/", "--include '*lost+found/*'"),
}


@pytest.mark.parametrize("key", OTHERS, ids=ascii)
def test_other_file_is_passed_over_and_its_flag_takes_it_in(key: str) -> None:
    found = reason(key)
    assert (found.what, found.take_in) == OTHERS[key]
    flag, pattern = shlex.split(found.take_in)
    assert flag == "--include"
    assert reason(key, pattern) is None


@pytest.mark.parametrize("pattern", ["*", "*.mp4", "*/*.mp4", "cam1/*", "**", "*a.mp4", "[!x]*.mp4"])
def test_folder_of_trash_is_not_taken_in_by_a_pattern_that_does_not_name_it(pattern: str) -> None:
    for key in ("cam1/@eaDir/a.mp4", "cam1/._a.mp4"):
        assert reason(key, pattern).what in ("@eaDir/", "._*")


@pytest.mark.parametrize(
    ("key", "pattern", "named", "taken"),
    [
        ("x/@eaDir/a.mp4", "**/*.mp4", "", False),
        ("x/@eaDir/a.mp4", "**/@eaDir/*.mp4", "", True),
        ("x/@eaDir/a.mp4", "x/@*/*.mp4", "", True),
        ("nas/@eaDir/a.mp4", None, "nas/@eaDir/", True),
        ("nas/@eaDir/b/@eaDir/a.mp4", None, "nas/@eaDir/", False),
        (".Trash-1/a.mp4", None, ".Tra", True),
        ("._a.mp4", "*.mp4", "", False),
        ("._a.mp4", "._*.mp4", "", True),
    ],
)
def test_input_that_names_the_trash_takes_it_in(key: str, pattern: str | None, named: str, taken: bool) -> None:
    assert (reason(key, pattern=pattern, named=named) is None) == taken


def test_include_and_exclude_are_reasons_too() -> None:
    assert reason("b.mp4", "a*").what == "not in --include"
    assert reason("b.mp4", exclude=("b*",)).what == "in --exclude"
    assert reason("b.txt", exclude=("b*",)).what == ".txt"
    assert reason("b.mp4", "b*", exclude=("x*",)) is None


@pytest.mark.parametrize("extension", [".h264", ".gif", ".png", ".webp", ".wtv"])
def test_file_that_is_not_read_comes_with_a_command(extension: str) -> None:
    for name in (f"a{extension}", f"a{extension.upper()}"):
        assert "ffmpeg " in reason(name).advice


# --- counts ----------------------------------------------------------------------------------------------------------


def test_no_files_make_no_lines() -> None:
    assert PassedOverFiles().files == 0
    assert list(PassedOverFiles().lines()) == []
    assert PassedOverFiles().rows() == []


def test_files_are_counted_by_reason() -> None:
    files, others = PassedOverFiles(), PassedOverFiles()
    for key in ("a.txt", "b.txt", "c.gif"):
        files.add(reason(key))
    others.add(reason("d.txt"), 4)
    files.update(others)
    assert files.files == 7
    assert [(row["what"], row["files"], row["take_in"]) for row in files.rows()] == [
        (".txt", 6, "--include '*.txt'"),
        (".gif", 1, "--include '*.gif'"),
    ]
    heading, texts, gifs = files.lines()
    assert heading.startswith("passed over: 7 files ")
    assert texts.split() == ["6", ".txt", "--include", "'*.txt'"]
    assert gifs.split()[:2] == ["1", ".gif"]
    assert gifs.endswith("not read; to make a video: ffmpeg -i NAME.gif -c:v ffv1 NAME.mkv")


def test_lines_are_few_and_reasons_bounded() -> None:
    files = PassedOverFiles()
    for i in range(2 * MAX_REASONS):
        files.add(PassedOver(f".{i}"), 2 * MAX_REASONS - i)
    assert len(files.rows()) == MAX_REASONS + 1
    assert sum(row["files"] for row in files.rows()) == files.files == sum(range(2 * MAX_REASONS + 1))
    assert dict(files.by_reason())[OTHER_NAMES] == sum(range(MAX_REASONS + 1))
    *_, last = files.lines(most=10)
    assert len(list(files.lines(most=10))) == 12
    assert f"and {MAX_REASONS - 9} more kinds" in last
