"""A process that crashes, hangs or uses too much memory leaves a report of its step."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from posebatch.run.workers import heartbeat as heartbeat_module
from posebatch.run.workers.crash_reports import CrashReport, crash_report_of, read_crash_report
from posebatch.run.workers.heartbeat import CRASH_DIR_PREFIX, EXIT_CODE, Heartbeat, resident_bytes

SCRIPT = """
import ctypes, os, signal, threading, time
from posebatch.run.workers.heartbeat import heartbeat
print(heartbeat.start({seconds}, {memory}, tick_seconds=0.05, grace_seconds=0.5), flush=True)

def decode_forever():
    {action}

with heartbeat.step("decode", "a.mp4 segment 3"):
    decode_forever()
"""

MADE_NO_PROGRESS = r"made no progress for \d+ s \(--max-seconds-per-frame\)"
USED_MEMORY = r"used 0\.\d GB of memory, more than --max-memory-gb allows \(0\.1\)"
HOLD_THE_LOCK = "ctypes.PyDLL(None).sleep(100)"


def run(tmp_path: Path, action: str, seconds: float = 60.0, memory: float = 1e12) -> tuple[int, CrashReport | None]:
    """The exit code and the crash report of a process that does ``action`` in a step."""
    script = SCRIPT.format(action=action, seconds=seconds, memory=memory)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, read_crash_report(done.stdout.strip())


@pytest.mark.parametrize(
    ("action", "limits", "code", "reason"),
    [
        ("pass", {}, 0, ""),
        ("os.kill(os.getpid(), signal.SIGKILL)", {}, -9, ""),
        ("ctypes.string_at(0)", {}, -11, r"crashed \(Segmentation fault\)"),
        ("os.abort()", {}, -6, r"crashed \(Aborted\)"),
        ("time.sleep(100)", {"seconds": 0.3}, EXIT_CODE, MADE_NO_PROGRESS),
        ("while True: pass", {"seconds": 0.3}, EXIT_CODE, MADE_NO_PROGRESS),
        (HOLD_THE_LOCK, {"seconds": 0.3}, 1, r"stopped responding \(--max-seconds-per-frame\)"),
        (
            "memory = b'x' * (100 << 20); time.sleep(100)",
            {"memory": 60e6},
            EXIT_CODE,
            USED_MEMORY,
        ),
    ],
)
def test_dead_process_leaves_crash_report(
    tmp_path: Path, action: str, limits: dict[str, float], code: int, reason: str
) -> None:
    exit_code, report = run(tmp_path, action, **limits)
    assert exit_code == code
    assert report is not None
    assert re.fullmatch(reason, report.reason)
    assert not list(tmp_path.glob(f"{CRASH_DIR_PREFIX}*")), "reading removes the crash folder"
    if reason and "memory" not in reason:
        assert (report.stage, report.subject) == ("decode", "a.mp4 segment 3")
        assert "decode_forever (<string>:7)" in report.stack
        assert "in step 'decode'; stack: " in str(report)


def test_step_that_beats_may_take_long(tmp_path: Path) -> None:
    action = "[(time.sleep(0.1), heartbeat.beat()) for _ in range(12)]"
    assert run(tmp_path, action, seconds=0.9) == (0, CrashReport(""))


def test_waiting_for_others_takes_no_time_of_the_step(tmp_path: Path) -> None:
    action = "exec('with heartbeat.waiting(): time.sleep(1)')"
    assert run(tmp_path, action, seconds=0.3) == (0, CrashReport(""))


def test_nested_step_replaces_outer_step_until_it_ends() -> None:
    heartbeat = Heartbeat()
    heartbeat.beat()
    with heartbeat.step("outer", "a"):
        with heartbeat.step("inner", "b"), heartbeat.waiting():
            (step,) = heartbeat._steps.values()
            assert (step.stage, step.subject, step.since) == ("inner", "b", math.inf)
        (step,) = heartbeat._steps.values()
        assert (step.stage, step.subject) == ("outer", "a")
    assert heartbeat._steps == {}
    assert heartbeat.activity >= 6


def steps(*threads: tuple[str, str]) -> list[dict[str, str]]:
    return [{"thread": thread, "stage": stage, "subject": f"{stage}d"} for thread, stage in threads]


CRASH = "Fatal Python error: Segmentation fault\n\n"
CURRENT = 'Current thread 0x000000000000000b (most recent call first):\n  File "/x/y.py", line 7 in f\n'


@pytest.mark.parametrize(
    ("steps_under_way", "stack", "subject", "calls"),
    [
        ([], "", None, ""),
        ([], CRASH + CURRENT, None, "f (y.py:7)"),
        (steps(("0xa", "decode")), "", None, ""),
        (steps(("0xa", "decode")), CRASH, "decoded", ""),
        (steps(("0xa", "decode"), ("0xb", "networks")), CRASH + CURRENT, "networksd", "f (y.py:7)"),
        (steps(("0xa", "decode"), ("0xb", "networks")), CRASH, "decoded", ""),
        (steps(("0xa", "networks"), ("0xb", "stage")), CRASH, None, ""),
        (steps(("0xa", "decode"), ("0xc", "networks")), CRASH + CURRENT, None, "f (y.py:7)"),
    ],
)
def test_crash_report_names_task_of_crashed_thread(
    steps_under_way: list[dict[str, str]], stack: str, subject: str | None, calls: str
) -> None:
    """For a native thread, which has no step: the only step, or the only decode step."""
    report = crash_report_of({"steps": steps_under_way}, stack)
    assert (report.subject, report.stack) == (subject, calls)
    assert bool(report.reason) == ("Fatal" in stack)


def test_crash_report_names_step_that_waited(tmp_path: Path) -> None:
    """The step of another thread may be written while this one waits."""
    action = """
    def other():
        with heartbeat.step("decode", "another task"):
            time.sleep(60)
    with heartbeat.waiting():
        threading.Thread(target=other, daemon=True).start()
        time.sleep(0.5)
    ctypes.string_at(0)"""
    _, report = run(tmp_path, "pass\n" + action)
    assert report is not None
    assert (report.stage, report.subject) == ("decode", "a.mp4 segment 3")


def test_missing_or_damaged_crash_folder_gives_no_report(tmp_path: Path) -> None:
    assert read_crash_report(str(tmp_path / "none")) is None
    for content, report in (("", CrashReport("")), ('{"steps": []}}]}', CrashReport("")), ('{"steps"', None)):
        crash_dir = tmp_path / "crash"
        crash_dir.mkdir(exist_ok=True)
        (crash_dir / "stack").write_text("")
        (crash_dir / "steps").write_text(content)
        assert read_crash_report(str(crash_dir)) == report
        assert crash_dir.exists() is (report is None)


def test_old_crash_folders_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module.tempfile, "gettempdir", lambda: str(tmp_path))
    ages = {f"{CRASH_DIR_PREFIX}old": 2 * 86_400, f"{CRASH_DIR_PREFIX}new": 60, "other": 2 * 86_400}
    for name, age in ages.items():
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (0, time.time() - age))
    heartbeat_module._remove_old_crash_dirs()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", f"{CRASH_DIR_PREFIX}new"]


def test_resident_memory_is_known() -> None:
    assert resident_bytes() > 10e6


def test_steps_of_many_threads_are_written_whole(tmp_path: Path) -> None:
    heartbeat = Heartbeat()
    heartbeat._steps_file = os.open(tmp_path / "steps", os.O_WRONLY | os.O_CREAT)

    def work(number: int) -> None:
        for _ in range(50):
            with heartbeat.step("decode", str(number)):
                heartbeat.beat()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads((tmp_path / "steps").read_text())["steps"] == []
