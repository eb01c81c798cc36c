"""Videos of many kinds, and how tests of decoding decode them."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import FrameRecord
from posebatch.core.images import FrameBatch
from posebatch.core.records import DecodeReport
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment, VideoPlan
from posebatch.video.indexes.packet_index import NO_INDEX
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder
from support.factories import frame_number

EVERY_FRAME = SamplingSettings()
WHOLE = 1e9
"""Segment length that leaves a video in one segment, seconds."""

BY_GOP = 0.1
"""Segment length that cuts at every keyframe of the videos here, seconds."""

VFR_PTS = (0, 20, 41, 100, 101, 160, 250, 251, 252, 400, 420, 500, 501, 640, 700, 720, 800, 801, 900, 1000)
VFR = {"frames": 20, "gop": 6, "pts": VFR_PTS, "time_base": Fraction(1, 600), "b_frames": 2}
OPEN_GOPS = {"gop": 12, "b_frames": 2, "open_gop": True}
"""After each keyframe in the file come two B-frames that are presented before it."""

CUTTABLE: dict[str, dict[str, Any]] = {
    "no B-frames": {},
    "B-frames": {"b_frames": 2},
    "open GOPs": OPEN_GOPS,
    "HEVC": {"codec": "libx265", **OPEN_GOPS},
    "HEVC, 10 bits": {"codec": "libx265", "pixel_format": "yuv420p10le"},
    "VP9": {"codec": "libvpx-vp9"},
    "MPEG-4": {"codec": "mpeg4", "b_frames": 2},
    "only keyframes": {"codec": "mjpeg", "container": "mov", "pixel_format": "yuvj420p"},
    "MOV": {"container": "mov", "b_frames": 2},
    "index first": {"faststart": True, "b_frames": 2},
    "sound": {"audio": True, "b_frames": 2},
    "variable rate": VFR,
    "a gap": {"pts": (*range(10), *range(40, 60)), "b_frames": 2},
    "starts late": {"pts": tuple(range(50, 80)), "b_frames": 2},
    "no edit list": {"b_frames": 2, "muxer_options": (("use_editlist", "0"),)},
    "negative offsets": {"b_frames": 2, "muxer_options": (("movflags", "negative_cts_offsets"),)},
}
"""Videos whose index lists every frame."""

CUT_START: dict[str, dict[str, Any]] = {
    "edit list hides 5": {"pts": tuple(range(-5, 25))},
    "edit list hides 5, B-frames": {"pts": tuple(range(-5, 25)), "b_frames": 2},
}

ONE_SEGMENT: dict[str, dict[str, Any]] = {
    "one frame": {"frames": 1},
    "one GOP": {"gop": 30, "b_frames": 2},
    "MKV": {"container": "mkv", "b_frames": 2},
    "WebM": {"container": "webm", "codec": "libvpx-vp9"},
    "AVI": {"container": "avi", "codec": "mpeg4"},
    "AVI, B-frames": {"container": "avi", "b_frames": 2},
    "TS": {"container": "mpegts", "b_frames": 2},
    "MPEG": {"container": "mpeg", "codec": "mpeg2video", "b_frames": 2},
    "FLV": {"container": "flv", "b_frames": 2},
    "ASF": {"container": "asf", "codec": "mpeg4"},
    "MXF": {"container": "mxf", "codec": "mpeg2video", "b_frames": 2},
    "fragmented": {"fragmented": True, "b_frames": 2},
}
"""Videos without an index of keyframes to cut them by."""

DAMAGED: dict[str, dict[str, Any]] = {
    "H.264": {"frames": 60},
    "H.264, B-frames": {"frames": 60, "b_frames": 2},
    "HEVC": {"frames": 60, "codec": "libx265", "b_frames": 2},
    "MPEG-4": {"frames": 60, "codec": "mpeg4", "b_frames": 2},
    "VP9": {"frames": 60, "codec": "libvpx-vp9"},
}
HITS = [(0.1, 0.5, 0), (0.02, 0.45, 1), (0.03, 0.8, 2), (0.005, 1.0, 3)]
"""Arguments of `corrupt_middle`: the share of the bytes, where in the file, and the seed."""


@dataclass
class Decoded:
    """The frames of some segments."""

    records: list[FrameRecord] = field(default_factory=list)
    images: list[NDArray[np.uint8] | None] = field(default_factory=list)
    """One for each record; None unless it is ok."""
    reports: list[DecodeReport] = field(default_factory=list)
    """One for each segment."""
    frames_out: int = 0

    @property
    def numbers(self) -> list[int | None]:
        """The numbers in the pictures."""
        return [None if image is None else frame_number(image) for image in self.images]

    @property
    def indices(self) -> list[int]:
        return [record.frame_index for record in self.records]

    @property
    def statuses(self) -> list[str]:
        return [record.status for record in self.records]

    @property
    def pts(self) -> list[int]:
        return [record.pts for record in self.records]

    def part(self, begin: int, end: int) -> Decoded:
        return Decoded(self.records[begin:end], self.images[begin:end])

    def add(self, batches: list[FrameBatch]) -> Decoded:
        for batch in batches:
            images = iter(batch.images)
            self.records += batch.records
            self.images += [next(images) if record.status == "ok" else None for record in batch.records]
        return self


def assert_same_frames(one: Decoded, other: Decoded) -> None:
    assert one.records == other.records
    for number, (a, b) in enumerate(zip(one.images, other.images, strict=True)):
        assert (a is None) == (b is None), number
        assert a is None or np.array_equal(a, b), number  # type: ignore[arg-type]


def plan_of(video: bytes, segment_seconds: float = WHOLE) -> VideoPlan:
    return probe(io.BytesIO(video), "clip", segment_seconds)


def decoder_of(
    video: bytes, plan: VideoPlan, segment: Segment, sampling: SamplingSettings = EVERY_FRAME, **options: Any
) -> SegmentDecoder:
    index = options.pop("index", NO_INDEX)
    options = {"batch_frames": 7, **options}
    return SegmentDecoder(io.BytesIO(video), "clip", segment, plan.info, DecodeOptions(sampling, **options), index)


def batches_of(
    video: bytes, plan: VideoPlan, segment: Segment, sampling: SamplingSettings = EVERY_FRAME, **options: Any
) -> tuple[list[FrameBatch], DecodeReport]:
    decoder = decoder_of(video, plan, segment, sampling, **options)
    return list(decoder), decoder.report


def decode_segments(
    video: bytes, plan: VideoPlan, segments: tuple[Segment, ...], sampling: SamplingSettings, **options: Any
) -> Decoded:
    result = Decoded()
    for segment in segments:
        decoder = decoder_of(video, plan, segment, sampling, **options)
        result.add(list(decoder))
        result.reports.append(decoder.report)
        result.frames_out += decoder.frames_out
    return result


def decode(
    video: bytes, segment_seconds: float = WHOLE, sampling: SamplingSettings = EVERY_FRAME, **options: Any
) -> Decoded:
    """All segments of a video, one after the other."""
    plan = plan_of(video, segment_seconds)
    return decode_segments(video, plan, plan.segments, sampling, **options)


@lru_cache(maxsize=64)
def decode_whole(video: bytes) -> Decoded:
    """The video in one segment; the result is shared, so leave it as it is."""
    return decode(video)
