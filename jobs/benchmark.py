"""How fast the job is on this machine: each stage alone, all together, and against other ways to do the same work.

    python jobs/benchmark.py speed      what a frame costs in each stage, the job end to end, other programs (default)
    python jobs/benchmark.py scaling    frames a second by the number of workers
    python jobs/benchmark.py driver     what Ray costs a segment; what the driver can schedule, and its memory
    python jobs/benchmark.py plan       planning a night over a large archive: seconds, requests, dollars, memory
    python jobs/benchmark.py publish    how fast tiny videos are published, and if that slows down with their number
    python jobs/benchmark.py networks   each network alone in every way to run it, at several batch sizes

speed renders videos, measures every stage of the job alone (decode, detect, pose, publish), then the whole job in one
process and on Ray, then a plain loop (frame by frame, eager fp32, all cores for one frame) and a Ray Data pipeline with
the same weights on the same frames, and with --others PYTHON what that Python has installed of other programs, which
bring networks of their own. "Of the stages" is the job's rate as a fraction of what the stages alone predict:
on a CPU, cores / (the sum of the stages' core seconds for a frame); with a GPU, the slower of the networks and of what
the cores do. The job processes at least --frames frames; what comes before its first segment (starting Ray, loading
networks) is stated and not counted. Whatever is measured runs in a process of its own.

On a cluster, run it as a job: with RAY_ADDRESS set, the runs on Ray use that cluster; everything else runs here, and
--folder must name a place that every node sees. On a machine without Ray, give --no-ray.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.child_process import cores, in_child
from benchmarks.driver_throughput import the_driver
from benchmarks.figures import EndToEnd, Peer, Scenario, StageTimes
from benchmarks.network_engines import measure_ways
from benchmarks.network_pairs import NETWORKS, Networks, networks_named
from benchmarks.nightly_planning import plan_a_night
from benchmarks.other_programs import other_program
from benchmarks.other_programs_entry import PROGRAMS
from benchmarks.plain_loop import plain_loop
from benchmarks.publication_rate import publish_tiny_videos
from benchmarks.rendered_scenes import ENCODERS, RESOLUTIONS, Scene, write_scene
from benchmarks.report import (
    as_json,
    driver_text,
    machine_text,
    night_text,
    pool_text,
    publication_text,
    scaling_text,
    scenario_text,
    summary_text,
    this_machine,
    ways_text,
)
from benchmarks.scaling import Scaling, ray_overhead
from benchmarks.stage_costs import measure_stages
from benchmarks.whole_job import in_this_process, on_ray

from posebatch.cli.entry import run_script
from posebatch.core.errors import SettingsError, UsageError, WeightsError
from posebatch.core.settings import Settings, settings_from
from posebatch.models.networks.engines import resolve_device
from posebatch.models.weights.records import Kind
from posebatch.video.probe import probe


class Archive:
    """Copies of one video, as many as hold the frames that are wanted, and as every worker gets equally many of."""

    def __init__(self, name: str, video: Path, folder: Path, wanted_frames: int, video_frames: int, share: int) -> None:
        self.name, self.folder = name, folder
        folder.mkdir()
        copies = -(-wanted_frames // video_frames)
        copies = -(-copies // share) * share
        self.videos = [Path(shutil.copy(video, folder / f"{number:03d}{video.suffix}")) for number in range(copies)]


def main() -> int:
    """Measure, print, and write what was asked for."""
    chosen = _parser().parse_args()
    return run_script("benchmark", lambda: measure(chosen))


def measure(chosen: argparse.Namespace) -> None:
    """Measure, print, and write what was asked for."""
    try:
        if chosen.picture:
            import matplotlib  # noqa: PLC0415, F401 - better missed now than after the measurement
    except ImportError as error:
        raise UsageError("--picture needs matplotlib: pip install 'posebatch[train]'") from error
    machine = this_machine(cores())
    print(machine_text(machine), flush=True)
    report: dict[str, Any] = {"machine": as_json(machine)}
    with _working_folder(chosen.folder) as folder:
        report |= MEASURES[chosen.what](chosen, folder)
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(report, indent=2), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="speed", choices=list(MEASURES))
    what = parser.add_argument_group("what is measured (each list: every combination is a scenario)")
    what.add_argument("--video", metavar="FILE", help="a video of yours instead of rendered ones")
    what.add_argument("--resolution", nargs="+", default=["1080p"], choices=list(RESOLUTIONS))
    what.add_argument("--codec", nargs="+", default=["h264"], choices=list(ENCODERS))
    what.add_argument("--persons", nargs="+", type=int, default=[2], metavar="N", help="in every frame; default 2")
    what.add_argument(
        "--networks",
        nargs="+",
        default=["embedded"],
        help=f"of {', '.join(NETWORKS)} (random weights), or DETECTOR,POSE as names or files; default embedded",
    )
    what.add_argument(
        "--precision", nargs="+", default=["auto"], help="as for posebatch run; what cannot be had is left out"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    how.add_argument("--engine", default="auto", choices=["auto", "torch", "openvino"])
    how.add_argument("--decoder", default="auto", choices=["auto", "cpu", "nvdec"])
    how.add_argument("--frames", type=int, default=1000, metavar="N", help="at least, for the job; default 1000")
    how.add_argument("--peer-frames", type=int, default=250, metavar="N", help="for the plain loop; default 250")
    how.add_argument("--seconds", type=float, default=3.0, metavar="S", help="for each stage alone; default 3")
    how.add_argument("--scene-frames", type=int, default=250, metavar="N", help="of a rendered video, then copied")
    how.add_argument("--segment-seconds", type=float, default=20.0, metavar="S", help="default 20, as the job's")
    how.add_argument(
        "--workers", nargs="+", type=int, metavar="N", help="on Ray; default: all cores (scaling: 1, 2, 4, ... all)"
    )
    how.add_argument("--no-ray", action="store_true", help="only what runs in one process")
    how.add_argument("--no-peers", action="store_true", help="neither plain loop nor Ray Data")
    how.add_argument("--others", metavar="PYTHON", help=f"a Python with some of: {', '.join(PROGRAMS)}")
    how.add_argument("--folder", metavar="DIR", help="where to work; default: a temporary folder")
    driver = parser.add_argument_group("driver, plan, publish")
    driver.add_argument("--videos", type=int, default=100_000, metavar="N", help="default 100000")
    driver.add_argument(
        "--new", type=int, default=500, metavar="N", help="plan: of them in the last night; default 500"
    )
    driver.add_argument(
        "--reread",
        type=int,
        default=10_000,
        metavar="N",
        help="plan: videos of an archive whose ledger is lost; default 10000",
    )
    driver.add_argument(
        "--video-frames", type=int, default=4, metavar="N", help="publish: frames of each video; default 4"
    )
    driver.add_argument("--segments", type=int, default=4, metavar="N", help="of each video; default 4")
    driver.add_argument("--driver-workers", type=int, default=100, metavar="N", help="stubs; default 100")
    driver.add_argument("--ray-segments", type=int, default=2000, metavar="N", help="through Ray; default 2000")
    networks = parser.add_argument_group("networks")
    networks.add_argument(
        "--batch", nargs="+", type=int, metavar="N", help="sizes; default 1 2 4 8 16, on a GPU 8 16 32 64 128"
    )
    results = parser.add_argument_group("results")
    results.add_argument("--json", metavar="FILE", help="all figures")
    results.add_argument("--picture", metavar="FILE", help="PNG: where the time of a frame goes")
    return parser


@contextmanager
def _working_folder(named: str | None) -> Iterator[Path]:
    if named:
        Path(named).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="posebatch-benchmark-", dir=named) as folder:
        yield Path(folder)


# --- speed ------------------------------------------------------------------------------------------------------------


def _speed(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    scenarios, left_out = [], []
    workers = chosen.workers or [cores()]
    for archive in _archives(chosen, folder, share=max(workers)):
        for name in chosen.networks:
            networks = networks_named(name, folder)
            peers = () if chosen.no_peers else _peers(chosen, archive, networks, folder)
            for precision in chosen.precision:
                try:
                    scenario = _scenario(chosen, archive, networks, precision, workers, peers, folder)
                except (SettingsError, WeightsError) as error:
                    left_out.append(f"{archive.name}, {name}, {precision}: {error}")
                    print(f"left out: {left_out[-1]}", flush=True)
                    continue
                scenarios.append(scenario)
                print(f"\n{scenario_text(scenario)}", flush=True)
    print(f"\n{summary_text(scenarios)}")
    if chosen.picture and scenarios:
        from benchmarks.plots import write_plot  # noqa: PLC0415 - matplotlib is not needed otherwise

        write_plot(scenarios, Path(chosen.picture))
    return {"scenarios": as_json(scenarios), "left_out": left_out}


def _scenario(
    chosen: argparse.Namespace,
    archive: Archive,
    networks: Networks,
    precision: str,
    workers: Sequence[int],
    peers: tuple[Peer, ...],
    folder: Path,
) -> Scenario:
    settings = _settings(chosen, networks, precision)
    all_cores, outputs = cores(), _outputs(folder)
    source = str(archive.folder)
    _say(f"{archive.name}, {networks.name}, {precision}: stages, {all_cores} threads")
    stages = in_child(measure_stages, source, next(outputs), settings, all_cores, chosen.seconds)
    _say("the job in one process")
    measured, memory = in_child(in_this_process, source, next(outputs), settings, all_cores)
    one_process = EndToEnd(f"one process x {all_cores} threads", measured, stages, all_cores, memory)
    runs = []
    if not chosen.no_ray:
        for number in workers:
            at_once = min(number, all_cores)
            _say(f"stages, 1 thread, {at_once} at once")
            with ThreadPoolExecutor(at_once) as callers:
                calls = [
                    callers.submit(in_child, measure_stages, source, next(outputs), settings, 1, chosen.seconds)
                    for _ in range(at_once)
                ]
                alone = StageTimes.mean([call.result() for call in calls])
            _say(f"the job on Ray, workers: {number}")
            measured = in_child(on_ray, source, next(outputs), _with_workers(settings, number))
            used = number if os.environ.get("RAY_ADDRESS") else min(number, all_cores)
            runs.append(EndToEnd(f"Ray, {number} workers x 1 thread", measured, alone, used))
    return Scenario(archive.name, networks.name, precision, all_cores, one_process, tuple(runs), peers)


def _peers(chosen: argparse.Namespace, archive: Archive, networks: Networks, folder: Path) -> tuple[Peer, ...]:
    device = resolve_device(chosen.device)
    _say(f"{archive.name}, {networks.name}: plain loop")
    peers = [in_child(plain_loop, archive.videos, networks, device, cores(), chosen.peer_frames)]
    if not chosen.no_ray and device == "cpu":
        from benchmarks.ray_data import ray_data  # noqa: PLC0415 - where there is a Ray

        _say("Ray Data")
        peers.append(in_child(ray_data, archive.videos, networks, Path(next(_outputs(folder)))))
    for program in PROGRAMS if chosen.others else ():
        _say(program)
        found = other_program(chosen.others, program, archive.videos, cores(), chosen.peer_frames)
        if found is None:
            _say(f"left out: {program} is not installed there")
        else:
            peers.append(found)
    return tuple(peers)


# --- scaling, driver, networks ----------------------------------------------------------------------------------------


def _scaling(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    numbers = sorted(chosen.workers or {1, cores(), *(2**n for n in range(1, 10) if 2**n < cores())})
    found, outputs = [], _outputs(folder)
    for archive in _archives(chosen, folder, share=max(numbers)):
        for name, precision in product(chosen.networks, chosen.precision):
            settings = _settings(chosen, networks_named(name, folder), precision)
            runs = {}
            for number in numbers:
                _say(f"{archive.name}, {name}, {precision}, workers: {number}")
                runs[number] = in_child(on_ray, str(archive.folder), next(outputs), _with_workers(settings, number))
            found.append(Scaling(f"{archive.name}, {name}, {precision}", runs))
            print(scaling_text(found[-1]), flush=True)
    return {"scaling": as_json(found)}


def _driver(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    settings, report = settings_from({}), {}
    _say("the driver")
    stub = in_child(the_driver, str(folder), settings, chosen.videos, chosen.segments, chosen.driver_workers)
    print(driver_text(stub), flush=True)
    report["driver"] = as_json(stub)
    if not chosen.no_ray:
        _say("Ray")
        pool = in_child(ray_overhead, settings, chosen.ray_segments)
        print(pool_text(pool))
        report["ray"] = as_json(pool)
    return report


def _plan(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    settings, videos, found = settings_from({}), chosen.videos, []
    nights: list[tuple[str, str, int, int, bool]] = [
        ("a first night", "output", videos, 0, True),
        ("a night with nothing new", "output", videos, videos, False),
        (f"a night with {chosen.new} new", "output", videos + chosen.new, videos, True),
        ("the night after it", "output", videos + chosen.new, videos + chosen.new, False),
        ("a night without its ledger", "lost", chosen.reread, chosen.reread, False),
    ]
    for name, output, number, published, then_publish in nights:
        _say(name)
        found.append(in_child(plan_a_night, name, str(folder / output), settings, number, published, then_publish))
        print(night_text(found[-1]), flush=True)
    return {"plan": as_json(found)}


def _publish(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    figures = in_child(publish_tiny_videos, str(folder), settings_from({}), chosen.videos, chosen.video_frames)
    print(publication_text(figures))
    return {"publish": as_json(figures)}


def _networks(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    device = resolve_device(chosen.device)
    sizes = chosen.batch or ([1, 2, 4, 8, 16] if device == "cpu" else [8, 16, 32, 64, 128])
    pairs = [networks_named(name, folder) for name in chosen.networks]
    wanted: list[tuple[Kind, str]] = [("detector", pair.detector) for pair in pairs]
    wanted += [("pose", pair.pose) for pair in pairs]
    found = []
    for kind, name in dict.fromkeys(wanted):
        _say(name)
        found.append(in_child(measure_ways, kind, name, device, sizes, cores(), chosen.seconds))
        print(f"\n{ways_text(found[-1])}", flush=True)
    return {"networks": as_json(found)}


MEASURES = {
    "speed": _speed,
    "scaling": _scaling,
    "driver": _driver,
    "plan": _plan,
    "publish": _publish,
    "networks": _networks,
}

# --- what they share --------------------------------------------------------------------------------------------------


def _archives(chosen: argparse.Namespace, folder: Path, share: int) -> Iterator[Archive]:
    if chosen.video:
        video = Path(chosen.video)
        yield Archive(video.name, video, folder / "own", chosen.frames, _frames_of(video), share)
        return
    for number, look in enumerate(product(chosen.resolution, chosen.codec, chosen.persons)):
        scene = Scene(*look, frames=chosen.scene_frames)
        _say(f"rendering {scene.name}")
        rendered = folder / f"scene-{number}.mp4"
        write_scene(scene, rendered)
        archive = Archive(scene.name, rendered, folder / f"archive-{number}", chosen.frames, scene.frames, share)
        yield archive
        shutil.rmtree(archive.folder)


def _frames_of(video: Path) -> int:
    with video.open("rb") as file:
        info = probe(file, str(video), segment_seconds=20).info
    return info.frames_in_header or max(1, round(info.duration_s * info.avg_fps))


def _settings(chosen: argparse.Namespace, networks: Networks, precision: str) -> Settings:
    return settings_from(
        {
            "detector": networks.detector,
            "pose": networks.pose,
            "precision": precision,
            "device": chosen.device,
            "engine": chosen.engine,
            "decoder": chosen.decoder,
            "segment_seconds": chosen.segment_seconds,
        },
        "benchmark",
    )


def _with_workers(settings: Settings, workers: int) -> Settings:
    return replace(settings, execution=replace(settings.execution, workers=str(workers)))


def _outputs(folder: Path) -> Iterator[str]:
    """Ever new places for results."""
    while True:
        yield tempfile.mkdtemp(prefix="output-", dir=folder) + os.sep + "dataset"


def _say(what: str) -> None:
    print(f"... {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
