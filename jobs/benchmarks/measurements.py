"""The measurements of ``jobs/benchmark.py``. Each prints its figures and returns them as JSON."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.child_process import cores, in_child
from benchmarks.driver_throughput import WITHOUT_CLIPS, run_driver
from benchmarks.figures import EndToEnd, Peer, Scenario, StageTimes
from benchmarks.made_up_workers import schedule
from benchmarks.network_engines import measure_engines
from benchmarks.network_pairs import Networks, networks_named
from benchmarks.nightly_planning import plan_night
from benchmarks.other_programs import other_program
from benchmarks.other_programs_entry import PROGRAMS
from benchmarks.plain_loop import plain_loop
from benchmarks.publication_rate import publish_tiny_videos
from benchmarks.query_costs import measure_query_costs, query_text
from benchmarks.rendered_scenes import Scene, write_scene
from benchmarks.report import (
    as_json,
    driver_text,
    engines_text,
    night_text,
    pool_text,
    publication_text,
    scaling_text,
    scenario_text,
    scheduling_text,
    summary_text,
)
from benchmarks.scaling import Scaling, ray_overhead
from benchmarks.short_clips import ClipFigures, ClipRound, clips_text
from benchmarks.stage_costs import measure_stages
from benchmarks.startup import start_once, start_text
from benchmarks.whole_job import in_this_process, on_ray
from posebatch.core.errors import SettingsError, WeightsError
from posebatch.core.settings import Settings, settings_from
from posebatch.demo.sample import write_sample
from posebatch.models.networks.engines import resolve_device
from posebatch.models.weights.records import Kind
from posebatch.run.failure_policy import DEFAULT_LIMITS
from posebatch.video.probe import probe


class Archive:
    """Copies of one video: enough for ``wanted_frames``, and a multiple of ``workers``."""

    def __init__(
        self, name: str, video: Path, folder: Path, wanted_frames: int, video_frames: int, workers: int
    ) -> None:
        self.name, self.folder = name, folder
        folder.mkdir()
        copies = math.ceil(wanted_frames / video_frames)
        copies = math.ceil(copies / workers) * workers
        self.videos = [Path(shutil.copy(video, folder / f"{number:03d}{video.suffix}")) for number in range(copies)]


# --- speed ------------------------------------------------------------------------------------------------------------


def measure_speed(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Stages alone, the whole job, and other ways to do the same work."""
    scenarios, left_out = [], []
    workers = chosen.workers or [cores()]
    for archive in _archives(chosen, folder, max(workers)):
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
            alone = _stages_alone(source, outputs, settings, at_once, chosen.seconds)
            _say(f"the job on Ray, workers: {number}")
            measured = in_child(on_ray, source, next(outputs), _with_workers(settings, number))
            used = number if os.environ.get("RAY_ADDRESS") else min(number, all_cores)
            runs.append(EndToEnd(f"Ray, {number} workers x 1 thread", measured, alone, used))
    scene = (
        archive.name if chosen.detect_every == 1 else f"{archive.name}, detection every {chosen.detect_every} frames"
    )
    return Scenario(scene, networks.name, precision, all_cores, one_process, tuple(runs), peers)


def _stages_alone(source: str, outputs: Iterator[str], settings: Settings, at_once: int, seconds: float) -> StageTimes:
    """The stages of so many workers of one thread, at once."""
    _say(f"stages, 1 thread, {at_once} at once")
    with ThreadPoolExecutor(at_once) as callers:
        calls = [
            callers.submit(in_child, measure_stages, source, next(outputs), settings, 1, seconds)
            for _ in range(at_once)
        ]
        return StageTimes.mean([call.result() for call in calls])


def _peers(chosen: argparse.Namespace, archive: Archive, networks: Networks, folder: Path) -> tuple[Peer, ...]:
    device = resolve_device(chosen.device)
    _say(f"{archive.name}, {networks.name}: plain loop")
    peers = [in_child(plain_loop, archive.videos, networks, device, cores(), chosen.peer_frames)]
    if not chosen.no_ray and device == "cpu":
        from benchmarks.ray_data import ray_data  # noqa: PLC0415 - Ray may be missing

        _say("Ray Data")
        peers.append(in_child(ray_data, archive.videos, networks, Path(next(_outputs(folder)))))
    for program in PROGRAMS if chosen.others else ():
        _say(program)
        peer = other_program(chosen.others, program, archive.videos, cores(), chosen.peer_frames)
        if peer is None:
            _say(f"left out: {program} is not installed there")
        else:
            peers.append(peer)
    return tuple(peers)


# --- scaling, driver, networks ----------------------------------------------------------------------------------------


def measure_scaling(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Frames per second by the number of workers."""
    numbers = sorted(chosen.workers or {1, cores(), *(2**n for n in range(1, 10) if 2**n < cores())})
    scalings, outputs = [], _outputs(folder)
    for archive in _archives(chosen, folder, max(numbers)):
        for name, precision in product(chosen.networks, chosen.precision):
            settings = _settings(chosen, networks_named(name, folder), precision)
            runs = {}
            for number in numbers:
                _say(f"{archive.name}, {name}, {precision}, workers: {number}")
                runs[number] = in_child(on_ray, str(archive.folder), next(outputs), _with_workers(settings, number))
            scalings.append(Scaling(f"{archive.name}, {name}, {precision}", runs))
            print(scaling_text(scalings[-1]), flush=True)
    return {"scaling": as_json(scalings)}


def measure_driver(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Throughput and memory of the driver, and the cost of a segment in Ray."""
    settings, report = settings_from({"track": False}), {}
    _say("the driver")
    figures = in_child(run_driver, str(folder), settings, chosen.videos, chosen.segments, chosen.driver_workers)
    print(driver_text(figures), flush=True)
    report["driver"] = as_json(figures)
    if not chosen.no_ray:
        _say("Ray")
        pool = in_child(ray_overhead, settings, chosen.ray_segments)
        print(pool_text(pool))
        report["ray"] = as_json(pool)
    return report


def measure_clips(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Many short clips: scheduling them in memory and through Ray, and the whole job on real ones."""
    settings, report = settings_from({"track": False}), {}
    _say(f"the driver, {chosen.videos} clips, simulated networks")
    driver = in_child(run_driver, str(folder), settings, chosen.videos, 1, chosen.driver_workers, DEFAULT_LIMITS)
    print(driver_text(driver), flush=True)
    report["driver"] = as_json(driver)
    if chosen.no_ray:
        return report
    runs = []
    for in_groups in (False, True):
        _say(f"{chosen.ray_segments} clips through Ray, {'in groups' if in_groups else 'one by one'}")
        place = str(folder / f"ray-{in_groups}")
        runs.append(in_child(schedule, place, settings, cores(), chosen.ray_segments, 1, 0.0, in_groups))
        print(scheduling_text(runs[-1]), flush=True)
    report["ray"] = as_json(runs)
    report["clips"] = as_json([_real_clips(chosen, folder, archive) for archive in _archives(chosen, folder, cores())])
    return report


def measure_startup(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """From the command to the first frame: with no converted network on the node, then ``--rounds`` times with them."""
    video, report = chosen.video or str(folder / "sample.mp4"), {}
    if not chosen.video:
        _say("draw the sample video of the demo")
        write_sample(Path(video))
    for precision in chosen.precision:
        starts = []
        for number in range(1 + chosen.rounds):
            _say(f"start {number} of a run, precision {precision}")
            place = folder / f"start-{precision}-{number}"
            place.mkdir()
            arguments = ["--precision", precision, "--segment-seconds", "4"]
            starts.append(start_once(video, place, folder / f"cache-{precision}", arguments))
        for name, some in (("the first on this node", starts[:1]), ("others", starts[1:])):
            print(start_text(f"{precision}, {name}", some), flush=True)
        report[precision] = as_json(starts)
    return report


def _real_clips(chosen: argparse.Namespace, folder: Path, archive: Archive) -> ClipFigures:
    source, outputs, workers = str(archive.folder), _outputs(folder), cores()
    (name,), (precision,) = chosen.networks, chosen.precision
    settings = _with_workers(_settings(chosen, networks_named(name, folder), precision), workers)
    rounds = []
    for number in range(chosen.rounds):
        stages = _stages_alone(source, outputs, settings, workers, chosen.seconds)
        _say(f"round {number + 1}: the job on Ray, one by one and in groups")
        runs = [in_child(on_ray, source, next(outputs), settings, limits) for limits in (WITHOUT_CLIPS, DEFAULT_LIMITS)]
        rounds.append(ClipRound(stages, *runs))
    _say("the job in one process, one by one and in groups")
    alone, groups = (
        in_child(in_this_process, source, next(outputs), settings, 1, limits)[0]
        for limits in (WITHOUT_CLIPS, DEFAULT_LIMITS)
    )
    scene = f"{archive.name}, {name}, {precision}"
    frames = groups.frames // len(archive.videos)
    figures = ClipFigures(scene, workers, len(archive.videos), frames, rounds, alone, groups)
    print(clips_text(figures), flush=True)
    return figures


def measure_scheduling(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The share of their capacity that many made-up workers on Ray reach, by the time that a segment takes."""
    settings, runs = settings_from({"track": False}), []
    for workers, seconds in product(chosen.workers or [32], chosen.unit_seconds):
        segments = math.ceil(chosen.scheduling_seconds / seconds) * workers
        _say(f"{workers} workers, {seconds:g} s for a segment")
        place = str(folder / f"{workers}-{seconds}")
        runs.append(in_child(schedule, place, settings, workers, math.ceil(segments / 4), 4, seconds, False))
        print(scheduling_text(runs[-1]), flush=True)
    return {"scheduling": as_json(runs)}


def measure_planning(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Planning of several nights over a large archive."""
    settings, videos, figures = settings_from({"track": False}), chosen.videos, []
    nights: list[tuple[str, str, int, int, bool]] = [
        ("a first night", "output", videos, 0, True),
        ("a night with nothing new", "output", videos, videos, False),
        (f"a night with {chosen.new} new", "output", videos + chosen.new, videos, True),
        ("the night after it", "output", videos + chosen.new, videos + chosen.new, False),
        ("a night without its ledger", "lost", chosen.reread, chosen.reread, False),
    ]
    for name, output, number, published, then_publish in nights:
        _say(name)
        figures.append(in_child(plan_night, name, str(folder / output), settings, number, published, then_publish))
        print(night_text(figures[-1]), flush=True)
    return {"plan": as_json(figures)}


def measure_publication(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Publication rate of tiny videos."""
    figures = in_child(publish_tiny_videos, str(folder), settings_from({}), chosen.videos, chosen.video_frames)
    print(publication_text(figures))
    return {"publish": as_json(figures)}


def measure_queries(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Three questions to a large output, from small files and from compacted tables."""
    figures = measure_query_costs(folder, chosen.videos, chosen.small_on_s3 or chosen.videos)
    print(query_text(figures))
    return {"queries": as_json(figures)}


def measure_networks(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Each network alone on every engine."""
    device = resolve_device(chosen.device)
    sizes = chosen.batch or ([1, 2, 4, 8, 16] if device == "cpu" else [8, 16, 32, 64, 128])
    pairs = [networks_named(name, folder) for name in chosen.networks]
    wanted: list[tuple[Kind, str]] = [("detector", pair.detector) for pair in pairs]
    wanted += [("pose", pair.pose) for pair in pairs]
    figures = []
    for kind, name in dict.fromkeys(wanted):
        _say(name)
        figures.append(in_child(measure_engines, kind, name, device, sizes, cores(), chosen.seconds))
        print(f"\n{engines_text(figures[-1])}", flush=True)
    return {"networks": as_json(figures)}


def _archives(chosen: argparse.Namespace, folder: Path, workers: int) -> Iterator[Archive]:
    """The user's video, or a rendered scene for each combination of resolution, codec and persons."""
    if chosen.video:
        video = Path(chosen.video)
        yield Archive(video.name, video, folder / "own", chosen.frames, _frames_of(video), workers)
        return
    for number, look in enumerate(product(chosen.resolution, chosen.codec, chosen.persons)):
        scene = Scene(*look, frames=chosen.scene_frames)
        _say(f"rendering {scene.name}")
        rendered = folder / f"scene-{number}.mp4"
        write_scene(scene, rendered)
        archive = Archive(scene.name, rendered, folder / f"archive-{number}", chosen.frames, scene.frames, workers)
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
            "detect_every": chosen.detect_every,
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
    """New folders for results, without end."""
    while True:
        yield tempfile.mkdtemp(prefix="output-", dir=folder) + os.sep + "dataset"


def _say(message: str) -> None:
    print(f"... {message}", file=sys.stderr, flush=True)
