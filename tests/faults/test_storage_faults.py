"""Storage faults lose and double nothing: at the end the dataset is that of a run without faults.

Whole runs with the real scheduler, CPU tasks and videos, but without networks. They run on a real S3 server behind a
proxy that injects faults, and on a disk that is sometimes full or read-only. Faults that pass within seconds must not
even fail an attempt. POSEBATCH_FAULTS=full injects more than a thousand faults, the short form a few of each kind.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import s3_proxy
from faults.s3_proxy import Fault, FaultPlan, Proxy, Request, running_proxy
from faults.suite import FULL, SEED, note_figure
from support.fake_pool import FAST, Archive, FakePool, facts, no_fault, process
from support.s3_server import S3Server
from support.tiny_video import write_tiny_video

from posebatch.core.errors import PosebatchError
from posebatch.core.records import StageSeconds, VideoRecord
from posebatch.core.settings import settings_from
from posebatch.dataset.publication import read_record
from posebatch.dataset.verify import verify
from posebatch.run.context import RunContext
from posebatch.run.outcome import RunOutcome
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.inputs import list_videos, parse_inputs
from posebatch.run.progress import Progress
from posebatch.run.scheduler import Scheduler
from posebatch.run.stop_request import StopRequest
from posebatch.run.tally import Tally
from posebatch.run.tasks import SegmentTask
from posebatch.run.workers.video_tasks import perform
from posebatch.storage import local, retry, s3
from posebatch.storage.open import open_store
from posebatch.storage.store import Store

MOST_NIGHTS = 12
WANTED_FAULTS = 1000 if FULL else 0
WANTED_KINDS = 15
ROUNDS = 60

VIDEOS = {"a.mp4": 6, "dt=1/b.mp4": 9 if FULL else 3, "dt=1/c d.mp4": 3}
"""Frames of each video; a segment has three."""

PREVIEW = "gif" if FULL else "none"

TRANSIENT = [  # the retries of one request outlast them
    Fault("repeated_page", chance=0.5),
    Fault("error_500", chance=0.06),
    Fault("slow_down", chance=0.06),
    Fault("skewed", chance=0.04),
    Fault("stall", chance=0.004),
    Fault("reset_request", chance=0.08),
    Fault("reset_answer", chance=0.08),
    Fault("truncated", chance=0.08),
    Fault("slow", chance=0.05),
    Fault("lost_answer", chance=0.08),
    Fault("late_put", chance=0.08),
]
LASTING = [  # they end an attempt of a video, or a run
    Fault("missed_page", chance=0.1),
    Fault("replaced", key="/in/", chance=0.03),
    Fault("deleted", key="/in/", chance=0.02),
    Fault("expired", what="GET|PUT", chance=0.006),
    Fault("denied", what="PUT", key="/frames/", chance=0.1),
]

pytestmark = [pytest.mark.s3, pytest.mark.slow]
injected: Counter[str] = Counter()
"""Faults of all tests here, by kind."""


@dataclass
class Nights:
    """Runs over the archive in the bucket into one output, one after another ("nights")."""

    source: str
    output: str
    log: io.StringIO = field(default_factory=io.StringIO)

    def run(self, **chosen: Any) -> RunOutcome:
        settings = settings_from({"segment_seconds": 0.2, "preview": PREVIEW, **chosen})
        context = RunContext("run-1", settings, self.output, "d@1", "p@1")

        def really(job: Any) -> object:
            return process(job, context) if isinstance(job, SegmentTask) else perform(job, context)

        index, progress = CommitIndex.load(open_store(self.output), 0), Progress(Tally(), self.log)
        scheduler = Scheduler(context, index, progress, StopRequest(), limits=FAST)
        videos = list_videos(parse_inputs([self.source]), settings.selection)
        return scheduler.run(videos, lambda: FakePool(context, no_fault, lambda _: False, really))

    def until_nothing_is_left(self) -> None:
        """Run without faults until every video is done."""
        self.run(retry_failed=True)
        assert facts(self.run()) == (0, len(VIDEOS), 0, 0)


@dataclass
class World:
    """An archive in a bucket behind the proxy, and the dataset of a run without faults."""

    proxy: Proxy
    bucket: str
    films: dict[str, bytes]
    expected: dict[str, object] = field(default_factory=dict)
    outputs: Iterator[int] = field(default_factory=itertools.count)
    """Numbers of the outputs. Names are the same in every run of the tests, and so is the plan of faults."""

    def nights(self) -> Nights:
        return Nights(f"s3://{self.bucket}/in/", f"s3://{self.bucket}/out-{next(self.outputs)}")

    def restore(self) -> None:
        """Restore every source."""
        for name, film in self.films.items():
            self.proxy.server.client().put_object(Bucket=self.bucket, Key=f"in/{name}", Body=film)

    def disturb(self, kind: str, request: Request) -> None:
        bucket, _, key = request.key.partition("/")
        client = self.proxy.server.client()
        if kind == "deleted":
            client.delete_object(Bucket=bucket, Key=key)
        else:  # an empty box at the end of an MP4: other bytes, the same frames
            client.put_object(Bucket=bucket, Key=key, Body=self.films[key.removeprefix("in/")] + b"\0\0\0\x08free")

    def inject(self, faults: list[Fault], seed: int = SEED) -> None:
        self.proxy.plan, self.proxy.disturb = FaultPlan(faults, seed), self.disturb
        self.proxy.injected.clear()

    def calm_down(self) -> Counter[str]:
        """Stop injecting; returns the faults that were injected, by kind."""
        self.proxy.plan = FaultPlan()
        self.proxy.deliver_late()
        met = Counter(self.proxy.injected)
        injected.update(met)
        self.restore()
        return met


@pytest.fixture(scope="module")
def world(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, bucket = tmp_path_factory.mktemp("films"), "storage-faults"
    films = {name: write_tiny_video(folder / name, frames).read_bytes() for name, frames in VIDEOS.items()}
    with running_proxy(s3_server, conditional=True) as proxy, pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        patch.delenv("AWS_PROFILE", raising=False)
        for variable, value in proxy.environment().items():
            patch.setenv(variable, value)
        s3.s3_client.cache_clear()
        world = World(proxy, bucket, films)
        s3_server.client().create_bucket(Bucket=bucket)
        world.restore()
        nights = world.nights()
        assert facts(nights.run()) == (len(VIDEOS), 0, 0, 0)
        world.expected = dataset(open_store(nights.output))
        yield world
    s3.s3_client.cache_clear()


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Shorten all waits, and the pages of listings."""
    patch.setattr(retry, "DEFAULT_POLICY", retry.RetryPolicy(first_pause_s=0.01, longest_pause_s=0.05))
    patch.setattr(s3, "TIMEOUT_S", 4.0)
    patch.setattr(s3, "BLOCK_BYTES", 256)
    patch.setattr(s3, "PAGE_KEYS", 2)
    patch.setattr(s3_proxy, "STALL_S", 4.2)


def dataset(store: Store) -> dict[str, object]:
    """All published objects by key; commit records without the fields that depend on the run."""
    contents: dict[str, object] = {}
    for key in [stored.key for stored in store.list()]:
        if key.startswith(("poses/", "frames/", "previews/")):
            contents[key] = store.read(key)
        elif key.startswith("videos/"):
            record = read_record(store, key.removeprefix("videos/").removesuffix(".parquet"))
            contents[key] = None if record is None else timeless(record)
    return contents


def timeless(record: VideoRecord) -> VideoRecord:
    return replace(record, run_id="", attempts=0, seconds=StageSeconds(), last_modified=0.0)


def check_whole(store: Store, expected: dict[str, object]) -> None:
    """Assert that the dataset is that of a run without faults, byte for byte."""
    contents = dataset(store)
    assert sorted(contents) == sorted(expected)
    assert [key for key in expected if contents[key] != expected[key]] == []
    assert verify(store).problems == ()


# --- S3 ------------------------------------------------------------------------------------------------------------


def few(faults: list[Fault]) -> list[list[Fault]]:
    """The faults, more often: each kind in its own run, or in the short form several kinds in a run."""
    often = [replace(fault, chance=min(1.0, 4 * fault.chance), most=4) for fault in faults]
    often = [replace(fault, chance=0.1, most=2 if FULL else 1) if fault.kind == "stall" else fault for fault in often]
    return [[fault] for fault in often] if FULL else [often[first::3] for first in range(3)]


def kinds(faults: list[Fault]) -> str:
    return " ".join(fault.kind for fault in faults)


@pytest.mark.parametrize("faults", few(TRANSIENT), ids=kinds)
def test_transient_storage_faults_fail_no_video(world: World, faults: list[Fault]) -> None:
    nights = world.nights()
    world.inject(faults)
    outcome = nights.run()
    met = world.calm_down()
    assert all(met[fault.kind] for fault in faults), met
    assert (facts(outcome), outcome.problems) == ((len(VIDEOS), 0, 0, 0), ()), nights.log.getvalue()
    assert "failed" not in nights.log.getvalue()
    assert facts(nights.run()) == (0, len(VIDEOS), 0, 0)
    check_whole(open_store(nights.output), world.expected)


@pytest.mark.parametrize("faults", few(LASTING), ids=kinds)
def test_later_runs_recover_from_lasting_storage_faults(world: World, faults: list[Fault]) -> None:
    met, night = Counter[str](), 0
    nights = world.nights()
    while not all(met[fault.kind] for fault in faults) and night < MOST_NIGHTS:
        world.inject(faults, SEED + night)
        end_of(lambda: nights.run(on_existing="overwrite", retry_failed=True))
        met += world.calm_down()
        night += 1
    assert all(met[fault.kind] for fault in faults), met
    nights.until_nothing_is_left()
    check_whole(open_store(nights.output), world.expected)


def end_of(night: Callable[[], object]) -> str:
    """The message of a run that ends early; only our own errors may end it."""
    try:
        night()
    except PosebatchError as error:
        return str(error)
    return ""


def test_mixed_storage_faults_leave_the_same_dataset(world: World) -> None:
    """Run after run into one output. Each continues the last one, or overwrites all of it."""
    nights = world.nights()
    for round_ in range(ROUNDS if FULL else 1):
        world.inject([*LASTING, *TRANSIENT], 1000 * SEED + round_)
        end_of(lambda: nights.run(on_existing="overwrite", retry_failed=True))
        world.calm_down()
        nights.until_nothing_is_left()
        check_whole(open_store(nights.output), world.expected)
        if FULL and injected.total() >= WANTED_FAULTS:
            return


@pytest.mark.parametrize("name", ["dt=1/b.mp4"])
def test_denied_prefix_fails_only_its_video(world: World, name: str) -> None:
    nights = world.nights()
    world.inject([Fault("denied", what="PUT|DELETE", key=f"/poses/.*{name}")])
    outcome = nights.run()
    world.calm_down()
    assert facts(outcome) == (len(VIDEOS) - 1, 0, 1, 0)
    (problem,) = outcome.problems
    assert problem.video.endswith(name)
    assert "access denied" in problem.reason
    nights.until_nothing_is_left()
    check_whole(open_store(nights.output), world.expected)


def test_expired_credentials_end_the_run_with_a_remedy(world: World) -> None:
    nights = world.nights()
    world.inject([Fault("expired", skip=20)])
    with pytest.raises(PosebatchError, match=r"credentials.*expired"):
        nights.run()
    world.calm_down()
    nights.run()
    nights.until_nothing_is_left()
    check_whole(open_store(nights.output), world.expected)


# --- a disk --------------------------------------------------------------------------------------------------------

DISK = {"disk_full": errno.ENOSPC, "read_only": errno.EROFS}


@pytest.mark.parametrize("kind", DISK)
@pytest.mark.parametrize("chance", [0.3, 1.0])
def test_full_or_read_only_disk_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, chance: float
) -> None:
    hurry(monkeypatch)
    archive = Archive(tmp_path)
    for name, frames in VIDEOS.items():
        archive.add(name, frames=frames)
    archive.run()
    expected = dataset(archive.store)
    archive.store = local.LocalStore(tmp_path / "disturbed")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refusing(kind, chance))
        for _ in range(3 if FULL else 1):
            message = end_of(lambda: archive.run(on_existing="overwrite", retry_failed=True))
            assert not message or {"disk_full": "the disk is full", "read_only": "read-only"}[kind] in message
    archive.run(retry_failed=True)
    assert facts(archive.run()) == (0, len(VIDEOS), 0, 0)
    check_whole(archive.store, expected)


def refusing(kind: str, chance: float) -> Callable[[int], None]:
    """An ``os.fsync`` that fails with a chance, like a full or a read-only disk."""
    rng, fsync = np.random.default_rng(SEED), os.fsync

    def flush(file: int) -> None:
        if rng.random() < chance:
            injected[kind] += 1
            raise OSError(DISK[kind], os.strerror(DISK[kind]))
        fsync(file)

    return flush


# --- the sum -------------------------------------------------------------------------------------------------------


def test_enough_faults_were_injected() -> None:
    """Runs last: counts the faults of all tests above."""
    assert injected.total() >= WANTED_FAULTS
    assert len(injected) >= WANTED_KINDS, injected
    note_figure(
        f"storage faults injected, of {len(injected)} kinds",
        f">= {WANTED_FAULTS:,}; 0 lost, 0 doubled",
        f"{injected.total():,}; 0 lost, 0 doubled ({', '.join(f'{n} {kind}' for kind, n in sorted(injected.items()))})",
    )
