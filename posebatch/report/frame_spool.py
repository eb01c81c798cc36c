"""Frames that wait on the disk until they are encoded, so that memory does not grow with the video.

A GIF needs two passes over its frames, and an animation that gets too large is encoded again with fewer of them.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from posebatch.report.picture_writer import AnnotatedFrame, PictureWriter, fitted

MIN_DELAY: Final = 10
"""In hundredths of a second: at most ten frames a second, because each costs some 10 kB."""


STEPS: Final = (1, 2, 4)
"""An animation that would be too large shows every second frame, or every fourth. If that is too large, its end is
missing."""


STILL: Final = 8
"""A pixel keeps its colour while no channel differs by more, of 255. Without this, noise would cost half of a GIF."""


def due(time_s: float) -> int:
    """A time in hundredths of a second."""
    return round(time_s * 100)


class FrameSpool:
    """The frames of an animation: each at least `MIN_DELAY` after the one before, all of one size.

    Noise costs most of the bytes: pixels that hardly change keep their value.
    """

    def __init__(self, max_frames: int, max_pixels: int) -> None:
        """``max_pixels``: of all frames together."""
        self._max_frames, self._max_pixels = max_frames, max_pixels
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._begin = 0
        self._shown: NDArray[np.uint8] | None = None
        self.times: list[int] = []
        """Times from 0 on in hundredths of a second."""
        self.width, self.height = 0, 0
        """Pixels: those of the first frame."""

    @property
    def is_full(self) -> bool:
        """Whether a limit is reached."""
        count, pixels = len(self.times), self.width * self.height
        return count >= self._max_frames or (count > 0 and (count + 1) * pixels > self._max_pixels)

    def wants(self, time_s: float) -> bool:
        """Whether a frame comes late enough after the one before."""
        if self.is_full:
            return False
        return not self.times or due(time_s) - self._begin >= self.times[-1] + MIN_DELAY

    def add(self, frame: AnnotatedFrame) -> None:
        """Keep a frame."""
        if self._shown is None:
            self._begin, (self.height, self.width) = due(frame.time_s), frame.image.shape[:2]
        image = fitted(frame.image, self.width, self.height)
        self._shown = image if self._shown is None else _steadied(image, self._shown)
        self._file.write(self._shown.tobytes())
        self.times.append(due(frame.time_s) - self._begin)

    def frames(self, numbers: Iterable[int]) -> Iterator[VideoFrame]:
        """Frames by their numbers, without times."""
        shape = (self.height, self.width, 3)
        size = math.prod(shape)
        for number in numbers:
            self._file.seek(number * size)
            pixels = np.frombuffer(self._file.read(size), np.uint8).reshape(shape)
            yield VideoFrame.from_ndarray(pixels, "rgb24")

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


def _steadied(image: NDArray[np.uint8], shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image, with the pixels of the frame ``shown`` before it where they differ by at most `STILL`."""
    change = np.maximum(image, shown) - np.minimum(image, shown)
    return np.where((change <= STILL).all(axis=2, keepdims=True), shown, image)


class SpooledWriter(PictureWriter):
    """A writer that keeps the frames it wants on the disk until the clip ends."""

    def __init__(self, spool: FrameSpool) -> None:
        self._spool = spool

    @property
    def is_full(self) -> bool:
        """Whether a limit is reached."""
        return self._spool.is_full

    def wants(self, number: int, time_s: float) -> bool:
        """Whether a frame comes late enough after the one before."""
        return self._spool.wants(time_s)

    def add(self, frame: AnnotatedFrame) -> None:
        """Keep a frame."""
        self._spool.add(frame)

    def close(self) -> None:
        """Remove the frames from the disk."""
        self._spool.close()
