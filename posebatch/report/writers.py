"""The writer of each kind of preview."""

from __future__ import annotations

from fractions import Fraction

from posebatch.report.contact_sheet import SheetWriter
from posebatch.report.gif import GifWriter
from posebatch.report.mp4 import Mp4Writer
from posebatch.report.picture_writer import PictureWriter
from posebatch.report.webp import WebpWriter


def writer_for(form: str, frames: int, time_base: Fraction) -> PictureWriter:
    """The writer of one of `PREVIEW_FORMATS` for a clip of ``frames`` frames in this time base."""
    match form:
        case "gif":
            return GifWriter()
        case "webp":
            return WebpWriter()
        case "mp4":
            return Mp4Writer(time_base)
        case "sheet":
            return SheetWriter(frames)
    raise ValueError(f"no kind of preview: {form!r}")
