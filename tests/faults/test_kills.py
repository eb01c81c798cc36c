"""Processes are killed at every point; the same command continues, and the dataset is the same byte for byte."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.nights import (
    InjectedFault,
    Nights,
    SharedRay,
    assert_same,
    finish,
    kill,
    make_archive,
    processes,
    shared_ray,
)
from faults.suite import FULL, SEED, note_figure
from support.processes import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow]

WORKERS = 2
RUN = ("--workers", str(WORKERS), "--segment-seconds", "1", "--preview", "gif", "--max-attempts", "50")

VIDEOS = 25
"""Good videos; five more are broken."""

IN_FLIGHT = 2 * WORKERS
"""Segments that are under way at once."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive"), VIDEOS, 20 if FULL else 3)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller archive, for tests that need no more."""
    return make_archive(tmp_path_factory.mktemp("few"), 15 if FULL else 5, 20 if FULL else 5)


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedRay]:
    with shared_ray(tmp_path_factory.mktemp("ray"), WORKERS) as ray:
        yield ray


def _nights(ray: SharedRay, archive: Path, place: Path) -> Nights:
    return Nights(str(archive), str(place / "out"), place / "scratch", RUN, ray)


def _undisturbed(nights: Nights) -> Nights:
    code, output = nights.run()
    assert code == 3, output
    assert "4 failed" in output
    assert "1 partial" in output
    return nights


@pytest.fixture(scope="module")
def undisturbed(ray: SharedRay, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """The dataset of a run without faults."""
    return _undisturbed(_nights(ray, archive, tmp_path_factory.mktemp("undisturbed")))


@pytest.fixture(scope="module")
def few_undisturbed(ray: SharedRay, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return _undisturbed(_nights(ray, few, tmp_path_factory.mktemp("few-undisturbed")))


@pytest.fixture
def nights(ray: SharedRay, archive: Path, undisturbed: Nights, tmp_path: Path) -> Nights:
    """Runs over the same archive into their own output."""
    return _nights(ray, archive, tmp_path)


@pytest.fixture
def few_nights(ray: SharedRay, few: Path, few_undisturbed: Nights, tmp_path: Path) -> Nights:
    return _nights(ray, few, tmp_path)


def kill_points() -> list[InjectedFault]:
    """A kill before and after each put and each delete of a publication, each on another video."""
    keys = [
        ("put", r"/staging/.*\.arrow"),
        ("put", r"/staging/.*/preview\.gif"),
        ("put", r"^poses/.*{}\."),
        ("put", r"^frames/.*{}\."),
        ("put", r"^tracks/.*{}\."),
        ("put", r"^motion/.*{}\."),
        ("put", r"^previews/.*{}\."),
        ("put", r"^videos/.*{}\."),
        ("delete", r"/staging/"),
        ("delete", r"/attempts/"),
        ("put", r"^videos/(empty|text)"),
        ("put", r"/attempts/"),
        ("put", r"/staging/.*/packets\.index"),
    ]
    points = [(f"{when} {act}", key) for act, key in keys for when in ("before", "after")]
    return [InjectedFault(at, key.format(f"/{number:02d}"), "kill") for number, (at, key) in enumerate(points)]


def killed_at_each(nights: Nights, planned: list[InjectedFault], undisturbed: Nights) -> tuple[int, int]:
    """Kill a process at each point, until the dataset is complete and the same; returns the kills and the runs."""
    nights.plan(*planned)
    runs = nights.until_settled()
    assert_same(nights.output, undisturbed.output)
    missed = [fault for number, fault in enumerate(planned) if not nights.done()[number]]
    assert missed == [], "each point was reached"
    return nights.done().total(), runs


def test_kill_around_each_put_leaves_the_same_dataset(nights: Nights, undisturbed: Nights) -> None:
    planned = kill_points()
    kills, runs = killed_at_each(nights, planned, undisturbed)
    note_figure("publication points at which a process was killed", "every put, before and after",
                f"{kills} kills at {len(planned)} points, {runs} runs, 0 rows lost", kills)  # fmt: skip


DERIVATIONS = {
    ("--no-track",): (("put", "videos"), ("put", "poses"), ("delete", "tracks"), ("delete", "motion")),
    (): (("put", "videos"), ("put", "poses"), ("put", "tracks"), ("put", "motion")),
    ("--cutoff-hz", "2"): (("put", "videos"), ("put", "tracks"), ("put", "motion")),
}
"""For each kind of derivation, one after another: its publication points."""


def test_kill_around_each_put_of_a_derivation_leaves_the_same_dataset(
    ray: SharedRay, few: Path, few_undisturbed: Nights, tmp_path: Path
) -> None:
    """No run between the kills infers anything again. A video may be killed twice in one run, and is then left."""
    undisturbed, nights = _nights(ray, few, tmp_path / "a"), _nights(ray, few, tmp_path / "b")
    kills = runs = 0
    for number, (options, keys) in enumerate(list(DERIVATIONS.items())[: None if FULL else 2]):
        if number == 0:
            for each in (undisturbed, nights):
                shutil.copytree(few_undisturbed.output, each.output)
        undisturbed.plan()
        undisturbed.derived_until_settled(*options)
        planned = [
            InjectedFault(f"{when} {act}", f"^{key}/", "kill") for act, key in keys for when in ("before", "after")
        ]
        for path in nights.marks.iterdir():
            path.unlink()
        nights.plan(*planned)
        runs += nights.derived_until_settled(*options)
        assert_same(nights.output, undisturbed.output)
        missed = [fault for position, fault in enumerate(planned) if not nights.done()[position]]
        assert missed == [], "each point was reached"
        kills += nights.done().total()
    assert not nights.staged(), "no segment was computed"
    note_figure("publication points of derivations at which a process was killed", "every put, before and after",
                f"{kills} kills, {runs} runs, 0 rows lost", kills)  # fmt: skip


CLIPS = ("--workers", str(WORKERS), "--segment-seconds", "100", "--max-attempts", "50")
"""Options with which the good videos of ``few`` are clips: workers publish them, in groups."""


def _nights_of_clips(ray: SharedRay, few: Path, place: Path) -> Nights:
    return Nights(str(few), str(place / "out"), place / "scratch", CLIPS, ray)


def test_kill_around_each_put_of_a_clip_leaves_the_same_dataset(ray: SharedRay, few: Path, tmp_path: Path) -> None:
    """The worker dies with the other clips of its group, of which some are published already."""
    undisturbed, nights = (_nights_of_clips(ray, few, tmp_path / name) for name in "ab")
    _undisturbed(undisturbed)
    assert not undisturbed.staged(), "no rows of a clip go through the store"
    points = [(when, key) for key in ("poses", "frames", "tracks", "motion", "videos") for when in ("before", "after")]
    planned = [
        InjectedFault(f"{when} put", rf"^{key}/.*/{number % 5:02d}\.", "kill")
        for number, (when, key) in enumerate(points)
    ]
    kills, runs = killed_at_each(nights, planned, undisturbed)
    note_figure("publication points of clips at which a worker was killed", "every put, before and after",
                f"{kills} kills, {runs} runs, 0 rows lost", kills)  # fmt: skip


def test_poison_clip_costs_no_other_clip(ray: SharedRay, few: Path, tmp_path: Path) -> None:
    """Each ends two processes and fails with the reason, whatever group it was in."""
    undisturbed, nights = (_nights_of_clips(ray, few, tmp_path / name) for name in "ab")
    _undisturbed(undisturbed)
    nights.plan(InjectedFault("probe", r"/02\.", "segfault", None), InjectedFault("decode", r"/04\.", "segfault", None))
    code, output = nights.run()
    assert code == 3, output
    failed = [row for row in _failed(nights) if row["error_kind"] == "poison"]
    assert [(Path(row["video"]).stem, row["attempts"]) for row in failed] == [("02", 2), ("04", 2)]
    assert all(f"in step '{stage}'" in row["error"] for stage, row in zip(("probe", "decode"), failed, strict=True))
    assert len(_failed(nights)) == 2 + 4, "no other clip failed"
    nights.plan()
    nights.run("--retry-failed")
    assert_same(nights.output, undisturbed.output)


POISON = {
    "probe": "segfault",
    "decode": "segfault|abort|sleep|spin|stand still|take memory" if FULL else "segfault|sleep|take memory",
    "networks": "fail as CUDA does|segfault" if FULL else "fail as CUDA does",
}
REASONS = {
    "segfault": "crashed (Segmentation fault)",
    "abort": "crashed (Aborted)",
    "sleep": "--max-seconds-per-frame",
    "spin": "--max-seconds-per-frame",
    "stand still": "stopped responding",
    "take memory": "--max-memory-gb",
    "fail as CUDA does": "the networks failed: RuntimeError: CUDA error",
}
STRICT = ("--max-seconds-per-frame", "10", "--max-memory-gb", "2")


def test_poison_video_costs_no_other_video(nights: Nights, undisturbed: Nights) -> None:
    """Each poison video ends two processes, fails with the reason, and runs again only with --retry-failed."""
    planned = [(stage, action) for stage, actions in POISON.items() for action in actions.split("|")]
    # the longest videos: their segments share a process with others
    videos = [f"/{VIDEOS - 1 - number:02d}." for number in range(len(planned))]
    nights.plan(
        *(InjectedFault(stage, video, action, None) for (stage, action), video in zip(planned, videos, strict=True))
    )
    code, output = nights.run(*STRICT)
    assert code == 3, output
    failed = {row["video"]: row for row in _failed(nights)}
    for (stage, action), video in zip(planned, videos, strict=True):
        (row,) = (row for uri, row in failed.items() if video in uri)
        assert row["error_kind"] == "poison", row
        assert REASONS[action] in row["error"], row
        assert action in ("fail as CUDA does", "take memory") or f"in step '{stage}'" in row["error"], row
        assert "stack: " in row["error"] or action in ("fail as CUDA does", "take memory"), row
        assert stage == "probe" or row["codec"], "the result of the probe is recorded too"
        assert row["attempts"] == 2, row
    assert len(failed) == len(planned) + 4, (sorted(failed), output)
    kills = sum(nights.done().values())
    assert max(nights.done().values()) <= 2 + IN_FLIGHT, "two, and the segments that had begun by then"
    assert "stack: " in finish(nights.start(command="plan"))[1], "the dry run shows it"
    nights.plan()
    nights.run("--retry-failed")
    assert_same(nights.output, undisturbed.output)
    note_figure(
        "bystander videos failed by another's poison",
        "0",
        f"0 beside {len(planned)} poisonous videos of {len(REASONS)} kinds, which ended processes {kills} times",
        kills,
    )


def _failed(nights: Nights) -> list[dict]:
    from posebatch import read_videos  # noqa: PLC0415

    table = read_videos(nights.output)
    return table[table["status"] == "failed"].to_dict("records")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM] if FULL else [signal.SIGKILL])
def test_killed_driver_repeats_only_segments_in_flight(
    few_nights: Nights, few_undisturbed: Nights, number: int
) -> None:
    """After SIGTERM, as on an eviction notice, it ends by itself within 30 s."""
    chance = random.Random(SEED)
    kills = 0
    for _ in range(8 if FULL else 1):
        process = few_nights.start()
        before = len(few_nights.staged())
        wait_for(lambda process=process, before=before: len(few_nights.staged()) > before or process.poll() is not None)
        time.sleep(chance.uniform(0, 1.5))
        kills += kill(process.pid, number) and process.poll() is None
        process.communicate(timeout=30 if number == signal.SIGTERM else 60)
        wait_for(lambda: not processes("ray::SegmentWorker"))
    few_nights.until_settled()
    assert_same(few_nights.output, few_undisturbed.output)
    repeated = few_nights.staged().total() - len(few_undisturbed.staged())
    assert repeated <= kills * IN_FLIGHT
    if number == signal.SIGKILL:
        note_figure("work repeated after a driver kill", "<= the segments in flight",
                    f"{repeated} segments after {kills} kills with {IN_FLIGHT} in flight", kills)  # fmt: skip


def test_two_drivers_without_lease_make_one_dataset(few_nights: Nights, few_undisturbed: Nights) -> None:
    """As on a store without conditional puts: the work is done twice, and the dataset is the same."""
    few_nights.environment = {"POSEBATCH_TEST_NO_LEASE": "1"}
    both = [few_nights.start("--workers", "1"), few_nights.start("--workers", "1")]
    ends = [finish(process) for process in both]
    assert [code for code, _ in ends] == [3, 3], ends
    assert_same(few_nights.output, few_undisturbed.output)


def test_second_driver_is_refused_or_waits(few_nights: Nights, few_undisturbed: Nights) -> None:
    few_nights.seconds_per_frame = 0.05  # slow enough that the second driver meets it at work
    first = few_nights.start()
    wait_for(lambda: (Path(few_nights.output) / "_state" / "leases").exists() or first.poll() is not None)
    wait_for(lambda: any((Path(few_nights.output) / "_state" / "leases").iterdir()))
    code, output = few_nights.run()
    assert (code, "has this output since" in output) == (2, True), output
    waiting = few_nights.start("--wait")
    assert finish(first)[0] == 3
    code, output = finish(waiting)
    assert code == 3
    assert "waiting: run " in output
    assert "\n0 published" in output
    assert_same(few_nights.output, few_undisturbed.output)


@pytest.mark.skipif(not FULL, reason="takes a minute: make test-faults")
def test_run_whose_processes_are_all_stopped_gives_up(few_nights: Nights) -> None:
    """It ends with exit code 1 and names the videos under way."""
    process = few_nights.start("--max-idle-minutes", "0.2")
    wait_for(lambda: few_nights.staged() or process.poll() is not None)
    stopped = [pid for title in ("ray::SegmentWorker", "ray::TaskHelper") for pid in processes(title)]
    for pid in stopped:
        kill(pid, signal.SIGSTOP)
    try:
        code, output = finish(process)
    finally:
        for pid in stopped:
            kill(pid, signal.SIGKILL)
    assert code == 1, output
    assert "nothing has moved for 0.2 minutes" in output
    assert "under way: " in output


KILLS = 200
"""Random kills in all."""

PAUSE_SECONDS = 6.0
"""Longest pause between two volleys of kills: enough that a worker can load and finish something now and then."""

PATIENT = ("--max-attempts", "1000")
"""A kill from outside counts as a failed attempt."""

SHARES = {"ray::SegmentWorker": 0.5, "ray::TaskHelper": 0.5, "driver": 0.1}
"""Share of the processes of each kind that a volley kills."""


@pytest.mark.skipif(not FULL, reason="takes minutes: make test-faults")
def test_random_kills_leave_the_same_dataset(
    ray: SharedRay, few: Path, few_undisturbed: Nights, tmp_path: Path
) -> None:
    """Kills of workers, helpers and drivers at random moments; one dataset after another."""
    chance = random.Random(SEED)
    killed: Counter[str] = Counter()
    repeated = datasets = 0
    while killed.total() < KILLS:
        nights = _nights(ray, few, tmp_path / str(datasets))
        nights.seconds_per_frame = 0.05
        _kill_at_random(nights, chance, killed)
        nights.until_settled(*PATIENT)
        assert_same(nights.output, few_undisturbed.output)
        repeated += nights.staged().total() - len(few_undisturbed.staged())
        datasets += 1
    each = ", ".join(f"{count} {title.removeprefix('ray::')}" for title, count in killed.items())
    note_figure("random kills of processes", ">= 200; 0 rows lost, doubled or half-written",
                f"{killed.total()} ({each}); {repeated} segments done again; {datasets} datasets, each the same "
                "byte for byte", killed.total())  # fmt: skip


def _kill_at_random(nights: Nights, chance: random.Random, killed: Counter[str]) -> None:
    """Run and kill until a run ends by itself, or until there were enough kills."""
    while killed.total() < KILLS:
        process = nights.start(*PATIENT)
        while process.returncode is None:
            pause = chance.uniform(0, PAUSE_SECONDS) if killed.total() < KILLS else None
            try:
                output, _ = process.communicate(timeout=pause)
            except subprocess.TimeoutExpired:
                running = {title: processes(title) for title in SHARES} | {"driver": [process.pid]}
                for title, pids in running.items():
                    killed[title] += sum(kill(pid) for pid in pids if chance.random() < SHARES[title])
        assert process.returncode in (1, 3, -signal.SIGKILL), output
        if process.returncode == 3:
            return
