"""A local Ray starts on a machine without a free core: 10 starts of 10, with a busy loop on each core.

Runs with POSEBATCH_FAULTS=full only. The times are reported and not judged.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from faults.suite import FULL, note_figure

STARTS = 10
LOOPS_PER_CORE = 2
"""One occupies the core. The second also takes half of what Ray would get."""

SCRIPT = """
import os, sys, time
began = time.monotonic()
import ray
from posebatch.run.workers.ray_session import connect_to_ray

class Worker:
    def answer(self):
        return 1

with connect_to_ray(os.cpu_count(), 100 << 20, say=lambda line: print(line, file=sys.stderr)):
    started = time.monotonic()
    workers = [ray.remote(num_cpus=1)(Worker).remote() for _ in range(os.cpu_count())]
    assert ray.get([worker.answer.remote() for worker in workers]) == [1] * len(workers)
    print(round(started - began), round(time.monotonic() - began))
"""


@pytest.fixture
def busy_loops() -> Iterator[None]:
    """Processes that never pause."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(LOOPS_PER_CORE * (os.cpu_count() or 1))
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(not FULL, reason="takes minutes: POSEBATCH_FAULTS=full")
@pytest.mark.usefixtures("busy_loops")
def test_local_ray_starts_on_a_busy_machine():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    seconds = []
    for _ in range(STARTS):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        seconds.append([int(part) for part in done.stdout.split()[-2:]])
    starts = sorted(start for start, _ in seconds)
    ready = sorted(workers for _, workers in seconds)
    note_figure(
        f"starts of a local Ray with {LOOPS_PER_CORE} busy loops on each core",
        "10 of 10",
        f"{len(seconds)} of {STARTS}; {starts[0]} to {starts[-1]} s, median {starts[len(starts) // 2]} s; "
        f"with a worker on each core {ready[0]} to {ready[-1]} s",
    )
