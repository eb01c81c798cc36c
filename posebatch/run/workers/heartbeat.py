"""Watches over a process that works on videos, and keeps what it was doing for those who find it dead.

What a decoder reads may crash it, hold it for ever, or make it take memory without end, and no exception tells of that.
So each thread says what it is about and when it moves on, and a process has a folder, its *box*, that outlives it. In
the box lie the steps under way, and the stack when it crashes. A thread of the watch ends the process when a step takes
too long or the memory grows too much, having said so in the box. Python's own `faulthandler` does it when that thread
cannot run, because something holds Python's lock.
"""

from __future__ import annotations

import contextlib
import faulthandler
import glob
import json
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

TICK_SECONDS: Final = 1.0
"""How often the watch looks."""


GRACE_SECONDS: Final = 30.0
"""How much longer than one step the watch itself may be held up."""


EXIT_CODE: Final = 70
"""Of a process that its watch ends."""


BOX_PREFIX: Final = "posebatch-box-"


BOXES_KEPT_SECONDS: Final = 86_400.0


@dataclass
class _Step:
    stage: str
    subject: str
    since: float
    """By the monotonic clock; infinity while it waits for others."""


class Heartbeat:
    """The watch over this process. Steps may be told to it before, and without, being started."""

    def __init__(self) -> None:
        self._steps: dict[int, _Step] = {}
        self._lock = threading.Lock()
        self._steps_file: int | None = None
        self.activity = 0
        """Grows whenever anything moves on."""

    @contextlib.contextmanager
    def step(self, stage: str, subject: str) -> Iterator[None]:
        """What this thread is about, while the block runs."""
        thread = threading.get_ident()
        outer = self._steps.get(thread)
        self._set(thread, _Step(stage, subject, time.monotonic()))
        try:
            yield
        finally:
            self._set(thread, outer)

    def moved(self) -> None:
        """The step of this thread has moved on: its time begins anew."""
        self.activity += 1
        step = self._steps.get(threading.get_ident())
        if step is not None:
            step.since = time.monotonic()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """This thread waits for others, while the block runs: its step takes no time."""
        step = self._steps.get(threading.get_ident())
        if step is not None:
            step.since = math.inf
        try:
            yield
        finally:
            self.moved()

    def start(self, max_step_seconds: float, max_memory_bytes: float) -> str:
        """Begin to watch, until the process ends; returns the box's path."""
        _sweep()
        box = Path(tempfile.mkdtemp(prefix=BOX_PREFIX))
        self._steps_file = os.open(box / "steps", os.O_WRONLY | os.O_CREAT, 0o600)
        stack = open(box / "stack", "w")  # noqa: SIM115 - open as long as the process is
        faulthandler.enable(stack)
        arguments = (max_step_seconds, max_memory_bytes, stack)
        threading.Thread(target=self._watch, args=arguments, name="watch", daemon=True).start()
        return str(box)

    def _set(self, thread: int, step: _Step | None) -> None:
        if step is None:
            self._steps.pop(thread, None)
        else:
            step.since = time.monotonic()
            self._steps[thread] = step
        self.activity += 1
        self._note()

    def _note(self, reason: str = "", blamed: int | None = None) -> None:
        """Write the steps into the box, over those of before: a process may be killed at any time."""
        if self._steps_file is None:
            return
        with self._lock:
            steps = [{"thread": hex(thread), **vars(step)} for thread, step in list(self._steps.items())]
            noted = {"reason": reason, "blamed": None if blamed is None else hex(blamed), "steps": steps}
            content = json.dumps(noted).encode()
            os.pwrite(self._steps_file, content, 0)
            os.ftruncate(self._steps_file, len(content))

    def _watch(self, max_step_seconds: float, max_memory_bytes: float, stack: Any) -> None:
        while True:
            # should nobody get Python's lock any more, this ends the process
            faulthandler.dump_traceback_later(max_step_seconds + GRACE_SECONDS, exit=True, file=stack)
            time.sleep(TICK_SECONDS)
            now, taken = time.monotonic(), resident_bytes()
            if taken > max_memory_bytes:
                self._end(f"took {taken / 1e9:.1f} GB of memory, more than --max-memory-gb allows", None, stack)
            for thread, step in list(self._steps.items()):
                if now - step.since > max_step_seconds:
                    seconds = now - step.since
                    self._end(f"did not move for {seconds:.0f} s (--max-seconds-per-frame)", thread, stack)

    def _end(self, reason: str, blamed: int | None, stack: Any) -> None:
        self._note(reason, blamed)
        faulthandler.dump_traceback(stack, all_threads=True)
        os._exit(EXIT_CODE)


heartbeat: Final = Heartbeat()
"""The one of this process."""


def resident_bytes() -> int:
    """Memory of this process that is in use; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _sweep() -> None:
    """Remove the boxes of processes that nobody has asked about."""
    for box in glob.glob(os.path.join(tempfile.gettempdir(), f"{BOX_PREFIX}*")):
        with contextlib.suppress(OSError):
            if time.time() - os.stat(box).st_mtime > BOXES_KEPT_SECONDS:
                shutil.rmtree(box, ignore_errors=True)
