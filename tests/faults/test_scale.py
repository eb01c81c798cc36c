"""Nights over a large archive: what they ask of the store, and that a ledger changes none of their decisions.

With POSEBATCH_FAULTS=full over a million videos, with figures; else over 20,000. Requests are counted exactly, time is
only stated.
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
"""52 MB go up in four parts, between a beginning and an end."""
MEMORY_MB = 1000


def night(name: str, folder: Path, videos: int, published: int, goal: str = "") -> NightFigures:
    found = in_child(plan_night, name, str(folder), settings_from({}), videos, published, then_publish=True)
    assert (found.to_do, found.passed) == (videos - published, published)
    assert found.peak_mb < MEMORY_MB
    measured = (
        f"{found.beyond_wall_s:.0f} s beyond the listing ({found.beyond_cpu_s:.0f} of CPU), {found.peak_mb:.0f} MB, "
        f"{sum(found.requests.values()):,} requests beside it, {found.bytes_read / 1e6:.0f} MB read, "
        f"{found.bytes_written / 1e6:.0f} MB written, {found.dollars:.3f} dollars with it"
    )
    note_figure(f"{name}, {videos:,} videos", goal, measured)
    return found


def pages(records: int) -> int:
    return max(1, -(-records // 1000))


def test_nights_over_a_large_archive(tmp_path: Path):
    first = night("a first night", tmp_path, VIDEOS, 0)
    assert first.requests == {"list": 1 + 1, "get": 1, **LEDGER_PUTS}, "records, attempts; the ledger"
    quiet = night("a night with nothing new", tmp_path, VIDEOS, VIDEOS, "<= 60 s, <= 1 GB, <= 1,100 requests")
    assert quiet.requests == {"list": pages(VIDEOS), "get": 1}
    assert sum(quiet.requests.values()) <= 1100
    busy = night("a night with 500 new", tmp_path, VIDEOS + NEW, VIDEOS, "<= 60 s, <= 1 GB, bounded requests")
    assert busy.requests == {"list": pages(VIDEOS) + 1, "get": 1, **LEDGER_PUTS}
    after = night("the night after it", tmp_path, VIDEOS + NEW, VIDEOS + NEW)
    assert after.requests == {"list": pages(VIDEOS + NEW), "get": 1}, "what was new is in the ledger"
    assert [one.input_pages for one in (first, busy)] == [pages(VIDEOS), pages(VIDEOS + NEW)], "listed once"


@pytest.mark.parametrize("records", [FEW_VIDEOS + 1000])
def test_a_lost_ledger_is_rebuilt(tmp_path: Path, records: int):
    lost = night("a night without its ledger", tmp_path, records, records, "every record is read once")
    assert lost.requests == {"list": pages(records), "get": 1 + records, "put": 1, "head": 0}
    again = night("the night after it", tmp_path, records, records)
    assert again.requests == {"list": pages(records), "get": 1}
