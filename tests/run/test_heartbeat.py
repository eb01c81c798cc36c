"""A process that crashes, hangs or takes too much memory leaves word of what it was about."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from posebatch.run.workers import heartbeat
from posebatch.run.workers.crash_reports import CrashReport, crash_report_of, read_crash_report
from posebatch.run.workers.heartbeat import EXIT_CODE, Heartbeat, resident_bytes

SCRIPT = """
import ctypes, os, signal, sys, threading, time
from posebatch import watch as module
from posebatch.watch import watch
module.TICK_SECONDS, module.GRACE_SECONDS = 0.05, 0.5
print(watch.start({seconds}, {memory}), flush=True)

def decode_forever():
    {deed}

with watch.step("decode", "a.mp4 segment 3"):
    decode_forever()
"""

HOLD_THE_LOCK = "ctypes.PyDLL(None).sleep(100)"


def run(tmp_path: Path, deed: str, seconds: float = 60.0, memory: float = 1e12) -> tuple[int, CrashReport | None]:
    script = SCRIPT.format(deed=deed, seconds=seconds, memory=memory)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, read_crash_report(done.stdout.strip())


@pytest.mark.parametrize(
    ("deed", "limits", "code", "reason"),
    [
        ("pass", {}, 0, ""),
        ("os.kill(os.getpid(), signal.SIGKILL)", {}, -9, ""),
        ("os.kill(os.getpid(), signal.SIGSEGV)", {}, -11, "crashed (Segmentation fault)"),
        ("ctypes.string_at(0)", {}, -11, "crashed (Segmentation fault)"),
        ("os.abort()", {}, -6, "crashed (Aborted)"),
        ("time.sleep(100)", {"seconds": 0.3}, EXIT_CODE, "did not move for 0 s (--max-seconds-per-frame)"),
        ("while True: pass", {"seconds": 0.3}, EXIT_CODE, "did not move for 0 s (--max-seconds-per-frame)"),
        (HOLD_THE_LOCK, {"seconds": 0.3}, 1, "stood still as a whole (--max-seconds-per-frame)"),
        ("taken = bytes(100 << 20); time.sleep(100)", {"memory": 60e6}, EXIT_CODE, "GB of memory"),
    ],
)
def test_what_a_process_leaves(tmp_path: Path, deed: str, limits: dict[str, float], code: int, reason: str) -> None:
    returned, trace = run(tmp_path, deed, **limits)
    assert returned == code
    assert trace is not None
    assert reason in trace.reason
    assert bool(trace.reason) == bool(reason)
    assert not list(tmp_path.glob("posebatch-box-*")), "the box has been read"
    if reason and "memory" not in reason:
        assert (trace.stage, trace.subject) == ("decode", "a.mp4 segment 3")
        assert "decode_forever (<string>:9)" in trace.stack
        assert "in step 'decode'; stack: " in str(trace)


def test_a_step_that_moves_may_take_long(tmp_path: Path) -> None:
    deed = "[(time.sleep(0.1), watch.moved()) for _ in range(12)]"
    assert run(tmp_path, deed, seconds=0.4) == (0, CrashReport(""))


def test_to_wait_for_others_is_no_step(tmp_path: Path) -> None:
    deed = "exec('with watch.waiting(): time.sleep(1)')"
    assert run(tmp_path, deed, seconds=0.3) == (0, CrashReport(""))


def test_steps_lie_within_each_other_and_beat() -> None:
    watch = Heartbeat()
    watch.moved()
    with watch.step("outer", "a"):
        with watch.step("inner", "b"), watch.waiting():
            (step,) = watch._steps.values()
            assert (step.stage, step.subject, step.since) == ("inner", "b", math.inf)
        (step,) = watch._steps.values()
        assert (step.stage, step.subject) == ("outer", "a")
    assert watch._steps == {}
    assert watch.activity >= 6


def steps(*threads: tuple[str, str]) -> list[dict[str, str]]:
    return [{"thread": thread, "stage": stage, "subject": f"{stage}d"} for thread, stage in threads]


CRASH = "Fatal Python error: Segmentation fault\n\n"
CURRENT = 'Current thread 0x000000000000000b (most recent call first):\n  File "/x/y.py", line 7 in f\n'


@pytest.mark.parametrize(
    ("noted", "stack", "subject", "calls"),
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
def test_who_is_to_blame(noted: list[dict[str, str]], stack: str, subject: str | None, calls: str) -> None:
    """The thread that crashed; if that is none of Python's, the only step or the only decoder's."""
    trace = crash_report_of({"steps": noted}, stack)
    assert (trace.subject, trace.stack) == (subject, calls)
    assert bool(trace.reason) == ("Fatal" in stack)


def test_a_step_that_has_waited_is_still_known(tmp_path: Path) -> None:
    """Another thread's step may be noted just while this one waits."""
    deed = """
    def other():
        with watch.step("decode", "another one"):
            time.sleep(60)
    with watch.waiting():
        threading.Thread(target=other, daemon=True).start()
        time.sleep(0.5)
    ctypes.string_at(0)"""
    _, trace = run(tmp_path, "pass\n" + deed)
    assert trace is not None
    assert (trace.stage, trace.subject) == ("decode", "a.mp4 segment 3")


def test_a_box_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    assert read_crash_report(str(tmp_path / "none")) is None
    for steps, trace in (("", CrashReport("")), ('{"steps": []}}]}', CrashReport("")), ('{"steps"', None)):
        box = tmp_path / "box"
        box.mkdir(exist_ok=True)
        (box / "stack").write_text("")
        (box / "steps").write_text(steps)
        assert read_crash_report(str(box)) == trace
        assert box.exists() is (trace is None)


def test_old_boxes_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat.tempfile, "gettempdir", lambda: str(tmp_path))
    for name, age in (("posebatch-box-old", 2 * 86_400), ("posebatch-box-new", 60), ("other", 2 * 86_400)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (0, time.time() - age))
    heartbeat._sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "posebatch-box-new"]


def test_memory_is_known() -> None:
    assert resident_bytes() > 10e6


def test_notes_come_from_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Heartbeat()
    watch._steps_file = os.open(tmp_path / "steps", os.O_WRONLY | os.O_CREAT)

    def work(number: int) -> None:
        for _ in range(50):
            with watch.step("decode", str(number)):
                watch.moved()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads((tmp_path / "steps").read_text())["steps"] == []
