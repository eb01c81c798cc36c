"""Reports on decoded segments, and the commit record of a video."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from posebatch.core.videos import VideoInfo

VideoStatus = Literal["ok", "partial", "failed"]


@dataclass(frozen=True)
class DecodeReport:
    """Statistics of decoding one segment."""

    frames_decoded: int = 0
    """Frames of the segment except damaged ones. Frames that are not sampled count too, even if they were skipped."""
    frames_damaged: int = 0
    """Sampled frames that were decoded with damage or not at all."""
    ends_early: bool = False
    """The stream ended before the frames that the container's index or header lists."""
    first_pts: int | None = None
    last_pts: int | None = None
    min_interval: int | None = None
    """Shortest interval between neighbouring frames, ticks, up to the first frame of the next segment if known."""
    max_interval: int | None = None
    timestamps_repaired: int = 0
    """Frames whose time the stream states wrongly or not at all, sampled or not."""
    frames_resized: int = 0
    """Sampled frames of another stored size than the first frame, scaled to its size."""

    def __add__(self, other: DecodeReport) -> DecodeReport:
        """Statistics of two segments of one video together."""
        return DecodeReport(
            self.frames_decoded + other.frames_decoded,
            self.frames_damaged + other.frames_damaged,
            self.ends_early or other.ends_early,
            _min_known(self.first_pts, other.first_pts),
            _max_known(self.last_pts, other.last_pts),
            _min_known(self.min_interval, other.min_interval),
            _max_known(self.max_interval, other.max_interval),
            self.timestamps_repaired + other.timestamps_repaired,
            self.frames_resized + other.frames_resized,
        )


def _min_known(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _max_known(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)


@dataclass(frozen=True)
class StageSeconds:
    """Seconds spent in each stage. Decoding and staging run in parallel to the networks."""

    decode: float = 0.0
    detect: float = 0.0
    pose: float = 0.0
    total: float = 0.0
    """From the first frame that the networks process of a segment to its last."""
    wait: float = 0.0
    """Part of the total in which the networks waited for the decoder."""

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
    """The report that is staged with the frames of a segment."""

    decode: DecodeReport = field(default_factory=DecodeReport)
    seconds: StageSeconds = field(default_factory=StageSeconds)
    device: str = ""
    """Device, precision and engine of the networks, as in ``cpu fp32 openvino``."""


BEING_RENEWED: Final = -1
"""The size of an object that is being derived again."""


@dataclass(frozen=True)
class PublishedObject:
    """An object that a commit record references."""

    kind: str
    """``poses``, ``frames``, ``tracks``, ``motion``, ``preview``: a kind of `posebatch.dataset.layout.Artifact`."""
    key: str
    """Key below the output root."""
    rows: int
    """Rows of a table, or frames of a preview."""
    size_bytes: int
    """`BEING_RENEWED` for poses whose track ids are being derived again."""
    fingerprint: str
    """Fingerprint of the settings that determined it."""
    sha256: str | None = None
    """SHA-256 of its bytes in hexadecimal; None if an earlier version published it without, or while it is renewed."""

    @property
    def is_being_renewed(self) -> bool:
        """Whether it may be replaced at any moment, so that the record states neither its size nor its checksum."""
        return self.size_bytes == BEING_RENEWED


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
    timestamps_repaired: int = 0
    """Frames whose time is not the one that the stream states, sampled or not."""
    frames_resized: int = 0
    """Sampled frames of another stored size than the first frame, scaled to its size."""
    persons: int = 0
    tracks: int | None = None
    """Number of tracks; None if persons were not tracked, or if their tracks are being derived again."""
    grade: str | None = None
    """Grade of the movement of the main person, A to D; None if there is none."""
    detector: str = ""
    """Identity of the detector: name and SHA-256 of its weights."""
    pose: str = ""
    """Identity of the pose network: name and SHA-256 of its weights."""
    seconds: StageSeconds = field(default_factory=StageSeconds)
    device: str = ""
    objects: tuple[PublishedObject, ...] = ()

    @property
    def is_being_derived(self) -> bool:
        """Whether its tracks are being derived again, or were when a process was killed."""
        return any(published.is_being_renewed for published in self.objects)
