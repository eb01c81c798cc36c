"""Measurements in processes of their own, so that threads, memory and Ray of one do not affect the next."""

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


_CALL: Final = """
import pickle, sys
sys.path[:] = {path!r}
with open({task!r}, "rb") as file:
    function, arguments, named = pickle.load(file)
try:
    outcome = (function(*arguments, **named), None)
except Exception as error:
    outcome = (None, error)
with open({task!r}, "wb") as file:
    pickle.dump(outcome, file)
"""


def in_child(function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
    """Call a module's function in a new process; return its result or raise its exception.

    The process imports only the function's module, so its memory is that of the measurement. Raises `RunAbortedError`
    if the process dies.
    """
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder, "task")
        task.write_bytes(pickle.dumps((function, arguments, named)))
        command = [sys.executable, "-X", "faulthandler", "-c", _CALL.format(path=sys.path, task=str(task))]
        status = subprocess.run(command, env=child_environment(), check=False).returncode
        if status != 0:
            name = getattr(function, "__name__", repr(function))
            raise RunAbortedError(f"the process that measured {name} died (exit status {status}); see its output above")
        result, error = pickle.loads(task.read_bytes())
    if error is not None:
        raise error
    return result


def child_environment() -> dict[str, str]:
    """The environment of this process, with the folder of the benchmarks for Python: processes of Ray import them."""
    folders = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


def peak_memory_mb() -> float:
    """Peak memory of this process, MB; on Linux without the memory of its parent at the start."""
    return _status_mb("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_mb() -> float:
    """Memory of this process, MB; 0 if the system does not report it."""
    return _status_mb("VmRSS")


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _status_mb(field: str) -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[field].split()[0]) / 1024
