"""Mutated videos of many codecs and containers, all made from a seed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from support.factories import video_bytes

os.environ.setdefault("SVT_LOG", "-2")  # the AV1 encoder prints pages otherwise

CODECS: Final[dict[str, dict[str, Any]]] = {
    "h264": {"codec": "libx264", "b_frames": 2},
    "hevc": {"codec": "libx265", "b_frames": 2},
    "vp9": {"codec": "libvpx-vp9"},
    "av1": {"codec": "libsvtav1", "options": (("preset", "11"), ("svtav1-params", "lp=1"))},
    "mjpeg": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "mpeg4": {"codec": "mpeg4", "b_frames": 1},
}

BASES: Final[dict[str, tuple[str, ...]]] = {
    "h264": ("mp4", "mov", "mkv", "avi", "ts", "fragmented"),
    "hevc": ("mp4", "mov", "mkv", "ts"),
    "vp9": ("webm", "mkv", "mp4"),
    "av1": ("webm", "mkv", "mp4"),
    "mjpeg": ("avi", "mov", "mkv"),
    "mpeg4": ("avi", "mp4", "mkv", "ts"),
}
"""Containers of each codec."""

FRAMES: Final = 24
WIDE: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
"""Integers at the limits of 8, 16 and 32 bits, where programs often fail."""


def base(codec: str, container: str) -> bytes:
    """A small video without faults; H.264 with sound."""
    how = CODECS[codec] | {"container": {"ts": "mpegts", "fragmented": "mp4"}.get(container, container)}
    if container in ("avi", "ts") and codec in ("h264", "mpeg4"):
        how["b_frames"] = 0 if container == "avi" else how["b_frames"]
    sound = codec == "h264" and container != "avi"
    return video_bytes(frames=FRAMES, gop=8, fragmented=container == "fragmented", audio=sound, **how)


@dataclass(frozen=True)
class Mutant:
    """One mutated file, made from its number and a seed."""

    codec: str
    container: str
    kind: str
    number: int

    @property
    def name(self) -> str:
        """Unique, and enough to make the file again."""
        return f"{self.number:05}-{self.codec}-{self.container}-{self.kind}"

    def content(self, seed: int) -> bytes:
        """Its bytes."""
        random = Random(f"{seed}-{self.name}")
        return MUTATIONS[self.kind](base(self.codec, self.container), random, self)


def mutants(count: int) -> list[Mutant]:
    """``count`` mutants, in turn over all codecs, containers and mutations."""
    pairs = [(codec, container) for codec, containers in BASES.items() for container in containers]
    kinds = list(MUTATIONS)
    return [Mutant(*pairs[i % len(pairs)], kinds[(i // len(pairs) + i) % len(kinds)], i) for i in range(count)]


def _flip(content: bytes, random: Random, _: Mutant) -> bytes:
    """Flip one to some hundred bits."""
    changed = bytearray(content)
    for _ in range(int(10 ** random.uniform(0, 2.5))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, random: Random, _: Mutant) -> bytes:
    return content[: random.randrange(1, len(content))]


def _noise(content: bytes, random: Random, _: Mutant) -> bytes:
    """Replace a range by noise or zeros."""
    length = int(len(content) * 10 ** random.uniform(-3, -0.5)) + 1
    at = random.randrange(len(content) - length)
    filling = random.randbytes(length) if random.random() < 0.7 else bytes(length)
    return content[:at] + filling + content[at + length :]


def _shift(content: bytes, random: Random, _: Mutant) -> bytes:
    """Leave out a range, or repeat it."""
    length = int(len(content) * 10 ** random.uniform(-3, -0.5)) + 1
    at = random.randrange(len(content) - length)
    return content[:at] + content[at + length * random.choice((-1, 1)) if at > length else at + length :]


def _splice(content: bytes, random: Random, mutant: Mutant) -> bytes:
    """Join the beginning of one video to the end of another of any codec, often in the same container."""
    others = [(codec, box) for codec, boxes in BASES.items() for box in boxes]
    alike = [(codec, box) for codec, box in others if box == mutant.container]
    other = base(*random.choice(alike if random.random() < 0.7 else others))
    place = random.random()
    cut, resume = int(place * len(content)), int((place if random.random() < 0.5 else random.random()) * len(other))
    return content[:cut] + other[resume:]


def _header(content: bytes, random: Random, _: Mutant) -> bytes:
    """Overwrite integers in the header, mostly with those of `WIDE`."""
    first, last = _header_of(content)
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 5))):
        width = random.choice((1, 2, 4, 4, 8))
        at = random.randrange(first, max(first + 1, last - width))
        value = random.choice(WIDE) if random.random() < 0.8 else random.getrandbits(8 * width)
        changed[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, random.choice(("big", "little")))
    return bytes(changed[: len(content)])


def _header_bits(content: bytes, random: Random, _: Mutant) -> bytes:
    """Flip a few bits of the header."""
    first, last = _header_of(content)
    changed = bytearray(content)
    for _ in range(random.choice((1, 2, 4))):
        changed[random.randrange(first, last)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _header_of(content: bytes) -> tuple[int, int]:
    """The range of the header: the index of an MP4, otherwise the beginning, which also has the header of the codec."""
    moov = content.find(b"moov")
    if moov >= 0:
        return moov, moov + int.from_bytes(content[moov - 4 : moov], "big") - 4
    return 0, min(len(content), 1500)


MUTATIONS: Final[dict[str, Callable[[bytes, Random, Mutant], bytes]]] = {
    "flip": _flip,
    "truncate": _truncate,
    "noise": _noise,
    "shift": _shift,
    "splice": _splice,
    "header": _header,
    "header_bits": _header_bits,
}
