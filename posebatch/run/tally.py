"""The counts of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from posebatch.core.records import VideoRecord
from posebatch.core.videos import SourceVideo
from posebatch.core.wording import counted
from posebatch.run.planning.cold_storage import ColdVideos
from posebatch.run.planning.names import PassedOverFiles

StopReason = Literal["deadline", "gpu_hours"]
"""Why a run begins no further video."""


@dataclass
class Tally:
    """The counts of a run so far. The names are those in ``summary.json``."""

    videos_total: int = 0
    """Files with the name of a video in the inputs."""
    bytes_total: int = 0
    up_to_date: int = 0
    quarantined: int = 0
    published: int = 0
    derived: int = 0
    """Tracks and motion derived from stored poses, without the networks; not among those published."""
    partial: int = 0
    """Among those published, derived or up to date: damaged, and published in part."""
    partial_before: int = 0
    """Among those partial: published by an earlier run."""
    failed: int = 0
    """In this run."""
    no_videos: int = 0
    """Among ``videos_total``: texts and the like, told by their content; passed over."""
    frames: int = 0
    """Frames processed in this run."""
    persons: int = 0
    frames_cut: int = 0
    """Frames processed in this run with more than ``max_persons`` persons; only the best are in the tables."""
    times_repaired: int = 0
    """Frames of the videos published in this run whose time is not the one that the stream states."""
    videos_with_repaired_times: int = 0
    """Videos published in this run that have such frames."""
    videos_with_tracks: int = 0
    """Videos published in this run whose file holds more than one video track."""
    videos_resized: int = 0
    """Videos published in this run whose frames change their size on the way."""
    video_seconds: float = 0.0
    """Seconds of video processed in this run."""
    bytes_passed: float = 0.0
    """Bytes of videos, and of their segments, that need no work."""
    bytes_done: float = 0.0
    """Bytes of video processed in this run."""
    passed_over: PassedOverFiles = field(default_factory=PassedOverFiles)
    """All files that are passed over, by name or by content."""
    gpu_hours: float = 0.0
    """Hours for which ready workers have held GPUs in this run; without GPUs, hours of ready workers."""
    stopped_by: StopReason | None = None
    """Why the run began no further video; None if it was free to begin all."""
    videos_unfinished: int = 0
    """Videos that the run had begun and did not finish in its time. What they have staged stays."""
    cold: ColdVideos = field(default_factory=ColdVideos)
    """Videos to be processed that must be restored from a cold storage class first."""
    warnings: tuple[str, ...] = ()
    """What readers of the output have to know about the folders of the archive."""

    @property
    def share_done(self) -> float:
        """Share of the work that is done, 0..1: by bytes where they are known, since videos differ in length."""
        if self.videos_done >= self.videos_total:
            return 1.0
        if not self.bytes_total:
            return self.videos_done / self.videos_total
        return min(1.0, (self.bytes_passed + self.bytes_done) / self.bytes_total)

    @property
    def videos_left(self) -> int:
        """Videos without an end in this run: not begun, not finished, or not even looked at."""
        return self.videos_total - self.videos_done

    @property
    def is_cut_short(self) -> bool:
        """Whether the deadline or the budget left videos for the next run."""
        return self.stopped_by is not None and self.videos_left > 0

    @property
    def videos_done(self) -> int:
        """Videos with a commit record, reported as failed, or cold, and files that turned out to be none."""
        worked_on = self.published + self.derived + self.failed
        return worked_on + self.up_to_date + self.quarantined + self.no_videos + self.cold.videos

    def count_derived(self, video: SourceVideo, record: VideoRecord) -> None:
        """Count a video whose tracks and motion were derived."""
        self.derived += 1
        self.partial += record.status == "partial"
        self.partial_before += record.status == "partial"
        self.bytes_passed += video.size_bytes

    def count_peculiarities(self, record: VideoRecord) -> None:
        """Count what a reader of the tables has to know about a published video."""
        self.times_repaired += record.timestamps_repaired
        self.videos_with_repaired_times += record.timestamps_repaired > 0
        self.videos_with_tracks += record.info is not None and len(record.info.tracks_in_file) > 1
        self.videos_resized += record.frames_resized > 0

    def notes(self) -> list[str]:
        """What is left for the next run, and a line for each peculiarity of the videos, with the column of it."""
        lines = []
        if self.is_cut_short:
            why = "at the deadline" if self.stopped_by == "deadline" else f"after {self.gpu_hours:.2f} GPU hours"
            begun = f", {self.videos_unfinished} of them begun" if self.videos_unfinished else ""
            lines.append(f"stopped {why}; left for the next run: {counted(self.videos_left, 'video')}{begun}")
        if self.times_repaired:
            videos = counted(self.videos_with_repaired_times, "video")
            frames = counted(self.times_repaired, "frame")
            lines.append(f"{frames} of {videos} had a wrong time or none: frames.time_status marks them")
        if self.videos_with_tracks:
            videos = counted(self.videos_with_tracks, "video")
            lines.append(f"{videos} with more than one video track: see videos.tracks_in_file; --video-track chooses")
        if self.videos_resized:
            videos = counted(self.videos_resized, "video")
            lines.append(f"{videos} with frames of several sizes, scaled to the first: see videos.frames_resized")
        return lines
