"""The benchmark of a run's start: its notes, its processes, its text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import startup
from benchmarks.startup import STEPS, Start, note, start_once, start_text

from posebatch.core.errors import RunAbortedError


def test_first_process_that_reaches_a_step_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tmp_path / "notes"
    assert startup._steps_in(notes) == {}
    for moment, step in ((1.0, "Ray started"), (2.0, "torch loaded"), (3.0, "torch loaded")):
        monkeypatch.setattr(startup.time, "time", lambda moment=moment: moment)
        note(str(notes), step)
    assert startup._steps_in(notes) == {"Ray started": 1.0, "torch loaded": 2.0}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_processor_time_includes_processes_of_processes() -> None:
    below = "import time; total = sum(range(3_000_000)); print(flush=True); time.sleep(60)"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {below!r}, 'raylet/raylet'])"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = startup._cpu_seconds(process.pid)
        (child,) = (
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/stat")
            if path.read_text().rsplit(")", 1)[1].split()[1] == str(process.pid)
        )
        subprocess.run(["kill", str(child)], check=True)
    assert seconds.keys() == {"driver", "Ray: raylet"}
    assert seconds["Ray: raylet"] > 0


def test_run_that_ends_before_its_first_frame_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RunAbortedError, match=r"ended before its first frame: (?s:.*)nothing-here"):
        start_once(str(tmp_path / "nothing-here"), tmp_path, tmp_path / "cache", [])


def test_text_states_the_middle_of_the_starts() -> None:
    starts = [
        Start({step: number * total for number, step in enumerate(STEPS, start=1)}, {"driver": total, "workers": 9}, 1)
        for total in (1.0, 5.0, 2.0)
    ]
    text = start_text("fp32", starts)
    assert "8.0 s (10.0 s of a core, load 1.0), 40.0 s (14.0 s of a core, load 1.0)" in text
    lines = [line.split() for line in text.splitlines()]
    assert [*["first", "frame", "16.0"]] in lines
    assert ["driver", "2.0"] in lines
