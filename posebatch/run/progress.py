"""How a run is going: one live line on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TextIO

from posebatch.core.redaction import visible

LINE_SECONDS = 0.3
"""How often the line on a terminal is drawn anew."""


LOG_SECONDS = 10.0
"""How often a log gets a line."""


@dataclass
class Tally:
    """What a run has done so far."""

    videos_total: int = 0
    """Videos that the inputs hold."""
    bytes_total: int = 0
    up_to_date: int = 0
    quarantined: int = 0
    published: int = 0
    partial: int = 0
    """Among those published or up to date: damaged, and published as far as they go."""
    failed: int = 0
    """In this run."""
    frames: int = 0
    """Frames processed in this run."""
    persons: int = 0
    frames_cut: int = 0
    """Frames processed in this run with more persons than ``max_persons``, of whom only the best are in the rows."""
    video_seconds: float = 0.0
    """Seconds of video processed in this run."""
    bytes_passed: float = 0.0
    """Bytes of videos that need no work."""
    bytes_done: float = 0.0
    """Bytes of video processed in this run."""

    @property
    def videos_done(self) -> int:
        """Videos that are settled, in this run or before."""
        return self.up_to_date + self.quarantined + self.published + self.failed


class Progress:
    """Reports a `Tally`; call `show` as often as you like."""

    def __init__(self, tally: Tally, stream: TextIO | None = None) -> None:
        self.tally = tally
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._started = self._shown = time.monotonic()
        self._width = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started

    def show(self) -> None:
        """Report where we are, if it is time to."""
        now = time.monotonic()
        if now - self._shown < (LINE_SECONDS if self._live else LOG_SECONDS):
            return
        self._shown = now
        self._write(describe(self.tally, self.elapsed_s))

    def say(self, message: str) -> None:
        """A message of its own line, above the live one."""
        if self._live:
            self._stream.write(f"\r{' ' * self._width}\r")
            self._width = 0
        self._stream.write(f"{visible(message)}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the last state on the screen or in the log."""
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
    """One line: videos, frames a second, hours of video done, failures, time left."""
    rate = tally.frames / elapsed_s if elapsed_s > 0 else 0.0
    failures = f", {tally.failed} failed" if tally.failed else ""
    return (
        f"{tally.videos_done}/{tally.videos_total} videos{failures} | {tally.frames} frames, {rate:.1f} frames/s | "
        f"{duration_text(tally.video_seconds)} of video | {_left(tally, elapsed_s)}"
    )


def _left(tally: Tally, elapsed_s: float) -> str:
    remaining = max(0.0, tally.bytes_total - tally.bytes_passed - tally.bytes_done)
    if tally.videos_done >= tally.videos_total:
        return f"{duration_text(elapsed_s)} in all"
    if tally.bytes_done <= 0:
        return "time left: not known yet"
    return f"about {duration_text(elapsed_s * remaining / tally.bytes_done)} left"


def duration_text(seconds: float) -> str:
    """A duration for people: ``42 s``, ``3 min 05 s``, ``7 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
