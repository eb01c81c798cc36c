"""Encoded videos to measure with: a known number of rendered walkers on the sample's promenade, at any size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from posebatch.demo.scene import Sprite, draw_scene
from posebatch.demo.walker import SCALE, Outfit, walk_cycle

RESOLUTIONS: Final[Mapping[str, tuple[int, int]]] = {"270p": (480, 270), "540p": (960, 540), "1080p": (1920, 1080)}
"""Width and height."""


ENCODERS: Final[Mapping[str, str]] = {"h264": "libx264", "hevc": "libx265"}


FPS: Final = 25


GOP: Final = 50


NUM_FRAMES: Final = 250


_BODY_METRES: Final = 1.84


_HEADING: Final = float(np.radians(22.0))


_STEPS: Final = 25


_OUTFITS: Final = (
    Outfit(shirt=(176, 52, 46), trousers=(58, 78, 120), hair=(62, 42, 28)),
    Outfit(shirt=(226, 214, 188), trousers=(72, 66, 60), hair=(28, 24, 22)),
)


_GRAIN: Final = 4.0
"""Standard deviation of the camera's noise: without it a still background would cost the decoder nothing."""


_BITS_PER_PIXEL: Final = 3
"""A second: 6.2 Mbit/s at 1080p, about what cameras and sites give H.264; HEVC gets half of it."""


@dataclass(frozen=True)
class Scene:
    """What a video to measure with looks like."""

    resolution: str
    """One of `RESOLUTIONS`."""
    codec: str
    """One of `ENCODERS`."""
    persons: int
    """Walkers in every frame. How many the detector finds is another figure, and is measured."""
    frames: int = NUM_FRAMES

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.resolution} {self.codec} {self.persons} persons"


def write_scene(scene: Scene, path: Path) -> None:
    """Render and encode a scene as MP4; the same file whenever it is called with the same encoders."""
    width, height = RESOLUTIONS[scene.resolution]
    options = {"preset": "superfast", "x265-params": "log-level=none"}
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream(ENCODERS[scene.codec], rate=FPS, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = GOP
        stream.bit_rate = width * height * _BITS_PER_PIXEL // (2 if scene.codec == "hevc" else 1)
        for image in render_scene(scene):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def render_scene(scene: Scene) -> Iterator[NDArray[np.uint8]]:
    """Each frame, (height, width, 3) RGB: the walkers stay in their places and walk on the spot."""
    width, height = RESOLUTIONS[scene.resolution]
    background = _background(width, height)
    noise = np.random.default_rng(5).normal(0, _GRAIN, (height + 64, width + 64, 1)).round().astype(np.int16)
    tall = 0.35 if scene.persons > 3 else 0.75  # of the frame's height: as many as there are must stand side by side
    cycles = [_cycle(number, tall * height) for number in range(min(scene.persons, len(_OUTFITS)))]
    for frame in range(scene.frames):
        image = background.copy()
        for person in range(scene.persons):
            cycle = cycles[person % len(cycles)]
            sprite = cycle[(frame + 7 * person) % len(cycle)]
            x = round((person + 0.5) * width / scene.persons - sprite.width / 2)
            image.paste(sprite, (x, round(0.97 * height) - sprite.height), sprite)
        top, left = 37 * frame % 64, 23 * frame % 64
        grain = noise[top : top + height, left : left + width]
        yield np.clip(np.asarray(image, np.int16) + grain, 0, 255).astype(np.uint8)


def _background(width: int, height: int) -> Image.Image:
    """The sample's place, cut to the aspect of a wide frame."""
    place = draw_scene()
    rows = round(place.width * height / width)
    top = (place.height - rows) // 2
    return place.resize((width, height), Image.Resampling.BICUBIC, box=(0, top, place.width, top + rows))


def _cycle(number: int, body_px: float) -> list[Image.Image]:
    """One walk cycle of one of the figures, its body so many pixels tall."""
    scale = body_px / (_BODY_METRES * SCALE)
    return [_scaled(sprite.image, scale) for sprite in _drawn(number)]


@cache
def _drawn(number: int) -> tuple[Sprite, ...]:
    return walk_cycle(_OUTFITS[number], _HEADING, _STEPS)


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)
