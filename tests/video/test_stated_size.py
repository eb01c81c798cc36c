"""A file that was cut off is known by the size that it states of itself."""

from __future__ import annotations

import io
from typing import Any

import pytest
from support.factories import video_bytes

from posebatch.video.probe import probe
from posebatch.video.stated_size import SLACK_BYTES, missing_bytes

STATED: dict[str, dict[str, Any]] = {
    "Matroska": {"container": "matroska"},
    "WebM": {"container": "webm", "codec": "libvpx-vp9"},
    "AVI": {"container": "avi", "codec": "mpeg4"},
    "ASF": {"container": "asf", "codec": "mpeg4"},
}
NOT_STATED: dict[str, dict[str, Any]] = {
    "MP4": {},
    "MPEG-TS": {"container": "mpegts"},
    "live Matroska": {"container": "matroska", "muxer_options": (("live", "1"),)},
}


@pytest.mark.parametrize(
    "head",
    [b"", b"\x1a\x45\xdf\xa3", b"RIFF", b"RIFF\0\0\0\0AVI ", b"RIFF\xff\xff\xff\xffAVI ", b"RIFF\x00\x10\0\0WAVE"],
)
def test_a_head_that_states_no_size_lacks_nothing(head: bytes) -> None:
    assert missing_bytes(head, len(head)) == 0


@pytest.mark.parametrize("name", STATED)
def test_probe_counts_the_bytes_that_a_cut_file_lacks(name: str) -> None:
    video = video_bytes(frames=60, **STATED[name])
    cut = int(0.6 * len(video))
    assert probe(io.BytesIO(video), "clip", 20).info.missing_bytes == 0
    assert probe(io.BytesIO(video[:cut]), "clip", 20).info.missing_bytes == len(video) - cut
    assert missing_bytes(video, len(video) - SLACK_BYTES) == 0


@pytest.mark.parametrize("name", NOT_STATED)
def test_probe_counts_nothing_where_the_size_is_not_stated(name: str) -> None:
    video = video_bytes(frames=60, faststart=name == "MP4", **NOT_STATED[name])
    assert probe(io.BytesIO(video[: int(0.6 * len(video))]), "clip", 20).info.missing_bytes == 0
