"""Planning runs over a large archive: the requests to the store are bounded, and a ledger changes no decision.

Over a million videos with POSEBATCH_FAULTS=full, otherwise over 20,000. Requests are counted exactly; times are only
reported.
"""

from pathlib import Path

import pytest
from benchmarks.child_process import in_child
from benchmarks.nightly_planning import NightFigures, plan_night
from faults.suite import FULL, note_figure

from posebatch.core.settings import settings_from
from posebatch.run.planning.commit_index import FEW_VIDEOS

VIDEOS = 1_000_000 if FULL else 20_000
NEW = 500
LEDGER_PUTS = {"put": 6, "head": 1} if FULL else {"put": 1, "head": 0}
"""The ledger of a million videos has 52 MB: four parts, between the start and the end of a multipart upload."""
MEMORY_MB = 1000


def night(name: str, folder: Path, videos: int, published: int, goal: str = "") -> NightFigures:
    figures = in_child(
        plan_night, name, str(folder), settings_from({"track": False}), videos, published, then_publish=True
    )
    assert (figures.to_do, figures.passed) == (videos - published, published)
    assert figures.peak_mb < MEMORY_MB
    measured = (
        f"{figures.beyond_wall_s:.0f} s beyond the listing ({figures.beyond_cpu_s:.0f} of CPU), "
        f"{figures.peak_mb:.0f} MB, "
        f"{sum(figures.requests.values()):,} requests beside it, {figures.bytes_read / 1e6:.0f} MB read, "
        f"{figures.bytes_written / 1e6:.0f} MB written, {figures.dollars:.3f} dollars with it"
    )
    note_figure(f"{name}, {videos:,} videos", goal, measured)
    return figures


def pages(records: int) -> int:
    return max(1, -(-records // 1000))


def test_planning_a_large_archive_needs_few_requests(tmp_path: Path):
    first = night("a first night", tmp_path, VIDEOS, 0)
    assert first.requests == {"list": 1 + 1, "get": 1, **LEDGER_PUTS}, "lists of records and attempts; the ledger"
    quiet = night("a night with nothing new", tmp_path, VIDEOS, VIDEOS, "<= 60 s, <= 1 GB, <= 1,100 requests")
    assert quiet.requests == {"list": pages(VIDEOS), "get": 1}
    assert sum(quiet.requests.values()) <= 1100
    busy = night("a night with 500 new", tmp_path, VIDEOS + NEW, VIDEOS, "<= 60 s, <= 1 GB, bounded requests")
    assert busy.requests == {"list": pages(VIDEOS) + 1, "get": 1, **LEDGER_PUTS}
    after = night("the night after it", tmp_path, VIDEOS + NEW, VIDEOS + NEW)
    assert after.requests == {"list": pages(VIDEOS + NEW), "get": 1}, "the new videos are in the ledger"
    assert [figures.input_pages for figures in (first, busy)] == [pages(VIDEOS), pages(VIDEOS + NEW)], (
        "the inputs are listed once"
    )


@pytest.mark.parametrize("records", [FEW_VIDEOS + 1000])
def test_lost_ledger_is_rebuilt_from_the_records(tmp_path: Path, records: int):
    lost = night("a night without its ledger", tmp_path, records, records, "every record is read once")
    assert lost.requests == {"list": pages(records), "get": 1 + records, "put": 1, "head": 0}
    again = night("the night after it", tmp_path, records, records)
    assert again.requests == {"list": pages(records), "get": 1}
