"""The progress of a run: one live line on a terminal, a plain line every few seconds in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

from posebatch.core.redaction import visible
from posebatch.run.planning.names import PassedOverFiles

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
    partial: int = 0
    """Among those published or up to date: damaged, and published in part."""
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
        return self.up_to_date + self.quarantined + self.published + self.failed + self.no_videos


class Progress:
    """Prints a `Tally`. `show` may be called at any rate."""

    def __init__(self, tally: Tally, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """``stream``: by default the standard error. ``clock``: seconds, monotonic."""
        self.tally, self._clock = tally, clock
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._started = self._shown = clock()
        self._width = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._started

    def show(self) -> None:
        """Print the tally, unless the last line is too recent."""
        now = self._clock()
        if now - self._shown < (LINE_SECONDS if self._live else LOG_SECONDS):
            return
        self._shown = now
        self._write(describe(self.tally, self.elapsed_s))

    def say(self, message: str) -> None:
        """Print a message on a line of its own, above the live line."""
        if self._live:
            self._stream.write(f"\r{' ' * self._width}\r")
            self._width = 0
        self._stream.write(f"{visible(message)}\n")
        self._stream.flush()

    def close(self) -> None:
        """Print the final tally."""
        self._write(describe(self.tally, self.elapsed_s))
        if self._live:
            self._stream.write("\n")
        self._stream.flush()

    def _write(self, line: str) -> None:
        if self._live:
            self._stream.write(f"\r{line.ljust(self._width)}")
            self._width = len(line)
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()


def describe(tally: Tally, elapsed_s: float) -> str:
    """One line: videos done, failures, frames per second, duration of the video processed, time left."""
    rate = tally.frames / elapsed_s if elapsed_s > 0 else 0.0
    failures = f", {tally.failed} failed" if tally.failed else ""
    return (
        f"{tally.videos_done}/{tally.videos_total} videos{failures} | {tally.frames} frames, {rate:.1f} frames/s | "
        f"{duration_text(tally.video_seconds)} of video | {_time_left(tally, elapsed_s)}"
    )


def _time_left(tally: Tally, elapsed_s: float) -> str:
    remaining = max(0.0, tally.bytes_total - tally.bytes_passed - tally.bytes_done)
    if tally.videos_done >= tally.videos_total:
        return f"{duration_text(elapsed_s)} in all"
    if tally.bytes_done <= 0:
        return "time left: not known yet"
    return f"about {duration_text(elapsed_s * remaining / tally.bytes_done)} left"


def duration_text(seconds: float) -> str:
    """A duration as text: ``42 s``, ``3 min 05 s``, ``7 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
