"""Videos of earlier versions: only those are computed again whose picture a player shows otherwise."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from support.factories import publish_record, video_bytes

from posebatch.core.records import VideoRecord
from posebatch.core.settings import settings_from
from posebatch.core.videos import SourceVideo, VideoInfo
from posebatch.run.context import RunContext
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.decisions import Action
from posebatch.run.planning.older_pictures import changed_picture, difference
from posebatch.run.planning.planner import decisions
from posebatch.storage.local import LocalStore, local_etag

BEFORE = VideoInfo("h264", "yuv420p", 64, 48, 0, Fraction(1, 100), 0, 1.0, 10.0, 4)


@pytest.mark.parametrize(
    ("now", "change"),
    [
        pytest.param(
            {"coded_width": 64, "coded_height": 48, "track": 0, "tracks_in_file": ("0: h264 64x48",)}, None, id="same"
        ),
        pytest.param({"frames_in_header": 5, "duration_s": 2.0}, None, id="header of the same pictures"),
        pytest.param({"width": 85}, "published h264 64x48, from 0 s; a player shows h264 85x48, from 0 s", id="shape"),
        pytest.param({"rotation": 90}, "a player shows h264 64x48, rotated by 90 degrees, from 0 s", id="rotation"),
        pytest.param({"start_pts": 300}, "a player shows h264 64x48, from 3 s", id="start"),
        pytest.param({"codec": "mjpeg"}, "a player shows mjpeg 64x48, from 0 s", id="track"),
        pytest.param({"mirrored": True}, "a player shows h264 64x48, from 0 s, mirrored", id="mirrored"),
        pytest.param({"matrix_ignored": True}, "from 0 s, with a shear or zoom", id="shear"),
    ],
)
def test_difference_names_how_the_picture_differs(now: dict[str, object], change: str | None):
    found = difference(BEFORE, replace(BEFORE, **now))
    assert found is None if change is None else found is not None and found.endswith(change)


WIDE_PIXELS = video_bytes(frames=3, options=(("x264-params", "sar=2/1:keyint=10"),))
ENCRYPTED = video_bytes(
    frames=3,
    muxer_options=(
        ("encryption_scheme", "cenc-aes-ctr"),
        ("encryption_key", "76" * 16),
        ("encryption_kid", "a7" * 16),
    ),
)


@pytest.fixture
def output(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")


def context(output: LocalStore) -> RunContext:
    return RunContext("run-1", settings_from({}), output.root, "d@1", "p@1")


def published(path: Path, content: bytes, output: LocalStore, **known: int) -> SourceVideo:
    """A video with a commit record as a version wrote it that knew no shape of pixels: ``known`` is newer."""
    path.write_bytes(content)
    etag = local_etag(path.stat())
    info = replace(BEFORE, width=128, height=96, time_base=Fraction(1, 12800), **known)
    video = SourceVideo(str(path), path.name, etag, len(content), path.stat().st_mtime)
    record = VideoRecord(video.uri, etag, 1, 1.0, "ok", context(output).data_fingerprint, "r", "0", info=info)
    publish_record(output, video.output_path, record)
    return video


def test_planner_computes_only_videos_again_whose_picture_differs(tmp_path: Path, output: LocalStore):
    square = published(tmp_path / "square.mp4", video_bytes(frames=3), output)
    wide = published(tmp_path / "wide.mp4", WIDE_PIXELS, output)
    encrypted = published(tmp_path / "encrypted.mp4", ENCRYPTED, output)
    newer = published(tmp_path / "newer.mp4", WIDE_PIXELS, output, coded_width=128)
    missing = replace(square, uri=str(tmp_path / "missing.mp4"))
    index = CommitIndex.load(output, 1)
    planned = [item.decision for item in decisions([square, wide, encrypted, newer, missing], index, context(output))]
    assert [decision.action for decision in planned] == [
        Action.DERIVE,
        Action.COMPUTE,
        Action.COMPUTE,
        Action.DERIVE,
        Action.DERIVE,
    ]
    assert planned[1].reason == (
        "an earlier version published h264 128x96, from 0 s; a player shows h264 256x96, from 0 s"
    )
    assert "this one cannot read it: " in planned[2].reason
    assert "its video is encrypted" in planned[2].reason


def test_header_of_an_older_video_is_read_once(tmp_path: Path, output: LocalStore, monkeypatch: pytest.MonkeyPatch):
    videos = [published(tmp_path / "square.mp4", video_bytes(frames=3), output)]
    read: list[str] = []

    def counting(video: SourceVideo, record: VideoRecord, of_run: RunContext) -> str | None:
        read.append(video.uri)
        return changed_picture(video, record, of_run)

    monkeypatch.setattr("posebatch.run.planning.planner.changed_picture", counting)
    for _ in range(2):
        with CommitIndex.load(output, 2, few_videos=1) as index:
            (planned,) = decisions(videos, index, context(output))
            assert planned.decision.action is Action.DERIVE
    assert read == [videos[0].uri]
