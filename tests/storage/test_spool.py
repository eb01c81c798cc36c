"""Files appear whole, or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO

import pytest

from posebatch.core.errors import StorageUnavailableError
from posebatch.storage.spool import spooled, write_atomically


def test_write_atomically_replaces_the_file_and_returns_its_status(tmp_path: Path) -> None:
    path = tmp_path / "report"
    for content in (b"old", b"the new one"):
        status = write_atomically(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
        assert (status.st_size, status.st_mtime_ns) == (len(content), path.stat().st_mtime_ns)
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomically_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_bytes(b"old")

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        assert len(list(tmp_path.iterdir())) == 2, "the scratch file lies beside"
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        write_atomically(path, fail)
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


def test_write_atomically_syncs_before_it_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, replace = list[str](), Path.replace

    def note_replace(self: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", lambda _: calls.append("sync"))
    monkeypatch.setattr(Path, "replace", note_replace)
    write_atomically(tmp_path / "report", lambda file: file.write(b"x"), tmp_path / "scratch")
    assert calls == ["sync", "rename"]


def test_spooled_reports_a_full_disk_as_unavailable() -> None:
    with pytest.raises(StorageUnavailableError, match="disk is full"), spooled():
        raise OSError(errno.ENOSPC, "No space left on device")
