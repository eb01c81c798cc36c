"""The data that flows between the stages: frozen classes that check their shapes when they are made.

Coordinates are pixels of the displayed frame (rotation applied), x right, y down; an integer is a pixel's centre, so a
frame of width W spans -0.5 to W - 0.5. Times are integer ticks (``pts``) of the stream's own time base; seconds appear
only at the edge, as ``pts * time_base``. Intervals are half-open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from posebatch.colour import Coding
from posebatch.skeleton import NUM_KEYPOINTS

FrameStatus = Literal["ok", "corrupt", "missing"]
VideoStatus = Literal["ok", "partial", "failed"]


def check_array(name: str, array: NDArray[Any], dtype: type[np.generic], shape: Sequence[int | None]) -> None:
    """Raise ``ValueError`` unless ``array`` has ``dtype`` and ``shape`` (None stands for any length)."""
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits or array.dtype != dtype:
        wanted = "(" + ", ".join("n" if want is None else str(want) for want in shape) + ")"
        raise ValueError(f"{name} must be {np.dtype(dtype)} {wanted}, got {array.dtype} {array.shape}")


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


@dataclass(frozen=True)
class FrameRecord:
    """One frame of the stream, decodable or not."""

    frame_index: int
    """Position in presentation order, from 0, whatever the stride."""
    pts: int
    is_keyframe: bool
    status: FrameStatus


class Images(Protocol):
    """A batch's decoded frames, all of one size, in one of several forms.

    RGB as an array (n, height, width, 3), turned as displayed; `YuvImages`; `DeviceImages`; or what
    `posebatch.pixels.Uploads` makes of them.
    """

    def __len__(self) -> int:
        """Number of frames."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory that the frames take."""
        ...


@dataclass(frozen=True)
class YuvImages:
    """Frames as the planes that came from the decoder."""

    coding: Coding
    planes: tuple[NDArray[Any], ...]
    """(n, *shape) each, for the shapes of ``coding.plane_shapes``."""

    def __post_init__(self) -> None:
        for plane, shape in zip(self.planes, self.coding.plane_shapes, strict=True):
            check_array("plane", plane, self.coding.dtype, (len(self), *shape))

    def __len__(self) -> int:
        return len(self.planes[0])

    @property
    def nbytes(self) -> int:
        """See `Images.nbytes`."""
        return sum(plane.nbytes for plane in self.planes)


class DevicePlane(Protocol):
    """A plane in a GPU's memory, as DLPack hands it on."""

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        """A capsule that holds the memory."""
        ...


@dataclass(frozen=True)
class DeviceImages:
    """Frames that a GPU has decoded and keeps."""

    coding: Coding
    frames: tuple[tuple[DevicePlane, ...], ...]
    """The planes of each frame."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def nbytes(self) -> int:
        """See `Images.nbytes`."""
        samples = sum(math.prod(shape) for shape in self.coding.plane_shapes)
        return len(self) * samples * np.dtype(self.coding.dtype).itemsize


@dataclass(frozen=True)
class FrameBatch:
    """Consecutive wanted frames of one size, decodable or not."""

    records: tuple[FrameRecord, ...]
    """One for each wanted frame, in presentation order."""
    images: Images
    """The frames whose status is ``ok``, in the order of ``records``."""
    lead_in: bool = False
    """The frames belong to earlier segments: their persons are followed into this one, and not published."""

    def __post_init__(self) -> None:
        if isinstance(self.images, np.ndarray):
            check_array("images", self.images, np.uint8, (None, None, None, 3))
        decoded = sum(record.status == "ok" for record in self.records)
        if decoded != len(self.images):
            raise ValueError(f"{decoded} records say ok, but there are {len(self.images)} images")


@dataclass(frozen=True)
class Detections:
    """The persons that a detector found in one frame, best first."""

    bbox_xyxy: NDArray[np.float32]
    """(n, 4) x1, y1, x2, y2 in pixels."""
    scores: NDArray[np.float32]
    """(n,) in 0..1, descending."""
    left_out: int = 0
    """Persons who were found besides, and are more than were wanted."""

    def __post_init__(self) -> None:
        check_array("bbox_xyxy", self.bbox_xyxy, np.float32, (None, 4))
        check_array("scores", self.scores, np.float32, (len(self.bbox_xyxy),))

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class FramePoses:
    """The persons of one frame, ranked by ``pose_scores``, best first."""

    record: FrameRecord
    bbox_xyxy: NDArray[np.float32]
    """(n, 4) the detector's boxes, pixels."""
    bbox_scores: NDArray[np.float32]
    """(n,)"""
    pose_scores: NDArray[np.float32]
    """(n,) box score times the mean of the confident keypoints' scores."""
    keypoints: NDArray[np.float32]
    """(n, 17, 3) x, y in pixels, score."""
    left_out: int = 0
    """Persons whom the detector found in this frame besides, more than were wanted. Known to who computed the frame; no
    table holds it."""

    def __post_init__(self) -> None:
        n = len(self.bbox_xyxy)
        check_array("bbox_xyxy", self.bbox_xyxy, np.float32, (n, 4))
        check_array("bbox_scores", self.bbox_scores, np.float32, (n,))
        check_array("pose_scores", self.pose_scores, np.float32, (n,))
        check_array("keypoints", self.keypoints, np.float32, (n, NUM_KEYPOINTS, 3))

    @classmethod
    def empty(cls, record: FrameRecord) -> FramePoses:
        """A frame without a person."""
        zeros = np.zeros((0,), np.float32)
        return cls(record, zeros.reshape(0, 4), zeros, zeros, zeros.reshape(0, NUM_KEYPOINTS, 3))

    def __len__(self) -> int:
        return len(self.bbox_xyxy)


@dataclass(frozen=True)
class DecodeReport:
    """What a decoder saw of one segment, besides the frames that were wanted."""

    frames_decoded: int = 0
    """Frames of the segment, without the damaged ones: with those that nobody wanted, which may not have been decoded.
    """
    frames_damaged: int = 0
    """Wanted frames that came out damaged or not at all."""
    ends_early: bool = False
    """The stream stopped before the container's index or header said it would."""
    first_pts: int | None = None
    last_pts: int | None = None
    min_interval: int | None = None
    """Shortest distance between neighbouring frames, ticks; with the first frame of the next segment where known."""
    max_interval: int | None = None

    def __add__(self, other: DecodeReport) -> DecodeReport:
        """What was seen of two segments of one video."""
        return DecodeReport(
            self.frames_decoded + other.frames_decoded,
            self.frames_damaged + other.frames_damaged,
            self.ends_early or other.ends_early,
            _least(self.first_pts, other.first_pts),
            _most(self.last_pts, other.last_pts),
            _least(self.min_interval, other.min_interval),
            _most(self.max_interval, other.max_interval),
        )


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _most(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)


@dataclass(frozen=True)
class StageSeconds:
    """Seconds spent in each stage; decoding and staging run beside the networks."""

    decode: float = 0.0
    detect: float = 0.0
    pose: float = 0.0
    total: float = 0.0
    """From the networks' turn for a segment to its last frame."""
    wait: float = 0.0
    """How much of the total the networks waited for the decoder."""

    def __add__(self, other: StageSeconds) -> StageSeconds:
        return StageSeconds(
            self.decode + other.decode,
            self.detect + other.detect,
            self.pose + other.pose,
            self.total + other.total,
            self.wait + other.wait,
        )


@dataclass(frozen=True)
class SegmentReport:
    """What is staged of a segment besides its frames."""

    decode: DecodeReport = field(default_factory=DecodeReport)
    seconds: StageSeconds = field(default_factory=StageSeconds)
    device: str = ""
    """Where and how the networks ran, as in ``cpu fp32 openvino``."""


@dataclass(frozen=True)
class SegmentJob:
    """One segment to work on: a few hundred bytes, which is all that travels."""

    video: SourceVideo
    info: VideoInfo
    segment: Segment
    alone: bool = False
    """Whether no other segment may be in its worker meanwhile: a worker has died with this one in it."""

    @property
    def name(self) -> str:
        """What it is called, to people and in a process's box; unlike any other under way."""
        return f"{self.video.uri}, segment {self.segment.index}"


@dataclass(frozen=True)
class VideoTask:
    """A CPU task on one video; what to do with it, each task adds."""

    stage: ClassVar[str]
    """What it is called, to people and in a process's box."""

    video: SourceVideo

    @property
    def name(self) -> str:
        """What it is about."""
        return self.video.uri


@dataclass(frozen=True)
class SegmentDone:
    """What the driver learns of a staged segment."""

    frames: int
    """Frames processed."""
    persons: int
    video_seconds: float
    """How much of the video the segment covers."""
    frames_cut: int = 0
    """Frames in which the detector found more persons than are wanted, so that some are in no row."""


@dataclass(frozen=True)
class PublishedObject:
    """An object that a commit record vouches for."""

    kind: Literal["poses", "frames", "preview"]
    key: str
    """Path below the output root."""
    rows: int
    """Rows of a table; frames of a preview."""
    size_bytes: int
    fingerprint: str
    """Of the settings that shaped it."""
    sha256: str | None = None
    """Of its bytes, in hexadecimal; None where a version published it that noted none."""


@dataclass(frozen=True)
class VideoRecord:
    """The commit record of one video: a row of the videos table."""

    video: str
    etag: str
    size_bytes: int
    last_modified: float
    status: VideoStatus
    settings_fingerprint: str
    run_id: str
    posebatch_version: str
    error_kind: str | None = None
    error: str | None = None
    attempts: int = 1
    info: VideoInfo | None = None
    """None when the video could not be opened."""
    is_vfr: bool | None = None
    frames_decoded: int = 0
    frames_processed: int = 0
    persons: int = 0
    detector: str = ""
    """Name and sha256 of its weights."""
    pose: str = ""
    """Name and sha256 of its weights."""
    seconds: StageSeconds = field(default_factory=StageSeconds)
    device: str = ""
    objects: tuple[PublishedObject, ...] = ()
