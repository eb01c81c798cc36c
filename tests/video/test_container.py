"""Files that are no videos, that refer to others, or at which FFmpeg fails."""

from __future__ import annotations

import inspect
import io
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pytest
from support.decoding import BY_GOP, WHOLE, decode, plan_of
from support.factories import audio_only, corrupt_middle, truncate, video_bytes

from posebatch.core.errors import (
    DamagedVideoError,
    NotAVideoError,
    NoVideoStreamError,
    ObjectChangedError,
    VideoError,
)
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment
from posebatch.video import frame_images
from posebatch.video.container import OpenVideo
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

# --- no video --------------------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[bytes, type[VideoError], str]] = {
    "empty": (b"", NotAVideoError, "empty"),
    "one byte": (b"\x00", NotAVideoError, "not a video"),
    "text": (b"Dear diary,\n" * 100, NotAVideoError, "not a video"),
    "zeros": (bytes(10_000), NotAVideoError, "a file of zero bytes"),
    "noise": (np.random.default_rng(0).bytes(5_000), NotAVideoError, "not a video"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(500), NotAVideoError, "a picture"),
    "MP4 without its index": (truncate(video_bytes(frames=60), 0.5), DamagedVideoError, "moov"),
    "only sound": (audio_only(), NoVideoStreamError, "only audio$"),
    "only sound, MKV": (audio_only("mkv"), NoVideoStreamError, "only audio$"),
    "sound and a cover picture": (audio_only(cover=True), NoVideoStreamError, "only audio, cover picture$"),
    "pictures all noise": (corrupt_middle(video_bytes(frames=5), 1.0), DamagedVideoError, "no frame can be decoded"),
}


@pytest.mark.parametrize(("content", "kind", "reason"), BROKEN.values(), ids=BROKEN)
def test_probe_names_the_file_and_what_is_wrong(
    tmp_path: Path, content: bytes, kind: type[VideoError], reason: str
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    for file in (io.BytesIO(content), path.open("rb")):
        with file, pytest.raises(kind, match=reason) as raised:
            probe(file, "s3://archive/a clip.mp4", WHOLE)
        assert str(raised.value).startswith("s3://archive/a clip.mp4: ")
        assert not raised.value.retryable


# --- files that refer to others --------------------------------------------------------------------------------------

HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n{uri}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile '{uri}'\n"
SDP = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1" width="128" height="96">'
    "<BaseURL>{uri}</BaseURL></Representation></AdaptationSet></Period></MPD>"
)
PLAYLISTS = [
    *((HLS, name) for name in ("list.m3u8", "list.mp4", "list")),
    *((CONCAT, name) for name in ("list.ffconcat", "list.mp4")),
    *((SDP, name) for name in ("list.sdp", "list.mp4")),
    *((DASH, name) for name in ("list.mpd", "list.mp4")),
]
"""FFmpeg goes by the content or by the name: each with the name that belongs to it, and with one that does not."""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that answers nothing, but knows whether a client came."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def assert_no_client(listener: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize(("playlist", "name"), PLAYLISTS)
def test_probe_refuses_a_playlist_and_opens_nothing(
    tmp_path: Path, listener: socket.socket, playlist: str, name: str
) -> None:
    (tmp_path / "real.mp4").write_bytes(video_bytes())
    port = listener.getsockname()[1]
    for uri in ("real.mp4", str(tmp_path / "real.mp4"), f"http://127.0.0.1:{port}/a.mp4", f"tcp://127.0.0.1:{port}"):
        path = tmp_path / name
        path.write_text(playlist.format(uri=uri, port=port))
        with path.open("rb") as file, pytest.raises(NotAVideoError, match="clip: a playlist"):
            probe(file, "clip", WHOLE)
    assert_no_client(listener)


def with_external_data(video: bytes, path: str) -> bytes:
    """A MOV whose video track says that its data lie in another file."""
    entry = b"\x00\x00\x00\x0curl \x00\x00\x00\x01"
    assert video.count(entry) == 1
    location = path.encode() + b"\x00"
    other = struct.pack(">I4sI", 12 + len(location), b"url ", 0) + location
    grown = len(other) - len(entry)
    changed = video.replace(entry, other)
    for box in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        at = changed.index(box) - 4
        size = struct.unpack(">I", changed[at : at + 4])[0] + grown
        changed = changed[:at] + struct.pack(">I", size) + changed[at + 4 :]
    return changed


def test_movie_that_refers_to_another_file_does_not_open_it(tmp_path: Path, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    for path in (str(tmp_path / "real.mov"), f"http://127.0.0.1:{port}/real.mov"):
        video = with_external_data(video_bytes(container="mov", frames=5), path)
        assert decode(video).numbers == list(range(5))  # its own bytes, at the same offsets
    assert_no_client(listener)


# --- errors of FFmpeg and of the storage -----------------------------------------------------------------------------

FFMPEG_ERRORS = [
    error for error in vars(av.error).values() if inspect.isclass(error) and issubclass(error, av.error.FFmpegError)
]


class FailingContainer:
    """A container in which one operation fails."""

    def __init__(self, container: Any, operation: str, error: Exception) -> None:
        self._container, self._operation, self._error = container, operation, error

    def __getattr__(self, name: str) -> Any:
        if name == self._operation:
            raise self._error
        return getattr(self._container, name)

    def __enter__(self) -> FailingContainer:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()


def fail_in_container(operation: str) -> Callable[[pytest.MonkeyPatch, Exception], None]:
    def install(patch: pytest.MonkeyPatch, error: Exception) -> None:
        real_open = av.open
        patch.setattr(
            av, "open", lambda *args, **kwargs: FailingContainer(real_open(*args, **kwargs), operation, error)
        )

    return install


def fail_at(owner: object, name: str) -> Callable[[pytest.MonkeyPatch, Exception], None]:
    def install(patch: pytest.MonkeyPatch, error: Exception) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        patch.setattr(owner, name, fail)

    return install


OPERATIONS = {
    "open": fail_at(av, "open"),
    "seek": fail_in_container("seek"),
    "demux": fail_in_container("demux"),
    "decode": fail_at(OpenVideo, "decode"),
    "convert": fail_at(frame_images, "to_rgb"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_video_lets_no_error_of_ffmpeg_out(operation: str) -> None:
    video = video_bytes(b_frames=2)
    assert len(FFMPEG_ERRORS) > 30
    for error_class in FFMPEG_ERRORS:
        with pytest.MonkeyPatch.context() as patch:
            OPERATIONS[operation](patch, error_class(-22, "said so"))
            for sampling in (SamplingSettings(), SamplingSettings(stride=3)):
                with pytest.raises(Exception, match=r"^clip: ") as raised:
                    decode(video, BY_GOP, sampling, threads=2)
                assert isinstance(raised.value, VideoError), error_class


class ChangedFile(io.BytesIO):
    """A source whose object is replaced after some reads."""

    def __init__(self, content: bytes, reads: int) -> None:
        super().__init__(content)
        self.reads_left = reads

    def read(self, size: int | None = -1) -> bytes:
        if self.reads_left == 0:
            raise ObjectChangedError("clip changed")
        self.reads_left -= 1
        return super().read(size)


def test_video_passes_errors_of_the_storage_on() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    video = video_bytes(codec="mjpeg", container="mov", pixel_format="yuvj420p", draw=lambda number: noise + number)
    plan, enough = plan_of(video), ChangedFile(video, 1000)
    assert list(SegmentDecoder(enough, "clip", Segment(), plan.info, DecodeOptions()))
    for reads in range(1000 - enough.reads_left):
        changed = ChangedFile(video, reads)
        with pytest.raises(ObjectChangedError):
            list(SegmentDecoder(changed, "clip", Segment(), plan.info, DecodeOptions()))
    assert reads >= 3
