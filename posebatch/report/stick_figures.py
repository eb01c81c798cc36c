"""Skeletons without pixels of a video: as SVG for pages, and as frames of a GIF in which two move in step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from posebatch.core.skeleton import KEYPOINT_NAMES, SKELETON_EDGES
from posebatch.report.drawing import EDGE_COLOURS, LEFT_COLOUR, MIDDLE_COLOUR, RIGHT_COLOUR
from posebatch.report.overlay import SUPERSAMPLING, Colour
from posebatch.report.picture_writer import AnnotatedFrame

Array = NDArray[np.float64]

COLOUR_A: Final[Colour] = (96, 156, 255)
"""Blue: the first performance where both are drawn over each other."""

COLOUR_B: Final[Colour] = (217, 72, 15)
"""Orange: the second."""

_BACKGROUND: Final[Colour] = (250, 250, 250)

_TEXT: Final[Colour] = (40, 40, 40)

MIN_PANEL_WIDTH: Final = 190
"""Pixels: captions need some."""

MAX_PANEL_WIDTH: Final = 480
"""Pixels: a person who lies is drawn smaller."""

_MARGIN_TORSO: Final = 0.35

_FACE: Final = [i for i, name in enumerate(KEYPOINT_NAMES) if name.partition("_")[2] in ("eye", "ear") or i == 0]

_CLASSES: Final = {LEFT_COLOUR: "left", RIGHT_COLOUR: "right", MIDDLE_COLOUR: "middle"}


@dataclass(frozen=True)
class _Figure:
    joints: Array
    colour: Colour | None = None
    """None: left, right and middle have their own."""
    width: float = 1.0
    """Of its lines, relative: the one below stays visible at its rims."""


@dataclass(frozen=True)
class Window:
    """What a picture shows of the plane around the hips, torso lengths, y down."""

    left: float
    top: float
    width: float
    height: float

    @classmethod
    def around(cls, *joints: Array) -> Window:
        """All known joints (..., 17, 3) with a margin, symmetric about the hips."""
        points = np.concatenate([array[..., :2].reshape(-1, 2) for array in joints])
        points = points[~np.isnan(points).any(axis=1)]
        if not len(points):
            return cls(-1.0, -1.0, 2.0, 2.0)
        side = float(np.percentile(np.abs(points[:, 0]), 99)) + _MARGIN_TORSO
        top, bottom = np.percentile(points[:, 1], (0.5, 99.5)) + np.array([-_MARGIN_TORSO, _MARGIN_TORSO])
        return cls(-side, float(top), 2 * side, float(bottom - top))


def figure_svg(joints: Array, window: Window, title: str) -> str:
    """One skeleton (17, 3) as inline SVG of classes left, right and middle. ``title`` must be escaped already."""
    known = ~np.isnan(joints[:, 0])
    lines = [
        f'<line class="{_CLASSES[colour]}" x1="{joints[a, 0]:.3f}" y1="{joints[a, 1]:.3f}" '
        f'x2="{joints[b, 0]:.3f}" y2="{joints[b, 1]:.3f}"/>'
        for (a, b), colour in zip(SKELETON_EDGES, EDGE_COLOURS, strict=True)
        if known[a] and known[b]
    ]
    body = "".join(lines) or f'<text x="{window.left + 0.1:.2f}" y="0" font-size="0.2">not seen</text>'
    return (
        f'<svg class="figure" role="img" viewBox="{window.left:.3f} {window.top:.3f} {window.width:.3f} '
        f'{window.height:.3f}"><title>{title}</title>{body}</svg>'
    )


def frames_in_step(
    times: Sequence[float], joints_a: Array, joints_b: Array, labels: tuple[str, str], height: int = 360
) -> Iterator[AnnotatedFrame]:
    """Frames with both skeletons (n, 17, 3) in torso lengths: the first, the second, and both with the same hips."""
    window = Window.around(joints_a, joints_b)
    scale = min(height / window.height, MAX_PANEL_WIDTH / window.width)
    height, width = round(window.height * scale), max(MIN_PANEL_WIDTH, round(window.width * scale))
    for time_s, a, b in zip(times, joints_a, joints_b, strict=True):
        panels = [
            _panel(window, (width, height), [_Figure(a)], f"A {labels[0]}"),
            _panel(window, (width, height), [_Figure(b)], f"B {labels[1]}"),
            _panel(window, (width, height), [_Figure(a, COLOUR_A, 1.7), _Figure(b, COLOUR_B)], "A blue, B orange"),
        ]
        yield AnnotatedFrame(time_s, np.concatenate(panels, axis=1))


def _panel(window: Window, size_wh: tuple[int, int], figures: Sequence[_Figure], caption: str) -> NDArray[np.uint8]:
    width, height = size_wh
    canvas = Image.new("RGB", (width * SUPERSAMPLING, height * SUPERSAMPLING), _BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    scale = height / window.height * SUPERSAMPLING
    origin = np.array([width * SUPERSAMPLING / 2, -window.top * scale])
    for figure in figures:
        line = max(1, round(0.07 * figure.width * scale))
        points = figure.joints[:, :2] * scale + origin
        for (a, b), own in zip(SKELETON_EDGES, EDGE_COLOURS, strict=True):
            if np.isnan(points[[a, b]]).any():
                continue
            thin = line if a not in _FACE or b not in _FACE else max(1, line // 2)
            ends = [(float(x), float(y)) for x, y in points[[a, b]]]
            pen.line(ends, fill=figure.colour or _darker(own), width=thin)
            for x, y in ends:
                pen.ellipse(
                    [x - thin / 2, y - thin / 2, x + thin / 2, y + thin / 2], fill=figure.colour or _darker(own)
                )
    small = canvas.reduce(SUPERSAMPLING)
    font = ImageFont.load_default(18)
    ImageDraw.Draw(small).text((6, 4), _fitting(caption, width - 28, font), fill=_TEXT, font=font)
    return np.asarray(small)


def _darker(colour: Colour) -> Colour:
    """Yellow and bright blue are hard to see on a white page."""
    red, green, blue = (round(0.8 * part) for part in colour)
    return red, green, blue


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, with its middle left out where it is wider than ``width`` pixels."""
    printable = "".join(sign if sign.isprintable() else "?" for sign in text)
    shown, keep = printable, len(printable)
    while keep > 4 and font.getlength(shown) > width:
        keep -= 1
        shown = f"{printable[: keep // 2 + 2]}…{printable[len(printable) - keep // 2 + 2 :]}"
    return shown
