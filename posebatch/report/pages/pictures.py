"""Pictures within a page: stills of a preview, and a drawing of a skeleton where there is no preview."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from itertools import islice
from typing import Final
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from posebatch.core.skeleton import SKELETON_EDGES
from posebatch.report.drawing import EDGE_COLOURS
from posebatch.report.pages.clips import opened_clip
from posebatch.report.pages.player_data import SEEN, joint_states

STILL_SIDE: Final = 400
"""Pixels of the longer side of a still behind the player."""


THUMBNAIL_SIDE: Final = 320
"""Pixels of the longer side of a picture on the page of a run: sharp on a phone."""


MAX_STILLS_BYTES: Final = 1_000_000
"""Maximum size of all stills of a page, before base64. Where all would be more, some are left out evenly."""


_QUALITY: Final = 45


@dataclass(frozen=True)
class Still:
    """A picture of a preview."""

    time_s: float
    """Since the first frame of the preview."""
    webp: bytes


def stills(preview: bytes) -> list[Still]:
    """Pictures of a preview, a GIF, WebP or MP4, evenly thinned to `MAX_STILLS_BYTES`; none if it is no preview.

    The frame rate of a GIF or WebP is low, so a still may be as old as 0.1 s, and older where stills are left out.
    """
    with opened_clip(preview) as clip:
        first = next(clip.pictures(1), None)
        if first is None:
            return []
        most = max(1, MAX_STILLS_BYTES // len(_webp(first[1], STILL_SIDE)))
        found = [Still(time_s, _webp(image, STILL_SIDE)) for time_s, image in clip.pictures(-(-len(clip) // most))]
    while sum(len(still.webp) for still in found) > MAX_STILLS_BYTES and len(found) > 1:
        found = found[::2]
    return found


def text_bytes(shown: list[Still]) -> int:
    """The size of stills in a page, where they are base64 in JSON."""
    return sum(len(still.webp) * 4 // 3 + 60 for still in shown)


def thumbnail(preview: bytes) -> str | None:
    """A picture from the middle of a preview as a ``data:`` address; None if it is no preview."""
    with opened_clip(preview) as clip:
        middle = max(1, len(clip) // 2)
        pictures = list(islice(clip.pictures(middle), 2))
    return data_address("image/webp", _webp(pictures[-1][1], THUMBNAIL_SIDE)) if pictures else None


def _webp(image: Image.Image, side: int) -> bytes:
    reduced = image.copy()
    reduced.thumbnail((side, side))
    sink = io.BytesIO()
    reduced.save(sink, "WEBP", quality=_QUALITY, method=2)
    return sink.getvalue()


def data_address(media_type: str, content: bytes) -> str:
    """Bytes as a ``data:`` address."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def skeleton_drawing(persons: NDArray[np.float32], size_wh: tuple[int, int]) -> str:
    """Skeletons (n, 17, 3) of one frame as an SVG in a ``data:`` address; joints that are not sure are left out."""
    width, height = size_wh
    lines = []
    for joints, states in zip(persons, joint_states(persons), strict=True):
        for (a, b), colour in zip(SKELETON_EDGES, EDGE_COLOURS, strict=True):
            if states[a] == SEEN and states[b] == SEEN:
                (x1, y1), (x2, y2) = joints[a, :2].round().astype(int), joints[b, :2].round().astype(int)
                lines.append(f'<path stroke="rgb{colour}" d="M{x1} {y1}L{x2} {y2}"/>')
    svg = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox={quoteattr(f'0 0 {width} {height}')} fill='none' "
        f"stroke-linecap='round' stroke-width='{max(width, height) / 130:.1f}'>"
        f"<rect width='{width}' height='{height}' fill='#1b2027'/>{''.join(lines)}</svg>"
    )
    return data_address("image/svg+xml", svg.encode())
