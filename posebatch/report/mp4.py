"""Encode a whole clip as an MP4 with the times of the tables, in H.264, which browsers, phones and offices play."""

from __future__ import annotations

import os
import shutil
import tempfile
from fractions import Fraction
from typing import IO, Final

import av
import av.error
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from posebatch.core.errors import PreviewError, StorageUnavailableError
from posebatch.report.encoders import stream_for
from posebatch.report.picture_writer import AnnotatedFrame, PictureWriter, fitted

ENCODERS: Final = ("libx264", "libopenh264")


OPTIONS: Final = {"preset": "veryfast", "crf": "23", "bf": "0"}
"""Without B-frames every frame is stored at its time, and no player needs an edit list to find it."""


KEYFRAME_EVERY: Final = 60
"""Frames between keyframes: a player that jumps decodes at most so many."""


MAX_TICKS_PER_SECOND: Final = 1_000_000
"""An MP4 counts in ticks of 32 bits. Finer time bases are rounded to this one."""


_BT709: Final = 1
"""FFmpeg's number of this colour space, of its primaries and of its transfer function."""


class Mp4Writer(PictureWriter):
    """Writes every frame of a clip. The first frame is at time 0, the others as much later as in the tables.

    Sizes are even: an odd one gets a copy of the last column or row. The file lies on the disk until it is complete.
    """

    def __init__(self, time_base: Fraction) -> None:
        """``time_base``: of the video; all times are multiples of it, in seconds."""
        self._tick = Fraction(1, min(time_base.denominator, MAX_TICKS_PER_SECOND))
        self._folder = tempfile.TemporaryDirectory(prefix="posebatch-mp4-")
        self._path = os.path.join(self._folder.name, "preview.mp4")
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._waiting: tuple[int, NDArray[np.uint8]] | None = None  # until its duration is known
        self._begin, self._delay, self._count = 0, 1, 0

    def wants(self, number: int, time_s: float) -> bool:
        """Every frame."""
        return True

    def add(self, frame: AnnotatedFrame) -> None:
        """Encode the frame before, and keep this one. Raises `PreviewError` if FFmpeg has no encoder, or fails."""
        pts, image = round(frame.time_s / self._tick), _even(frame.image)
        try:
            if self._stream is None:
                self._open(image)
                self._begin = pts
            if self._waiting is not None:
                self._delay = pts - self._begin - self._waiting[0]
                self._encode()
            self._waiting = pts - self._begin, image
        except (av.error.FFmpegError, OSError) as error:
            raise _translated(error) from error

    def finish(self, file: IO[bytes]) -> int:
        """Encode the last frame, which lasts as long as the one before, and write the file."""
        if self._container is None or self._stream is None:
            raise PreviewError("no frame of the video can be shown")
        try:
            self._encode()
            self._mux(self._stream.encode(None))
            self._container.close()
            self._container = None
            with open(self._path, "rb") as made:
                shutil.copyfileobj(made, file)
        except (av.error.FFmpegError, OSError) as error:
            raise _translated(error) from error
        return self._count

    def close(self) -> None:
        """Remove the file."""
        if self._container is not None:
            self._container.close()
            self._container = None
        self._folder.cleanup()

    def _open(self, image: NDArray[np.uint8]) -> None:
        container = av.open(self._path, "w", format="mp4", options={"movflags": "+faststart"})
        self._container = container
        stream = stream_for(container, ENCODERS, "an MP4 in H.264", OPTIONS)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base, context.gop_size = self._tick, KEYFRAME_EVERY
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = ColorRange.MPEG
        self._stream = stream

    def _encode(self) -> None:
        assert self._container is not None
        assert self._stream is not None
        assert self._waiting is not None
        pts, image = self._waiting
        pixels = np.ascontiguousarray(fitted(image, self._stream.width, self._stream.height))
        rgb = VideoFrame.from_ndarray(pixels, "rgb24")
        frame = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        frame.pts, frame.time_base, frame.duration = pts, self._tick, self._delay
        self._mux(self._stream.encode(frame))
        self._count += 1

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        assert self._container is not None
        for packet in packets:
            packet.duration = self._delay  # counts for the last packet alone; the encoder does not pass it on
            self._container.mux(packet)


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image with even sides: 4:2:0 has one colour for four pixels."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _translated(error: Exception) -> PreviewError | StorageUnavailableError:
    if isinstance(error, OSError) and error.errno == 28:
        return StorageUnavailableError(f"the disk of {tempfile.gettempdir()} is full: {error}")
    return PreviewError(f"the MP4 cannot be written: {error}")
