"""Engines that run networks: torch, OpenVINO or a CUDA graph, in batches of one shape.

All engines compute the same function. They differ in speed and, by the rounding of the number format, in the last
digits. `choose_placement` selects an engine for this machine; `start_engine` prepares it.
"""

from __future__ import annotations

import functools
import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast

import torch
from torch import nn
from typing_extensions import override

from posebatch.core.errors import SettingsError
from posebatch.models.networks.converted import Converted, keep_converted
from posebatch.models.networks.preparation import pad_batch, prepare_network
from posebatch.models.weights.quantized import QuantizedNetwork

Precision = Literal["fp32", "bf16", "fp16", "int8"]


DTYPES: Final[Mapping[Precision, torch.dtype]] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""The number formats in which torch runs a whole network."""


_OPENVINO_HINTS: Final[Mapping[Precision, str]] = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""OpenVINO's name of the number format for the layers that are not quantized."""


CPU_BATCH_SIZE: Final = 4
"""Larger activations do not fit into the CPU cache. Figures for batches of 1, 4, 8 and 16 with torch in fp32 on one
Zen 3 thread: the embedded pose network does 23, 25, 24 and 20 crops per second; the detector does 30, 29, 26 and 20
frames per second."""


CUDA_BATCH_SIZE: Final = 32
"""A GPU needs larger batches than a CPU, and all frames of a batch are in memory at once. Not measured yet."""


_GRAPH_WARM_UPS: Final = 3
"""Passes before the capture of a CUDA graph, in which libraries choose kernels and allocate memory."""


Outputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Placement:
    """The device, number format, engine and batch size of networks."""

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = "fp32"
    engine: Literal["torch", "openvino"] = "torch"
    batch_size: int = CPU_BATCH_SIZE
    """Images in every pass."""

    def __str__(self) -> str:
        return f"{self.device} {self.precision} {self.engine}"


PLAIN: Final = Placement()
"""The reference, which every machine supports: torch on the CPU in fp32."""


def choose_placement(device: str = "auto", precision: str = "auto", engine: str = "auto") -> Placement:
    """The placement for three settings; ``auto`` selects the fastest that this machine supports.

    ``auto`` is CUDA if torch sees a device, and OpenVINO on a CPU if it is installed. The number format is bf16 on CUDA
    and on processors with AMX, else fp32. AVX-512's bf16 is about twice as fast as its fp32, but it moves joints. That
    gain is too small to change results without being asked. Raises `SettingsError` for an unsupported combination.
    """
    device = resolve_device(device)
    if precision == "auto":
        precision = "bf16" if _has_fast_bf16(device) else "fp32"
    chosen = cast(Precision, precision)
    if chosen == "int8" and device != "cpu":
        raise SettingsError("--precision int8 runs on the CPU; use --device cpu, or bf16 on the GPU")
    possible = device == "cpu" and chosen in _OPENVINO_HINTS
    if engine == "openvino" and not possible:
        raise SettingsError(f"--engine openvino runs on the CPU, in {', '.join(_OPENVINO_HINTS)}; use --engine auto")
    if engine == "torch" and chosen == "int8":
        raise SettingsError("--precision int8 needs --engine openvino or auto")
    installed = importlib.util.find_spec("openvino") is not None
    if not installed and (engine == "openvino" or chosen == "int8"):
        flag = "--engine openvino" if engine == "openvino" else "--precision int8"
        raise SettingsError(f"{flag}: OpenVINO is not installed here; pip install 'posebatch[openvino]'")
    use_openvino = possible and installed and engine != "torch"
    runner: Literal["torch", "openvino"] = "openvino" if use_openvino else "torch"
    if device == "cuda":
        return Placement("cuda", chosen, runner, CUDA_BATCH_SIZE)
    return Placement("cpu", chosen, runner)


def resolve_device(device: str) -> str:
    """``cpu`` or ``cuda`` for a device setting. Raises `SettingsError` when CUDA is requested and not available."""
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda: torch sees no CUDA device on this machine; use --device auto or cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _has_fast_bf16(device: str) -> bool:
    """Whether bf16 is many times faster than fp32. Processors that emulate bf16 are several times slower with it."""
    return device == "cuda" or torch.cpu._is_amx_tile_supported()


class Engine(Protocol):
    """A network that is ready to run."""

    batch_size: int
    """Images in every pass; smaller batches are padded."""
    device: str

    def __call__(self, images: torch.Tensor) -> Outputs:
        """Run images (n, 3, h, w) float32, n <= ``batch_size`` -> the outputs of the network, float32."""
        ...


def start_engine(
    network: nn.Module, input_size_wh: tuple[int, int], placement: Placement, keep: bool = False
) -> Engine:
    """Prepare a network with loaded weights. The network is changed: batch norms folded, number format converted.

    ``keep`` keeps the conversion for OpenVINO on this node, for the next start. Only for networks of this package, of
    whose code `converted` takes note.
    """
    if placement.engine == "torch":
        return TorchEngine(network, input_size_wh, placement)

    def convert() -> Converted:
        return serialized(to_openvino(network, input_size_wh, placement.batch_size), compress_to_fp16=False)

    graph, constants = keep_converted(network, input_size_wh, placement.batch_size, convert) if keep else convert()
    model = openvino_core().read_model(model=graph, weights=constants)
    return OpenVinoEngine(model, input_size_wh, placement)


def start_quantized(network: QuantizedNetwork, input_size_wh: tuple[int, int], placement: Placement) -> Engine:
    """Prepare a quantized network. ``placement`` must be one of OpenVINO's."""
    model = openvino_core().read_model(model=network.graph, weights=network.weights)
    return OpenVinoEngine(model, input_size_wh, placement)


class TorchEngine(Engine):
    """torch's own kernels. On CUDA they run as one graph, which avoids the cost of single kernel launches."""

    batch_size: int
    device: str

    def __init__(self, network: nn.Module, input_size_wh: tuple[int, int], placement: Placement) -> None:
        self.device, self.batch_size = placement.device, placement.batch_size
        self._dtype = DTYPES[placement.precision]
        self._run: Callable[[torch.Tensor], Outputs] = _as_tuple(prepare_network(network, self.device, self._dtype))
        if self.device == "cuda":
            width, height = input_size_wh
            blank = torch.zeros(self.batch_size, 3, height, width, device="cuda", dtype=self._dtype)
            self._run = _captured(self._run, blank.to(memory_format=torch.channels_last))

    @override
    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> Outputs:
        padded = pad_batch(images.to(self.device), self.batch_size)
        outputs = self._run(padded.to(self._dtype, memory_format=torch.channels_last))
        return tuple(output[: len(images)].float() for output in outputs)


class OpenVinoEngine(Engine):
    """OpenVINO's kernels on the CPU, with the number of threads that torch has at the start of the engine."""

    batch_size: int
    device = "cpu"

    def __init__(self, model: Any, input_size_wh: tuple[int, int], placement: Placement) -> None:
        self.batch_size = placement.batch_size
        width, height = input_size_wh
        model.reshape({0: [self.batch_size, 3, height, width]})
        options = {
            "INFERENCE_PRECISION_HINT": _OPENVINO_HINTS[placement.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # else all workers of a machine are pinned to its first core
        }
        self._request = openvino_core().compile_model(model, "CPU", options).create_infer_request()
        self._num_outputs = len(model.outputs)

    @override
    def __call__(self, images: torch.Tensor) -> Outputs:
        padded = pad_batch(images, self.batch_size).contiguous().numpy()
        outputs = self._request.infer({0: padded}, share_inputs=True)
        return tuple(torch.from_numpy(outputs[number])[: len(images)] for number in range(self._num_outputs))


@functools.cache
def openvino_core() -> Any:
    """The one ``openvino.Core`` of this process, which stays as long as the process.

    The CPU plugin gives the thread that loads it an alternate stack for signals, and frees that stack when the last
    ``Core`` goes. The next signal, such as Ctrl-C, would then end the process with a segmentation fault.
    """
    import openvino  # noqa: PLC0415 - optional

    return openvino.Core()


def to_openvino(network: nn.Module, input_size_wh: tuple[int, int], batch_size: int) -> Any:
    """Convert a network with loaded weights to an OpenVINO model. The network is changed: batch norms are folded."""
    import openvino  # noqa: PLC0415 - optional

    width, height = input_size_wh
    plain = prepare_network(network, "cpu", torch.float32).to(memory_format=torch.contiguous_format)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # OpenVINO traces the network by functions that newer torch deprecates
        return openvino.convert_model(plain, example_input=torch.zeros(batch_size, 3, height, width))


def serialized(model: object, compress_to_fp16: bool) -> Converted:
    """An OpenVINO model in the form that OpenVINO reads."""
    import openvino  # noqa: PLC0415 - optional

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.xml")
        openvino.save_model(model, path, compress_to_fp16=compress_to_fp16)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def _as_tuple(network: nn.Module) -> Callable[[torch.Tensor], Outputs]:
    def run(images: torch.Tensor) -> Outputs:
        output = network(images)
        return output if isinstance(output, tuple) else (output,)

    return run


@torch.inference_mode()
def _captured(run: Callable[[torch.Tensor], Outputs], images: torch.Tensor) -> Callable[[torch.Tensor], Outputs]:
    """Capture a function as a CUDA graph for inputs of the shape and format of ``images``.

    Source: PyTorch's documentation, "CUDA semantics": warm up on a side stream, capture, replay on the same memory.
    """
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_GRAPH_WARM_UPS):
            run(images)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run(images)

    def replay(new_images: torch.Tensor) -> Outputs:
        images.copy_(new_images)
        graph.replay()
        return tuple(output.clone() for output in outputs)  # the next replay overwrites them

    return replay
