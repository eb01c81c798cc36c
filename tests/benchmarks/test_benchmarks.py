"""The benchmarks measure what they state. No test depends on the speed of this machine."""

from __future__ import annotations

import functools
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import measurements
from benchmarks.child_process import cores, in_child, memory_mb, peak_memory_mb
from benchmarks.command_line import main
from benchmarks.driver_throughput import run_driver
from benchmarks.figures import EndToEnd, Measured, NetworkSpeed, Peer, Scenario, StageTimes
from benchmarks.made_up_workers import SchedulingFigures, schedule
from benchmarks.memory_traffic import layer_mb
from benchmarks.network_engines import ENGINES, EngineSpeed, NetworkFigures, measure_engines
from benchmarks.network_pairs import Networks, networks_named, write_random_pose_network
from benchmarks.other_programs import other_program
from benchmarks.other_programs_entry import PROGRAMS
from benchmarks.plain_loop import PlainNetworks
from benchmarks.plots import core_ms
from benchmarks.rendered_scenes import RESOLUTIONS, Scene, render_scene, write_scene
from benchmarks.report import as_json, engines_text, scenario_text, scheduling_text, summary_text
from benchmarks.scaling import Scaling
from benchmarks.short_clips import ClipFigures, ClipRound, clips_text

from posebatch.core.errors import RunAbortedError, SettingsError
from posebatch.core.frames import FrameRecord
from posebatch.core.images import FrameBatch
from posebatch.core.presets import PRESETS
from posebatch.core.settings import EstimatorSettings, settings_from
from posebatch.models.networks.pose_network import load_pose_network
from posebatch.pose.estimator import PoseEstimator
from posebatch.video.probe import probe

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = Networks("embedded", *PRESETS["embedded"])

SPEED = NetworkSpeed(gflops=2.0, images_per_s=25.0, gemm_gflops_per_s=200.0)
STAGES = StageTimes(
    device="cpu",
    precision="fp32",
    engine="torch",
    threads=1,
    persons_per_frame=2.0,
    decode_only=0.004,
    decode=0.005,
    detect=0.010,
    pose=0.024,
    publish=0.001,
    gemm_type="float32",
    detector=SPEED,
    pose_network=SPEED,
)
ONE_PROCESS = EndToEnd("one process", Measured(900, 1800, 20.0, 3.0), replace(STAGES, threads=2, detect=0.005), 2)
ON_RAY = EndToEnd("Ray", Measured(1000, 2000, 25.0, 12.0), STAGES, 2)
PLAIN = Peer("plain loop", Measured(80, 160, 10.0), {"decode": 0.025, "detect": 0.04, "pose": 0.06})
RAY_DATA = Peer("Ray Data", Measured(100, 200, 5.0))
SCENARIO = Scenario("1080p", "embedded", "auto", 2, ONE_PROCESS, (ON_RAY,), (PLAIN, RAY_DATA))


@pytest.fixture(autouse=True)
def threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # several threads beside other processes are far slower
    yield
    torch.set_num_threads(before)


# --- figures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "num_cores", "rate"),
    [
        ({}, 1, 25.0),  # 40 ms a frame
        ({}, 2, 50.0),
        ({"threads": 2}, 2, 25.0),  # the stages had both cores
        ({"threads": 2}, 4, 50.0),
        ({"device": "cuda"}, 2, 1 / 0.034),  # the networks share one GPU
        ({"device": "cuda", "decode": 0.099}, 2, 20.0),  # decoding and publishing share the cores
    ],
)
def test_stage_times_predict_the_rate(changed, num_cores, rate):
    assert replace(STAGES, **changed).predicted_rate(num_cores) == pytest.approx(rate)


def test_figures_give_rates_and_ratios():
    assert Measured(100, 250, 4.0).rate == 25
    assert Measured(100, 250, 4.0).persons_per_frame == 2.5
    assert SPEED.gflops_per_s == 50
    assert SPEED.share_of_gemm == 0.25
    assert ON_RAY.efficiency == pytest.approx(40 / 50)
    assert ONE_PROCESS.efficiency == pytest.approx(45 * 0.035)
    assert SCENARIO.job is ON_RAY
    assert replace(SCENARIO, on_ray=()).job is ONE_PROCESS
    assert SCENARIO.ratios == pytest.approx({
        "job / plain loop": 5.0, "job / Ray Data": 2.0, "actors / one process": 40 / 45
    })  # fmt: skip
    assert replace(SCENARIO, on_ray=(), peers=()).ratios == {}
    scaling = Scaling("", {1: Measured(10, 0, 10.0), 2: Measured(19, 0, 10.0)})
    assert scaling.speedup(2) == pytest.approx(1.9)


def test_core_ms_adds_up_to_the_time_of_a_frame():
    bars = core_ms(SCENARIO)
    assert bars["Ray"] == pytest.approx({
        "decode": 5.0, "detect": 10.0, "pose": 24.0, "publish": 1.0, "beyond the stages": 10.0
    })  # fmt: skip
    assert sum(bars["plain loop"].values()) == pytest.approx(2 * 125)
    assert bars["Ray Data"] == pytest.approx({"all stages": 100.0})


def test_report_tables():
    assert summary_text([]) == "nothing was measured"
    text = summary_text([SCENARIO, replace(SCENARIO, on_ray=(), peers=())])
    assert "job / Ray Data" in text
    assert "0.80" in text
    for fact in ("25% of a float32 GEMM", "2.00 persons", "job / plain loop 5.00", "12.0"):
        assert fact in scenario_text(SCENARIO)


def test_as_json_includes_properties():
    document = json.loads(json.dumps(as_json({"scenarios": [SCENARIO]})))
    (scenario,) = document["scenarios"]
    assert scenario["ratios"]["job / plain loop"] == 5.0
    assert scenario["on_ray"][0]["efficiency"] == pytest.approx(0.8)
    assert scenario["on_ray"][0]["measured"]["rate"] == 40
    assert scenario["one_process"]["stages"]["pose_network"]["share_of_gemm"] == 0.25
    assert as_json([]) == []


# --- child processes ------------------------------------------------------------------------------------------------


def test_in_child_imports_only_what_it_measures():
    assert in_child(memory_mb) < 100  # torch alone takes more
    assert 0 < in_child(peak_memory_mb) < 100
    assert in_child(cores) == cores()


def test_in_child_raises_the_childs_error():
    with pytest.raises(SettingsError, match="no_such"):
        in_child(settings_from, {"no_such": 1})
    with pytest.raises(RunAbortedError, match=r"_exit died \(exit status 3\)"):
        in_child(os._exit, 3)


# --- scenes and networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_write_scene_encodes_as_asked(codec: str, tmp_path: Path):
    write_scene(Scene("270p", codec, persons=1, frames=3), tmp_path / "scene.mp4")
    with (tmp_path / "scene.mp4").open("rb") as file:
        info = probe(file, "scene", 20).info
    assert (info.codec, info.width, info.height, info.frames_in_header) == (codec, 480, 270, 3)


def frames_of(scene: Scene) -> FrameBatch:
    images = np.stack(list(render_scene(scene)))
    return FrameBatch(tuple(FrameRecord(i, i, False, "ok") for i in range(len(images))), images)


@functools.cache
def estimator() -> PoseEstimator:
    return PoseEstimator.load(EstimatorSettings(precision="fp32"), "cpu", "torch")


@pytest.mark.parametrize("persons", [0, 2, 8])
def test_render_scene_walkers_are_detected(persons: int):
    batch = frames_of(Scene("540p", "h264", persons, frames=4))
    assert batch.images.shape[1:3] == RESOLUTIONS["540p"][::-1]
    persons_found = [len(frame) for frame in estimator().estimate([batch])]
    assert np.mean(persons_found) == pytest.approx(persons, abs=0.2 * persons)


def test_plain_networks_find_the_same_poses():
    (frame,) = frames_of(Scene("540p", "h264", persons=2, frames=1)).images
    (ours,) = estimator().estimate([
        FrameBatch((FrameRecord(0, 0, True, "ok"),), frame[None])
    ])  # fmt: skip
    plain = PlainNetworks(EMBEDDED, "cpu")
    (boxes,) = plain.boxes([frame])
    assert len(boxes) == len(ours) == 2
    regions = plain.regions(boxes)
    poses = plain.keypoints([plain.crop(frame, region) for region in regions], regions)
    left_first = [poses[np.argsort(poses[:, 0, 0])], ours.keypoints[np.argsort(ours.keypoints[:, 0, 0])]]
    distances = np.linalg.norm(left_first[0][..., :2] - left_first[1][..., :2], axis=-1)
    assert np.median(distances) < 3  # of a person 400 pixels tall; the detectors resize differently


def test_networks_named_resolves_names_and_files(tmp_path: Path):
    assert networks_named("embedded", tmp_path) == EMBEDDED
    assert networks_named("one.safetensors,two", tmp_path) == Networks("one two", "one.safetensors", "two")
    with pytest.raises(SettingsError, match="embedded"):
        networks_named("nothing", tmp_path)


def test_write_random_pose_network_is_deterministic(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_random_pose_network(tmp_path / name / "random.safetensors", "mobilenet_v2_d128")
    first, second = ((tmp_path / name / "random.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second
    assert load_pose_network(str(tmp_path / "a" / "random.safetensors")).record.accuracy == {}


@pytest.fixture
def no_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes minutes and tests torch, not the benchmark."""
    monkeypatch.setattr(torch, "compile", lambda network: network)


def test_layer_mb_counts_inputs_and_outputs():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 1), torch.nn.BatchNorm2d(5), torch.nn.ReLU())
    assert layer_mb(network, (20, 10)) == pytest.approx(200 * (3 + 5) * 4 / 1e6)
    assert layer_mb(torch.nn.Sequential(), (20, 10)) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("no_compilation")
def test_measure_engines_measures_every_engine():
    figures = measure_engines("detector", EMBEDDED.detector, "cpu", [1, 2], threads=1, seconds=0)
    rates = {engine.name: engine.images_per_s for engine in figures.engines}
    assert rates.keys() >= {"torch fp32, as loaded", "torch bf16, folded, channels last", "OpenVINO int8"}
    assert rates["OpenVINO fp32"].keys() == {1, 2}
    assert all(rate > 0 for by_size in rates.values() for rate in by_size.values())
    assert figures.layer_mb > 0 < figures.memory_gb_per_s
    assert figures.gemm_gflops_per_s.keys() == {"fp32", "bf16"}


@pytest.mark.slow
@pytest.mark.usefixtures("no_compilation")
def test_measure_engines_leaves_out_unavailable_engines(tmp_path: Path):
    write_random_pose_network(tmp_path / "random.safetensors", "mobilenet_v2_d128")  # no 8-bit version of it
    figures = measure_engines("pose", str(tmp_path / "random.safetensors"), "cpu", [1], threads=1, seconds=0)
    assert "OpenVINO int8" not in {engine.name for engine in figures.engines}
    assert any(reason.startswith("OpenVINO int8: ") and "quantize" in reason for reason in figures.left_out)
    with pytest.raises(SettingsError, match="SSDLite"):
        measure_engines("detector", "fasterrcnn_resnet50_fpn_v2", "cpu", [1], threads=1, seconds=0)


def test_engines_text_has_a_row_per_engine():
    engines = (EngineSpeed("plain", {4: 10.0}), EngineSpeed("fast", {1: 20.0, 4: 25.0}))
    text = engines_text(
        NetworkFigures("net", 2.0, 30.0, 1, 9.0, {"fp32": 100.0}, engines, ("other: not here",))
    ).splitlines()
    assert [line.split() for line in text[1:]] == [
        ["images/s", "at", "batch", "1", "4", "best:", "GFLOP/s"],
        ["plain", "10.0", "20"],
        ["fast", "20.0", "25.0", "50"],
        ["left", "out:", "other:", "not", "here"],
    ]
    assert engines_text(NetworkFigures("net", 2.0, 30.0, 1, 9.0, {}, (), ())).startswith("== net")


# --- other programs -----------------------------------------------------------------------------------------------


def fake_python(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.slow
def test_other_program_measures_keypoint_rcnn(tmp_path: Path):
    write_scene(Scene("270p", "h264", persons=1, frames=3), tmp_path / "scene.mp4")
    peer = other_program(sys.executable, "Keypoint R-CNN", [tmp_path / "scene.mp4"], threads=1, limit=1)
    assert peer is not None
    assert (peer.name, peer.measured.frames, peer.measured.persons) == ("Keypoint R-CNN", 1, 2)
    assert peer.measured.start_s > 0


def test_other_program_reports_missing_and_failed_programs(tmp_path: Path):
    assert other_program(fake_python(tmp_path / "a", "exit 3"), next(iter(PROGRAMS)), [], 1, 1) is None
    with pytest.raises(RunAbortedError, match="failed: out of order"):
        other_program(fake_python(tmp_path / "b", "echo out of order >&2; exit 1"), next(iter(PROGRAMS)), [], 1, 1)
    with pytest.raises(RunAbortedError, match="cannot be run"):
        other_program(str(tmp_path / "none"), next(iter(PROGRAMS)), [], 1, 1)


# --- the driver ---------------------------------------------------------------------------------------------------


def test_run_driver_publishes_each_video_once(tmp_path: Path):
    figures = run_driver(str(tmp_path), settings_from({"track": False}), videos=12, segments_per_video=3, workers=2)
    assert figures.segments == 36
    assert len(list((tmp_path / "output" / "videos").rglob("*.parquet"))) == 12
    assert figures.published_again == 0
    assert figures.peak_mb >= figures.peak_at_tenth_mb > 0
    assert as_json(figures)["segments_per_s"] > 0


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements run in this process and on one thread."""
    monkeypatch.setattr(measurements, "in_child", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(measurements, "cores", lambda: 1)
    monkeypatch.setattr("benchmarks.command_line.cores", lambda: 1)


def run(*words: object) -> int:
    return main([*map(str, words)])


TINY = ("--no-ray", "--engine", "torch", "--scene-frames", 6, "--frames", 10, "--peer-frames", 3, "--seconds", 0)


@pytest.mark.slow
def test_benchmark_speed_measures_stages_job_and_plain_loop(in_process, tmp_path, capsys):
    results = ("--json", tmp_path / "a.json", "--picture", tmp_path / "a.png", "--folder", tmp_path / "work")
    scenes = ("--resolution", "270p", "--persons", 1, "--precision", "fp32", "int9")
    assert run(*TINY, *scenes, *results) == 0
    document = json.loads((tmp_path / "a.json").read_text())
    (scenario,) = document["scenarios"]
    job, (plain,) = scenario["one_process"], scenario["peers"]
    assert (document["machine"]["cores"], scenario["scene"]) == (1, "270p h264 1 persons")
    assert (job["measured"]["frames"], plain["measured"]["frames"]) == (12, 3)
    assert job["measured"]["persons_per_frame"] == pytest.approx(1, abs=0.3)
    assert plain["measured"]["persons_per_frame"] == pytest.approx(1, abs=0.3)
    assert job["memory"]["peak"] > job["memory"]["weights"] > 5
    assert all(seconds > 0 for seconds in job["stages"]["stages"].values())
    assert job["efficiency"] > 0
    assert scenario["ratios"]["job / plain loop"] > 0
    assert len(document["left_out"]) == 1
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "left out: 270p h264 1 persons, embedded, int9" in capsys.readouterr().out
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.slow
def test_benchmark_speed_takes_a_users_video(in_process, tmp_path):
    write_scene(Scene("270p", "h264", persons=1, frames=5), tmp_path / "mine.mp4")
    words = ("--no-peers", "--video", tmp_path / "mine.mp4", "--detect-every", 2, "--json", tmp_path / "a.json")
    assert run(*TINY, *words) == 0
    (scenario,) = json.loads((tmp_path / "a.json").read_text())["scenarios"]
    assert scenario["scene"] == "mine.mp4, detection every 2 frames"
    assert scenario["one_process"]["measured"]["frames"] == 10
    assert scenario["peers"] == []


def test_benchmark_reports_errors(in_process, tmp_path, capsys):
    (tmp_path / "no.mp4").write_text("not a video")
    assert run("--video", tmp_path / "no.mp4") == 1
    assert "no.mp4" in capsys.readouterr().err
    assert run("--no-ray", "--networks", "nothing", *TINY, "--resolution", "270p") == 2
    assert "'nothing'" in capsys.readouterr().err


def test_benchmark_driver_prints_figures(in_process, tmp_path, capsys):
    words = ("driver", "--no-ray", "--videos", 5, "--segments", 2, "--driver-workers", 2, "--json", tmp_path / "a.json")
    assert run(*words) == 0
    assert json.loads((tmp_path / "a.json").read_text())["driver"]["segments"] == 10
    assert "5 videos planned" in capsys.readouterr().out


def test_benchmark_clips_publishes_each_clip_once(in_process, tmp_path, capsys):
    words = ("clips", "--no-ray", "--videos", 20, "--driver-workers", 2, "--json", tmp_path / "a.json")
    assert run(*words) == 0
    driver = json.loads((tmp_path / "a.json").read_text())["driver"]
    assert (driver["segments"], driver["published_again"]) == (20, 0)
    assert "20 videos planned" in capsys.readouterr().out


def test_clip_figures_compare_the_job_with_its_stages():
    slow, fast = replace(ON_RAY.measured, seconds=2 * ON_RAY.measured.seconds), ON_RAY.measured
    rounds = [ClipRound(STAGES, slow, fast), ClipRound(STAGES, slow, slow), ClipRound(STAGES, slow, fast)]
    figures = ClipFigures("540p", 2, 8, 50, rounds, slow, fast)
    assert figures.in_groups == pytest.approx([ON_RAY.efficiency, ON_RAY.efficiency / 2, ON_RAY.efficiency])
    assert figures.efficiency == pytest.approx(ON_RAY.efficiency)
    assert "0.40 one by one, 0.80 in groups" in clips_text(figures)


def test_scheduling_figures_give_the_share_of_the_capacity():
    figures = SchedulingFigures(4, "segment", 80, 0.5, 12.5, 0.4, 90.0, 100.0)
    assert (figures.capacity_share, figures.overhead_ms) == pytest.approx((0.8, 5.0))
    assert "0.800 of the workers' capacity" in scheduling_text(figures)


@pytest.mark.slow
@pytest.mark.ray
def test_schedule_gives_all_units_to_made_up_workers(tmp_path):
    """A real Ray, as nothing else can show what it costs."""
    for clips, segments in ((False, 3), (True, 1)):
        figures = schedule(str(tmp_path / str(clips)), settings_from({"track": False}), 2, 6, segments, 0.01, clips)
        assert (figures.units, figures.unit) == (6 * segments, "clip" if clips else "segment")
        assert 0 < figures.capacity_share < 1


def test_benchmark_networks_prints_figures(in_process, monkeypatch, tmp_path, capsys):
    openvino = tuple(engine for engine in ENGINES["cpu"] if engine.name == "OpenVINO fp32")
    monkeypatch.setitem(ENGINES, "cpu", openvino)
    words = ("networks", "--batch", 1, "--seconds", 0, "--json", tmp_path / "a.json")
    assert run(*words) == 0
    names = [network["network"] for network in json.loads((tmp_path / "a.json").read_text())["networks"]]
    assert names == [EMBEDDED.detector, EMBEDDED.pose]
    assert "OpenVINO fp32" in capsys.readouterr().out
