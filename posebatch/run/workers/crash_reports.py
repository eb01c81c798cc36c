"""Crash reports: read from the crash folder of a process that has died. `heartbeat` writes that folder."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

STACK_FRAMES: Final = 6
"""Innermost calls of a stack that a report keeps."""

# the lines of a dump of `faulthandler`
_CRASH: Final = re.compile(r"Fatal Python error: (?P<error>.*)")
_CURRENT: Final = re.compile(r"Current thread (?P<thread>0x[0-9a-f]+)")
_CALL: Final = re.compile(r'  File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<name>.*)')


@dataclass(frozen=True)
class CrashReport:
    """The state of a process when it died."""

    reason: str
    """Why it died, as a verb phrase ("crashed (Segmentation fault)"); empty when it was killed from outside."""
    stage: str = ""
    """The step of the thread that caused the death, such as ``decode``."""
    subject: str | None = None
    """The task of that thread; None when the thread is not known."""
    stack: str = ""
    """The innermost calls of that thread, the innermost first."""
    was_ending: bool = False
    """Whether the process had been asked to end from outside (SIGTERM), as when its machine is taken away."""

    def __str__(self) -> str:
        stage = f" in step {self.stage!r}" if self.stage else ""
        stack = f"; stack: {self.stack}" if self.stack else ""
        return f"{self.reason or 'was killed from outside'}{stage}{stack}"


def read_crash_report(crash_dir: str) -> CrashReport | None:
    """Read the crash folder of a dead process, and remove it. None when the folder is missing or damaged."""
    try:
        stack = Path(crash_dir, "stack").read_text(errors="replace")
        steps = Path(crash_dir, "steps").read_text() or '{"steps": []}'
        # decode only the first value: if the process died while it wrote, the rest of a longer state follows
        state, _ = json.JSONDecoder().raw_decode(steps)
    except (OSError, ValueError):
        return None
    shutil.rmtree(crash_dir, ignore_errors=True)
    return crash_report_of(state, stack)


def crash_report_of(state: dict[str, Any], stack: str) -> CrashReport:
    """The report that follows from the file ``steps`` (parsed) and the file ``stack`` of a crash folder."""
    reason, thread = state.get("reason", ""), state.get("thread")
    if crash := _CRASH.search(stack):
        current = _CURRENT.search(stack)
        reason = reason or f"crashed ({crash['error']})"
        thread = thread or (f"{int(current['thread'], 16):#x}" if current else None)
    elif not reason and stack.startswith("Timeout"):  # the heading of a dump of `faulthandler.dump_traceback_later`
        reason = "stopped responding (--max-seconds-per-frame)"
    step = _step_of(thread, state["steps"]) if reason else None
    ending = bool(state.get("ending"))
    if step is None:
        return CrashReport(reason, stack=_innermost(stack, thread), was_ending=ending)
    return CrashReport(reason, step["stage"], step["subject"], _innermost(stack, step["thread"]), ending)


def _step_of(thread: str | None, steps: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The step of a thread. For a native thread (not in ``steps``, or None): the only step, or the only decode step."""
    for candidates in ([step for step in steps if step["thread"] == thread], steps):
        if len(candidates) == 1:
            return candidates[0]
    decoding = [step for step in steps if step["stage"] == "decode"]
    return decoding[0] if len(decoding) == 1 and thread is None else None


def _innermost(stack: str, thread: str | None) -> str:
    """The innermost calls of a thread in a dump of all threads."""
    calls: list[str] = []
    in_thread = False
    for line in stack.splitlines():
        heading = re.search(r"[Tt]hread (0x[0-9a-f]+)", line)
        if heading:
            in_thread = thread is not None and int(heading[1], 16) == int(thread, 16)
        elif in_thread and (call := _CALL.match(line)):
            calls.append(f"{call['name']} ({os.path.basename(call['file'])}:{call['line']})")
    return " < ".join(calls[:STACK_FRAMES])
