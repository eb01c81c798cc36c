"""Processes that decode hostile files, supervised by this one: a crash or a hang costs one file."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faults.media_child import Outcome

HANG_SECONDS = 120
"""Enough on a busy machine; on an idle one the slowest file takes some seconds."""
CHILD = Path(__file__).with_name("media_child.py")


class Child:
    """A process of `media_child`, which decodes one file after another."""

    def __init__(self) -> None:
        paths = [str(Path(CHILD).parents[2]), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def outcome(self, path: Path, **options: Any) -> Outcome:
        """The outcome of a file. After a crash or a hang the process has ended."""
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"path": str(path), **options}) + "\n")
            self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], HANG_SECONDS)
        line = self._process.stdout.readline() if ready else ""
        if line:
            return Outcome(**json.loads(line))
        self._process.kill()
        code = self._process.wait()
        return Outcome("crash", f"exit code {code}") if ready else Outcome("hang", f"more than {HANG_SECONDS} s")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe and pipe.close()


@contextmanager
def child() -> Iterator[Child]:
    """A process that ends with the block."""
    process = Child()
    try:
        yield process
    finally:
        process.close()


def outcomes(paths: Iterable[Path], processes: int = 2, **options: Any) -> dict[Path, Outcome]:
    """The outcome of each file. A process that ends is replaced."""
    waiting: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for path in paths:
        waiting.put(path)
    outcome_of: dict[Path, Outcome] = {}

    def work() -> None:
        process = Child()
        try:
            while not waiting.empty():
                try:
                    path = waiting.get_nowait()
                except queue.Empty:
                    return
                outcome_of[path] = process.outcome(path, **options)
                if not process.is_alive:
                    process.close()
                    process = Child()
        finally:
            process.close()

    threads = [threading.Thread(target=work) for _ in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome_of
