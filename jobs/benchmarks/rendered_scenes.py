"""Rendered videos for the benchmarks: a known number of walkers on the sample's promenade, at several sizes."""

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
"""Width and height, pixels."""


ENCODERS: Final[Mapping[str, str]] = {"h264": "libx264", "hevc": "libx265"}


FPS: Final = 25


GOP: Final = 50
"""Frames from one keyframe to the next."""


NUM_FRAMES: Final = 250


_BODY_METRES: Final = 1.84
"""Height of a drawn figure, metres."""


_HEADING: Final = float(np.radians(22.0))
"""Direction of the walkers, radians towards the viewer."""


_CYCLE_FRAMES: Final = 25
"""Frames of one walk cycle."""


_OUTFITS: Final = (
    Outfit(shirt=(176, 52, 46), trousers=(58, 78, 120), hair=(62, 42, 28)),
    Outfit(shirt=(226, 214, 188), trousers=(72, 66, 60), hair=(28, 24, 22)),
)


_GRAIN: Final = 4.0
"""Standard deviation of the camera's noise, grey levels. A still background would cost the decoder nothing."""


_BITS_PER_PIXEL: Final = 3
"""Bits per pixel and second of H.264: 6.2 Mbit/s at 1080p, as cameras and sites have it. HEVC gets half."""


@dataclass(frozen=True)
class Scene:
    """The content and the encoding of a video."""

    resolution: str
    """One of `RESOLUTIONS`."""
    codec: str
    """One of `ENCODERS`."""
    persons: int
    """Walkers in every frame. The number that the detector finds is measured separately."""
    frames: int = NUM_FRAMES

    @property
    def name(self) -> str:
        """Resolution, codec and persons, for tables."""
        return f"{self.resolution} {self.codec} {self.persons} persons"


def write_scene(scene: Scene, path: Path) -> None:
    """Render and encode a scene as MP4. The same encoders give the same file."""
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
    """Each frame, (height, width, 3) RGB. The walkers walk on the spot."""
    width, height = RESOLUTIONS[scene.resolution]
    background = _background(width, height)
    noise = np.random.default_rng(5).normal(0, _GRAIN, (height + 64, width + 64, 1)).round().astype(np.int16)
    share = 0.35 if scene.persons > 3 else 0.75  # of the frame's height, so that all fit side by side
    cycles = [_scaled_cycle(number, share * height) for number in range(min(scene.persons, len(_OUTFITS)))]
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
    """The sample's scene, cropped to the aspect of a wide frame."""
    scene = draw_scene()
    rows = round(scene.width * height / width)
    top = (scene.height - rows) // 2
    return scene.resize((width, height), Image.Resampling.BICUBIC, box=(0, top, scene.width, top + rows))


def _scaled_cycle(number: int, body_px: float) -> list[Image.Image]:
    """One walk cycle of one of the figures, its body ``body_px`` pixels tall."""
    scale = body_px / (_BODY_METRES * SCALE)
    return [_resize(sprite.image, scale) for sprite in _cycle(number)]


@cache
def _cycle(number: int) -> tuple[Sprite, ...]:
    return walk_cycle(_OUTFITS[number], _HEADING, _CYCLE_FRAMES)


def _resize(image: Image.Image, scale: float) -> Image.Image:
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)
