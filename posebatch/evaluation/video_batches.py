"""The frames of a video file for a measurement."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from posebatch.core.images import FrameBatch
from posebatch.core.videos import Segment, VideoInfo
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder


def batches_until(video: Path, options: DecodeOptions, last: int) -> Iterator[tuple[FrameBatch, VideoInfo]]:
    """Batches from the beginning up to the one with frame ``last``, and the facts of the video. Raises `VideoError`."""
    with video.open("rb") as file:
        info = probe(file, str(video), math.inf).info
        for batch in SegmentDecoder(file, str(video), Segment(), info, options):
            yield batch, info
            if batch.records[-1].frame_index >= last:
                return
