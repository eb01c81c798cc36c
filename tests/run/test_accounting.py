"""A run, a plan and a summary account for each file of a folder exactly once."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from faults.plain_runs import plain_command
from PIL import Image
from support.factories import video_bytes
from support.fake_pool import Archive

from posebatch.core.errors import StorageUnavailableError
from posebatch.core.videos import SourceVideo
from posebatch.run.planning import other_content
from posebatch.run.planning.other_content import MAX_BYTES, other_content_of


def picture() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (64, 48)).save(sink, "PNG")
    return sink.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 12345\n"
TYPESCRIPT = b"export const answer = 42;\n"
TWELVE_KINDS: dict[str, bytes] = {
    "a.mp4": video_bytes(frames=4),
    "sub/b.INSV": video_bytes(frames=4),
    "c.mod": video_bytes(frames=4, container="vob", codec="mpeg2video", size=(352, 288)),
    "pointer.mp4": LFS,
    "page.mp4": b"<!DOCTYPE html><html>not found</html>",
    "code.ts": TYPESCRIPT,
    "notes.txt": b"notes",
    "more.txt": b"notes",
    "camera.h264": video_bytes(frames=4, container="h264"),
    "seq/0001.png": picture(),
    "seq/0002.png": picture(),
    "README": b"read me",
    "._a.mp4": b"\x00\x05\x16\x07",
    "@eaDir/a.mp4": video_bytes(frames=4),
    ".Trash-1000/files/old.mp4": video_bytes(frames=4),
    "left/out.mp4": video_bytes(frames=4),
}
"""Files of 12 kinds and more: videos, files with the name of one, and all others."""


def newest_summary(output: Path) -> dict[str, Any]:
    """The newest summary in an output."""
    return json.loads(
        max((output / "runs").glob("*/summary.json"), key=lambda path: path.stat().st_mtime_ns).read_text()
    )


def test_every_file_of_a_folder_is_accounted_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in TWELVE_KINDS.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    command = plain_command(monkeypatch)
    arguments = (str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--exclude", "left/*")

    others = {".txt": 2, ".png": 2, ".h264": 1, "no extension": 1, "._*": 1, "@eaDir/": 1, ".Trash-1000/": 1}
    others |= {".ts, a text": 1, "in --exclude": 1}
    assert command("plan", *arguments) == 0
    planned = capsys.readouterr().out
    assert "5 compute, 1 passed over" in planned
    for name in ("pointer.mp4: a Git LFS pointer", "page.mp4: an HTML page"):
        assert name in planned

    assert command("run", *arguments) == 3
    printed = capsys.readouterr().out
    for text in (planned, printed):
        assert f"passed over: {sum(others.values())} files" in text
        for what, files in others.items():
            assert f"{files}  {what}" in text
    summary = newest_summary(tmp_path / "out")
    assert {row["what"]: row["files"] for row in summary["passed_over"]} == others
    assert {row["what"]: row["take_in"] for row in summary["passed_over"]}[".txt"] == "--include '*.txt'"
    assert (summary["published"], summary["failed"], summary["no_videos"], summary["videos_left"]) == (3, 2, 1, 0)
    assert summary["files_total"] == len(TWELVE_KINDS) == 3 + 2 + sum(others.values())

    command("run", *arguments)  # again: the same files, none of them new
    summary = newest_summary(tmp_path / "out")
    assert (summary["up_to_date"], summary["quarantined"], summary["no_videos"]) == (3, 2, 1)
    assert summary["files_total"] == len(TWELVE_KINDS)


def test_videos_beyond_the_limit_are_counted_as_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{i}.mp4").write_bytes(video_bytes(frames=4))
    arguments = (str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--limit", "1")
    assert plain_command(monkeypatch)("run", *arguments) == 0
    summary = newest_summary(tmp_path / "out")
    assert (summary["published"], summary["videos_left"], summary["files_total"]) == (1, 2, 3)


def test_summary_notes_an_archive_of_mixed_partitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("dt=1/a.mp4", "dt=1/cam=1/b.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(video_bytes(frames=4))
    arguments = (str(tmp_path / "in"), "--output", str(tmp_path / "out"))
    note = "the key=value folders of this archive are no uniform partitions: dt=1/a.mp4 and dt=1/cam=1/b.mp4 differ"
    for command in ("plan", "run"):
        assert plain_command(monkeypatch)(command, *arguments) == 0
        assert f"note: {note}" in capsys.readouterr().out
    assert newest_summary(tmp_path / "out")["warnings"][0].startswith(note)


# --- names that other files have as well -----------------------------------------------------------------------------


def test_text_named_like_a_video_starts_no_worker_and_leaves_no_record(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    (archive.root / "code.ts").write_bytes(TYPESCRIPT)
    (archive.root / "go.mod").write_text("module x\n")
    for _ in range(2):
        outcome = archive.run()
        assert (outcome.exit_code, archive.tally.no_videos, archive.tally.videos_done) == (0, 2, 2)
    assert archive.pools == []
    assert list(archive.store.list("videos/")) == []


@pytest.mark.parametrize(
    ("name", "content", "other"),
    [
        ("a.ts", TYPESCRIPT, "a text"),
        ("a.MTS", TYPESCRIPT, "a text"),
        ("a.ts", LFS, None),
        ("a.ts", b"", None),
        ("a.ts", TYPESCRIPT.ljust(MAX_BYTES + 1), None),
        ("a.mp4", TYPESCRIPT, None),
        ("a.ts", video_bytes(frames=4, container="mpegts"), None),
    ],
    ids=["TypeScript", "upper case", "Git LFS", "empty", "large", "another name", "video"],
)
def test_content_is_read_where_the_name_is_ambiguous(
    tmp_path: Path, name: str, content: bytes, other: str | None
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    stat = path.stat()
    video = SourceVideo(str(path), name, f"{stat.st_size}-{stat.st_mtime_ns}", stat.st_size, stat.st_mtime)
    assert other_content_of(video, None) == other


def test_file_that_cannot_be_read_is_taken_for_a_video(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StorageUnavailableError("the store did not answer")

    video = SourceVideo("/in/a.ts", "a.ts", "1-1", 1, 1.0)
    assert other_content_of(video, None) is None  # gone
    monkeypatch.setattr(other_content, "open_video", refuse)
    assert other_content_of(video, None) is None
