"""Speed of a network on every engine: the reason for the choices and batch sizes of `models.networks.engines`.

Call `measure_engines` in a child process: it sets the number of threads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

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

Run = Callable[[torch.Tensor], object]
"""Runs a network on images (n, 3, h, w)."""


_PASSES: Final = {"cpu": 1, "cuda": 20}
"""Passes between two looks at the clock: a GPU works asynchronously."""


@dataclass(frozen=True)
class EngineSpeed:
    """Speed of one network on one engine."""

    name: str
    images_per_s: dict[int, float]
    """By batch size."""


@dataclass(frozen=True)
class NetworkFigures:
    """Speed of one network on all engines of one machine."""

    network: str
    gflops: float
    """GFLOP for one image, from its record."""
    layer_mb: float
    """MB read and written by the layers for one image in fp32, without the weights."""
    threads: int
    memory_gb_per_s: float
    """GB per second of copying."""
    gemm_gflops_per_s: dict[str, float]
    """Matrix products by number format: the mean of before and after the networks."""
    engines: tuple[EngineSpeed, ...]
    left_out: tuple[str, ...]
    """Unavailable engines, each with the reason."""


def measure_engines(
    kind: Kind, name_or_path: str, device: str, batch_sizes: Sequence[int], threads: int, seconds: float
) -> NetworkFigures:
    """Run a network on every engine of the device, on random images of its input size.

    The network runs alone, without resizing, cropping and postprocessing. Raises `WeightsError` for an unknown network,
    and `SettingsError` for a detector that is no SSDLite: torchvision's detectors cannot be separated from their
    preprocessing.
    """
    torch.set_num_threads(threads)
    subject = _load(kind, name_or_path, device)
    traffic, memory = layer_mb(subject.network, subject.size_wh), memory_gb_per_s(device, seconds)
    formats = {str(name): DTYPES[name] for name in _PRECISIONS[device]}
    before = {name: gemm_gflops_per_s(device, dtype, seconds / 2) for name, dtype in formats.items()}
    middle = batch_sizes[len(batch_sizes) // 2 : len(batch_sizes) // 2 + 1]
    speeds, left_out = [], []
    for engine in ENGINES[device]:
        sizes = batch_sizes if engine.all_sizes else middle
        try:
            rates = {
                size: _rate(engine.make(subject, engine.precision, size), size, subject, seconds) for size in sizes
            }
            speeds.append(EngineSpeed(engine.name, rates))
        except (SettingsError, WeightsError) as error:
            left_out.append(f"{engine.name}: {error}")
        except Exception as error:  # a missing compiler, a kernel that the device does not have
            left_out.append(f"{engine.name}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
    after = {name: gemm_gflops_per_s(device, dtype, seconds / 2) for name, dtype in formats.items()}
    gemm = {name: (before[name] + after[name]) / 2 for name in formats}
    gflops = network_cost(subject.record)[0]
    return NetworkFigures(subject.record.name, gflops, traffic, threads, memory, gemm, tuple(speeds), tuple(left_out))


@dataclass(frozen=True)
class _Subject:
    """The network to measure."""

    kind: Kind
    name_or_path: str
    record: AnyRecord
    network: nn.Module
    size_wh: tuple[int, int]
    device: str

    def copy(self) -> nn.Module:
        return copy.deepcopy(self.network).eval().requires_grad_(False)


def _load(kind: Kind, name_or_path: str, device: str) -> _Subject:
    if kind == "detector" and resolve(kind, name_or_path).architecture not in SSDLITE_ARCHITECTURES:
        raise SettingsError(f"{name_or_path}: only SSDLite detectors can be run on other engines")
    record, state = load_weights(kind, name_or_path)
    if isinstance(record, PoseRecord):
        network: nn.Module = build_pose_network(record.architecture)
        load_into(network, state, name_or_path)
        return _Subject(kind, name_or_path, record, network, record.input_size_wh, device)
    ssd = build_person_ssd(record.architecture)
    load_into(ssd, state, name_or_path)
    return _Subject(kind, name_or_path, record, BoxNetwork(ssd), (INPUT_SIZE, INPUT_SIZE), device)


# Engines: each function makes the network ready for batches of one size


def _as_loaded(subject: _Subject, precision: Precision, batch_size: int) -> Run:
    return subject.copy().to(subject.device)


def _folded(subject: _Subject, precision: Precision, batch_size: int) -> Run:
    network = subject.copy()
    fold_batch_norms(network)
    return network.to(subject.device)


def _compiled(subject: _Subject, precision: Precision, batch_size: int) -> Run:
    dtype = DTYPES[precision]
    network = torch.compile(prepare_network(subject.copy(), subject.device, dtype))
    return lambda images: network(images.to(dtype, memory_format=torch.channels_last))


def _torch_engine(subject: _Subject, precision: Precision, batch_size: int) -> Run:
    placement = Placement("cpu" if subject.device == "cpu" else "cuda", precision, "torch", batch_size)
    return start_engine(subject.copy(), subject.size_wh, placement)


def _openvino_engine(subject: _Subject, precision: Precision, batch_size: int) -> Run:
    choose_placement("cpu", precision, "openvino")  # raises if OpenVINO is missing
    placement = Placement("cpu", precision, "openvino", batch_size)
    if precision == "int8":
        return start_quantized(load_quantized(subject.kind, subject.name_or_path), subject.size_wh, placement)
    return start_engine(subject.copy(), subject.size_wh, placement)


class _Engine(NamedTuple):
    name: str
    make: Callable[[_Subject, Precision, int], Run]
    precision: Precision = "fp32"
    all_sizes: bool = True
    """Measured at every batch size, or only at the middle one."""


_PRECISIONS: Final[dict[str, tuple[Precision, ...]]] = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")}
"""Number formats of torch by device."""


_PLAIN: Final = (
    _Engine("torch fp32, as loaded", _as_loaded, all_sizes=False),
    _Engine("torch fp32, batch norms folded", _folded, all_sizes=False),
)


ENGINES: Final[dict[str, tuple[_Engine, ...]]] = {
    "cpu": (
        *_PLAIN,
        _Engine("torch.compile fp32", _compiled, "fp32", all_sizes=False),
        _Engine("torch fp32, folded, channels last", _torch_engine, "fp32"),
        _Engine("torch.compile bf16", _compiled, "bf16", all_sizes=False),
        _Engine("torch bf16, folded, channels last", _torch_engine, "bf16"),
        _Engine("OpenVINO fp32", _openvino_engine, "fp32"),
        _Engine("OpenVINO bf16", _openvino_engine, "bf16"),
        _Engine("OpenVINO int8", _openvino_engine, "int8"),
    ),
    "cuda": (
        *_PLAIN,
        _Engine("torch.compile fp32", _compiled, "fp32", all_sizes=False),
        _Engine("torch fp32, CUDA graph", _torch_engine, "fp32"),
        _Engine("torch.compile bf16", _compiled, "bf16", all_sizes=False),
        _Engine("torch bf16, CUDA graph", _torch_engine, "bf16"),
        _Engine("torch.compile fp16", _compiled, "fp16", all_sizes=False),
        _Engine("torch fp16, CUDA graph", _torch_engine, "fp16"),
    ),
}
"""The engines of a device, in the order of the table."""


@torch.inference_mode()
def _rate(run: Run, batch_size: int, subject: _Subject, seconds: float) -> float:
    """Images per second."""
    images = torch.rand(batch_size, 3, *subject.size_wh[::-1], device=subject.device)

    def passes() -> int:
        for _ in range(_PASSES[subject.device]):
            run(images)
        wait_for(subject.device)
        return batch_size * _PASSES[subject.device]

    return 1 / seconds_per_image(passes, seconds)
