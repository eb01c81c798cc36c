"""What one video may be: the limits that are set, put to what its header claims and to what comes out of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from posebatch.core.errors import DamagedVideoError, LimitError
from posebatch.core.settings import LimitSettings

MAX_TICKS: Final = 1 << 62
"""Times beyond it, of either sign, are nonsense: with room for a frame's duration, what is below fits 64 bits."""


_INT_MAX: Final = (1 << 31) - 1


_SIZE_IN_LOG = re.compile(r"(\d+)x(\d+)")
"""How FFmpeg's decoders name the size of a picture that they refuse."""


DEFAULT_LIMITS: Final = LimitSettings()
"""In force where nobody says otherwise: there is no video without limits."""


@dataclass(frozen=True)
class Limits:
    """The limits as they are put to one video. Each check raises `LimitError`."""

    name: str
    """Stands in error messages."""
    settings: LimitSettings = DEFAULT_LIMITS

    @property
    def decoder_options(self) -> dict[str, str]:
        """What makes FFmpeg refuse a picture before it takes memory for it.

        FFmpeg counts the edges around a picture too, so it is given twice the room and the exact limit is ours.
        """
        return {"max_pixels": str(min(_INT_MAX, 2 * self.settings.max_pixels + 1_000_000))}

    @property
    def container_options(self) -> dict[str, str]:
        """What makes FFmpeg stop at so many streams: more than are allowed, which tells that there are more.

        Two more, as its reader of Matroska stops one early.
        """
        return {"max_streams": str(min(_INT_MAX, self.settings.max_streams + 2))}

    def check_picture(self, width: int, height: int) -> None:
        """Width and height in pixels, of a frame or of what a header says of it."""
        if width * height > self.settings.max_pixels:
            raise self._more(f"a picture of {width}x{height} pixels", "max_pixels", "pixels")

    def check_refused(self, complaint: str) -> None:
        """What a decoder said when it failed: it may be about a picture's size."""
        if found := _SIZE_IN_LOG.search(complaint):
            self.check_picture(int(found[1]), int(found[2]))

    def check_streams(self, streams: int) -> None:
        """Streams of a container; beyond the limit FFmpeg does not go on counting."""
        if streams > self.settings.max_streams:
            raise self._more(f"{streams} streams or more", "max_streams", "streams")

    def check_index(self, entries: int, size_bytes: int) -> None:
        """Frames that a container lists. Raises `DamagedVideoError` for more than its file can hold."""
        self.check_frames(entries)
        if entries > size_bytes:
            raise DamagedVideoError(f"{self.name}: its index lists {entries} frames, the file has {size_bytes} bytes")

    def check_frames(self, frames: int) -> None:
        """Frames so far, or as many as a header claims."""
        if frames > self.settings.max_frames:
            raise self._more(f"{frames} frames or more", "max_frames", "frames")

    def check_time(self, ticks: int, time_base: Fraction, since: int = 0) -> None:
        """A frame's time and how far it is from the video's first, in either direction; or a length, from 0 on.

        Raises `DamagedVideoError` for a time that no clock shows.
        """
        if abs(ticks) > MAX_TICKS:
            raise DamagedVideoError(
                f"{self.name}: the clock of its video stream stands at {ticks} ticks: it is damaged"
            )
        hours = abs(ticks - since) * time_base / 3600
        if hours > self.settings.max_hours:
            raise self._more(f"{float(hours):.6g} hours or more by its own clock", "max_hours", "hours")

    def _more(self, found: str, limit: str, unit: str) -> LimitError:
        flag, value = "--" + limit.replace("_", "-"), getattr(self.settings, limit)
        return LimitError(
            f"{self.name}: it has {found}, and {flag} allows {value} {unit}; "
            f"to do it all the same, raise {flag} and give --retry-failed"
        )
