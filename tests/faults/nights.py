"""An archive for the fault tests, and nights over it: real commands in processes that faults are planned for."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from support.factories import audio_only, corrupt_middle, video_bytes
from support.processes import processes_with
from support.ray_head import RayHead, running_ray_head

from posebatch import read_videos
from posebatch.dataset.verify import verify
from posebatch.storage.open import open_store

BIN: Final = Path(sys.executable).parent
TESTS: Final = Path(__file__).resolve().parents[1]
ROOT: Final = TESTS.parent

MARK: Final = "POSEBATCH_TEST_NIGHTS"
"""In the environment of every process of these tests, with the number of the process that runs them."""

NIGHT_SECONDS: Final = 900
"""A night that takes longer hangs."""

LOOKS: Final[Sequence[tuple[str, dict[str, Any]]]] = (
    ("mp4", {"b_frames": 2, "open_gop": True}),
    ("mov", {"codec": "libx265"}),
    ("mkv", {}),
    ("webm", {"codec": "libvpx-vp9"}),
    ("ts", {"container": "mpegts"}),
    ("avi", {"codec": "mpeg4"}),
    ("mp4", {}),
)
"""Containers and codecs that take turns."""

BROKEN: Final = ("audio.mp4", "cut.mp4", "empty.mp4", "text.mp4")
"""These fail for good; ``damaged.mp4`` is published in part."""

UNLIKE: Final = re.compile(r"run_id|attempts|_seconds$")
"""Columns of the videos table that may differ from run to run."""


def make_archive(folder: Path, videos: int = 25, longest_s: int = 20) -> Path:
    """So many good videos of 1 to ``longest_s`` seconds, ten frames a second, and five broken ones."""
    (folder / "dt=2026-01-01").mkdir(parents=True)
    for number in range(videos):
        extension, look = LOOKS[number % len(LOOKS)]
        seconds = 1 + round((longest_s - 1) * (number / max(1, videos - 1)) ** 2)
        content = video_bytes(frames=10 * seconds, fps=10, **{"container": extension, **look})
        (folder / "dt=2026-01-01" / f"{number:02d}.{extension}").write_bytes(content)
    whole = video_bytes(frames=60, fps=10)
    (folder / "damaged.mp4").write_bytes(corrupt_middle(video_bytes(frames=60, fps=10, faststart=True)))
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "audio.mp4").write_bytes(audio_only())
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no video at all\n" * 100)
    return folder


@dataclass(frozen=True)
class Deed:
    """A fault that is planned: see ``injection/sitecustomize.py``."""

    at: str
    match: str
    deed: str
    times: int | None = 1


def obedient(plan_file: Path) -> dict[str, str]:
    """Environment in which a process does as a plan says, and is known as one of these tests'."""
    paths = [str(TESTS / "faults" / "injection"), str(TESTS), str(ROOT)]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "POSEBATCH_TEST_INJECTION": str(plan_file),
        MARK: str(os.getpid()),
    }


@dataclass(frozen=True)
class SharedRay:
    """A Ray that several nights use, so that not each of them pays for its start. Only one plan holds at a time."""

    head: RayHead
    plan_file: Path


@contextmanager
def shared_ray(folder: Path, num_cpus: int) -> Iterator[SharedRay]:
    """A head node whose workers do as they are told."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in obedient(folder / "plan.json").items():
            patch.setenv(name, value)
        (folder / "plan.json").write_text(json.dumps({"marks": str(folder), "deeds": []}))
        with running_ray_head(num_cpus) as head:
            yield SharedRay(head, folder / "plan.json")


@dataclass
class Nights:
    """Runs over one archive into one output, disturbed as planned."""

    archive: str
    output: str
    scratch: Path
    options: tuple[str, ...] = ()
    ray: SharedRay | None = None
    """Else each run has a Ray of its own."""
    seconds_per_frame: float = 0.0
    """How slow the networks are."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the driver alone."""

    def __post_init__(self) -> None:
        self.marks.mkdir(parents=True, exist_ok=True)
        self.plan()

    @property
    def marks(self) -> Path:
        return self.scratch / "marks"

    def plan(self, *deeds: Deed) -> None:
        """In the runs that begin from now on, these faults."""
        self._deeds = [vars(deed) for deed in deeds]

    def done(self) -> Counter[int]:
        """How often each planned fault has happened."""
        return Counter(int(path.name.split(".")[0]) for path in self.marks.iterdir() if path.name != "staged")

    def staged(self) -> Counter[str]:
        """How often each segment was staged."""
        path = self.marks / "staged"
        return Counter(path.read_text().split() if path.exists() else [])

    def start(self, *options: str, command: str = "run") -> subprocess.Popen[str]:
        """A run that has begun."""
        of_run = (*self.options, *options) if command == "run" else options
        inputs = (self.archive,) if command in ("run", "plan") else ()
        plan = {"marks": str(self.marks), "deeds": self._deeds, "seconds_per_frame": self.seconds_per_frame}
        self._plan_file.write_text(json.dumps(plan))
        arguments = [str(BIN / "posebatch"), command, *inputs, "--output", self.output, *of_run]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        of_ray = self.ray.head.environment() if self.ray else {}
        environment = {**kept, **obedient(self._plan_file), **of_ray, **self.environment}
        return subprocess.Popen(arguments, env=environment, text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip

    @property
    def _plan_file(self) -> Path:
        return self.ray.plan_file if self.ray else self.scratch / "plan.json"

    def run(self, *options: str) -> tuple[int, str]:
        """A run to its end: exit code, and what it said."""
        process = self.start(*options)
        return finish(process)

    def until_settled(self, *options: str, at_most: int = 10) -> int:
        """Run again until nothing is left to do; returns how many runs it took."""
        for night in range(1, at_most + 1):
            code, said = self.run(*options)
            assert code in (1, 3), said
            if code == 3 and "\n0 published" in said:
                return night
        raise AssertionError(f"not settled after {at_most} nights:\n{said}")


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """How a run ends."""
    try:
        said, _ = process.communicate(timeout=NIGHT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        raise AssertionError(f"a night hangs:\n{said[-5000:]}") from None
    ours = [line for line in said.splitlines() if "(raylet)" not in line]  # Ray's own processes do as they like
    assert not any("Traceback" in line for line in ours), said
    return process.returncode, said


def published(output: str) -> dict[str, bytes]:
    """Every byte of what is published of poses, frames and previews."""
    store = open_store(output)
    folders = ("poses/", "frames/", "previews/")
    return {found.key: store.read(found.key) for folder in folders for found in store.list(folder)}


def records(output: str) -> list[dict[str, Any]]:
    """The videos table, but for what differs from run to run."""
    table = read_videos(output).sort_values("video")
    return table[[name for name in table.columns if not UNLIKE.search(name)]].astype(str).to_dict("records")


def assert_same(output: str, reference: str) -> None:
    """Nothing lost, nothing doubled, nothing half-written."""
    assert published(output) == published(reference)
    assert records(output) == records(reference)
    assert verify(open_store(output)).problems == ()


def processes(title: str) -> list[int]:
    """Process ids of these tests' processes whose command line begins so, as ``ray::SegmentWorker``."""
    own = os.getpid()
    return [pid for pid, line in processes_with(MARK, str(own)) if pid != own and line.startswith(title)]


def kill(pid: int, number: int = signal.SIGKILL) -> bool:
    """Send a signal; false when the process is gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
