"""From the command to the first frame through the networks: wall time by step, processor time by process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.child_process import child_environment
from posebatch.core.errors import RunAbortedError
from posebatch.core.text_table import text_table
from posebatch.models.weights.environment import CACHE_VARIABLE
from posebatch.run.connection import ray_pool
from posebatch.run.context import RunContext
from posebatch.run.pool import Pool
from posebatch.run.progress import Progress
from posebatch.run.stop_request import StopRequest

STEPS: Final = (
    "command loaded",
    "work found",
    "Ray loaded",
    "Ray started",
    "worker's process there",
    "torch loaded",
    "networks loaded",
    "first frame",
)

_COMMAND: Final = """
import sys
sys.path[:] = {path!r}
from benchmarks import startup
sys.exit(startup.run_noted({notes!r}, {arguments!r}))
"""

_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True)
class NotedContext(RunContext):
    """The context of a run whose processes note what they have reached."""

    notes: str = ""
    """Path of the file of notes."""


@dataclass(frozen=True)
class Start:
    """One start of a run."""

    seconds: Mapping[str, float]
    """Seconds from the command to each step, in the first process that reached it."""
    cpu_s: Mapping[str, float]
    """Processor seconds that the processes of each kind had taken at the first frame."""
    load: float
    """Processes that wanted a core when it began, on average over a minute; 0 on an idle machine."""


def note(path: str, step: str) -> None:
    """Note that this process has reached a step."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{time.time()} {step}\n")


def run_noted(notes: str, arguments: Sequence[str]) -> int:
    """Run ``posebatch run`` in this process, and note its steps. Call it in a new process."""
    from posebatch.cli import main  # noqa: PLC0415 - its time is measured
    from posebatch.cli import run as command  # noqa: PLC0415
    from posebatch.run.driver import run_job  # noqa: PLC0415

    note(notes, "command loaded")

    @contextmanager
    def noted_pool(context: RunContext, stop: StopRequest, progress: Progress) -> Iterator[Pool]:
        note(notes, "work found")
        from benchmarks.startup_worker import NotedWorker  # noqa: PLC0415 - loads Ray

        note(notes, "Ray loaded")
        noted = NotedContext(**{each.name: getattr(context, each.name) for each in fields(RunContext)}, notes=notes)
        with ray_pool(noted, stop, progress, NotedWorker) as pool:
            note(notes, "Ray started")
            yield pool

    patched: Any = command
    patched.run_job = lambda named, output, settings: run_job(named, output, settings, noted_pool)
    return main(["run", *arguments])


def start_once(video: str, folder: Path, cache: Path, arguments: Sequence[str]) -> Start:
    """Start a run, and measure until its first frame. The run goes on to its end. Raises `RunAbortedError`.

    ``folder`` must be there and empty. ``cache`` is the folder of converted networks.
    """
    notes, log = folder / "notes", folder / "log"
    load, begun = os.getloadavg()[0], time.time()
    words = [video, "--output", str(folder / "output"), *arguments]
    code = _COMMAND.format(path=sys.path, notes=str(notes), arguments=words)
    variables = {**child_environment(), CACHE_VARIABLE: str(cache)}
    with (
        log.open("wb") as output,
        subprocess.Popen([sys.executable, "-c", code], stdout=output, stderr=output, env=variables) as process,
    ):
        while not (reached := _steps_in(notes)).keys() >= {"first frame"}:
            if process.poll() is not None:
                raise RunAbortedError(f"the run ended before its first frame: {log.read_text(errors='replace')[-500:]}")
            time.sleep(_POLL_SECONDS)
        cpu_s = _cpu_seconds(process.pid)
    return Start({step: reached[step] - begun for step in STEPS}, cpu_s, load)


def start_text(name: str, starts: Sequence[Start]) -> str:
    """The middle of several starts as a table, and each of them as a line."""
    middle = {step: median(start.seconds[step] for start in starts) for step in STEPS}
    rows = [(step, f"{seconds:.1f}") for step, seconds in middle.items()]
    kinds = dict.fromkeys(kind for start in starts for kind in start.cpu_s)
    cpu = [(kind, f"{median(start.cpu_s.get(kind, 0.0) for start in starts):.1f}") for kind in kinds]
    each = ", ".join(
        f"{start.seconds['first frame']:.1f} s ({sum(start.cpu_s.values()):.1f} s of a core, load {start.load:.1f})"
        for start in starts
    )
    return "\n".join(
        [
            f"== start of a run, {name}: {each}",
            text_table(["step", "s from the command, middle of all starts"], rows),
            text_table(["processes", "s of a core until the first frame"], cpu),
        ]
    )


def _steps_in(notes: Path) -> dict[str, float]:
    """The time of the first note of each step, seconds since 1970."""
    found: dict[str, float] = {}
    if notes.exists():
        for line in notes.read_text(encoding="utf-8").splitlines():
            moment, step = line.split(" ", 1)
            found.setdefault(step, float(moment))
    return found


def _cpu_seconds(root: int) -> dict[str, float]:
    """Processor seconds of a process and of all below it, by kind; Linux only, elsewhere empty."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            numbers = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has ended meanwhile
        parents[int(folder.name)], ticks[int(folder.name)] = int(numbers[1]), sum(map(int, numbers[11:15]))
    seconds: dict[str, float] = {}
    for process, taken in ticks.items():
        if _is_below(process, root, parents):
            kind = "driver" if process == root else _kind_of(process)
            seconds[kind] = seconds.get(kind, 0.0) + taken / os.sysconf("SC_CLK_TCK")
    return dict(sorted(seconds.items()))


def _is_below(process: int, root: int, parents: Mapping[int, int]) -> bool:
    while process in parents and process != root:
        process = parents[process]
    return process == root


def _kind_of(process: int) -> str:
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
    except OSError:
        return "others"
    kinds = {
        "ray::NotedWorker": "workers",
        "ray::TaskHelper": "helpers",
        "dashboard.py": "Ray: dashboard",
        "DashboardAgent": "Ray: agent",
        "RuntimeEnvAgent": "Ray: agent of environments",
        "agent": "Ray: agents that begin",
        "log_monitor": "Ray: log monitor",
        "raylet/raylet": "Ray: raylet",
        "gcs_server": "Ray: GCS",
    }
    return next((kind for part, kind in kinds.items() if part in command), "Ray: processes for workers")
