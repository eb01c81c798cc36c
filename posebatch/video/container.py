"""Open a container that anyone may have made, and say what is wrong with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from typing import IO, Final

import av
import av.container
import av.error
import av.logging
from av.codec.hwaccel import HWAccel
from av.index import IndexEntries
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from posebatch.errors import DamagedVideoError, NotAVideoError, NoVideoStreamError

CONTAINER_FORMATS: Final = "asf,avi,dv,flv,matroska,mov,mpeg,mpegts,mxf,ogg"
"""The demuxers that may open an input. Playlists (HLS, DASH, concat), which make FFmpeg open other files and addresses,
are not among them, whatever an input is called."""

INDEXED_FORMATS: Final = frozenset({"mov"})
"""Formats whose header lists every packet, so that a keyframe's position says which frame it is."""

UNTIMED_FORMATS: Final = frozenset({"avi"})
"""Formats without presentation times: the k-th frame shown takes the k-th time slot."""

av.logging.set_level(av.logging.PANIC)  # what matters reaches the caller as an error or a frame's status


@contextlib.contextmanager
def open_video(
    file: IO[bytes], name: str, accelerator: HWAccel | None = None
) -> Iterator[tuple[av.container.InputContainer, VideoStream]]:
    """The container and its main video stream, to be decoded by the accelerator if there is one."""
    if file.seek(0, 2) == 0:
        raise NotAVideoError(f"{name}: the file is empty (0 bytes)")
    file.seek(0)
    options = {"format_whitelist": CONTAINER_FORMATS, "protocol_whitelist": "none"}
    try:
        container = av.open(_Nameless(file), "r", options=options, metadata_errors="replace", hwaccel=accelerator)
    except av.error.FFmpegError as error:
        if accelerator is not None:
            raise  # what is wrong with the file is told to those who try without
        raise _open_error(error, name) from error
    with container:
        stream = _video_stream(container, name)
        try:
            yield container, stream
        finally:
            # Waits for the decoder's threads without Python's lock. PyAV frees a decoder while holding that lock, and a
            # thread that meets damage needs it for its message: the two would wait for each other for ever.
            stream.codec_context.flush_buffers()


class _Nameless:
    """A file without its name, so that FFmpeg judges by content alone: a text called .mp4 is no damaged MP4.

    It keeps a position of its own, so that one file can be read at two places in turn.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._position = file, 0

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._position)
        content = self._file.read(size)
        self._position += len(content)
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        self._file.seek(self._position)
        self._position = self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        return self._position


def _open_error(error: av.error.FFmpegError, name: str) -> NotAVideoError | DamagedVideoError:
    said = str(error).partition("last error log: ")[2].strip() or error.strerror or "unknown data"
    if "moov" in said:
        return DamagedVideoError(
            f"{name}: this MP4/MOV has no index (moov): the recording was not finished or the file was cut off"
        )
    if "whitelist" in said or "hls" in said:
        return NotAVideoError(f"{name}: a playlist or another format that is not read ({said}); give the video itself")
    return NotAVideoError(f"{name}: not a video in a format that is read ({said})")


def _video_stream(container: av.container.InputContainer, name: str) -> VideoStream:
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        # what is of type video here are attached pictures
        found = {"cover picture" if stream.type == "video" else stream.type for stream in container.streams}
        kinds = ", ".join(sorted(found)) or "nothing"
        raise NoVideoStreamError(f"{name}: no video stream in it, only {kinds}")
    for stream in container.streams:
        if stream.index != streams[0].index:
            stream.discard = Discard.all
    if streams[0].codec_context is None:
        raise DamagedVideoError(f"{name}: no decoder for its video codec")
    return streams[0]


def time_base(stream: VideoStream) -> Fraction:
    """Seconds per tick; streams read from a container always have one."""
    assert stream.time_base is not None
    return stream.time_base


def format_name(container: av.container.InputContainer) -> str:
    """The demuxer's first name: ``mov`` for MP4 and its kin."""
    return container.format.name.split(",")[0]


def starts(entries: IndexEntries) -> Iterator[tuple[int, int]]:
    """Where decoding can start, by an index: the number of packets before it, and its decode time."""
    packets = 0
    for i, entry in enumerate(entries):
        if i == 0 or (entry.is_keyframe and not entry.is_discard):
            yield packets, entry.timestamp
        packets += not entry.is_discard
