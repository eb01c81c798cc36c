"""The limits of one video, checked against its header and against the frames that come out of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from posebatch.core.errors import DamagedVideoError, LimitError
from posebatch.core.execution_settings import LimitSettings

MAX_TICKS: Final = 1 << 62
"""A larger time, of either sign, is nonsense. Smaller ones fit 64 bits together with a frame's duration."""


_INT_MAX: Final = (1 << 31) - 1


_SIZE_IN_LOG = re.compile(r"(\d+)x(\d+)")
"""The size of a refused picture, as FFmpeg's decoders log it."""


DEFAULT_LIMITS: Final = LimitSettings()
"""In force where the caller gives none: no video is read without limits."""


@dataclass(frozen=True)
class Limits:
    """The limits applied to one video. Each check raises `LimitError`."""

    name: str
    """The video's name in error messages."""
    settings: LimitSettings = DEFAULT_LIMITS

    @property
    def decoder_options(self) -> dict[str, str]:
        """Options that let FFmpeg refuse a huge picture before it allocates memory.

        FFmpeg also counts the edges around a picture. So its limit is twice as large, and `check_picture` is exact.
        """
        return {"max_pixels": str(min(_INT_MAX, 2 * self.settings.max_pixels + 1_000_000))}

    @property
    def container_options(self) -> dict[str, str]:
        """Options that let FFmpeg stop at a few more streams than allowed, so that an excess can be detected.

        Two more, because its Matroska demuxer stops one early.
        """
        return {"max_streams": str(min(_INT_MAX, self.settings.max_streams + 2))}

    def check_picture(self, width: int, height: int) -> None:
        """Width and height in pixels, from a header or a frame."""
        if width * height > self.settings.max_pixels:
            raise self._excess(f"a picture of {width}x{height} pixels", "max_pixels", "pixels")

    def check_refused_picture(self, log: str) -> None:
        """The size in the log line of a decoder that failed, if it names one."""
        if size := _SIZE_IN_LOG.search(log):
            self.check_picture(int(size[1]), int(size[2]))

    def check_streams(self, streams: int) -> None:
        """The number of streams in a container; FFmpeg stops counting soon after the limit."""
        if streams > self.settings.max_streams:
            raise self._excess(f"{streams} streams or more", "max_streams", "streams")

    def check_index(self, entries: int, size_bytes: int) -> None:
        """The number of frames in an index. Raises `DamagedVideoError` for more than the file has bytes."""
        self.check_frames(entries)
        if entries > size_bytes:
            raise DamagedVideoError(f"{self.name}: its index lists {entries} frames, the file has {size_bytes} bytes")

    def check_frames(self, frames: int) -> None:
        """The number of frames so far, or in a header."""
        if frames > self.settings.max_frames:
            raise self._excess(f"{frames} frames or more", "max_frames", "frames")

    def check_time(self, ticks: int, time_base: Fraction, since: int = 0) -> None:
        """The distance between a frame's time and the video's first time, both in ticks; or a duration from 0 on.

        Raises `DamagedVideoError` for a time beyond `MAX_TICKS`.
        """
        if abs(ticks) > MAX_TICKS:
            raise DamagedVideoError(
                f"{self.name}: the clock of its video stream stands at {ticks} ticks: it is damaged"
            )
        hours = abs(ticks - since) * time_base / 3600
        if hours > self.settings.max_hours:
            raise self._excess(f"{float(hours):.6g} hours or more by its own clock", "max_hours", "hours")

    def _excess(self, measured: str, limit: str, unit: str) -> LimitError:
        flag, value = "--" + limit.replace("_", "-"), getattr(self.settings, limit)
        return LimitError(
            f"{self.name}: it has {measured}, and {flag} allows {value} {unit}; "
            f"to do it all the same, raise {flag} and give --retry-failed"
        )
