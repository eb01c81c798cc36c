"""Every way to run a network that we know of: why `models.engines` takes the ones it takes, and its batch sizes.

Call it in a child: it sets the number of threads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from benchmarks.matrix_products import gemm_gflops_per_s
from benchmarks.memory_traffic import layer_mb, memory_gb_per_s
from benchmarks.timing import seconds_per_image, wait_for
from posebatch.core.errors import SettingsError, WeightsError
from posebatch.models.networks.engines import (
    DTYPES,
    Placement,
    Precision,
    choose_placement,
    start_engine,
    start_quantized,
)
from posebatch.models.networks.person_detector import BoxNetwork
from posebatch.models.networks.pose_resnet import build_pose_network
from posebatch.models.networks.preparation import fold_batch_norms, prepare_network
from posebatch.models.networks.ssdlite import INPUT_SIZE, build_person_ssd
from posebatch.models.weights.files import load_into, load_weights
from posebatch.models.weights.listing import network_cost
from posebatch.models.weights.names import resolve
from posebatch.models.weights.quantized import load_quantized
from posebatch.models.weights.records import SSDLITE_ARCHITECTURES, AnyRecord, Kind, PoseRecord

Call = Callable[[torch.Tensor], object]


_PASSES: Final = {"cpu": 1, "cuda": 20}
"""Between two looks at the clock: a GPU is given more before it is waited for."""


@dataclass(frozen=True)
class Way:
    """One way to run one network."""

    name: str
    images_per_s: dict[int, float]
    """By batch size."""


@dataclass(frozen=True)
class NetworkWays:
    """All ways to run one network on one machine."""

    network: str
    gflops: float
    """For one image, as the registry states it."""
    layer_mb: float
    """Read and written by the layers of one image in fp32, without the weights."""
    threads: int
    memory_gb_per_s: float
    """Of copying."""
    gemm_gflops_per_s: dict[str, float]
    """Matrix products by number format, before and after everything else, the mean."""
    ways: tuple[Way, ...]
    left_out: tuple[str, ...]
    """What cannot be had here, and why."""


def measure_ways(
    kind: Kind, name_or_path: str, device: str, batch_sizes: Sequence[int], threads: int, seconds: float
) -> NetworkWays:
    """Run a network in every way, on random pictures of its input size.

    The network alone: no resizing, no cropping, no post-processing. Raises `WeightsError` for a network that is not
    there, and `SettingsError` for a detector that is no SSDLite: torchvision's others are run as they come.
    """
    torch.set_num_threads(threads)
    record, network, size_wh = _loaded(kind, name_or_path)
    traffic, memory = layer_mb(network, size_wh), memory_gb_per_s(device, seconds)
    formats = {str(name): DTYPES[name] for name in _formats(device)}
    before = {name: gemm_gflops_per_s(device, dtype, seconds / 2) for name, dtype in formats.items()}
    ways, left_out = [], []
    for name, sizes, make in _ways(kind, name_or_path, network, size_wh, device, batch_sizes):
        try:
            ways.append(Way(name, {size: _rate(make(size), size, size_wh, device, seconds) for size in sizes}))
        except (SettingsError, WeightsError) as error:
            left_out.append(f"{name}: {error}")
        except Exception as error:  # a compiler that is not there, a kernel that a device does not have
            left_out.append(f"{name}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
    after = {name: gemm_gflops_per_s(device, dtype, seconds / 2) for name, dtype in formats.items()}
    gemm = {name: (before[name] + after[name]) / 2 for name in formats}
    gflops = network_cost(record)[0]
    return NetworkWays(record.name, gflops, traffic, threads, memory, gemm, tuple(ways), tuple(left_out))


def _loaded(kind: Kind, name_or_path: str) -> tuple[AnyRecord, nn.Module, tuple[int, int]]:
    if kind == "detector" and resolve(kind, name_or_path).architecture not in SSDLITE_ARCHITECTURES:
        raise SettingsError(f"{name_or_path}: only SSDLite detectors can be run in other ways than as they come")
    record, state = load_weights(kind, name_or_path)
    if isinstance(record, PoseRecord):
        network: nn.Module = build_pose_network(record.architecture)
        load_into(network, state, name_or_path)
        return record, network, record.input_size_wh
    ssd = build_person_ssd(record.architecture)
    load_into(ssd, state, name_or_path)
    return record, BoxNetwork(ssd), (INPUT_SIZE, INPUT_SIZE)


def _formats(device: str) -> tuple[Precision, ...]:
    return ("fp32", "bf16") if device == "cpu" else ("fp32", "bf16", "fp16")


def _ways(
    kind: Kind,
    name_or_path: str,
    network: nn.Module,
    size_wh: tuple[int, int],
    device: str,
    batch_sizes: Sequence[int],
) -> Iterator[tuple[str, Sequence[int], Callable[[int], Call]]]:
    """Name, batch sizes to try, and how to make it ready for one of them."""

    def fresh() -> nn.Module:
        return copy.deepcopy(network).eval().requires_grad_(False)

    def as_loaded(_: int) -> Call:
        return fresh().to(device)

    def folded(_: int) -> Call:
        plain = fresh()
        fold_batch_norms(plain)
        return plain.to(device)

    def compiled(precision: Precision) -> Callable[[int], Call]:
        def make(_: int) -> Call:
            ready = torch.compile(prepare_network(fresh(), device, DTYPES[precision]))
            return lambda images: ready(images.to(DTYPES[precision], memory_format=torch.channels_last))

        return make

    def by_torch(precision: Precision) -> Callable[[int], Call]:
        def make(size: int) -> Call:
            on_cpu = device == "cpu"
            return start_engine(fresh(), size_wh, Placement("cpu" if on_cpu else "cuda", precision, "torch", size))

        return make

    def by_openvino(precision: Precision) -> Callable[[int], Call]:
        def make(size: int) -> Call:
            choose_placement("cpu", precision, "openvino")  # says what is missing
            placement = Placement("cpu", precision, "openvino", size)
            if precision == "int8":
                return start_quantized(load_quantized(kind, name_or_path), size_wh, placement)
            return start_engine(fresh(), size_wh, placement)

        return make

    middle = batch_sizes[len(batch_sizes) // 2 : len(batch_sizes) // 2 + 1]
    yield "torch fp32, as loaded", middle, as_loaded
    yield "torch fp32, batch norms folded", middle, folded
    for precision in _formats(device):
        yield f"torch.compile {precision}", middle, compiled(precision)
        graph = ", CUDA graph" if device == "cuda" else ", folded, channels last"
        yield f"torch {precision}{graph}", batch_sizes, by_torch(precision)
    if device == "cpu":
        for precision in ("fp32", "bf16", "int8"):
            yield f"OpenVINO {precision}", batch_sizes, by_openvino(precision)


@torch.inference_mode()
def _rate(run: Call, batch_size: int, size_wh: tuple[int, int], device: str, seconds: float) -> float:
    images = torch.rand(batch_size, 3, *size_wh[::-1], device=device)

    def passes() -> int:
        for _ in range(_PASSES[device]):
            run(images)
        wait_for(device)
        return batch_size * _PASSES[device]

    return 1 / seconds_per_image(passes, seconds)
