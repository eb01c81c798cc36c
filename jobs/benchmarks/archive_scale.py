"""An archive of 10^9 videos: the requests of one video, counted; limits and costs that follow, by arithmetic."""

from __future__ import annotations

import hashlib
import io
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Final

from typing_extensions import override

from benchmarks.driver_throughput import WITHOUT_CLIPS, make_archive
from benchmarks.fleet_simulation import GET, LIMITS, PUT, Fleet, FleetCosts
from benchmarks.nightly_planning import DOLLARS, PAGE_KEYS
from benchmarks.publication_rate import PublishingPool
from posebatch.core.fingerprints import DIGEST_BYTES
from posebatch.core.records import VideoRecord
from posebatch.core.settings import Settings
from posebatch.dataset.tables.records import RecordLog
from posebatch.run.context import RunContext
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.inputs import list_inputs, parse_inputs
from posebatch.run.progress import Progress
from posebatch.run.scheduler import Scheduler
from posebatch.run.stop_request import StopRequest
from posebatch.run.tally import Tally
from posebatch.run.tasks import ProbeTask, Task
from posebatch.storage.local import LocalStore
from posebatch.storage.open import READ_AHEAD_BYTES
from posebatch.storage.store import StoredObject

FPS: Final = 25
"""Frames per second of the made-up videos."""


LATENCY_S: Final = 0.03
"""Assumed time of one request to S3 within its region, seconds."""


PROBE_GETS: Final = 4
"""Assumed ranged reads of a probe: head and index of an MP4, and its first frames."""


FRAMES_PER_S: Final = 1000.0
"""Assumed speed of a GPU, frames per second; half of what docs/performance.md aims at, and not measured."""


MEGABITS_PER_S: Final = 4.0
"""Assumed bit rate of the videos."""


PAGE_S: Final = 0.1
"""Assumed time of one page of a listing, seconds. Each page needs the token of the one before."""


LEDGER_BYTES: Final = 3 * DIGEST_BYTES + 4
"""Of a record: three digests and the number of an outcome."""


LISTED_BYTES: Final = 200
"""Of a listed video, in the memory of a driver, as `jobs/benchmark.py plan` measures: (338 - 128) MB for 10^6."""


RUN_RECORDS: Final = 10_000
"""Records of which the table of a run folder is measured."""


DOLLARS_PER_GB_MONTH: Final = 0.023
"""S3 Standard in us-east-1, the first 50 TB, November 2026."""


class CountedStore(LocalStore):
    """A local store that counts what S3 would count as requests, by phase."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.requests: Counter[tuple[str, str]] = Counter()
        self.bytes_written = 0
        self.phase = ""

    def _count(self, kind: str) -> None:
        self.requests[self.phase, kind] += 1

    @override
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        self._count("list")
        return super().list(prefix)

    @override
    def read(self, key: str) -> bytes:
        self._count("get")
        return super().read(key)

    @override
    def fetch(self, key: str) -> tuple[bytes, str]:
        self._count("get")
        return super().read(key), super().head(key).etag

    @override
    def head(self, key: str) -> StoredObject:
        self._count("head")
        return super().head(key)

    @override
    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        self._count("put")
        stored = super().put(key, content)
        self.bytes_written += stored.size_bytes * (not key.startswith("_state/"))
        return stored

    @override
    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        self._count("put")
        stored = super().put_if(key, content, etag)
        self.bytes_written += stored.size_bytes
        return stored

    @override
    def delete(self, key: str, etag: str | None = None) -> None:
        self._count("delete")
        super().delete(key, etag)


class CountedContext(RunContext):
    """A context whose store counts."""

    @cached_property
    def counted_store(self) -> CountedStore:
        """The output."""
        return CountedStore(self.output)

    @override
    def store(self) -> CountedStore:
        return self.counted_store


class CountedPool(PublishingPool):
    """A `Pool` that notes in which step the requests are made."""

    @override
    def _perform(self, task: Task) -> object:
        store = self._context.store()
        assert isinstance(store, CountedStore)
        store.phase = type(task).__name__
        if isinstance(task, ProbeTask):
            self._context.staging(task.video).staged_keys()  # as a real probe does
        done = super()._perform(task)
        store.phase = ""
        return done


@dataclass(frozen=True)
class VideoRequests:
    """What one video asks of the store of the output, and its core seconds of publication."""

    seconds: float
    """Length of the video."""
    by_step: dict[str, dict[str, float]]
    """Requests for each video, by step and kind."""
    published_mb: float
    publish_s: float
    run_bytes: float
    """Bytes of a video in the table of its run's folder."""

    def of(self, *kinds: str, step: str = "") -> int:
        """Requests of these kinds, in one step or in all."""
        steps = [self.by_step.get(step, {})] if step else list(self.by_step.values())
        return round(sum(counts.get(kind, 0.0) for counts in steps for kind in kinds))


def count_requests(folder: str, settings: Settings, videos: int, seconds: int) -> VideoRequests:
    """Publish made-up videos with one person, and count. Call it in a child."""
    context = CountedContext("benchmark", settings, f"{folder}/output", "none", "none")
    found = list_inputs(parse_inputs([str(make_archive(Path(folder, "archive"), videos))]), settings.selection).videos
    records: list[VideoRecord] = []
    pool, progress = CountedPool(context, seconds * FPS), Progress(Tally(videos_total=videos), io.StringIO())
    with CommitIndex.load(context.store(), len(found)) as index:
        Scheduler(context, index, progress, StopRequest(), records.append, WITHOUT_CLIPS).run(found, lambda: pool)
    store = context.store()
    by_step: dict[str, dict[str, float]] = {}
    for (step, kind), number in store.requests.items():
        by_step.setdefault(step or "planning", {})[kind] = number / videos
    return VideoRequests(
        seconds,
        by_step,
        store.bytes_written / videos / 1e6,
        pool.publishing_cpu_s / videos,
        _run_bytes(records[0]),
    )


def _run_bytes(record: VideoRecord) -> float:
    """Bytes of a record in the table of a run with `RUN_RECORDS` of them."""
    log, table = RecordLog(), io.BytesIO()
    for number in range(RUN_RECORDS):
        log.add(replace(record, video=f"{record.video}-{number}", etag=hashlib.md5(b"%d" % number).hexdigest()))
    log.write(table)
    return len(table.getvalue()) / RUN_RECORDS


def source_gets(seconds: float) -> int:
    """Ranged reads of the bytes of a video."""
    return math.ceil(seconds * MEGABITS_PER_S * 1e6 / 8 / READ_AHEAD_BYTES)


def costs_of(requests: VideoRequests, seconds: float, driver_s: float) -> FleetCosts:
    """The costs of a video of some length, by the requests that were counted on another."""
    return FleetCosts(
        driver_s=driver_s,
        publish_s=requests.publish_s * seconds / requests.seconds,
        compute_s=seconds * FPS / FRAMES_PER_S,
        source_gets=source_gets(seconds),
        probe_gets=PROBE_GETS,
        probe_puts=requests.of("list", "put", "delete", step="ProbeTask"),
        publish_gets=requests.of("get", "head", step="FinalizeTask"),
        publish_puts=requests.of("put", "delete", "list", step="FinalizeTask"),
        latency_s=LATENCY_S,
    )


def fleets(requests: VideoRequests, driver_s: float, workers: int) -> list[Fleet]:
    """The scenarios: long videos and short clips; one run and shards; a store with few and with many partitions."""
    minute, clip = costs_of(requests, 60, driver_s), costs_of(requests, 5, driver_s)
    return [
        Fleet("60 s, 1 run, 1 partition", 1, workers, 1, minute),
        Fleet("60 s, 64 shards, 1 partition", 64, workers, 1, minute),
        Fleet("60 s, 1 run, 8 partitions", 1, workers, 8, minute),
        Fleet("60 s, 16 shards, 8 partitions", 16, workers, 8, minute),
        Fleet("60 s, 64 shards, 8 partitions", 64, workers, 8, minute),
        Fleet("5 s, 1 run, 8 partitions", 1, workers, 8, clip),
        Fleet("5 s, 64 shards, 8 partitions", 64, workers, 8, clip),
        Fleet("5 s, 64 shards, 8 partitions, 8 x in flight", 64, workers, 8, clip, in_flight=8),
        Fleet("5 s, 64 shards, 32 partitions, 8 x in flight", 64, workers, 32, clip, in_flight=8),
    ]


@dataclass(frozen=True)
class Limit:
    """One thing that breaks, and where."""

    what: str
    per_unit: str
    at_full_size: str
    breaks_at: str
    sharded: str


def limits(requests: VideoRequests, driver_s: float, workers: int, shards: int = 64) -> list[Limit]:
    """What 10^9 videos and 10^6 new ones a night cost one run, and one of ``shards`` runs."""
    archive, new, night_s = 10**9, 10**6, 8 * 3600.0
    each = archive / shards
    puts = requests.of("put", "delete", "list")
    gets = PROBE_GETS + source_gets(60)
    rate = workers * FRAMES_PER_S / (60 * FPS)
    return [
        Limit(
            "listing the whole archive",
            f"{PAGE_KEYS} keys a request, {PAGE_S:g} s each, one after another",
            f"{archive / PAGE_KEYS:,.0f} requests, {archive / PAGE_KEYS * PAGE_S / 3600:.0f} h",
            f"{night_s / PAGE_S * PAGE_KEYS:.2g} keys in 8 h",
            "the same in every shard; name the folder of the night",
        ),
        Limit(
            "listing one night's folder",
            "the same",
            f"{new / PAGE_KEYS:,.0f} requests, {new / PAGE_KEYS * PAGE_S:.0f} s",
            "not at this size",
            f"{shards * new / PAGE_KEYS:,.0f} requests, {new / PAGE_KEYS * PAGE_S:.0f} s at once",
        ),
        Limit(
            "memory of a driver",
            f"{LISTED_BYTES} bytes a listed video",
            f"{archive * LISTED_BYTES / 1e9:.0f} GB",
            f"{8e9 / LISTED_BYTES:.2g} videos in 8 GB",
            f"{each * LISTED_BYTES / 1e9:.1f} GB",
        ),
        Limit(
            "ledger",
            f"{LEDGER_BYTES} bytes a record",
            f"{archive * LEDGER_BYTES / 1e9:.0f} GB read and written a night",
            f"{8e9 / (3 * LEDGER_BYTES):.2g} records in 8 GB: at its end a run holds three copies",
            f"{each * LEDGER_BYTES / 1e9:.2f} GB",
        ),
        Limit(
            "one driver",
            f"{1e3 * driver_s:.2f} ms a task, three tasks a video",
            f"{new * 3 * driver_s / 60:.0f} minutes of it for {new:,} videos",
            f"{1 / (3 * driver_s):,.0f} videos a second; {workers:,} GPUs give {rate:,.0f} of 60 s",
            f"{shards / (3 * driver_s):,.0f} videos a second",
        ),
        Limit(
            "PUT rate of one prefix of the output",
            f"{puts} PUT, LIST and DELETE a video",
            f"{puts * rate:,.0f} a second",
            f"{LIMITS[PUT] / puts:,.0f} videos a second",
            "the same: partitions of the store matter, not shards",
        ),
        Limit(
            "GET rate of one prefix of the sources",
            f"{gets} GET a video of 60 s",
            f"{gets * rate:,.0f} a second",
            f"{LIMITS[GET] / gets:,.0f} videos a second",
            "the same",
        ),
        Limit(
            "one lease",
            "one holder",
            "one run at a time",
            "the second run",
            f"{shards} leases; renewing them: {shards * 4 / 15:.0f} requests a second",
        ),
        Limit(
            "one run folder",
            f"{requests.run_bytes:.0f} bytes a video in its table",
            f"{new * requests.run_bytes / 1e6:.0f} MB a night; the summary names 1,000 problems at most",
            "not at this size",
            f"{shards * 365:,} folders a year",
        ),
        Limit(
            "verify, and gc",
            f"one GET a record, 16 at once, {LATENCY_S:g} s each",
            f"{archive * LATENCY_S / 16 / 86400:.0f} days",
            f"{86400 * 16 / LATENCY_S:.2g} records a day",
            "the same: they see the whole output",
        ),
    ]


def night_costs(requests: VideoRequests, shards: int = 64) -> list[tuple[str, float, float]]:
    """The costs of a night with 10^6 new videos of 60 s: name, requests, dollars. Bytes within a region are free."""
    new = 10**6
    rows = [
        ("list the night's folder and its records, in each shard", "list", 2.0 * shards * new / PAGE_KEYS),
        ("read the sources", "get", float(new * (PROBE_GETS + source_gets(60)))),
        *(
            (f"output: {kind.upper()}", kind, float(new * requests.of(kind)))
            for kind in ("put", "list", "get", "head", "delete")
        ),
    ]
    return [(name, number, number * DOLLARS.get(kind, 0.0)) for name, kind, number in rows]
