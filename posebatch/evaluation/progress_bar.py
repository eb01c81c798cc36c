"""The progress bar of evaluation and training, on a terminal and in a log."""

from __future__ import annotations

import sys
from typing import Any, Final, TextIO

from tqdm import tqdm

_LOG_SECONDS: Final = 10.0
"""Seconds between two lines of progress in a log."""


_COUNT: Final = "{n_fmt}/{total_fmt}"


def progress_bar(
    description: str, total: int, unit: str, log_seconds: float = _LOG_SECONDS, timing: bool = True
) -> tqdm[Any]:
    """A progress bar on stderr. In a log, a plain line at most every ``log_seconds``.

    ``timing`` adds the rate and the time left. Example::

        with progress_bar("images", len(images), "image") as bar:
            for image in images:
                bar.update()
    """
    if sys.stderr.isatty():
        bar_format = None if timing else f"{{l_bar}}{{bar}}| {_COUNT}{{postfix}}"
        return tqdm(total=total, desc=description, unit=unit, bar_format=bar_format, dynamic_ncols=True)
    rate = ", {rate_fmt}, {remaining} left" if timing else ""
    bar = tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        file=_LogLines(sys.stderr),
        bar_format=f"{{desc}}: {_COUNT}{rate}{{postfix}}",
        mininterval=log_seconds,
        miniters=1,  # the time alone decides
        delay=1e-6,  # no line for a count of 0
        leave=log_seconds > 0,  # else the last update has its line already
    )
    bar.delay = 0  # the last line is written even after a short time
    return bar


class _LogLines:
    """A stream for tqdm that makes a line of each redrawn bar: a log must hold no carriage returns."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()
