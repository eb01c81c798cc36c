"""Descriptions of a video: its source, its header, and the segments it is cut into."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class SourceVideo:
    """One object of the archive, as the listing describes it."""

    uri: str
    """Absolute path, or ``s3://bucket/key``."""
    output_path: str
    """The path that its results get below ``poses/``, ``frames/``, ..., without ``.parquet``; already encoded."""
    etag: str
    """Changes when the content does: the store's etag, or size and mtime_ns of a local file."""
    size_bytes: int
    last_modified: float
    """Unix time, seconds."""


@dataclass(frozen=True)
class VideoInfo:
    """What the container and the first frame say of a video."""

    codec: str
    pixel_format: str
    width: int
    """Displayed width, pixels."""
    height: int
    """Displayed height, pixels."""
    rotation: int
    """Degrees clockwise by which the coded frame was turned to be displayed: 0, 90, 180 or 270."""
    time_base: Fraction
    """Seconds per tick of ``pts``."""
    start_pts: int
    """The first presented frame's pts."""
    duration_s: float
    """From the header; 0 when it does not say."""
    avg_fps: float
    """From the header; 0 when it does not say."""
    frames_in_header: int
    """Number of frames that the header promises; 0 when it does not say."""


@dataclass(frozen=True)
class Segment:
    """A stretch of one video that can be decoded alone: from one keyframe's pts up to, not including, another's.

    A keyframe is known by its decode time, which is what a container's index lists. Its pts, and how many frames after
    it in the file are shown before it (open GOPs), stand in the stream: whoever decodes the segment reads them there.
    """

    index: int = 0
    """Position among the video's segments, from 0."""
    first_packet: int = 0
    """How many of the stream's packets come before its keyframe, in file order."""
    num_packets: int | None = None
    """Packets up to the next segment's keyframe, as the index has it; None when there is no index to trust."""
    start_dts: int | None = None
    """Decode time of its keyframe, the tick to seek to; None: from the beginning of the stream."""
    end_dts: int | None = None
    """Decode time of the next segment's keyframe; None: to the end of the stream."""

    def __post_init__(self) -> None:
        if self.start_dts is not None and self.end_dts is not None and self.end_dts <= self.start_dts:
            raise ValueError(f"empty segment: start_dts {self.start_dts}, end_dts {self.end_dts}")


@dataclass(frozen=True)
class VideoPlan:
    """What probing found: how a video looks and how it can be cut."""

    info: VideoInfo
    segments: tuple[Segment, ...]
    """In presentation order; together exactly the frames of one sequential decode."""
