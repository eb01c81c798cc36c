"""Processes that tests have started, however many others started them in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path


def processes_with(variable: str, value: str) -> Iterator[tuple[int, str]]:
    """Id and command line of every process that has this in its environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{variable}={value}".encode() in (folder / "environ").read_bytes():
                yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


def wait_for(condition: Callable[[], object], seconds: float = 180, pause_s: float = 0.05) -> None:
    """Wait until something holds; ``pause_s`` is the time between two looks."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause_s)
