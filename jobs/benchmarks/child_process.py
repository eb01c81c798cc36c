"""Measuring in a process of its own: threads, memory and a Ray of one measurement do not meet those of the next."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from posebatch.core.errors import RunAbortedError

Arguments = ParamSpec("Arguments")


Result = TypeVar("Result")


_STORY: Final = """
import pickle, sys
sys.path[:] = {path!r}
with open({task!r}, "rb") as file:
    story, arguments, named = pickle.load(file)
try:
    ended = (story(*arguments, **named), None)
except Exception as error:
    ended = (None, error)
with open({task!r}, "wb") as file:
    pickle.dump(ended, file)
"""


def in_child(story: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
    """Call a function of a module in a new process, and give or raise what it gives or raises.

    The process loads what that module imports and nothing else: its memory is that of the measurement. Raises
    `RunAbortedError` when it dies.
    """
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder, "task")
        task.write_bytes(pickle.dumps((story, arguments, named)))
        command = [sys.executable, "-X", "faulthandler", "-c", _STORY.format(path=sys.path, task=str(task))]
        ended = subprocess.run(command, check=False).returncode
        if ended != 0:
            name = getattr(story, "__name__", "it")
            raise RunAbortedError(f"the process that measured {name} died (exit status {ended}); what it said is above")
        result, error = pickle.loads(task.read_bytes())
    if error is not None:
        raise error
    return result


def peak_memory_mb() -> float:
    """The most memory that this process has held; on Linux not counting what its parent held when it was started."""
    return _status_mb("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_mb() -> float:
    """The memory that this process holds; 0 where the system does not say."""
    return _status_mb("VmRSS")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _status_mb(field: str) -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[field].split()[0]) / 1024
