"""The measurement ``scale``: the requests of one video, the limits that follow, and simulated fleets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.archive_scale import (
    DOLLARS_PER_GB_MONTH,
    FRAMES_PER_S,
    LATENCY_S,
    MEGABITS_PER_S,
    Limit,
    VideoRequests,
    count_requests,
    fleets,
    limits,
    night_costs,
)
from benchmarks.child_process import in_child
from benchmarks.driver_throughput import run_driver
from benchmarks.fleet_simulation import GET, PUT, FleetFigures, simulate
from benchmarks.scaling import ray_overhead
from posebatch.core.settings import settings_from
from posebatch.core.text_table import text_table

COUNTED_VIDEOS: Final = 5
COUNTED_SECONDS: Final = 60
DRIVER_VIDEOS: Final = 3000

WARM_UP_S: Final = 30.0
"""Simulated seconds before those that count: the first tokens of the store are used up, and every queue has filled."""

SIMULATED_S: Final = 60.0


def measure_scale(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Count, measure the driver, and simulate."""
    settings = settings_from({})
    _say("requests of a video")
    requests = in_child(count_requests, str(folder / "counted"), settings, COUNTED_VIDEOS, COUNTED_SECONDS)
    print(requests_text(requests), flush=True)
    driver_s = 1e-3 * chosen.task_ms if chosen.task_ms else _driver_s(chosen, folder)
    print(f"\n== the driver: {1e3 * driver_s:.3f} ms a task", flush=True)
    rows = limits(requests, driver_s, chosen.gpus)
    print(f"\n{limits_text(rows)}\n\n{costs_text(requests)}", flush=True)
    figures = []
    for fleet in fleets(requests, driver_s, chosen.gpus):
        _say(fleet.name)
        figures.append(in_child(simulate, fleet, WARM_UP_S, SIMULATED_S))
    print(f"\n{fleets_text(figures)}")
    if chosen.picture:
        from benchmarks.scale_plot import write_scale_plot  # noqa: PLC0415 - matplotlib is not needed otherwise

        write_scale_plot(figures, Path(chosen.picture))
    return {
        "requests": asdict(requests),
        "driver_s": driver_s,
        "limits": [asdict(row) for row in rows],
        "fleets": [{**asdict(one), "publish_waits": []} for one in figures],
    }


def _driver_s(chosen: argparse.Namespace, folder: Path) -> float:
    """Seconds of the driver for a task: its own, and Ray's unless ``--no-ray``."""
    _say("the driver")
    plain = settings_from({"track": False})
    driver = in_child(run_driver, str(folder / "driver"), plain, DRIVER_VIDEOS, 1, chosen.gpus)
    own_s = driver.seconds / driver.videos / 3
    if chosen.no_ray:
        return own_s
    _say("Ray")
    return own_s + 1 / in_child(ray_overhead, plain, chosen.ray_segments).segments_per_s


def requests_text(requests: VideoRequests) -> str:
    """The requests of one video by step, and what is published of it."""
    kinds = ("put", "list", "get", "head", "delete")
    rows = [
        [step, *(f"{counts.get(kind, 0.0):g}" for kind in kinds)] for step, counts in sorted(requests.by_step.items())
    ]
    return "\n".join(
        [
            f"== requests of one video of one segment to the store of the output ({requests.seconds:g} s, one person)",
            text_table(["step", *(kind.upper() for kind in kinds)], rows),
            f"published: {requests.published_mb:.2f} MB, {1e3 * requests.publish_s:.0f} ms of a core; "
            f"${requests.published_mb / 1e3 * DOLLARS_PER_GB_MONTH * 1e6:.0f} a month for 10^6 videos",
        ]
    )


def limits_text(rows: Sequence[Limit]) -> str:
    """The limits as a table."""
    cells = [[row.what, row.per_unit, row.at_full_size, row.breaks_at, row.sharded] for row in rows]
    headings = ["limit", "measure", "10^9 videos, 10^6 new", "breaks at", "64 shards"]
    return "== limits\n" + text_table(headings, cells, "<<<<<")


def costs_text(requests: VideoRequests) -> str:
    """The requests of a night and their price."""
    rows = [[name, f"{number:,.0f}", f"{dollars:,.2f}"] for name, number, dollars in night_costs(requests)]
    total = sum(dollars for _, _, dollars in night_costs(requests))
    rows.append(["together", "", f"{total:,.2f}"])
    return "== a night of 10^6 new videos of 60 s, 64 shards\n" + text_table(["requests", "number", "dollars"], rows)


def fleets_text(figures: Sequence[FleetFigures]) -> str:
    """The simulated fleets."""
    first = figures[0].fleet
    rows = [
        [
            one.fleet.name,
            f"{one.rate:.0f}",
            f"{one.ideal:.0f}",
            f"{100 * one.busy:.0f} %",
            f"{100 * one.driver_busy:.0f} %",
            f"{one.requests[PUT] / one.seconds:.0f}",
            f"{one.requests[GET] / one.seconds:.0f}",
            f"{100 * one.slowed_share:.1f} %",
            f"{one.given_up}",
            f"{one.publish_wait(0.5):.1f}",
            f"{one.publish_wait(0.99):.1f}",
        ]
        for one in figures
    ]
    headings = ["fleet", "videos/s", "ideal", "GPUs busy", "driver busy", "PUT/s", "GET/s", "slow down", "given up"]
    return "\n".join(
        [
            f"== {first.workers} made-up workers, {SIMULATED_S:g} s of a night, simulated; assumed: "
            f"{FRAMES_PER_S:g} frames/s a GPU, {MEGABITS_PER_S:g} Mbit/s, {1e3 * LATENCY_S:g} ms a request",
            text_table([*headings, "published after, median s", "99 %"], rows),
        ]
    )


def _say(message: str) -> None:
    print(f"... {message}", file=sys.stderr, flush=True)
