"""The requests to the store that a video costs: docs/sizing.md names these numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from support.fake_pool import Archive

from posebatch.run.tasks import SegmentTask
from posebatch.storage.local import LocalStore

COUNTED = ("put", "put_if", "read", "head", "list", "delete")


def requests_of(tmp_path: Path, patch: pytest.MonkeyPatch, frames: int) -> tuple[int, Counter[str]]:
    """The number of segments of a video, and the requests to the output that it took."""
    archive, counts = Archive(tmp_path), Counter[str]()
    archive.add("a.mp4", frames=frames)

    def counting(name: str):
        method = getattr(LocalStore, name)

        def counted(self, key="", *arguments, **named):
            counts["put" if name == "put_if" else name] += 1
            return method(self, key, *arguments, **named)

        return counted

    with patch.context() as patched:
        for name in COUNTED:
            patched.setattr(LocalStore, name, counting(name))
        archive.run()
    return len(archive.submitted(SegmentTask)), counts


def test_requests_of_a_video_grow_with_its_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "few").mkdir()
    (tmp_path / "many").mkdir()
    few, fewer = requests_of(tmp_path / "few", monkeypatch, frames=6)
    many, more = requests_of(tmp_path / "many", monkeypatch, frames=24)
    assert (few, many) == (2, 8)
    for segments, counts in ((few, fewer), (many, more)):
        assert counts == {
            "put": 5 + segments,
            "read": 2 * segments,
            "head": 10,
            "list": 4,  # of these, two are of the run
            "delete": 1 + segments,
        }
