"""The accounts of a run: what its tasks have done, in the tally, and what its user has to know about each video."""

from __future__ import annotations

from posebatch.core.records import VideoRecord
from posebatch.run.context import RunContext
from posebatch.run.flights import VideoInFlight
from posebatch.run.outcome import Problems
from posebatch.run.planning.planner import SkippedVideos
from posebatch.run.progress import Progress
from posebatch.run.tasks import ProbeResult, SegmentResult


class Accounts:
    """Counts in the tally of `Progress`, and reports problems there."""

    def __init__(self, context: RunContext, progress: Progress, max_problems: int) -> None:
        self._context, self._progress, self._tally = context, progress, progress.tally
        self.problems = Problems(max_problems, progress.complain)

    def count_skipped(self, skipped: SkippedVideos) -> None:
        """Count videos that need no work."""
        skipped.count_in(self._tally, self.problems)

    def count_staged(self, flight: VideoInFlight, probed: ProbeResult) -> None:
        """Count the segments that an earlier run has staged."""
        self._tally.bytes_passed += flight.video.size_bytes * len(probed.staged) / len(probed.plan.segments)

    def count_segment(self, flight: VideoInFlight, result: SegmentResult, segments: int) -> None:
        """Count one of the ``segments`` of a video."""
        flight.frames_cut += result.frames_cut
        self._tally.frames += result.frames
        self._tally.persons += result.persons
        self._tally.frames_cut += result.frames_cut
        self._tally.video_seconds += result.video_seconds
        self._tally.bytes_done += flight.video.size_bytes / segments

    def count_commit(self, flight: VideoInFlight, record: VideoRecord) -> None:
        """Count a video whose commit record this run has written."""
        if record.status == "failed":
            self.count_failed(flight, str(record.error))
        elif flight.is_derivation:
            self._tally.count_derived(flight.video, record)
            if record.status == "partial":
                self.problems.add(flight.video.uri, "partial before", str(record.error))
        else:
            self._count_published(flight, record)

    def count_failed(self, flight: VideoInFlight, error: str) -> None:
        """Count a video that failed, with a commit record or without."""
        self._tally.failed += 1
        self.problems.add(flight.video.uri, "failed", error)

    def _count_published(self, flight: VideoInFlight, record: VideoRecord) -> None:
        self._tally.published += 1
        self._tally.count_peculiarities(record)
        if flight.frames_cut:
            most = self._context.settings.estimator.max_persons
            self._progress.warn(
                f"{flight.video.uri}: {flight.frames_cut} frames hold more than {most} persons, of whom only the best "
                f"{most} are in the table; --max-persons raises that"
            )
        if record.status == "partial":
            self._tally.partial += 1
            self.problems.add(flight.video.uri, "partial", str(record.error))
