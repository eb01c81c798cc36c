"""The figures of the benchmarks, as text and as JSON."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.driver_throughput import DriverFigures
from benchmarks.figures import EndToEnd, NetworkSpeed, Peer, Scenario, StageTimes
from benchmarks.made_up_workers import SchedulingFigures
from benchmarks.network_engines import NetworkFigures
from benchmarks.nightly_planning import NightFigures
from benchmarks.publication_rate import MARK, PublicationFigures
from benchmarks.scaling import PoolFigures, Scaling
from posebatch.core.text_table import text_table


@dataclass(frozen=True)
class Machine:
    """The hardware and libraries that the speed depends on."""

    processor: str
    cores: int
    features: str
    """Vector instructions that networks use."""
    gpu: str
    torch: str


def this_machine(cores: int) -> Machine:
    """The description of this machine."""
    amx = ["AMX"] if torch.cpu._is_amx_tile_supported() else []
    bf16 = ["AVX512_BF16"] if torch.cpu._is_avx512_bf16_supported() else []
    vnni = ["AVX512_VNNI"] if torch.cpu._is_vnni_supported() else []
    features = ", ".join([torch.backends.cpu.get_cpu_capability(), *vnni, *bf16, *amx])
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return Machine(_processor(), cores, features, gpu, torch.__version__)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return f"{platform.machine()} {names[0] if names else platform.processor()}"


def machine_text(machine: Machine) -> str:
    """The machine in one line."""
    return f"{machine.processor}, {machine.cores} cores, {machine.features}; GPU {machine.gpu}; torch {machine.torch}"


def scenario_text(scenario: Scenario) -> str:
    """Stages, runs and ratios of a scenario."""
    return "\n".join([f"== {scenario.name}", *_stage_lines(scenario), *_run_lines(scenario), *_ratio_lines(scenario)])


def _stage_lines(scenario: Scenario) -> Iterator[str]:
    different: list[StageTimes] = []
    for run in (scenario.one_process, *scenario.on_ray):
        if run.stages not in different:
            different.append(run.stages)
    for stages in different:
        yield (
            f"stages alone on {_count(stages.threads, 'thread')}, ms a frame, "
            f"{stages.persons_per_frame:.2f} persons found in one:"
        )
        yield f"  decode   {_ms(stages.decode)}   of it FFmpeg's decoder {1e3 * stages.decode_only:.2f}"
        yield f"  detect   {_ms(stages.detect)}   {_speed(stages.detector, stages.gemm_type, 'frames')}"
        yield f"  pose     {_ms(stages.pose)}   network alone {_speed(stages.pose_network, stages.gemm_type, 'crops')}"
        yield f"  publish  {_ms(stages.publish)}"
        yield f"  predict  {stages.predicted_rate(scenario.cores):.1f} frames/s on {_count(scenario.cores, 'core')}"


def _run_lines(scenario: Scenario) -> Iterator[str]:
    table = [["end to end", "frames/s", "of the stages", "frames", "persons", "start-up s"]]
    table += [_run_row(run) for run in (scenario.one_process, *scenario.on_ray)]
    table += [_peer_row(peer) for peer in scenario.peers]
    yield text_table(table[0], table[1:])
    memory = scenario.one_process.memory
    if memory is not None:
        yield (
            f"memory of the one process: at most {memory.peak:.0f} MB, of it {memory.imports:.0f} MB libraries; "
            f"weights {memory.weights:.0f} MB"
        )


def _run_row(run: EndToEnd) -> list[str]:
    measured = run.measured
    return [
        run.name,
        f"{measured.rate:.1f}",
        f"{run.efficiency:.2f}",
        str(measured.frames),
        str(measured.persons),
        f"{measured.start_s:.1f}",
    ]


def _peer_row(peer: Peer) -> list[str]:
    measured = peer.measured
    counts = str(measured.frames), str(measured.persons)
    return [peer.name, f"{measured.rate:.1f}", "", *counts, f"{measured.start_s:.1f}"]


def _ratio_lines(scenario: Scenario) -> Iterator[str]:
    if scenario.ratios:
        yield "ratios: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in scenario.ratios.items())


def _speed(speed: NetworkSpeed, gemm_type: str, unit: str) -> str:
    return (
        f"{speed.images_per_s:.1f} {unit}/s x {speed.gflops:.2f} GFLOP = {speed.gflops_per_s:.0f} GFLOP/s, "
        f"{speed.share_of_gemm:.0%} of a {gemm_type} GEMM ({speed.gemm_gflops_per_s:.0f})"
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:8.2f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def summary_text(scenarios: Sequence[Scenario]) -> str:
    """One line per scenario."""
    if not scenarios:
        return "nothing was measured"
    ratios = list(dict.fromkeys(name for scenario in scenarios for name in scenario.ratios))
    table = [["scenario", "frames/s", "of the stages", *ratios]]
    for scenario in scenarios:
        cells = [f"{scenario.ratios[name]:.2f}" if name in scenario.ratios else "" for name in ratios]
        table.append([scenario.name, f"{scenario.job.measured.rate:.1f}", f"{scenario.job.efficiency:.2f}", *cells])
    return text_table(table[0], table[1:])


def scaling_text(scaling: Scaling) -> str:
    """Frames per second by the number of workers."""
    table = [["workers", "frames/s", "to one", "frames", "persons", "start-up s"]]
    for workers, measured in scaling.runs.items():
        table.append(
            [
                str(workers),
                f"{measured.rate:.1f}",
                f"{scaling.speedup(workers):.2f}",
                str(measured.frames),
                str(measured.persons),
                f"{measured.start_s:.1f}",
            ]
        )
    return "\n".join([f"== scaling: {scaling.name}", text_table(table[0], table[1:])])


def pool_text(figures: PoolFigures) -> str:
    """The cost of a segment in Ray."""
    return (
        f"== Ray with {_count(figures.workers, 'idle worker')}: {figures.segments_per_s:.0f} segments/s, "
        f"{1e3 * figures.seconds_per_segment:.2f} ms of a worker for each ({figures.segments} segments)"
    )


def driver_text(figures: DriverFigures) -> str:
    """Throughput and memory of the driver."""
    return "\n".join(
        [
            f"== the driver with {_count(figures.workers, 'stub worker')}, records on the local disk",
            f"{figures.videos} videos planned, scheduled and published: {figures.seconds:.1f} s, "
            f"{figures.segments / figures.seconds:.0f} segments/s ({figures.segments_per_video} in a video)",
            f"the next run, all up to date: {figures.again_s:.1f} s, {figures.videos / figures.again_s:.0f} videos/s",
            f"memory: at most {figures.peak_mb:.0f} MB, of it {figures.imports_mb:.0f} MB before the run; "
            f"after the first tenth of the videos {figures.peak_at_tenth_mb:.0f} MB",
        ]
    )


def scheduling_text(figures: SchedulingFigures) -> str:
    """A run over made-up workers."""
    unit, clock_s = figures.unit, figures.seconds / figures.units
    share = f", {figures.capacity_share:.3f} of the workers' capacity" if figures.unit_s else ""
    return (
        f"{_count(figures.workers, 'made-up worker')} on Ray, {figures.unit_s:g} s for a {unit}: "
        f"{_count(figures.units, unit)} in {figures.seconds:.1f} s{share}; {1000 * clock_s:.2f} ms for each, of them "
        f"{figures.overhead_ms:.2f} ms processor time of the driver; its memory at most {figures.peak_mb:.0f} MB, "
        f"{figures.imports_mb:.0f} MB before"
    )


def night_text(figures: NightFigures) -> str:
    """The cost of planning a night."""
    requests = ", ".join(f"{number} {kind}" for kind, number in sorted(figures.requests.items()) if number)
    return "\n".join(
        [
            f"== {figures.name}: {figures.videos} videos, {figures.to_do} to do, {figures.passed} not",
            f"without the listings {figures.beyond_wall_s:.1f} s, CPU time {figures.beyond_cpu_s:.1f} s "
            f"(with them {figures.wall_s:.1f} and {figures.cpu_s:.1f})",
            f"requests: {requests}; {figures.input_pages} more list the inputs; ${figures.dollars:.4f} in all",
            f"bytes: {figures.bytes_read / 1e6:.1f} MB read, {figures.bytes_written / 1e6:.1f} MB written; "
            f"memory: at most {figures.peak_mb:.0f} MB, of it {figures.imports_mb:.0f} MB before",
        ]
    )


def publication_text(figures: PublicationFigures) -> str:
    """The publication rate of tiny videos."""
    rates = " ".join(f"{MARK / seconds:.0f}" for seconds in figures.seconds_by_mark)
    memory = " ".join(f"{mb:.0f}" for mb in figures.memory_by_mark)
    return "\n".join(
        [
            f"== {figures.videos} videos of {figures.frames_per_video} frames published on the local store in "
            f"{figures.seconds:.1f} s, "
            f"{figures.videos / figures.seconds:.0f} per second, by one process; "
            f"the next night finds {figures.up_to_date_after} up to date",
            f"publishing alone: {figures.publishing_s:.1f} s, {figures.publishing_cpu_s:.1f} s of processor time; "
            f"{figures.staged_bytes_read / 1e6:.2f} MB read from the staging area",
            f"per second, for each {MARK}: {rates}",
            f"memory after each {MARK}: {memory} MB; "
            f"at most {figures.peak_mb:.0f} MB, of it {figures.imports_mb:.0f} MB before",
        ]
    )


def engines_text(figures: NetworkFigures) -> str:
    """Images per second of one network, by engine and batch size."""
    sizes = sorted({size for engine in figures.engines for size in engine.images_per_s})
    gemm = ", ".join(f"{name} {rate:.0f}" for name, rate in figures.gemm_gflops_per_s.items())
    table = [["images/s at batch", *map(str, sizes), "best: GFLOP/s"]]
    for engine in figures.engines:
        rates = engine.images_per_s
        best = figures.gflops * max(rates.values())
        table.append([engine.name, *(f"{rates[size]:.1f}" if size in rates else "" for size in sizes), f"{best:.0f}"])
    heading = (
        f"== {figures.network}: an image is {figures.gflops:.2f} GFLOP, "
        f"its layers read and write {figures.layer_mb:.0f} MB; {_count(figures.threads, 'thread')}: "
        f"GEMM GFLOP/s {gemm}; copying {figures.memory_gb_per_s:.1f} GB/s"
    )
    return "\n".join(
        [heading, text_table(table[0], table[1:]), *(f"left out: {reason}" for reason in figures.left_out)]
    )


def as_json(measured: object) -> Any:
    """A measurement as plain values. Properties of its classes stand beside their fields."""
    if isinstance(measured, Mapping):
        return {str(key): as_json(value) for key, value in measured.items()}
    if isinstance(measured, list | tuple):
        return [as_json(value) for value in measured]
    if not hasattr(measured, "__dataclass_fields__"):
        return measured
    fields = {name: as_json(getattr(measured, name)) for name in asdict(measured)}  # type: ignore[call-overload]
    properties = [name for name, value in vars(type(measured)).items() if isinstance(value, property)]
    return fields | {name: as_json(getattr(measured, name)) for name in properties if name != "job"}
