"""Reports on decoded segments, and the commit record of a video."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from posebatch.core.videos import VideoInfo

VideoStatus = Literal["ok", "partial", "failed"]


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
class PublishedObject:
    """An object that a commit record vouches for."""

    kind: str
    """``poses``, ``frames``, ``preview``, or another kind of `posebatch.dataset.layout.Artifact`."""
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
