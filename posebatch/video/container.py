"""Open a container from an untrusted source, and name what is wrong with it."""

from __future__ import annotations

import contextlib
import io
import re
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
from posebatch.video.content import HEAD_BYTES, describe
from posebatch.video.limits import Limits
from posebatch.video.stated_size import missing_bytes
from posebatch.video.tracks import VideoTrack, choose_track

CONTAINER_FORMATS: Final = "asf,avi,dv,flv,matroska,mov,mpeg,mpegts,mxf,ogg"
"""The demuxers that may open an input. Playlists (HLS, DASH, concat) are left out, because they make FFmpeg open other
files and addresses. The name of an input plays no part."""


INDEXED_FORMATS: Final = frozenset({"mov"})
"""Formats whose header lists every packet, so that the position of a keyframe gives its frame number."""


UNTIMED_FORMATS: Final = frozenset({"avi"})
"""Formats without presentation times: the k-th presented frame takes the k-th time slot."""


av.logging.set_level(av.logging.PANIC)  # errors reach the caller as exceptions or as a frame's status


def do_nothing() -> None:
    """The default of callbacks."""


@dataclass(frozen=True)
class OpenVideo:
    """A video that is being read: its container and its main video stream."""

    container: av.container.InputContainer
    stream: VideoStream
    time_base: Fraction
    """Seconds per tick."""
    limits: Limits
    on_frame: Callable[[], None]
    """Called after each decoded frame, as a heartbeat."""
    tracks: tuple[VideoTrack, ...]
    """All video tracks of the file."""
    missing_bytes: int
    """Bytes that the file lacks by its own statement; 0 if only its beginning is read."""

    @property
    def name(self) -> str:
        """The video's name in error messages."""
        return self.limits.name

    @property
    def format(self) -> str:
        """The demuxer's first name: ``mov`` for MP4 and its relatives."""
        return self.container.format.name.split(",")[0]

    @property
    def lists_packets(self) -> bool:
        """Whether the container has a complete index: each of its packets is one frame with a time of its own."""
        return self.format in INDEXED_FORMATS and len(self.stream.index_entries) == self.stream.frames > 0

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """The frames that come out of the decoder for a packet; with None, the frames that it still holds.

        Raises ``FFmpegError`` when the packet cannot be decoded, and `LimitError` for a picture that is too large.
        """
        context = self.stream.codec_context
        try:
            frames = context.decode(packet)
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self.limits.check_picture(context.width, context.height)
            self.limits.check_refused_picture(_log_of(error))
            raise
        for frame in frames:
            self.limits.check_picture(frame.width, frame.height)
            self.on_frame()
        return frames

    def check_frame(self, frame_index: int, pts: int) -> None:
        """Raises `LimitError` when a frame's number or time is beyond the limits."""
        self.limits.check_frames(frame_index + 1)
        self.limits.check_time(pts, self.time_base, since=self.stream.start_time or 0)


@contextlib.contextmanager
def open_video(
    file: IO[bytes],
    limits: Limits,
    accelerator: HWAccel | None = None,
    on_frame: Callable[[], None] = do_nothing,
    video_track: str = "default",
    streamed: bool = False,
) -> Iterator[OpenVideo]:
    """Open a container and one video track, see `choose_track`; the ``accelerator`` decodes it, if there is one.

    ``on_frame`` is called after each decoded frame. With ``streamed``, only the file's beginning is read: FFmpeg looks
    for no index, duration or fragments further on. Raises `NotAVideoError`, `NoVideoStreamError`, `DamagedVideoError`
    or `LimitError`. With an accelerator, errors of FFmpeg pass: the caller tries again without one.
    """
    try:
        size = file.seek(0, io.SEEK_END)
    except OSError as error:
        raise NotAVideoError(f"{limits.name}: no regular file, its size cannot be read ({error.strerror})") from error
    if size == 0:
        raise NotAVideoError(f"{limits.name}: the file is empty (0 bytes)")
    options = {"format_whitelist": CONTAINER_FORMATS, "protocol_whitelist": "none"}
    options |= limits.container_options | limits.decoder_options
    source = _StreamedFile(file) if streamed else _NamelessFile(file, size)
    try:
        container = av.open(
            source,
            "r",
            options=options,
            metadata_errors="replace",
            hwaccel=accelerator,
        )
    except av.error.FFmpegError as error:
        if accelerator is not None:
            raise
        file.seek(0)
        raise _open_error(error, limits, file.read(HEAD_BYTES)) from error
    with container:
        limits.check_streams(len(container.streams))
        stream, tracks = _video_stream(container, limits.name, video_track)
        limits.check_index(len(stream.index_entries), size)
        stream.codec_context.options = limits.decoder_options
        try:
            missing = 0 if isinstance(source, _StreamedFile) else missing_bytes(source.head, size)
            yield OpenVideo(container, stream, _time_base(stream, limits.name), limits, on_frame, tracks, missing)
        finally:
            # Waits for the decoder's threads without holding the GIL. PyAV frees a decoder while it holds the GIL, and
            # a decoder thread that meets damage needs the GIL to log that: both would wait for ever.
            stream.codec_context.flush_buffers()


class _NamelessFile:
    """A file without a name, so that FFmpeg goes by the content alone: a text called .mp4 is not a damaged MP4.

    The position is its own, so that two readers can use one file in turn. A damaged header may ask for a position
    outside the file. That becomes the end of the file, because the storage would report an error of its own.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size, self._position = file, size, 0
        self.head = b""
        """The first bytes, once they have been read."""

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._position)
        content = self._file.read(size)
        if not self.head and not self._position:
            self.head = content
        self._position += len(content)
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = min(max(0, base + offset), self._size)
        return self._position

    def tell(self) -> int:
        return self._position


class _StreamedFile:
    """A file without a name that is read from the beginning on, without a way back. The position is its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._position = file, 0

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._position)
        content = self._file.read(size)
        self._position += len(content)
        return content


def logged_errors() -> int:
    """How many errors FFmpeg has logged in this process. Some damage shows in the log and nowhere else."""
    return av.logging.get_last_error()[0]


def last_logged_error() -> str:
    """The last error that FFmpeg has logged in this process."""
    error = av.logging.get_last_error()[1]
    return "" if error is None else error[2].strip()


def _log_of(error: av.error.FFmpegError) -> str:
    """The last line that FFmpeg logged before it failed."""
    return str(error).partition("last error log: ")[2].strip()


def _open_error(error: av.error.FFmpegError, limits: Limits, head: bytes) -> NotAVideoError | DamagedVideoError:
    """The error for a file that cannot be opened and begins with ``head``.

    Raises `LimitError` where FFmpeg stopped at a limit.
    """
    name = limits.name
    if "max_streams" in _log_of(error):
        limits.check_streams(limits.settings.max_streams + 1)
    reason = _log_of(error) or error.strerror or "unknown data"
    refused = re.match(r"\[([^]]+)\] Format not on whitelist", reason)
    # the content comes first: FFmpeg's log is that of the whole process, and may be about another file
    if described := describe(head, refused[1] if refused else "", name):
        return NotAVideoError(f"{name}: {described}")
    if "moov" in reason:
        return DamagedVideoError(
            f"{name}: this MP4/MOV has no index (moov): the recording was not finished or the file was cut off"
        )
    return NotAVideoError(f"{name}: not a video in a format that is read ({reason})")


def _video_stream(
    container: av.container.InputContainer, name: str, video_track: str
) -> tuple[VideoStream, tuple[VideoTrack, ...]]:
    """The stream of the chosen track, and all video tracks; the demuxer skips all other streams."""
    tracks = tuple(_track_of(stream) for stream in container.streams.video)
    chosen = choose_track(tracks, video_track, name)
    if chosen is None:
        types = {"cover picture" if stream.type == "video" else stream.type for stream in container.streams}
        kinds = ", ".join(sorted(types)) or "nothing"
        raise NoVideoStreamError(f"{name}: no video stream in it, only {kinds}")
    for stream in container.streams:
        if stream.index != chosen.number:
            stream.discard = Discard.all
    stream = next(stream for stream in container.streams.video if stream.index == chosen.number)
    if stream.codec_context is None:
        raise DamagedVideoError(f"{name}: no decoder for its video codec")
    return stream, tracks


def _track_of(stream: VideoStream) -> VideoTrack:
    context, rate = stream.codec_context, stream.average_rate
    return VideoTrack(
        number=stream.index,
        codec=context.name if context is not None else "unknown codec",
        width=context.width if context is not None else 0,
        height=context.height if context is not None else 0,
        rate=round(float(rate), 3) if rate else 0.0,
        frames=stream.frames,
        is_default=bool(stream.disposition & Disposition.default),
        is_cover=bool(stream.disposition & Disposition.attached_pic),
    )


def _time_base(stream: VideoStream, name: str) -> Fraction:
    if stream.time_base is None or stream.time_base <= 0:
        raise DamagedVideoError(f"{name}: its video stream has no clock")
    return stream.time_base


def keyframes(entries: IndexEntries) -> Iterator[tuple[int, int]]:
    """The keyframes of an index: for each, the number of packets before it and its decode time in ticks.

    The first entry counts as one, because decoding begins there in any case.
    """
    packets = 0
    for i, entry in enumerate(entries):
        if i == 0 or (entry.is_keyframe and not entry.is_discard):
            yield packets, entry.timestamp
        packets += not entry.is_discard
