"""A picture of what the networks saw in one frame: boxes, crops, heatmaps and points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from posebatch.report.drawing import DRAWING_THRESHOLDS, draw_skeletons
from posebatch.report.joint_reasons import JointVerdict

WIDTH: Final = 1440
"""Pixels of the picture."""


TILE_WIDTH: Final = 144
"""Pixels of the overlay of one heatmap."""


MARGIN: Final = 12


TEXT: Final = 16
"""Pixels of the font."""


PAPER, INK, WARNING, BOX_COLOUR = (250, 250, 250), (30, 30, 30), (190, 30, 30), (60, 220, 60)


@dataclass(frozen=True)
class ExplainedPerson:
    """One person of the picture."""

    bbox_xyxy: NDArray[np.float32]
    """(4,) pixels of the frame."""
    bbox_score: float
    keypoints: NDArray[np.float32]
    """(17, 3) x, y in pixels of the frame, and score."""
    crop: NDArray[np.uint8]
    """(h, w, 3) RGB."""
    heatmaps: NDArray[np.float32]
    """(17, h/4, w/4)."""
    points_in_heatmaps: NDArray[np.float64]
    """(17, 2)."""
    verdicts: tuple[JointVerdict, ...]


def draw_explanation(image: NDArray[np.uint8], title: str, persons: Sequence[ExplainedPerson]) -> Image.Image:
    """Draw the frame (h, w, 3) with boxes and skeletons, and below it a row of crop and heatmaps for each person."""
    blocks = [_frame_block(image, title, persons), *(_person_block(*pair) for pair in enumerate(persons))]
    page = Image.new("RGB", (WIDTH, sum(block.height for block in blocks)), PAPER)
    top = 0
    for block in blocks:
        page.paste(block, (0, top))
        top += block.height
    return page


def _frame_block(image: NDArray[np.uint8], title: str, persons: Sequence[ExplainedPerson]) -> Image.Image:
    scale = min(1.0, (WIDTH - 2 * MARGIN) / image.shape[1])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    keypoints = np.stack([person.keypoints for person in persons]) if persons else np.zeros((0, 17, 3), np.float32)
    picture = Image.fromarray(draw_skeletons(small, keypoints, DRAWING_THRESHOLDS, scale))
    pen = ImageDraw.Draw(picture)
    for number, person in enumerate(persons):
        x1, y1, x2, y2 = (person.bbox_xyxy + 0.5) * scale - 0.5
        pen.rectangle([x1, y1, x2, y2], outline=BOX_COLOUR, width=2)
        _label(pen, (x1, max(0.0, y1 - TEXT - 6)), f"{number}: {person.bbox_score:.2f}")
    block = Image.new("RGB", (WIDTH, size[1] + TEXT + 3 * MARGIN), PAPER)
    ImageDraw.Draw(block).text((MARGIN, MARGIN), title, INK, _font())
    block.paste(picture, (MARGIN, TEXT + 2 * MARGIN))
    return block


def _person_block(number: int, person: ExplainedPerson) -> Image.Image:
    overlays = [_overlay(person.crop)]
    overlays += [_overlay(person.crop, *pair) for pair in zip(person.heatmaps, person.points_in_heatmaps, strict=True)]
    captions = [(f"person {number}", INK)]
    captions += [
        (f"{verdict.name.replace('_', ' ')} {verdict.score:.2f}", INK if verdict.drawn else WARNING)
        for verdict in person.verdicts
    ]
    height, step = overlays[0].height + TEXT + 10, TILE_WIDTH + MARGIN
    columns = (WIDTH - MARGIN) // step
    rows = -(-len(overlays) // columns)
    block = Image.new("RGB", (WIDTH, rows * (height + MARGIN)), PAPER)
    pen = ImageDraw.Draw(block)
    for position, (overlay, (caption, colour)) in enumerate(zip(overlays, captions, strict=True)):
        x, y = MARGIN + position % columns * step, position // columns * (height + MARGIN)
        block.paste(overlay, (x, y))
        pen.text((x, y + overlay.height + 4), caption, colour, _font())
    return block


def _overlay(
    crop: NDArray[np.uint8],
    heatmap: NDArray[np.float32] | None = None,
    point: NDArray[np.float64] | None = None,
) -> Image.Image:
    """The crop, darkened, with a heatmap (h, w) over it in red and yellow, and the point that was read from it."""
    picture = Image.fromarray(crop)
    size = (TILE_WIDTH, round(TILE_WIDTH * picture.height / picture.width))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    if heatmap is None or point is None:
        return picture
    heat = np.asarray(Image.fromarray(heatmap).resize(size, Image.Resampling.BICUBIC))[..., None].clip(0, 1)
    hot = np.concatenate([np.full_like(heat, 255), 255 * heat, np.zeros_like(heat)], axis=2)
    strength = np.sqrt(heat)
    mixed = (1 - strength) * 0.6 * np.asarray(picture) + strength * hot
    picture = Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))
    x, y = (point + 0.5) * (np.array(size) / heatmap.shape[::-1]) - 0.5
    pen = ImageDraw.Draw(picture)
    for radius, colour in ((5, (0, 0, 0)), (4, (255, 255, 255))):
        pen.line([x - radius, y, x + radius, y], fill=colour, width=3 if radius == 5 else 1)
        pen.line([x, y - radius, x, y + radius], fill=colour, width=3 if radius == 5 else 1)
    return picture


def _label(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str) -> None:
    pen.rectangle(pen.textbbox(place, text, _font()), fill=(0, 0, 0))
    pen.text(place, text, (255, 255, 255), _font())


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(TEXT)
