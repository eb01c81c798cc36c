"""An archive for the fault tests, and runs over it ("nights"): real commands, with faults injected from a plan."""

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
"""Environment variable of every process of these tests; its value is the id of the test process."""

NIGHT_SECONDS: Final = 900
"""A run that takes longer is taken to hang."""

LOOKS: Final[Sequence[tuple[str, dict[str, Any]]]] = (
    ("mp4", {"b_frames": 2, "open_gop": True}),
    ("mov", {"codec": "libx265"}),
    ("mkv", {}),
    ("webm", {"codec": "libvpx-vp9"}),
    ("ts", {"container": "mpegts"}),
    ("avi", {"codec": "mpeg4"}),
    ("mp4", {}),
)
"""Containers and codecs of the videos, in turn."""

BROKEN: Final = ("audio.mp4", "cut.mp4", "empty.mp4", "text.mp4")
"""Videos that fail; ``damaged.mp4`` is published in part."""

UNLIKE: Final = re.compile(r"run_id|attempts|_seconds$")
"""Columns of the videos table that may differ between runs."""


def make_archive(folder: Path, videos: int = 25, longest_s: int = 20) -> Path:
    """``videos`` good videos of 1 to ``longest_s`` seconds at ten frames a second, and five broken ones."""
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
class InjectedFault:
    """A fault of a plan: see ``injection/sitecustomize.py``."""

    at: str
    match: str
    action: str
    times: int | None = 1


def injecting(plan_file: Path) -> dict[str, str]:
    """Environment variables that inject a plan into a process, and mark it as one of these tests."""
    paths = [str(TESTS / "faults" / "injection"), str(TESTS), str(ROOT)]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "POSEBATCH_TEST_INJECTION": str(plan_file),
        MARK: str(os.getpid()),
    }


@dataclass(frozen=True)
class SharedRay:
    """A Ray that several runs share, to save its start. It has one plan at a time."""

    head: RayHead
    plan_file: Path


@contextmanager
def shared_ray(folder: Path, num_cpus: int) -> Iterator[SharedRay]:
    """A head node whose workers inject the faults of its plan."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in injecting(folder / "plan.json").items():
            patch.setenv(name, value)
        (folder / "plan.json").write_text(json.dumps({"marks": str(folder), "faults": []}))
        with running_ray_head(num_cpus) as head:
            yield SharedRay(head, folder / "plan.json")


@dataclass
class Nights:
    """Runs over one archive into one output, with the faults of a plan."""

    archive: str
    output: str
    scratch: Path
    options: tuple[str, ...] = ()
    ray: SharedRay | None = None
    """Without it, each run starts its own Ray."""
    seconds_per_frame: float = 0.0
    """Time that the networks take for a frame."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Extra variables of the driver."""

    def __post_init__(self) -> None:
        self.marks.mkdir(parents=True, exist_ok=True)
        self.plan()

    @property
    def marks(self) -> Path:
        return self.scratch / "marks"

    def plan(self, *faults: InjectedFault) -> None:
        """Inject these faults into the runs that start from now on."""
        self._faults = [vars(fault) for fault in faults]

    def done(self) -> Counter[int]:
        """How often each planned fault happened, by its number."""
        return Counter(int(path.name.split(".")[0]) for path in self.marks.iterdir() if path.name[0].isdigit())

    def staged(self) -> Counter[str]:
        """How often each segment was staged, by its key."""
        path = self.marks / "staged"
        return Counter(path.read_text().split() if path.exists() else [])

    def start(self, *options: str, command: str = "run") -> subprocess.Popen[str]:
        """Start a command in a process."""
        # a resumed run must not look better than an undisturbed one, so what failed before it counts as well
        run_options = (*self.options, "--fail-on", "any", *options) if command == "run" else options
        inputs = (self.archive,) if command in ("run", "plan") else ()
        plan = {"marks": str(self.marks), "faults": self._faults, "seconds_per_frame": self.seconds_per_frame}
        self._plan_file.write_text(json.dumps(plan))
        arguments = [str(BIN / "posebatch"), command, *inputs, "--output", self.output, *run_options]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        ray_variables = self.ray.head.environment() if self.ray else {}
        environment = {**inherited, **injecting(self._plan_file), **ray_variables, **self.environment}
        return subprocess.Popen(arguments, env=environment, text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip

    @property
    def _plan_file(self) -> Path:
        return self.ray.plan_file if self.ray else self.scratch / "plan.json"

    def run(self, *options: str) -> tuple[int, str]:
        """Exit code and output of a run."""
        return finish(self.start(*options))

    def until_settled(self, *options: str, at_most: int = 10) -> int:
        """Run until nothing is left to do; returns the number of runs."""
        for night in range(1, at_most + 1):
            code, output = self.run(*options)
            assert code in (1, 3), output
            if code == 3 and "\n0 published" in output:
                return night
        raise AssertionError(f"unfinished after {at_most} nights:\n{output}")

    def derived_until_settled(self, *options: str, at_most: int = 10) -> int:
        """Derive until nothing is left to do; returns the number of runs."""
        for night in range(1, at_most + 1):
            code, output = finish(self.start(*options, command="derive"))
            assert code in (0, 1, 3), output
            if code == 0 and " derived" not in output:
                return night
        raise AssertionError(f"unfinished after {at_most} nights:\n{output}")


def undisturbed_nights(archive: Path, place: Path, options: tuple[str, ...]) -> Nights:
    """A run without faults, on a Ray of its own."""
    nights = Nights(str(archive), str(place / "out"), place / "scratch", options)
    code, output = nights.run()
    assert code == 3, output
    return nights


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and output of a process. Fails when it hangs, or prints a traceback."""
    try:
        output, _ = process.communicate(timeout=NIGHT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"a night hangs:\n{output[-5000:]}") from None
    ours = [
        line for line in output.splitlines() if "(raylet)" not in line
    ]  # the lines of Ray's own processes do not count
    assert not any("Traceback" in line for line in ours), output
    return process.returncode, output


def published(output: str) -> dict[str, bytes]:
    """The bytes of all published tables and previews, by key."""
    store = open_store(output)
    folders = ("poses/", "frames/", "tracks/", "motion/", "previews/")
    return {stored.key: store.read(stored.key) for folder in folders for stored in store.list(folder)}


def records(output: str) -> list[dict[str, Any]]:
    """The rows of the videos table, without the columns that differ between runs."""
    table = read_videos(output).sort_values("video")
    return table[[name for name in table.columns if not UNLIKE.search(name)]].astype(str).to_dict("records")


def assert_same(output: str, reference: str) -> None:
    """Assert that nothing is lost, doubled or half-written."""
    assert published(output) == published(reference)
    assert records(output) == records(reference)
    assert verify(open_store(output)).problems == ()


def processes(title: str) -> list[int]:
    """Ids of the processes of these tests whose command line begins with ``title``, such as ``ray::SegmentWorker``."""
    own = os.getpid()
    return [pid for pid, line in processes_with(MARK, str(own)) if pid != own and line.startswith(title)]


def kill(pid: int, number: int = signal.SIGKILL) -> bool:
    """Send a signal; False when the process has ended already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
