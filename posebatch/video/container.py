"""Open a container that anyone may have made, and say what is wrong with it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Final

import av
import av.container
import av.error
import av.logging
from av.codec.hwaccel import HWAccel
from av.index import IndexEntries
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from posebatch.core.errors import DamagedVideoError, NotAVideoError, NoVideoStreamError
from posebatch.video.limits import Limits

CONTAINER_FORMATS: Final = "asf,avi,dv,flv,matroska,mov,mpeg,mpegts,mxf,ogg"
"""The demuxers that may open an input. Playlists (HLS, DASH, concat), which make FFmpeg open other files and addresses,
are not among them, whatever an input is called."""


INDEXED_FORMATS: Final = frozenset({"mov"})
"""Formats whose header lists every packet, so that a keyframe's position says which frame it is."""


UNTIMED_FORMATS: Final = frozenset({"avi"})
"""Formats without presentation times: the k-th frame shown takes the k-th time slot."""


av.logging.set_level(av.logging.PANIC)  # what matters reaches the caller as an error or a frame's status


def ignore() -> None:
    """Do nothing: the default for callbacks."""


@dataclass(frozen=True)
class OpenVideo:
    """A video that is being read: its container and the one stream of it that counts."""

    container: av.container.InputContainer
    stream: VideoStream
    time_base: Fraction
    """Seconds per tick."""
    limits: Limits
    on_frame: Callable[[], None]
    """Called after each decoded frame, as a sign of life."""

    @property
    def name(self) -> str:
        """Stands in error messages."""
        return self.limits.name

    @property
    def format(self) -> str:
        """The demuxer's first name: ``mov`` for MP4 and its kin."""
        return self.container.format.name.split(",")[0]

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """What the decoder gives for a packet, or for None at the end.

        Raises ``FFmpegError`` for what cannot be decoded, and `LimitError` for too large a picture.
        """
        context = self.stream.codec_context
        try:
            frames = context.decode(packet)
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self.limits.check_picture(context.width, context.height)
            self.limits.check_refused(_complaint(error))
            raise
        for frame in frames:
            self.limits.check_picture(frame.width, frame.height)
            self.on_frame()
        return frames

    def check_frame(self, frame_index: int, pts: int) -> None:
        """Raises `LimitError` for a frame that comes too late, by number or by time."""
        self.limits.check_frames(frame_index + 1)
        self.limits.check_time(pts, self.time_base, since=self.stream.start_time or 0)


@contextlib.contextmanager
def open_video(
    file: IO[bytes], limits: Limits, accelerator: HWAccel | None = None, on_frame: Callable[[], None] = ignore
) -> Iterator[OpenVideo]:
    """The container and its main video stream, to be decoded by the accelerator if there is one.

    ``on_frame`` is called after each decoded frame.
    """
    size = file.seek(0, io.SEEK_END)
    if size == 0:
        raise NotAVideoError(f"{limits.name}: the file is empty (0 bytes)")
    options = {"format_whitelist": CONTAINER_FORMATS, "protocol_whitelist": "none"}
    options |= limits.container_options | limits.decoder_options
    try:
        container = av.open(_Nameless(file, size), "r", options=options, metadata_errors="replace", hwaccel=accelerator)
    except av.error.FFmpegError as error:
        if accelerator is not None:
            raise  # what is wrong with the file is told to those who try without
        raise _open_error(error, limits) from error
    with container:
        limits.check_streams(len(container.streams))
        stream = _video_stream(container, limits.name)
        limits.check_index(len(stream.index_entries), size)
        stream.codec_context.options = limits.decoder_options
        try:
            yield OpenVideo(container, stream, _time_base(stream, limits.name), limits, on_frame)
        finally:
            # Waits for the decoder's threads without Python's lock. PyAV frees a decoder while holding that lock, and a
            # thread that meets damage needs it for its message: the two would wait for each other for ever.
            stream.codec_context.flush_buffers()


class _Nameless:
    """A file without its name, so that FFmpeg judges by content alone: a text called .mp4 is no damaged MP4.

    It keeps a position of its own, so that one file can be read at two places in turn. A place that a header makes up,
    outside the file, is its end: to ask for it is no failure of the storage.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size, self._position = file, size, 0

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._position)
        content = self._file.read(size)
        self._position += len(content)
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = min(max(0, base + offset), self._size)
        return self._position

    def tell(self) -> int:
        return self._position


def complaints() -> int:
    """How often FFmpeg has complained in this process. Of some damage it tells in no other way."""
    return av.logging.get_last_error()[0]


def _complaint(error: av.error.FFmpegError) -> str:
    """What FFmpeg said last before it failed."""
    return str(error).partition("last error log: ")[2].strip()


def _open_error(error: av.error.FFmpegError, limits: Limits) -> NotAVideoError | DamagedVideoError:
    """What is wrong with a file that cannot be opened. Raises `LimitError` where FFmpeg stopped at a limit."""
    name = limits.name
    if "max_streams" in _complaint(error):
        limits.check_streams(limits.settings.max_streams + 1)
    said = _complaint(error) or error.strerror or "unknown data"
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


def _time_base(stream: VideoStream, name: str) -> Fraction:
    if stream.time_base is None or stream.time_base <= 0:
        raise DamagedVideoError(f"{name}: its video stream has no clock")
    return stream.time_base


def keyframes(entries: IndexEntries) -> Iterator[tuple[int, int]]:
    """Where decoding can start, by an index: the number of packets before it, and its decode time."""
    packets = 0
    for i, entry in enumerate(entries):
        if i == 0 or (entry.is_keyframe and not entry.is_discard):
            yield packets, entry.timestamp
        packets += not entry.is_discard
