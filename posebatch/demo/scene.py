"""The scene of the sample: a promenade in perspective, and sprites of persons pasted into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from posebatch.core.frames import check_array
from posebatch.core.skeleton import FLIP_ORDER, NUM_KEYPOINTS

WIDTH: Final = 640


HEIGHT: Final = 480


_HORIZON: Final = 208
"""Row of the horizon, pixels."""


_FOCAL: Final = 640.0
"""Focal length of the camera, pixels."""


_EYE_LEVEL: Final = 1.5
"""Height of the camera above the ground, metres."""


_KERB: Final = 12.0
"""Distance at which the paving ends and the lawn begins, metres."""


@dataclass(frozen=True)
class Sprite:
    """The picture of a person without background, with its box and joints, in pixels of the picture."""

    image: Image.Image
    """RGBA."""
    anchor: tuple[float, float]
    """x, y of the point that a `SpritePlacement` places."""
    box_xyxy: NDArray[np.float64]
    """(4,) the person's box."""
    joints: NDArray[np.float64]
    """(17, 2) x, y; arbitrary if not visible."""
    visible: NDArray[np.bool_]
    """(17,) whether the joint is visible."""

    def __post_init__(self) -> None:
        check_array("box_xyxy", self.box_xyxy, np.float64, (4,))
        check_array("joints", self.joints, np.float64, (NUM_KEYPOINTS, 2))
        check_array("visible", self.visible, np.bool_, (NUM_KEYPOINTS,))

    def mirrored(self) -> Sprite:
        """The mirrored picture. Left and right joints change places."""
        last = self.image.width - 1
        joints = np.column_stack([last - self.joints[:, 0], self.joints[:, 1]])[list(FLIP_ORDER)]
        x1, y1, x2, y2 = self.box_xyxy
        return Sprite(
            self.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            (last - self.anchor[0], self.anchor[1]),
            np.array([last - x2, y1, last - x1, y2]),
            joints,
            self.visible[list(FLIP_ORDER)],
        )


@dataclass(frozen=True)
class SpritePlacement:
    """Position of a sprite's anchor in the frame, pixels, and the scale of the sprite."""

    x: float
    y: float
    scale: float

    def to_frame(self, sprite: Sprite, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map ``points`` (..., 2) of the sprite to pixels of the frame."""
        return np.asarray((points - np.array(sprite.anchor)) * self.scale + np.array([self.x, self.y]))


def paste(image: Image.Image, sprite: Sprite, placement: SpritePlacement) -> NDArray[np.bool_]:
    """Paste the sprite into ``image``; returns the pixels (height, width) that it covers."""
    origin = placement.to_frame(sprite, np.full(2, -0.5)) + 0.5
    size = np.array(sprite.image.size) * placement.scale
    low = np.maximum(np.ceil(origin), 0).astype(int)
    high = np.minimum(np.floor(origin + size), [WIDTH, HEIGHT]).astype(int)
    covered = np.zeros((HEIGHT, WIDTH), bool)
    if (high > low).all():
        source = np.concatenate([low - origin, high - origin]) / placement.scale
        source = np.clip(source, 0, np.tile(sprite.image.size, 2))  # rounding errors may exceed the sprite
        part = sprite.image.resize(tuple(high - low), Image.Resampling.BICUBIC, box=tuple(source))
        image.paste(part, tuple(low), part)
        covered[low[1] : high[1], low[0] : high[0]] = np.asarray(part)[..., 3] > 127
    return covered


def on_ground(x: float, z: float) -> tuple[float, float, float]:
    """Project the ground ``x`` metres right of the camera and ``z`` metres in front: column, row, pixels per metre."""
    per_metre = _FOCAL / z
    return WIDTH / 2 - 0.5 + x * per_metre, _HORIZON + _EYE_LEVEL * per_metre, per_metre


def draw_scene() -> Image.Image:
    """Draw a paved promenade in front of a lawn, trees and houses: RGB, the same in every call."""
    image = Image.new("RGB", (2 * WIDTH, 2 * HEIGHT))
    draw = ImageDraw.Draw(image)
    rng = np.random.default_rng(11)
    _draw_sky(draw, rng)
    image = image.filter(ImageFilter.GaussianBlur(14))
    draw = ImageDraw.Draw(image)
    _draw_houses(draw, rng)
    _draw_trees(draw, rng)
    image = image.filter(ImageFilter.GaussianBlur(2.5))  # the background is out of focus
    _draw_ground(ImageDraw.Draw(image))
    pixels = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX), np.float64)
    grain = rng.normal(0, 4, (HEIGHT, WIDTH, 1)) * (np.arange(HEIGHT) > _HORIZON)[:, None, None]
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def _draw_sky(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Coordinates are doubled pixels, here and in the functions below."""
    for y in range(2 * HEIGHT):
        t = min(y / (2 * _HORIZON), 1.0)
        draw.line([(0, y), (2 * WIDTH, y)], fill=(round(128 + 88 * t), round(172 + 52 * t), round(222 + 12 * t)))
    for x, y in zip(rng.uniform(0, 2 * WIDTH, 16), rng.uniform(30, 200, 16), strict=True):
        draw.ellipse([x - 90, y - 14, x + 90, y + 14], fill=(236, 240, 244))


def _draw_houses(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    x = -20
    while x < 2 * WIDTH:
        width, top, tone = int(rng.integers(90, 190)), int(rng.integers(210, 300)), int(rng.integers(150, 200))
        draw.rectangle([x, top, x + width, 2 * _HORIZON], fill=(tone, tone - 10, tone - 22))
        for wx in range(x + 14, x + width - 18, 30):
            for wy in range(top + 14, 380, 34):
                draw.rectangle([wx, wy, wx + 12, wy + 18], fill=(tone - 60, tone - 52, tone - 44))
        x += width


def _draw_trees(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Trees form one long row, because a small detector takes a single tree for a person."""
    low, high = (-40, -46, 12, 74), (2 * WIDTH + 40, 0, 30, 104)
    for x, rise, radius, tone in rng.uniform(low, high, (700, 4)):
        y = 2 * _HORIZON - 40 + rise - 12 * np.sin(x / 130)
        leaf = (round(tone * 0.68), round(tone), round(tone * 0.52))
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=leaf)
    draw.rectangle([0, 2 * _HORIZON - 24, 2 * WIDTH, 2 * _HORIZON + 6], fill=(62, 82, 48))


def _draw_ground(draw: ImageDraw.ImageDraw) -> None:
    """Lawn from the horizon to the kerb, then paving with its joints in perspective."""
    kerb = _row_at(_KERB)
    draw.rectangle([0, 2 * _HORIZON + 4, 2 * WIDTH, kerb], fill=(112, 138, 78))
    draw.rectangle([0, kerb, 2 * WIDTH, 2 * HEIGHT], fill=(172, 166, 156))
    draw.rectangle([0, kerb, 2 * WIDTH, kerb + 7], fill=(196, 192, 184))
    for depth in np.arange(3.2, _KERB, 0.6):
        draw.line([(0, _row_at(depth)), (2 * WIDTH, _row_at(depth))], fill=(154, 148, 138), width=2)
    for across in np.arange(-14, 14, 1.2):
        ends = [tuple(2 * value for value in on_ground(across, depth)[:2]) for depth in (_KERB - 0.4, 2.0)]
        draw.line(ends, fill=(158, 152, 142), width=2)


def _row_at(depth: float) -> float:
    """The row of the ground ``depth`` metres away, doubled pixels."""
    return 2 * on_ground(0.0, depth)[1]
