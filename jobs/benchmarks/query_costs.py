"""What questions to a large output cost: seconds, requests and bytes, from small files and from compacted tables."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from benchmarks.child_process import in_child, memory_mb, peak_memory_mb
from benchmarks.folder_s3 import output_address, serving, take_counts
from benchmarks.made_up_output import make_output, video_path, video_uri
from posebatch.core.text_table import text_table
from posebatch.dataset import sql
from posebatch.dataset.compaction.compaction import compact
from posebatch.storage.local import LocalStore

S3_DELAY_S: Final = 0.02
"""Time that the S3 server lets pass before each answer, seconds."""


@dataclass(frozen=True)
class Question:
    """A query, and what it asks."""

    name: str
    sql: str


@dataclass(frozen=True)
class QueryCost:
    """One question, answered once by a new process."""

    question: str
    store: str
    files: str
    """``small`` or ``compacted``."""
    videos: int
    """Videos of the output that was asked."""
    seconds: float
    requests: dict[str, int]
    """By kind; on the local store: system calls that read."""
    bytes_read: int
    rows: int
    """Rows of the answer."""
    peak_mb: float

    @property
    def total(self) -> int:
        """All requests."""
        return sum(self.requests.values())


@dataclass(frozen=True)
class QueryFigures:
    """All measurements."""

    videos: int
    output_bytes: int
    making_s: float
    compacting_s: float
    compacting_peak_mb: float
    compacting_imports_mb: float
    compacted_bytes: int
    compacted_files: int
    costs: list[QueryCost] = field(default_factory=list)


def questions(videos: int) -> list[Question]:
    """The three questions to an output of so many videos."""
    one = video_uri(video_path(videos // 2, videos))
    return [
        Question("left knee of one video", f"SELECT time_s, left_knee_deg FROM motion WHERE video = '{one}'"),
        Question(
            "count by day",
            "SELECT regexp_extract(video, 'dt=([^/]+)', 1) AS day, count(*) FROM frames GROUP BY day ORDER BY day",
        ),
        Question(
            "all of one week",
            "SELECT avg(left_knee_deg), count(*) FROM motion "
            "WHERE video >= 's3://archive/dt=2026-02-02/' AND video < 's3://archive/dt=2026-02-09/'",
        ),
    ]


def measure_query_costs(folder: Path, videos: int, small_on_s3: int) -> QueryFigures:
    """Make an output, compact it, and ask. ``small_on_s3``: videos of the output whose small files are read from S3."""
    output = folder / "out"
    begun = time.perf_counter()
    output_bytes = make_output(output, videos)
    making_s = time.perf_counter() - begun
    _say(f"{videos} videos made in {making_s:.0f} s, {output_bytes / 1e9:.2f} GB")
    seconds, peak_mb, imports_mb = in_child(compact_once, str(output))
    _say(f"compacted in {seconds:.0f} s, at most {peak_mb:.0f} MB of memory, of it {imports_mb:.0f} MB before")
    written = [path for path in (output / "compact").rglob("*.parquet") if "_delta_log" not in path.parts]
    figures = QueryFigures(
        videos,
        output_bytes,
        making_s,
        seconds,
        peak_mb,
        imports_mb,
        sum(path.stat().st_size for path in written),
        len(written),
    )
    for files in ("compacted", "small"):
        for question in questions(videos):
            _add(figures, in_child(ask, str(output), None, "local", question, files, videos))
    with serving(folder, S3_DELAY_S) as address:
        for question in questions(videos):
            _add(figures, in_child(ask, output_address("out"), address, "S3", question, "compacted", videos))
    small = folder / "small"
    if small_on_s3 != videos:
        make_output(small, small_on_s3)
    name = "out" if small_on_s3 == videos else "small"
    with serving(folder, S3_DELAY_S) as address:
        for question in questions(small_on_s3):
            _add(figures, in_child(ask, output_address(name), address, "S3", question, "small", small_on_s3))
    shutil.rmtree(small, ignore_errors=True)
    return figures


def _add(figures: QueryFigures, cost: QueryCost) -> None:
    figures.costs.append(cost)
    _say(f"{cost.store}, {cost.files}, {cost.question}: {cost.seconds:.2f} s, {cost.requests}, {cost.bytes_read} bytes")


def compact_once(output: str) -> tuple[float, float, float]:
    """Seconds, peak of memory and memory before, MB. Call it in a child."""
    before, begun = memory_mb(), time.perf_counter()
    compact(LocalStore(output))
    return time.perf_counter() - begun, peak_memory_mb(), before


def ask(output: str, endpoint: str | None, store: str, question: Question, files: str, videos: int) -> QueryCost:
    """Ask one question. Call it in a child."""
    if endpoint is not None:
        os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1"}
        os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
        take_counts(endpoint)
    import duckdb  # noqa: F401, PLC0415 - its time is not that of the question

    # small files alone: as if nothing had been compacted
    with patch.object(sql, "usable_snapshot", return_value=None) if files == "small" else nullcontext():
        before, begun = _reads(), time.perf_counter()
        rows = sql.connect(output, endpoint).sql(question.sql).fetchall()
        seconds = time.perf_counter() - begun
    if endpoint is None:
        calls, read = (after - earlier for after, earlier in zip(_reads(), before, strict=True))
        requests = {"read": calls}
    else:
        requests = take_counts(endpoint)
        read = requests.pop("bytes", 0)
    return QueryCost(question.name, store, files, videos, seconds, requests, read, len(rows), peak_memory_mb())


def _reads() -> tuple[int, int]:
    """System calls that read, and their bytes, of this process."""
    facts: dict[str, Any] = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(facts["syscr"]), int(facts["rchar"])


def query_text(figures: QueryFigures) -> str:
    """The figures as a table. Small files of fewer videos are multiplied, and marked."""
    lines = [
        f"== {figures.videos} videos, {figures.output_bytes / 1e9:.2f} GB in small files, "
        f"made in {figures.making_s:.0f} s",
        f"compacted in {figures.compacting_s:.0f} s to {figures.compacted_files} files, "
        f"{figures.compacted_bytes / 1e9:.2f} GB; memory: at most {figures.compacting_peak_mb:.0f} MB, of it "
        f"{figures.compacting_imports_mb:.0f} MB before",
    ]
    rows = [row for store in ("local", "S3") for row in _rows(figures, store)]
    head = ["store", "question", "small: s", "requests", "MB", "compacted: s", "requests", "MB", "faster", "fewer"]
    return "\n".join([*lines, text_table(head, rows)])


def _rows(figures: QueryFigures, store: str) -> Sequence[list[str]]:
    rows = []
    for question in questions(figures.videos):
        found = {cost.files: cost for cost in figures.costs if (cost.store, cost.question) == (store, question.name)}
        small, large = found["small"], found["compacted"]
        factor = figures.videos / small.videos
        mark = "" if factor == 1 else f" (x{factor:g})"
        rows.append(
            [
                store,
                question.name,
                f"{small.seconds * factor:.1f}{mark}",
                f"{small.total * factor:.0f}{mark}",
                f"{small.bytes_read * factor / 1e6:.0f}{mark}",
                f"{large.seconds:.2f}",
                str(large.total),
                f"{large.bytes_read / 1e6:.1f}",
                f"{small.seconds * factor / large.seconds:.0f}x",
                f"{small.total * factor / large.total:.0f}x",
            ]
        )
    return rows


def _say(text: str) -> None:
    print(text, flush=True)
