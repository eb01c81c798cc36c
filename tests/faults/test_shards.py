"""Shards at work at once, in processes of their own: together they make the dataset of one run, byte for byte."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from faults.nights import Nights, assert_same, finish, kill, make_archive, shared_ray
from faults.plain_runs import plain_command
from faults.suite import FULL, note_figure
from support.fake_pool import Fault, Task, no_fault
from support.processes import wait_for
from support.tiny_video import write_tiny_video

from posebatch.dataset.lease_place import FOLDER, SHARDS_FOLDER
from posebatch.run.tasks import FinalizeTask

SHARDS = 3

FORKED = multiprocessing.get_context("fork")
"""Children that need not load the libraries again."""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for number in range(12):
        write_tiny_video(tmp_path / "in" / f"dt={number % 2}" / f"{number:02d}.mp4", shade=number)
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video")
    return tmp_path / "in"


def run(archive: Path, output: Path, *options: str, fault: Fault = no_fault) -> int:
    """Exit code of a run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        command = plain_command(patch, fault)
        return command("run", str(archive), "--output", str(output), "--fail-on", "never", *options)


def start(job: Callable[[], int]) -> BaseProcess:
    """Do a job in a child process, which ends with its exit code."""
    process = FORKED.Process(target=lambda: os._exit(job()))
    process.start()
    return process


def ended(process: BaseProcess) -> int | None:
    process.join(120)
    return process.exitcode


def test_shards_at_once_and_one_killed_make_the_same_dataset(archive: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run(archive, tmp_path / "whole") == 0
    all_hold, checked = FORKED.Barrier(SHARDS + 1), FORKED.Event()

    def shard(number: int, deadly: bool) -> Callable[[], int]:
        published = 0

        def fault(task: Task) -> None:
            nonlocal published
            if not published:
                all_hold.wait(60)
                checked.wait(60)
            published += 1
            if deadly and published > 3 and isinstance(task, FinalizeTask):
                os.kill(os.getpid(), signal.SIGKILL)

        return lambda: run(archive, output, "--shard", f"{number}/{SHARDS}", fault=fault)

    shards = [start(shard(number, deadly=number == 2)) for number in range(1, SHARDS + 1)]
    all_hold.wait(60)
    refused = [run(archive, output, *options) for options in ((), ("--shard", "1/3"), ("--shard", "1/2"))]
    checked.set()
    assert refused == [2, 2, 2], "while shards of three are at work"
    assert [ended(process) for process in shards] == [0, -signal.SIGKILL, 0]
    assert ended(start(lambda: run(archive, output, "--shard", f"2/{SHARDS}"))) == 0

    assert_same(str(output), str(tmp_path / "whole"))
    assert run(archive, output) == 0, "all leases have ended"
    summaries = [json.loads(path.read_bytes()) for path in sorted(output.glob("runs/*/summary.json"))]
    assert len(summaries) == SHARDS + 1, "one for each run that ended: three shards and the whole"
    whole = next(summary for summary in summaries if summary["shard"] is None)
    assert (whole["published"], whole["up_to_date"], whole["quarantined"]) == (0, 12, 1)


def _wait_for_work(nights: Nights, runs: list[subprocess.Popen[str]]) -> None:
    """Until one of the runs has staged a segment, or has ended."""
    before = nights.staged().total()
    wait_for(lambda: nights.staged().total() > before or any(run.poll() is not None for run in runs))


def _leases(output: Path) -> Iterator[dict[str, object]]:
    for folder in (FOLDER, SHARDS_FOLDER):
        for path in (output / folder).glob("**/*.json"):
            with suppress(OSError, ValueError):
                yield json.loads(path.read_bytes())


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not FULL, reason="takes minutes: make test-faults")
def test_shards_on_one_ray_with_killed_drivers_make_the_same_dataset(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive", 10, 10)
    options = ("--workers", "1", "--segment-seconds", "1", "--max-attempts", "50")
    with shared_ray(tmp_path, 4) as ray:
        whole = Nights(str(archive), str(tmp_path / "whole"), tmp_path / "scratch-whole", options, ray)
        assert whole.run()[0] == 3
        nights = Nights(str(archive), str(tmp_path / "out"), tmp_path / "scratch", options, ray, seconds_per_frame=0.02)
        kills = 0
        for night in range(3):
            shards = [nights.start("--shard", f"{number}/2") for number in (1, 2)]
            _wait_for_work(nights, shards)
            time.sleep(night)
            kills += kill(shards[night % 2].pid)
            codes = [finish(process)[0] for process in shards]
            assert codes[1 - night % 2] == 3, codes
        for number in (1, 2):
            nights.until_settled("--shard", f"{number}/2")
        assert_same(nights.output, whole.output)
        assert all(lease["ended"] for lease in _leases(tmp_path / "out") if lease["run_id"])
    note_figure("shards at work at once, a driver killed each time", "the dataset of one run",
                f"2 shards, {kills} kills, byte for byte the same", kills)  # fmt: skip
