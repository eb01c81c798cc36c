"""A training in the background: one process of the lowest priority per folder, and its status.

The process holds a lock on a file in the folder while it lives. The kernel releases the lock of a killed process, so a
training never runs twice and a dead one never looks alive.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from posebatch.core.errors import TrainingError

LOG_NAME: Final = "log.txt"


_LOCK_NAME: Final = "lock"


_RECENT_ROWS: Final = 20


_LOWEST_PRIORITY: Final = 19


@contextmanager
def sole_process(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder``. Raises `TrainingError` if another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK_NAME).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(f"{folder}: process {running_process(folder)} trains there already") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def running_process(folder: Path) -> int | None:
    """The id of the process that trains in ``folder``, or None."""
    path = folder / _LOCK_NAME
    if not path.exists():
        return None
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read() or 0)
    return None


def start_background(command: Sequence[str], folder: Path) -> int:
    """Run Python with the arguments ``command`` in a session of its own; returns the process id.

    The process has the lowest priority and one thread. Its output is appended to `LOG_NAME` in ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG_NAME).open("ab") as log:
        process = subprocess.Popen(
            ["nice", "-n", str(_LOWEST_PRIORITY), sys.executable, *command],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _yield_to_other_sessions(process.pid)
    return process.pid


def _yield_to_other_sessions(process: int) -> None:
    """Give the process's session the lowest priority too: Linux divides CPU time among sessions first.

    A kernel without this grouping has no such file, and the process's own priority is enough.
    """
    with suppress(OSError):
        Path(f"/proc/{process}/autogroup").write_text(str(_LOWEST_PRIORITY))


@dataclass(frozen=True)
class StageStatus:
    """Progress of one stage of a training."""

    stage: str
    samples: int
    loss: float
    """Mean of the last rows of the history."""
    samples_per_second: float
    """Mean of the last rows of the history."""
    measured: tuple[tuple[int, dict[str, float]], ...]
    """Number of samples, and the figures measured after them, such as AP."""


def read_status(folder: Path, stage: str, batch_size: int) -> StageStatus | None:
    """The progress of a stage, from its history; None without a history."""
    path = folder / stage / "history.json"
    history: list[dict[str, float]] = json.loads(path.read_text()) if path.exists() else []
    if not history:
        return None
    recent = history[-_RECENT_ROWS:]
    return StageStatus(
        stage,
        int(history[-1]["step"]) * batch_size,
        _mean(recent, "loss"),
        _mean(recent, "examples_per_second"),
        tuple(
            (int(row["step"]) * batch_size, {name: row[name] for name in ("AP", "AP50", "AR")})
            for row in history
            if "AP" in row
        ),
    )


def _mean(rows: Sequence[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


def status_text(process: int | None, stages: Sequence[StageStatus]) -> str:
    """The status as text: whether a process trains, and samples, loss and accuracy of each stage."""
    lines = [f"process {process} trains" if process else "no process trains"]
    if not stages:
        lines.append("nothing has been logged yet")
    for status in stages:
        lines.append(
            f"stage {status.stage}: {status.samples:,} samples, loss {status.loss:.3f} (mean of the last rows), "
            f"{status.samples_per_second:.1f} samples/s"
        )
        lines += [f"  after {samples:,} samples: {_figures(figures)}" for samples, figures in status.measured]
    return "\n".join(lines)


def _figures(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
