"""A contact sheet: thumbnails over the whole clip on one page, each with its time."""

from __future__ import annotations

from typing import IO, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from posebatch.core.errors import PreviewError
from posebatch.report.picture_writer import AnnotatedFrame, PictureWriter

THUMBS: Final = 12
"""Maximum thumbnails of a sheet: three rows of four, or two of six for a video in portrait."""


THUMB_LONG_SIDE: Final = 360
"""Pixels of the longer side of a thumbnail; a smaller picture stays as it is."""


LABEL_HEIGHT: Final = 26
"""Pixels below a thumbnail, for its time."""


MARGIN: Final = 8
"""Pixels between thumbnails."""


PAPER: Final = (250, 250, 250)
INK: Final = (20, 20, 20)


QUALITY: Final = 85
"""Of the JPEG."""


class SheetWriter(PictureWriter):
    """Writes a JPEG with frames of the clip at equal distances, the first and the last among them."""

    def __init__(self, frames: int) -> None:
        """``frames``: number of frames of the clip."""
        self._wanted = frozenset(np.linspace(0, max(frames - 1, 0), min(frames, THUMBS)).round().astype(int).tolist())
        self._thumbs: list[tuple[float, Image.Image]] = []

    @property
    def is_full(self) -> bool:
        """Whether it has all thumbnails."""
        return len(self._thumbs) >= len(self._wanted)

    def wants(self, number: int, time_s: float) -> bool:
        """Whether this frame is one of those at equal distances."""
        return number in self._wanted

    def add(self, frame: AnnotatedFrame) -> None:
        """Keep the frame as a thumbnail."""
        image = Image.fromarray(np.ascontiguousarray(frame.image))
        image.thumbnail((THUMB_LONG_SIDE, THUMB_LONG_SIDE), Image.Resampling.LANCZOS)
        self._thumbs.append((frame.time_s, image))

    def finish(self, file: IO[bytes]) -> int:
        """Write the page: one picture."""
        if not self._thumbs:
            raise PreviewError("no frame of the video can be shown")
        width, height = self._thumbs[0][1].size
        columns = min(len(self._thumbs), 4 if width >= height else 6)
        rows = -(-len(self._thumbs) // columns)
        pitch_x, pitch_y = width + MARGIN, height + LABEL_HEIGHT + MARGIN
        page = Image.new("RGB", (columns * pitch_x + MARGIN, rows * pitch_y + MARGIN), PAPER)
        pen, font = ImageDraw.Draw(page), ImageFont.load_default(LABEL_HEIGHT * 0.7)
        for number, (time_s, image) in enumerate(self._thumbs):
            x, y = MARGIN + number % columns * pitch_x, MARGIN + number // columns * pitch_y
            page.paste(image if image.size == (width, height) else image.resize((width, height)), (x, y))
            middle = (x + width / 2, y + height + LABEL_HEIGHT / 2)
            pen.text(middle, time_label(time_s), fill=INK, font=font, anchor="mm")
        page.save(file, "JPEG", quality=QUALITY)
        return 1

    def close(self) -> None:
        """Drop the thumbnails."""
        self._thumbs = []


def time_label(time_s: float) -> str:
    """A time as ``m:ss.s``, with hours only where there are some.

    >>> time_label(83.46)
    '1:23.5'
    """
    tenths = round(abs(time_s) * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{'-' if time_s < 0 and tenths + minutes + hours else ''}{clock}:{tenths / 10:04.1f}"
