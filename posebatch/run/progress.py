"""The progress of a run: a few live lines on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final, TextIO

from posebatch.core.records import VideoRecord
from posebatch.core.wording import counted
from posebatch.run.log_lines import Level, LogLine, LogWriter, counts, rates
from posebatch.run.meter import RunMeter
from posebatch.run.progress_text import complaint, describe, duration_text, published_text
from posebatch.run.speed import SpeedMeter
from posebatch.run.tally import Tally

if TYPE_CHECKING:
    from posebatch.run.terminal import Screen

SCREEN_SECONDS: Final = 0.3
"""Between two drawings on a terminal."""


LOG_SECONDS: Final = 60.0
"""Between two lines in a log, unless the stage changes."""


RECENT_VIDEOS: Final = 3
"""Videos that a terminal names as published last."""


class Progress:
    """Shows a `Tally`, the stage of a run that has no frames yet, and its speed. `show` may be called at any rate.

    A terminal also shows the last videos published. Failed and partial videos have a line of their own.
    """

    def __init__(
        self,
        tally: Tally,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        run_id: str = "",
        local_time: Callable[[], datetime] = datetime.now,
        log_format: str = "text",
        meter: RunMeter | None = None,
    ) -> None:
        """``stream``: by default the standard error. ``clock``: seconds, monotonic. The others: see `LogWriter`.

        ``meter`` learns of the same things as the reader of a log.
        """
        self.meter = meter or RunMeter(tally, run_id)
        self.tally, self._clock = tally, clock
        stream = stream or sys.stderr
        self._log = LogWriter(stream, run_id, log_format, local_time)
        self._screen = _screen(stream) if log_format == "text" and _can_draw(stream) else None
        self._started = self._shown = clock()
        self._stage, self._stage_since = "", self._started
        self._recent = deque[str](maxlen=RECENT_VIDEOS)
        self._lock = threading.RLock()  # `during` shows from a thread
        self.speed = SpeedMeter(clock)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._started

    def show(self) -> None:
        """Show the tally, unless it was shown a moment ago."""
        self.meter.update_when_due()
        with self._lock:
            if self._clock() - self._shown >= (SCREEN_SECONDS if self._screen else LOG_SECONDS):
                self._show_now("progress")

    def note_workers(self, ready: int, wanted: int) -> None:
        """Note how many of the wanted workers are ready, for the speed and for the stage before the first frames."""
        is_first = self.speed.steady_s is None
        self.speed.note(ready, self.tally.frames)
        if self.speed.steady_s is not None:
            self.enter("")
            if is_first:
                self._show_now("progress")
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
                self._show_now("stage")

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """Show a stage while the block runs, in which nobody calls `show`."""
        ended = threading.Event()

        def show_until_ended() -> None:
            while not ended.wait(SCREEN_SECONDS):
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
        """Print a message on a line of its own, above the live lines."""
        self._say(LogLine("note", message))

    def warn(self, message: str) -> None:
        """As `say`, about something that did not go as it should."""
        self._say(LogLine("warning", message, "warning"))

    def published(self, record: VideoRecord) -> None:
        """Name a video whose commit record was written."""
        self.meter.video_recorded(record)
        if record.status != "failed":
            self._recent.append(published_text(record))

    def complain(self, status: str, video: str, reason: str) -> None:
        """Report a video that is ``failed`` or ``partial``. ``video``: its address."""
        if status == "failed":
            self.meter.video_failed(video)
        level: Level = "error" if status == "failed" else "warning"
        facts = {"video": video, "reason": reason}
        self._say(LogLine(f"video_{status}", f"{status}: {complaint(video, reason)}", level, facts))

    def abort(self, reason: str) -> None:
        """Name the reason for which the run ends early. Only a log as JSON needs it: commands print it at their end."""
        if self._log.as_json:
            self._say(LogLine("run_aborted", reason, "error"))

    def close(self) -> None:
        """Show the final tally. A terminal gets it as a last line, in place of the live lines."""
        with self._lock:
            self._stage = ""
            if self._screen:
                self._screen.close()
                self._screen.say(describe(self.tally, self.elapsed_s, self.speed))
            else:
                self._show_now("progress")

    def _say(self, line: LogLine) -> None:
        with self._lock:
            if self._screen:
                self._screen.say(line.message, line.level)
            else:
                self._log.write(LogLine(line.event, line.message, line.level, {**line.facts, **self._facts()}))

    def _show_now(self, event: str) -> None:
        self._shown = self._clock()
        stage = f"{self._stage} ({duration_text(self._shown - self._stage_since)})" if self._stage else ""
        if self._screen:
            from posebatch.run.terminal import live_view  # noqa: PLC0415 - see `_screen`

            self._screen.draw(live_view(self.tally, self.elapsed_s, self.speed, stage, tuple(self._recent)))
            return
        message = describe(self.tally, self.elapsed_s, self.speed, stage)
        self._log.write(LogLine(event, message, facts={"stage": self._stage, **self._facts()}))

    def _facts(self) -> dict[str, object]:
        return {**counts(self.tally, self.elapsed_s), **rates(self.tally, self.speed)}


def _can_draw(stream: TextIO) -> bool:
    """Whether lines can be drawn over each other."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def _screen(stream: TextIO) -> Screen:
    from posebatch.run.terminal import Screen  # noqa: PLC0415 - a run in a log needs no library for terminals

    return Screen(stream)
