"""The counts of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from posebatch.core.records import VideoRecord
from posebatch.core.videos import SourceVideo
from posebatch.core.wording import counted
from posebatch.run.planning.cold_storage import ColdVideos
from posebatch.run.planning.names import PassedOverFiles


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
        """A line for each peculiarity of the videos of this run, with the column that names the videos."""
        lines = []
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
