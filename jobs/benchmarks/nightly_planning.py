"""Cost of planning a night over a large archive. Listings are generated on the fly, and no video is processed."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

from typing_extensions import override

from benchmarks.child_process import memory_mb, peak_memory_mb
from posebatch.core.records import VideoRecord
from posebatch.core.settings import Settings
from posebatch.core.videos import SourceVideo
from posebatch.dataset.layout import RECORDS
from posebatch.dataset.publication import CommittedRecord
from posebatch.dataset.tables.records import record_to_bytes
from posebatch.run.context import RunContext
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.decisions import Action
from posebatch.run.planning.inputs import Input, list_inputs
from posebatch.run.planning.planner import Planned, Planner, SkippedVideos
from posebatch.storage.local import LocalStore
from posebatch.storage.s3 import PART_BYTES
from posebatch.storage.store import Store, StoredObject

PAGE_KEYS: Final = 1000
"""Keys that S3 lists per request."""


DOLLARS: Final = {"list": 5e-6, "put": 5e-6, "get": 4e-7, "head": 4e-7}
"""Dollars per request: S3 Standard's list prices in us-east-1, November 2026. Transfer within a region is free."""


_BUCKET: Final = "archive"


_SOURCE, _RECORD = 0x9E3779B97F4A7C15F39CC0605CEDC835, 0xC2B2AE3D27D4EB4F165667B19E3779F9
"""Multipliers that spread the generated ETags of videos and of commit records."""


@dataclass(frozen=True)
class NightFigures:
    """The planning of one night on one core, from the listing of the inputs to the ledger."""

    name: str
    videos: int
    to_do: int
    """Videos that need work."""
    passed: int
    """Videos that need no work."""
    wall_s: float
    cpu_s: float
    listing_wall_s: float
    """Part of ``wall_s`` that generates the two listings, in place of a store."""
    listing_cpu_s: float
    """Part of ``cpu_s`` that generates the two listings."""
    input_pages: int
    """Requests that list the inputs."""
    requests: dict[str, int]
    """All other requests, by kind."""
    bytes_read: int
    """Bytes of objects read."""
    bytes_written: int
    imports_mb: float
    """Memory before the planning, MB."""
    peak_mb: float

    @property
    def beyond_wall_s(self) -> float:
        """Wall time without the listings."""
        return self.wall_s - self.listing_wall_s

    @property
    def beyond_cpu_s(self) -> float:
        """CPU time without the listings."""
        return self.cpu_s - self.listing_cpu_s

    @property
    def dollars(self) -> float:
        """Price of all requests, those that list the inputs included."""
        requests = sum(DOLLARS[kind] * number for kind, number in self.requests.items())
        return requests + DOLLARS["list"] * self.input_pages


class GeneratedArchive(LocalStore):
    """An archive whose listing is generated: it holds no files."""

    def __init__(self, videos: int) -> None:
        super().__init__("/")
        self.root, self.videos, self.pages = f"s3://{_BUCKET}", videos, 0

    @override
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        self.pages += math.ceil(self.videos / PAGE_KEYS)
        return (StoredObject(_key(n), _etag(n, _SOURCE), n % 10**9, 1.7e9 + n) for n in range(self.videos))


class GeneratedOutput(LocalStore):
    """An output that counts requests. Its commit records are generated; other objects are in a folder."""

    def __init__(self, folder: str, published: int, fingerprint: str) -> None:
        super().__init__(folder)
        self.published, self.requests = published, Counter[str]()
        self.bytes_read = self.bytes_written = 0
        # uncompressed, so that `fetch` can replace the ETag by another one of the same length
        self._record = record_to_bytes(record_of(_video(0), fingerprint), compression="none")

    @override
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        if prefix != RECORDS:
            self.requests["list"] += 1
            return super().list(prefix)
        self.requests["list"] += max(1, math.ceil(self.published / PAGE_KEYS))
        return self.list_records()

    def list_records(self) -> Iterator[StoredObject]:
        """The commit records, without counting requests."""
        for n in range(self.published):
            yield StoredObject(f"{RECORDS}{_BUCKET}/{_key(n)}.parquet", _etag(n, _RECORD), 13_000, 1.7e9)

    @override
    def fetch(self, key: str) -> tuple[bytes, str]:
        self.requests["get"] += 1
        n = _number(key)
        content = self._record.replace(_etag(0, _SOURCE).encode(), _etag(n, _SOURCE).encode())
        self.bytes_read += len(content)
        return content, _etag(n, _RECORD)

    @override
    def read(self, key: str) -> bytes:
        self.requests["get"] += 1
        content = super().read(key)
        self.bytes_read += len(content)
        return content

    @override
    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        stored = super().put(key, content)
        parts = math.ceil(stored.size_bytes / PART_BYTES) + 2 if stored.size_bytes > PART_BYTES else 1
        self.requests.update({"put": parts, "head": int(parts > 1)})
        self.bytes_written += stored.size_bytes
        return stored


def record_of(video: SourceVideo, fingerprint: str) -> VideoRecord:
    """The commit record of a video without problems."""
    return VideoRecord(
        video.uri, video.etag, video.size_bytes, video.last_modified, "ok", fingerprint, "benchmark", "0"
    )


def plan_night(
    name: str, folder: str, settings: Settings, videos: int, published: int, then_publish: bool = False
) -> NightFigures:
    """Plan a night over ``videos`` videos, of which ``published`` are published. Call it in a child process.

    ``folder`` keeps the ledger from one night to the next. With ``then_publish`` the ledger at the end holds all videos
    as published.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    context = RunContext("benchmark", settings, folder, "none", "none")
    archive, output = GeneratedArchive(videos), GeneratedOutput(folder, published, context.data_fingerprint)
    listing_wall_s, listing_cpu_s = _listings(GeneratedArchive(videos), output)
    before, wall, cpu = memory_mb(), time.perf_counter(), time.process_time()
    found = list_inputs([Input(archive.root, archive, "", None, False, f"{_BUCKET}/")], settings.selection).videos
    to_do = skipped = 0
    with CommitIndex.load(output, len(found)) as index:
        for item in _poll(Planner(found, index, context)):
            if isinstance(item, SkippedVideos):
                skipped += item.videos
                continue
            to_do += item.decision.action is Action.COMPUTE
            if then_publish:
                record = record_of(item.video, context.data_fingerprint)
                index.add(CommittedRecord(item.video.output_path, _record_etag(item.video), record))
    return NightFigures(
        name=name,
        videos=videos,
        to_do=to_do,
        passed=skipped,
        wall_s=time.perf_counter() - wall,
        cpu_s=time.process_time() - cpu,
        listing_wall_s=listing_wall_s,
        listing_cpu_s=listing_cpu_s,
        input_pages=archive.pages,
        requests=dict(output.requests),
        bytes_read=output.bytes_read,
        bytes_written=output.bytes_written,
        imports_mb=before,
        peak_mb=peak_memory_mb(),
    )


def _poll(planner: Planner) -> Iterator[Planned | SkippedVideos]:
    while not planner.exhausted:
        item = planner.poll(1.0)
        if item is not None:
            yield item


def _listings(archive: Store, output: GeneratedOutput) -> tuple[float, float]:
    """Wall and CPU seconds of both listings alone."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in archive.list():
        pass
    for _ in output.list_records():
        pass
    return time.perf_counter() - wall, time.process_time() - cpu


def _key(number: int) -> str:
    return f"cam{number // 10_000:04d}/2026-{number // 100 % 100:02d}/clip-{number:09d}.mp4"


def _etag(number: int, multiplier: int) -> str:
    return f"{(number + 1) * multiplier % 2**128:032x}"


def _video(number: int) -> SourceVideo:
    return SourceVideo(f"s3://{_BUCKET}/{_key(number)}", f"{_BUCKET}/{_key(number)}", _etag(number, _SOURCE), 1, 1.7e9)


def _record_etag(video: SourceVideo) -> str:
    return _etag(_number(video.output_path), _RECORD)


def _number(key: str) -> int:
    return int(key.rsplit("-", 1)[1].partition(".")[0])
