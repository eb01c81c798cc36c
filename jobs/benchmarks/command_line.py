"""The command line of ``jobs/benchmark.py``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.child_process import cores
from benchmarks.measurements import (
    measure_clips,
    measure_driver,
    measure_networks,
    measure_planning,
    measure_publication,
    measure_queries,
    measure_scaling,
    measure_scheduling,
    measure_speed,
    measure_startup,
)
from benchmarks.network_pairs import NETWORKS
from benchmarks.other_programs_entry import PROGRAMS
from benchmarks.rendered_scenes import ENCODERS, RESOLUTIONS
from benchmarks.report import as_json, machine_text, this_machine
from benchmarks.scale_measurement import measure_scale
from posebatch.core.errors import UsageError
from posebatch.core.scripts import run_script

MEASURES: Final[dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]]] = {
    "speed": measure_speed,
    "startup": measure_startup,
    "scaling": measure_scaling,
    "driver": measure_driver,
    "clips": measure_clips,
    "scheduling": measure_scheduling,
    "plan": measure_planning,
    "publish": measure_publication,
    "queries": measure_queries,
    "networks": measure_networks,
    "scale": measure_scale,
}


def main(arguments: Sequence[str] | None = None, description: str | None = None) -> int:
    """Measure, print, and write the figures; returns the exit code."""
    chosen = build_parser(description).parse_args(arguments)
    return run_script("benchmark", lambda: _measure(chosen))


def _measure(chosen: argparse.Namespace) -> None:
    if chosen.picture and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--picture needs matplotlib: pip install 'posebatch[train]'")
    machine = this_machine(cores())
    print(machine_text(machine), flush=True)
    report: dict[str, Any] = {"machine": as_json(machine)}
    with _working_folder(chosen.folder) as folder:
        report |= MEASURES[chosen.what](chosen, folder)
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(report, indent=2), encoding="utf-8")


def build_parser(description: str | None = None) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="speed", choices=list(MEASURES))
    what = parser.add_argument_group("scenario (every combination of the lists is one)")
    what.add_argument("--video", metavar="FILE", help="your video instead of rendered ones")
    what.add_argument("--resolution", nargs="+", default=["1080p"], choices=list(RESOLUTIONS))
    what.add_argument("--codec", nargs="+", default=["h264"], choices=list(ENCODERS))
    what.add_argument(
        "--persons", nargs="+", type=int, default=[2], metavar="N", help="persons in every frame; default 2"
    )
    what.add_argument(
        "--networks",
        nargs="+",
        default=["embedded"],
        help=f"of {', '.join(NETWORKS)} (random weights), or DETECTOR,POSE as names or files; default embedded",
    )
    what.add_argument(
        "--precision", nargs="+", default=["auto"], help="as for posebatch run; an unavailable one is left out"
    )
    what.add_argument("--detect-every", type=int, default=1, metavar="N", help="as for posebatch run; default 1")
    how = parser.add_argument_group("method")
    how.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    how.add_argument("--engine", default="auto", choices=["auto", "torch", "openvino"])
    how.add_argument("--decoder", default="auto", choices=["auto", "cpu", "nvdec"])
    how.add_argument("--frames", type=int, default=1000, metavar="N", help="frames of the job, at least; default 1000")
    how.add_argument("--peer-frames", type=int, default=250, metavar="N", help="frames of the others; default 250")
    how.add_argument("--seconds", type=float, default=3.0, metavar="S", help="time for each stage alone; default 3")
    how.add_argument("--scene-frames", type=int, default=250, metavar="N", help="frames of a rendered video")
    how.add_argument("--segment-seconds", type=float, default=20.0, metavar="S", help="default 20, as the job's")
    how.add_argument(
        "--workers",
        nargs="+",
        type=int,
        metavar="N",
        help="on Ray; default: all cores (scaling: 1, 2, 4, ... all)",
    )
    how.add_argument("--no-ray", action="store_true", help="measure only in one process")
    how.add_argument("--no-peers", action="store_true", help="neither plain loop nor Ray Data")
    how.add_argument("--others", metavar="PYTHON", help=f"a Python with some of: {', '.join(PROGRAMS)}")
    how.add_argument("--folder", metavar="DIR", help="working folder; default: a temporary folder")
    how.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="clips, startup: times that all is measured; default 3"
    )
    driver = parser.add_argument_group("driver, clips, scheduling, plan, publish, queries, scale")
    driver.add_argument("--videos", type=int, default=100_000, metavar="N", help="default 100000")
    driver.add_argument(
        "--new", type=int, default=500, metavar="N", help="plan: new videos in the last night; default 500"
    )
    driver.add_argument(
        "--reread",
        type=int,
        default=10_000,
        metavar="N",
        help="plan: videos of an archive whose ledger is lost; default 10000",
    )
    driver.add_argument(
        "--small-on-s3",
        type=int,
        metavar="N",
        help="queries: read the small files of so many videos from S3, and multiply; default all",
    )
    driver.add_argument(
        "--video-frames", type=int, default=4, metavar="N", help="publish: frames of each video; default 4"
    )
    driver.add_argument("--segments", type=int, default=4, metavar="N", help="segments of a video; default 4")
    driver.add_argument("--driver-workers", type=int, default=100, metavar="N", help="stub workers; default 100")
    driver.add_argument(
        "--ray-segments", type=int, default=2000, metavar="N", help="segments or clips through Ray; default 2000"
    )
    driver.add_argument(
        "--unit-seconds",
        nargs="+",
        type=float,
        default=[5.0, 1.0, 0.25],
        metavar="S",
        help="scheduling: time that a made-up worker takes for a segment; default 5 1 0.25",
    )
    driver.add_argument(
        "--scheduling-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="scheduling: work of each worker; default 60",
    )
    driver.add_argument("--gpus", type=int, default=1000, metavar="N", help="scale: made-up workers; default 1000")
    driver.add_argument(
        "--task-ms", type=float, metavar="MS", help="scale: time of the driver for a task; default: measured here"
    )
    networks = parser.add_argument_group("networks")
    networks.add_argument(
        "--batch", nargs="+", type=int, metavar="N", help="batch sizes; default 1 2 4 8 16, on a GPU 8 16 32 64 128"
    )
    results = parser.add_argument_group("results")
    results.add_argument("--json", metavar="FILE", help="all figures")
    results.add_argument(
        "--picture", metavar="FILE", help="speed: PNG of the time of a frame by stage; scale: of the fleets"
    )
    return parser


@contextmanager
def _working_folder(named: str | None) -> Iterator[Path]:
    if named:
        Path(named).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="posebatch-benchmark-", dir=named) as folder:
        yield Path(folder)
