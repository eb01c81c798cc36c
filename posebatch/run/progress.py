"""The progress of a run: one live line on a terminal, a plain line every few seconds in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TextIO

from posebatch.core.records import VideoRecord
from posebatch.core.redaction import visible
from posebatch.core.videos import SourceVideo
from posebatch.core.wording import counted
from posebatch.run.planning.names import PassedOverFiles
from posebatch.run.speed import SpeedMeter

LINE_SECONDS = 0.3
"""Between two updates of the line on a terminal."""


LOG_SECONDS = 10.0
"""Between two lines in a log."""


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
    warnings: tuple[str, ...] = ()
    """What readers of the output have to know about the folders of the archive."""

    @property
    def videos_done(self) -> int:
        """Videos with a commit record, or reported as failed, and files that turned out to be none."""
        return self.up_to_date + self.quarantined + self.published + self.derived + self.failed + self.no_videos

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


class Progress:
    """Prints a `Tally`, the stage of a run that has no frames yet, and its speed. `show` may be called at any rate."""

    def __init__(
        self,
        tally: Tally,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        run_id: str = "",
        local_time: Callable[[], datetime] = datetime.now,
    ) -> None:
        """``stream``: by default the standard error. ``clock``: seconds, monotonic.

        ``run_id`` and ``local_time`` begin each line of a log.
        """
        self.tally, self._clock, self._run_id, self._local_time = tally, clock, run_id, local_time
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._started = self._shown = clock()
        self._width = 0
        self._stage, self._stage_since = "", self._started
        self._lock = threading.RLock()  # `during` prints from a thread
        self.speed = SpeedMeter(clock)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._started

    def show(self) -> None:
        """Print the tally, unless the last line is too recent."""
        with self._lock:
            if self._clock() - self._shown >= (LINE_SECONDS if self._live else LOG_SECONDS):
                self._show_now()

    def note_workers(self, ready: int, wanted: int) -> None:
        """Note how many of the wanted workers are ready, for the speed and for the stage before the first frames."""
        is_first = self.speed.steady_s is None
        self.speed.note(ready, self.tally.frames)
        if self.speed.steady_s is not None:
            self.enter("")
            if is_first:
                self._show_now()
        elif ready:
            self.enter("first frames")
        else:
            self.enter(f"{counted(wanted, 'worker')} {'is' if wanted == 1 else 'are'} loading networks")

    def enter(self, stage: str) -> None:
        """Name what the run does before it has frames; an empty text names nothing."""
        with self._lock:
            if stage == self._stage:
                return
            self._stage, self._stage_since = stage, self._clock()
            if stage:
                self._show_now()

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """Show a stage while the block runs, in which nobody calls `show`."""
        ended = threading.Event()

        def show_until_ended() -> None:
            while not ended.wait(LINE_SECONDS):
                self.show()

        thread = threading.Thread(target=show_until_ended, name="progress", daemon=True)
        self.enter(stage)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def say(self, message: str) -> None:
        """Print a message on a line of its own, above the live line."""
        with self._lock:
            if self._live:
                self._stream.write(f"\r{' ' * self._width}\r")
                self._width = 0
            self._stream.write(f"{self._heading()}{visible(message)}\n")
            self._stream.flush()

    def close(self) -> None:
        """Print the final tally."""
        self._stage = ""
        self._show_now()
        if self._live:
            self._stream.write("\n")
        self._stream.flush()

    def _show_now(self) -> None:
        self._shown = self._clock()
        stage = f"{self._stage} ({duration_text(self._shown - self._stage_since)})" if self._stage else ""
        self._write(describe(self.tally, self.elapsed_s, self.speed, stage))

    def _write(self, line: str) -> None:
        if self._live:
            self._stream.write(f"\r{line.ljust(self._width)}")
            self._width = len(line)
        else:
            self._stream.write(f"{self._heading()}{line}\n")
        self._stream.flush()

    def _heading(self) -> str:
        return "" if self._live else log_heading(self._run_id, self._local_time)


def log_heading(run_id: str, local_time: Callable[[], datetime] = datetime.now) -> str:
    """The begin of a line in a log: local time and run id; empty without a run id."""
    return f"{local_time():%Y-%m-%d %H:%M:%S} {run_id} " if run_id else ""


def describe(tally: Tally, elapsed_s: float, speed: SpeedMeter, stage: str = "") -> str:
    """One line: videos done, failures, and the stage or, once there are frames, their rate and the time left.

    Rate and time left are of the steady state.
    """
    parts = [f"{tally.videos_done}/{counted(tally.videos_total, 'video')}"]
    if tally.failed:
        parts[0] += f", {tally.failed} failed"
    if tally.derived:
        parts[0] += f", {tally.derived} derived"
    if tally.frames:
        rate = "" if speed.frames_per_second is None else f", {speed.frames_per_second:.1f} frames/s"
        parts += [f"{counted(tally.frames, 'frame')}{rate}", f"{duration_text(tally.video_seconds)} of video"]
    if stage:
        parts.append(stage)
    elif tally.videos_done >= tally.videos_total:
        start = "" if speed.start_s is None else f", {duration_text(speed.start_s)} of it to start"
        parts.append(f"{duration_text(elapsed_s)} in all{start}")
    elif speed.steady_s is not None and tally.bytes_done > 0:
        remaining = max(0.0, tally.bytes_total - tally.bytes_passed - tally.bytes_done)
        parts.append(f"about {duration_text(speed.steady_s * remaining / tally.bytes_done)} left")
    return " | ".join(parts)


def duration_text(seconds: float) -> str:
    """A duration as text: ``42 s``, ``3 min 05 s``, ``7 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
