"""The lines of a run's log: as text that begins with time and run, or as one JSON object each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TextIO

from posebatch.core.redaction import redacted, utf8_text, visible
from posebatch.run.progress_text import seconds_left
from posebatch.run.speed import SpeedMeter
from posebatch.run.tally import Tally

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class LogLine:
    """One thing that a run says."""

    event: str
    """A word for programs, such as ``progress`` or ``video_failed``."""
    message: str
    """A sentence for people; may name files, so it is escaped wherever it is written."""
    level: Level = "info"
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain values for programs."""


class LogWriter:
    """Writes the lines of a run to a stream."""

    def __init__(
        self,
        stream: TextIO,
        run_id: str = "",
        log_format: str = "text",
        local_time: Callable[[], datetime] = datetime.now,
    ) -> None:
        """``log_format``: text or json. Lines of text have no heading on a terminal, nor without a run id."""
        self._stream, self._run_id, self._local_time = stream, run_id, local_time
        self.as_json, self._has_heading = log_format == "json", bool(run_id) and not stream.isatty()

    def write(self, line: LogLine) -> None:
        """Write a line, at once."""
        if self.as_json:
            text = json_text(line, self._run_id, self._local_time())
        else:
            heading = log_heading(self._run_id, self._local_time) if self._has_heading else ""
            text = f"{heading}{visible(line.message)}"
        self._stream.write(f"{text}\n")
        self._stream.flush()


def json_text(line: LogLine, run_id: str, time: datetime) -> str:
    """A line as a JSON object without line breaks. ``time``: local if it states no zone."""
    zoned = time.astimezone() if time.tzinfo is None else time
    content = {
        "time": zoned.isoformat(timespec="milliseconds"),
        "level": line.level,
        "run_id": run_id,
        "event": line.event,
        "message": line.message,
        **line.facts,
    }
    return json.dumps({name: _plain(value) for name, value in content.items()})


def log_heading(run_id: str, local_time: Callable[[], datetime] = datetime.now) -> str:
    """The begin of a line in a log: local time and run id; empty without a run id."""
    return f"{local_time():%Y-%m-%d %H:%M:%S} {run_id} " if run_id else ""


def counts(tally: Tally, elapsed_s: float) -> dict[str, Any]:
    """The counts of a run so far, for programs. Names are those in ``summary.json``."""
    return {
        "videos_total": tally.videos_total,
        "videos_done": tally.videos_done,
        "published": tally.published,
        "derived": tally.derived,
        "up_to_date": tally.up_to_date,
        "failed": tally.failed,
        "quarantined": tally.quarantined,
        "partial": tally.partial,
        "frames": tally.frames,
        "persons": tally.persons,
        "elapsed_s": round(elapsed_s, 3),
    }


def rates(tally: Tally, speed: SpeedMeter) -> dict[str, Any]:
    """The speed of a run in its steady state, None before the first frames, and the time left; see `seconds_left`."""
    left_s, rate = seconds_left(tally, speed), speed.frames_per_second
    return {
        "frames_per_second": None if rate is None else round(rate, 3),
        "left_s": None if left_s is None else round(left_s),
    }


def _plain(value: Any) -> Any:
    """Text without credentials and in valid UTF-8. JSON escapes control characters."""
    return utf8_text(redacted(value)) if isinstance(value, str) else value
