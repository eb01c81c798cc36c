"""The heartbeat of a process that works on videos, and the watchdog that ends the process when the heartbeat stops.

A malformed file can crash the process, hang it, or exhaust memory, without raising an exception. Each thread therefore
notes the step that it is in, and beats when the step makes progress. A watchdog thread ends the process when a step
takes too long or the memory grows too large. Where that thread cannot run, because native code holds Python's global
lock, `faulthandler` ends the process.

Each process has a crash folder, which outlives it. Its file ``steps`` lists the steps under way, and the reason if the
watchdog ended the process. Its file ``stack`` holds the stacks of all threads after a crash. See `crash_reports`.
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
"""Pause between two checks of the watchdog."""

GRACE_SECONDS: Final = 30.0
"""How much longer than the longest step the watchdog itself may be blocked, before `faulthandler` ends the process."""

EXIT_CODE: Final = 70
"""Exit code of a process that its watchdog ends."""

CRASH_DIR_PREFIX: Final = "posebatch-crash-"

CRASH_DIRS_KEPT_SECONDS: Final = 86_400.0


@dataclass
class _Step:
    stage: str
    subject: str
    since: float
    """Time of the last beat by the monotonic clock; infinity while the thread waits for others."""


class Heartbeat:
    """The steps of this process, by thread. Steps can be noted before the watchdog is started, and without it."""

    def __init__(self) -> None:
        self._steps: dict[int, _Step] = {}
        self._lock = threading.Lock()
        self._steps_file: int | None = None
        self._is_ending = False
        self.activity = 0
        """Grows with each beat, and with each step that begins or ends."""

    @contextlib.contextmanager
    def step(self, stage: str, subject: str) -> Iterator[None]:
        """While the block runs, this thread is in step ``stage`` of its work on ``subject``. Steps may be nested."""
        thread = threading.get_ident()
        outer = self._steps.get(thread)
        self._set(thread, _Step(stage, subject, time.monotonic()))
        try:
            yield
        finally:
            self._set(thread, outer)

    def beat(self) -> None:
        """Note that the step of this thread made progress: its time starts again at zero."""
        self.activity += 1
        step = self._steps.get(threading.get_ident())
        if step is not None:
            step.since = time.monotonic()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While the block runs, this thread waits for others: the time does not count for its step."""
        step = self._steps.get(threading.get_ident())
        if step is not None:
            step.since = math.inf
        try:
            yield
        finally:
            self.beat()

    def start(
        self,
        max_step_seconds: float,
        max_memory_bytes: float,
        tick_seconds: float = TICK_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> str:
        """Start the watchdog, which runs until the process ends. Returns the path of the crash folder."""
        _remove_old_crash_dirs()
        crash_dir = Path(tempfile.mkdtemp(prefix=CRASH_DIR_PREFIX))
        self._steps_file = os.open(crash_dir / "steps", os.O_WRONLY | os.O_CREAT, 0o600)
        stack = open(crash_dir / "stack", "w")  # noqa: SIM115 - stays open as long as the process lives
        faulthandler.enable(stack)
        arguments = (max_step_seconds, max_memory_bytes, tick_seconds, grace_seconds, stack)
        threading.Thread(target=self._watch, args=arguments, name="watchdog", daemon=True).start()
        return str(crash_dir)

    def note_termination(self) -> None:
        """Note that this process was asked to end from outside (SIGTERM): its death is then no fault of its tasks."""
        self._is_ending = True
        self._write_steps()

    def _set(self, thread: int, step: _Step | None) -> None:
        if step is None:
            self._steps.pop(thread, None)
        else:
            step.since = time.monotonic()
            self._steps[thread] = step
        self.activity += 1
        self._write_steps()

    def _write_steps(self, reason: str = "", culprit: int | None = None) -> None:
        """Write the steps over the earlier ones. Each state must be on disk: the process may be killed at any time."""
        if self._steps_file is None:
            return
        with self._lock:
            steps = [{"thread": hex(thread), **vars(step)} for thread, step in list(self._steps.items())]
            thread_name = None if culprit is None else hex(culprit)
            state = {"reason": reason, "thread": thread_name, "steps": steps, "ending": self._is_ending}
            content = json.dumps(state).encode()
            os.pwrite(self._steps_file, content, 0)
            os.ftruncate(self._steps_file, len(content))

    def _watch(
        self, max_step_seconds: float, max_memory_bytes: float, tick_seconds: float, grace_seconds: float, stack: Any
    ) -> None:
        while True:
            # each round postpones this; it ends the process when no thread of Python can run any more
            faulthandler.dump_traceback_later(max_step_seconds + grace_seconds, exit=True, file=stack)
            time.sleep(tick_seconds)
            now, memory = time.monotonic(), resident_bytes()
            if memory > max_memory_bytes:
                used, most = memory / 1e9, max_memory_bytes / 1e9
                self._end(f"used {used:.1f} GB of memory, more than --max-memory-gb allows ({most:.1f})", None, stack)
            for thread, step in list(self._steps.items()):
                if now - step.since > max_step_seconds:
                    seconds = now - step.since
                    self._end(f"made no progress for {seconds:.0f} s (--max-seconds-per-frame)", thread, stack)

    def _end(self, reason: str, culprit: int | None, stack: Any) -> None:
        self._write_steps(reason, culprit)
        faulthandler.dump_traceback(stack, all_threads=True)
        os._exit(EXIT_CODE)


heartbeat: Final = Heartbeat()
"""The heartbeat of this process."""


def resident_bytes() -> int:
    """Resident memory of this process in bytes; 0 where ``/proc`` does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _remove_old_crash_dirs() -> None:
    """Remove crash folders that no driver has read, as when the driver died too."""
    for crash_dir in glob.glob(os.path.join(tempfile.gettempdir(), f"{CRASH_DIR_PREFIX}*")):
        with contextlib.suppress(OSError):
            if time.time() - os.stat(crash_dir).st_mtime > CRASH_DIRS_KEPT_SECONDS:
                shutil.rmtree(crash_dir, ignore_errors=True)
