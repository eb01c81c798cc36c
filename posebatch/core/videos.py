"""Descriptions of a video: its source, its header, and the segments into which it is split."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(frozen=True)
class SourceVideo:
    """A video of the archive, as the listing describes it."""

    uri: str
    """Absolute path, ``s3://bucket/key``, ``https://host/path`` without its query, or ``ARCHIVE!/MEMBER``."""
    output_path: str
    """Path of its results below ``poses/``, ``frames/``, ..., encoded and without ``.parquet``."""
    etag: str
    """Changes with the content: the ETag of the store, or size and mtime_ns of a local file. That of a member of an
    archive is the archive's, with the place of the member in it."""
    size_bytes: int
    last_modified: float
    """Unix time, seconds."""
    cold_class: str = ""
    """The storage class from which the object must be restored before it can be read; empty if it can be read."""
    access: str = field(default="", repr=False, compare=False)
    """Opens the source besides its address, and must never be shown: the query of a signed address, or
    `posebatch.storage.addresses.REQUESTER_PAYS`."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video from its container and its first frame."""

    codec: str
    pixel_format: str
    width: int
    """Displayed width, pixels."""
    height: int
    """Displayed height, pixels."""
    rotation: int
    """Clockwise rotation of the coded frame for display: 0, 90, 180 or 270 degrees. A mirrored frame is mirrored left
    to right after that."""
    time_base: Fraction
    """Seconds per tick of ``pts``."""
    start_pts: int
    """``pts`` of the first frame in presentation order."""
    duration_s: float
    """Seconds, from the header; 0 if unknown."""
    avg_fps: float
    """Frames per second, from the header; 0 if unknown."""
    frames_in_header: int
    """Number of frames according to the header; 0 if unknown."""
    mirrored: bool = False
    """Whether the display matrix mirrors the frame."""
    sample_aspect_ratio: Fraction = Fraction(1)
    """Width of a stored pixel relative to its height. Displayed pixels are square."""
    coded_width: int = 0
    """Stored width, pixels, before rotation; 0 if an earlier version published the video."""
    coded_height: int = 0
    track: int | None = None
    """Number of the decoded track among all streams of the file, from 0; None if an earlier version published it."""
    tracks_in_file: tuple[str, ...] = ()
    """All video tracks, as in ``1: h264 640x480, 25 fps``."""
    matrix_ignored: bool = False
    """The display matrix is none of the eight orientations: the nearest one was applied."""
    missing_bytes: int = 0
    """Bytes that the file lacks by its own statement, because it was cut off."""


@dataclass(frozen=True)
class Segment:
    """A part of a video that can be decoded alone: from the ``pts`` of one keyframe up to that of another, exclusive.

    Keyframes are identified by decode time (dts), because a container's index lists these. Their ``pts``, and the
    frames after a keyframe that are shown before it (open GOP), are read from the stream when the segment is decoded.
    In a scanned container they are identified by their number among the packets.
    """

    index: int = 0
    """Position among the video's segments, from 0."""
    first_packet: int = 0
    """Number of packets of the stream before its keyframe, in file order."""
    num_packets: int | None = None
    """Packets up to the next segment's keyframe, from the index; None without a reliable index."""
    start_dts: int | None = None
    """Decode time of its keyframe, ticks; None: the beginning of the stream. In a scanned container its ``pts``."""
    end_dts: int | None = None
    """The same of the next segment's keyframe; None: the end of the stream."""
    is_scanned: bool = False
    """The container lists no packets: they are read by a `PacketIndex`, which a scan of the file has made."""

    def __post_init__(self) -> None:
        if self.start_dts is not None and self.end_dts is not None and self.end_dts <= self.start_dts:
            raise ValueError(f"empty segment: start_dts {self.start_dts}, end_dts {self.end_dts}")


@dataclass(frozen=True)
class VideoPlan:
    """The result of probing a video: its properties and its segments."""

    info: VideoInfo
    segments: tuple[Segment, ...]
    """In presentation order. Together they hold exactly the frames of one sequential decode."""
    needs_scan: bool = False
    """It is one segment, because its container lists no packets, and it is long: a scan may show where to cut it."""
