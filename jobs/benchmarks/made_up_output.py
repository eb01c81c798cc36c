"""A large output in little time: the job's own code publishes a few videos, all others are copies of their bytes.

In each copy the name of the video is another one of the same length, also in its commit record, which states the
checksums of the copy. So ``posebatch compact`` takes every video.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq

from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.core.records import DecodeReport, SegmentReport
from posebatch.core.settings import settings_from
from posebatch.core.videos import Segment, SourceVideo, VideoInfo, VideoPlan
from posebatch.dataset.staging import StagingArea
from posebatch.dataset.tables.records import record_to_bytes
from posebatch.dataset.tables.staged import StagedWriter
from posebatch.run.context import RunContext
from posebatch.run.tasks import FinalizeTask
from posebatch.run.workers.finalize import finalize_video
from posebatch.storage.local import LocalStore

DAYS: Final = 100
"""Folders ``dt=...`` of the archive."""


FRAMES: Final = 60
"""Rows of each video in `frames`, `poses` and `motion`."""


TEMPLATES: Final = 8
"""Videos with movements of their own."""


_INFO: Final = VideoInfo(
    "h264", "yuv420p", 1920, 1080, 0, Fraction(1, 30), 0, 2.0, 30.0, FRAMES, coded_width=1920, coded_height=1080
)


@dataclass(frozen=True)
class _Template:
    name: str
    """The output path of the video."""
    files: dict[str, bytes]
    """The published tables by key."""
    record: bytes


def video_path(number: int, videos: int) -> str:
    """The output path of a video: days have equally many."""
    day = np.datetime64("2026-01-01") + number * DAYS // videos
    return f"dt={day}/clip-{number:09d}.mp4"


def video_uri(path: str) -> str:
    """The address of a video in the made-up archive."""
    return f"s3://archive/{path}"


def make_output(folder: Path, videos: int) -> int:
    """Write an output of so many videos into a new folder; returns its bytes."""
    folder.mkdir(parents=True)
    templates = [_template(folder.with_name(f"{folder.name}-template-{n}"), n) for n in range(TEMPLATES)]
    written = 0
    for number in range(videos):
        written += sum(
            _write(folder, key, content) for key, content in _copy(templates[number % TEMPLATES], number, videos)
        )
    return written


def _write(folder: Path, key: str, content: bytes) -> int:
    path = folder / key
    try:
        path.write_bytes(content)
    except FileNotFoundError:
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    return len(content)


def _copy(template: _Template, number: int, videos: int) -> Iterator[tuple[str, bytes]]:
    """Keys and bytes of a copy, the commit record last."""
    old, new = template.name.encode(), video_path(number, videos).encode()
    record = template.record.replace(old, new)
    for key, content in template.files.items():
        copied = content.replace(old, new)
        record = record.replace(_placeholder(key), hashlib.sha256(copied).hexdigest().encode())
        yield key.replace(template.name, new.decode()), copied
    yield f"videos/{new.decode()}.parquet", record


def _placeholder(key: str) -> bytes:
    """A text in the place of a checksum, of its length."""
    return hashlib.sha256(key.encode()).hexdigest().encode()


def _template(folder: Path, seed: int) -> _Template:
    """Publish one video as the job does."""
    name = video_path(0, 1)
    video = SourceVideo(video_uri(name), name, f"{seed:032x}", 1_000_000, 1.7e9)
    context = RunContext("benchmark", settings_from({}), str(folder), "detector@1", "pose@1")
    staging = StagingArea.of(LocalStore(folder), video, context.data_fingerprint)
    content = io.BytesIO()
    writer = StagedWriter(content)
    for frame in _movement(np.random.default_rng(seed)):
        writer.add(frame)
    writer.close(SegmentReport(DecodeReport(FRAMES, first_pts=0, last_pts=FRAMES - 1)))
    staging.stage(Segment(), content)
    record = finalize_video(FinalizeTask(video, VideoPlan(_INFO, (Segment(),)), 1, None), context).record
    files, objects = {}, []
    for published in record.objects:
        files[published.key] = _with_plain_names(folder / published.key)
        size_bytes, sha256 = len(files[published.key]), _placeholder(published.key).decode()
        objects.append(replace(published, size_bytes=size_bytes, sha256=sha256))
    record_bytes = record_to_bytes(replace(record, objects=tuple(objects)), compression="none")
    return _Template(name, files, record_bytes)


def _with_plain_names(path: Path) -> bytes:
    """A published table whose column ``video`` is not compressed, so that the name can be replaced."""
    table = pq.read_table(path, partitioning=None)
    compression = {name: "none" if name == "video" else "zstd" for name in table.schema.names}
    sink = io.BytesIO()
    pq.write_table(table, sink, compression=compression, version="2.6", write_page_index=True)
    return sink.getvalue()


def _movement(rng: np.random.Generator) -> Iterator[FramePoses]:
    """One person who moves a little."""
    base = rng.uniform((800, 300), (1100, 900), (17, 2))
    phase, size = rng.uniform(0, 6, (17, 1)), rng.uniform(5, 40, (17, 1))
    for index in range(FRAMES):
        points = base + size * np.sin(index / 8 + phase)
        keypoints = np.concatenate([points, np.full((17, 1), 0.9)], axis=1)[None].astype(np.float32)
        box = np.concatenate([points.min(axis=0) - 20, points.max(axis=0) + 20])[None].astype(np.float32)
        score = np.array([0.9], np.float32)
        yield FramePoses(FrameRecord(index, index, index == 0, "ok"), box, score, score, keypoints)
