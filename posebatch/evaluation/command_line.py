"""Shared parts of the scripts of evaluation and training: exit codes, error messages, a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, TextIO

from tqdm import tqdm

from posebatch.core.errors import PosebatchError, UsageError
from posebatch.core.redaction import visible

EXIT_OK, EXIT_CANNOT_GO_ON, EXIT_USAGE = 0, 1, 2


_LOG_SECONDS: Final = 10.0
"""Seconds between two lines of progress in a log."""


_COUNT: Final = "{n_fmt}/{total_fmt}"


def run_command(name: str, action: Callable[[], None]) -> int:
    """Call ``action``; print a `PosebatchError` as one line. Returns the exit code: 0 done, 2 usage, 1 other errors."""
    try:
        action()
    except PosebatchError as error:
        print(f"{name}: {visible(str(error))}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_CANNOT_GO_ON
    return EXIT_OK


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
