"""What a run shows on a terminal: a few lines that are drawn again and again, and a table at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from posebatch.core.redaction import visible
from posebatch.run.log_lines import Level
from posebatch.run.progress_text import duration_text, videos_text, work_parts
from posebatch.run.speed import SpeedMeter
from posebatch.run.tally import Tally

BAR_COLUMNS: Final = 30
"""Width of the bar; a third of a narrow terminal."""

STYLES: Final[dict[Level, str]] = {"info": "", "warning": "yellow", "error": "red"}


def live_view(
    tally: Tally, elapsed_s: float, speed: SpeedMeter, stage: str = "", recent: Sequence[str] = ()
) -> RenderableType:
    """The lines that are drawn while a run works: bar and videos, stage or frames, the last videos published."""
    head = Table.grid(padding=(0, 1))
    head.add_column(max_width=BAR_COLUMNS)
    head.add_column(no_wrap=True, overflow="ellipsis")
    head.add_row(ProgressBar(1.0, tally.share_done, BAR_COLUMNS), Text(videos_text(tally)))
    lines = [Text(" | ".join(work_parts(tally, elapsed_s, speed, stage)), no_wrap=True, overflow="ellipsis")]
    lines += [Text(f"  {one_line(text)}", "dim", no_wrap=True, overflow="ellipsis") for text in recent]
    return Group(head, *lines)


def counts_table(tally: Tally, elapsed_s: float) -> RenderableType:
    """The counts of a finished run. Counts that are 0 are left out, except of what a run is for."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    before = f" ({tally.partial_before} of them before)" if tally.partial_before else ""
    rows = [
        ("published", tally.published, True, ""),
        ("derived from stored poses", tally.derived, False, ""),
        ("up to date", tally.up_to_date, True, ""),
        ("failed", tally.failed, True, "red"),
        ("failed before", tally.quarantined, False, "yellow"),
        (f"partial{before}", tally.partial, True, "yellow"),
        ("cold, to be restored", tally.cold.videos, False, "yellow"),
        ("frames", tally.frames, True, ""),
        ("persons", tally.persons, True, ""),
    ]
    for name, count, is_always_shown, style in rows:
        if count or is_always_shown:
            table.add_row(name, str(count), style=style if count else "")
    table.add_row("time", duration_text(elapsed_s))
    return table


def one_line(text: str) -> str:
    """Text without control characters and line breaks."""
    return visible(text).replace("\n  | ", " ")


class _CursorStays(Console):
    """A console that never hides the cursor: a process that is killed could not show it again."""

    def show_cursor(self, show: bool = True) -> bool:
        """Do nothing."""
        return False


class Screen:
    """Draws a view on a terminal, below everything that is printed meanwhile. It draws only when it is told to."""

    def __init__(self, stream: TextIO) -> None:
        self._console = _CursorStays(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=stream is sys.stderr,
        )

    def draw(self, view: RenderableType) -> None:
        """Draw a view over the last one."""
        if not self._live.is_started:
            self._live.start()
        self._live.update(view, refresh=True)

    def say(self, message: str, level: Level = "info") -> None:
        """Print a message above the view."""
        self._console.print(Text(visible(message), STYLES[level]))

    def close(self) -> None:
        """Erase the view."""
        self._live.stop()


def print_counts(tally: Tally, elapsed_s: float) -> None:
    """Print `counts_table` on the standard output."""
    Console(highlight=False).print(counts_table(tally, elapsed_s))
