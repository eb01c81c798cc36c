"""Decoding rate of a video by stride::

python -m benchmarks.decoding VIDEO
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

STRIDES: Final = (1, 3, 10, 60)


BATCH_FRAMES: Final = 8


@dataclass(frozen=True)
class DecodingRate:
    """Decoding of every ``stride``-th frame of one video."""

    stride: int
    frames: int
    """Frames of the video."""
    frames_out: int
    """Frames that the decoder returned."""
    seconds: float
    """Time to decode, and to convert the sampled frames."""

    @property
    def frames_per_second(self) -> float:
        """Frames of the video per second."""
        return self.frames / self.seconds


def decoding_rates(
    video: Path, strides: Iterable[int] = STRIDES, threads: int = 1, repeats: int = 3
) -> list[DecodingRate]:
    """Decode a whole video as a worker does, for each stride. The fastest of ``repeats`` runs counts.

    Raises `VideoError` if the video cannot be decoded.
    """
    return [
        min((_decode(video, stride, threads) for _ in range(repeats)), key=lambda rate: rate.seconds)
        for stride in strides
    ]


def _decode(video: Path, stride: int, threads: int) -> DecodingRate:
    with video.open("rb") as file:
        info = probe(file, str(video), segment_seconds=1).info
        sampling = SamplingSettings(stride=stride)
        decoder = SegmentDecoder(
            file,
            str(video),
            Segment(),
            info,
            DecodeOptions(sampling=sampling, batch_frames=BATCH_FRAMES, threads=threads),
        )
        for _ in decoder:
            pass
    return DecodingRate(stride, decoder.report.frames_decoded, decoder.frames_out, decoder.seconds)


if __name__ == "__main__":
    print("stride  frames  decoded  frames/s")
    for rate in decoding_rates(Path(sys.argv[1])):
        print(f"{rate.stride:6}{rate.frames:8}{rate.frames_out:9}{rate.frames_per_second:10.0f}")
