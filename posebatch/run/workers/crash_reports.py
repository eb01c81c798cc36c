"""Crash reports: read what a dead process left in its folder."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

STACK_FRAMES: Final = 6
"""Innermost calls of a stack that are worth telling."""


_CRASH: Final = re.compile(r"Fatal Python error: (?P<what>.*)")


_CURRENT: Final = re.compile(r"Current thread (?P<thread>0x[0-9a-f]+)")


_CALL: Final = re.compile(r'  File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<name>.*)')


@dataclass(frozen=True)
class CrashReport:
    """What is known of a process that has ended."""

    reason: str
    """Why it ended by itself, as the rest of a sentence; empty when it was ended from outside."""
    stage: str = ""
    """What the thread that is to blame was about."""
    subject: str | None = None
    """What it was working on; None when it is not known which thread is to blame."""
    stack: str = ""
    """Its innermost calls, the innermost first."""

    def __str__(self) -> str:
        stage = f" in step {self.stage!r}" if self.stage else ""
        stack = f"; stack: {self.stack}" if self.stack else ""
        return f"{self.reason or 'was ended from outside'}{stage}{stack}"


def read_crash_report(box: str) -> CrashReport | None:
    """What a box says of its process, which has ended; None when there is no such box. Removes the box."""
    try:
        stack = Path(box, "stack").read_text(errors="replace")
        steps = Path(box, "steps").read_text() or '{"steps": []}'
        noted, _ = json.JSONDecoder().raw_decode(steps)  # a longer note of before may show behind this one
    except (OSError, ValueError):
        return None
    shutil.rmtree(box, ignore_errors=True)
    return crash_report_of(noted, stack)


def crash_report_of(noted: dict[str, Any], stack: str) -> CrashReport:
    """What follows from the steps that were noted and the stack that was left."""
    reason, thread = noted.get("reason", ""), noted.get("blamed")
    if crash := _CRASH.search(stack):
        current = _CURRENT.search(stack)
        reason = reason or f"crashed ({crash['what']})"
        thread = thread or (f"{int(current['thread'], 16):#x}" if current else None)
    elif not reason and stack.startswith("Timeout"):
        reason = "stood still as a whole (--max-seconds-per-frame)"
    step = _blamed(noted["steps"], thread) if reason else None
    if step is None:
        return CrashReport(reason, stack=_innermost(stack, thread))
    return CrashReport(reason, step["stage"], step["subject"], _innermost(stack, step["thread"]))


def _blamed(steps: list[dict[str, Any]], thread: str | None) -> dict[str, Any] | None:
    """The step of a thread. Of a thread that is none of Python's: the only step there is, or the only decoder's."""
    for chosen in ([step for step in steps if step["thread"] == thread], steps):
        if len(chosen) == 1:
            return chosen[0]
    decoding = [step for step in steps if step["stage"] == "decode"]
    return decoding[0] if len(decoding) == 1 and thread is None else None


def _innermost(stack: str, thread: str | None) -> str:
    """The innermost calls of a thread."""
    calls: list[str] = []
    here = False
    for line in stack.splitlines():
        heading = re.search(r"[Tt]hread (0x[0-9a-f]+)", line)
        if heading:
            here = thread is not None and int(heading[1], 16) == int(thread, 16)
        elif here and (call := _CALL.match(line)):
            calls.append(f"{call['name']} ({os.path.basename(call['file'])}:{call['line']})")
    return " < ".join(calls[:STACK_FRAMES])
