"""The pictures of a published preview, for the pages: of a GIF or WebP by Pillow, of an MP4 by FFmpeg."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import av
import av.error
from PIL import Image, UnidentifiedImageError

from posebatch.report.mp4 import KEYFRAME_EVERY


class Clip(AbstractContextManager["Clip"], ABC):
    """A preview that is being read. Leaving the ``with`` block closes it."""

    @abstractmethod
    def __len__(self) -> int:
        """Its pictures."""

    @abstractmethod
    def pictures(self, step: int) -> Iterator[tuple[float, Image.Image]]:
        """About every ``step``-th picture from the first on, with its time since the first in seconds.

        Ends early where the file is damaged.
        """


class _NoClip(Clip):
    def __len__(self) -> int:
        return 0

    def pictures(self, step: int) -> Iterator[tuple[float, Image.Image]]:
        return iter(())

    def __exit__(self, *error: object) -> None:
        return None


class _ImageClip(Clip):
    """A GIF or an animated WebP."""

    def __init__(self, image: Image.Image) -> None:
        self._image = image

    def __len__(self) -> int:
        return int(getattr(self._image, "n_frames", 1))

    def pictures(self, step: int) -> Iterator[tuple[float, Image.Image]]:
        time_s = 0.0
        try:
            for number in range(len(self)):
                self._image.seek(number)
                picture = self._image.convert("RGB")  # loads it: a WebP has the duration of a frame only then
                if number % step == 0:
                    yield time_s, picture
                time_s += self._image.info.get("duration", 100) / 1000
        except (OSError, SyntaxError, EOFError):
            return

    def __exit__(self, *error: object) -> None:
        self._image.close()


class _Mp4Clip(Clip):
    def __init__(self, container: Any) -> None:
        self._container = container
        self._stream = container.streams.video[0]

    def __len__(self) -> int:
        return int(self._stream.frames)

    def pictures(self, step: int) -> Iterator[tuple[float, Image.Image]]:
        # A long preview needs few pictures: its keyframes are enough, and decode much faster.
        self._stream.codec_context.skip_frame = "NONKEY" if step >= KEYFRAME_EVERY else "DEFAULT"
        interval_s = float(self._stream.duration * self._stream.time_base) / len(self)
        begin, wanted_s = None, 0.0
        try:
            self._container.seek(0)
            for frame in self._container.decode(self._stream):
                begin = frame.time if begin is None else begin
                if frame.time - begin >= wanted_s:
                    yield frame.time - begin, frame.to_image()
                    wanted_s = frame.time - begin + (step - 0.5) * interval_s
        except av.error.FFmpegError:
            return

    def __exit__(self, *error: object) -> None:
        self._container.close()


def opened_clip(preview: bytes) -> Clip:
    """A preview, to be read in a ``with`` block. A file that is none has no pictures."""
    try:
        if preview[4:8] == b"ftyp":
            return _Mp4Clip(av.open(io.BytesIO(preview)))
        return _ImageClip(Image.open(io.BytesIO(preview)))
    except (UnidentifiedImageError, OSError, SyntaxError, IndexError, av.error.FFmpegError):
        return _NoClip()
