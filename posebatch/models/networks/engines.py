"""Where and how networks run: torch, OpenVINO or a CUDA graph, in batches of one shape.

All engines compute the same function; they differ in speed and, by the rounding of the number format, in the last
digits. Whoever owns a network asks `choose_placement` what this machine is good at and calls the `Engine` that it gets.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, cast

import torch
from torch import nn

from posebatch.core.errors import SettingsError
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
"""What OpenVINO calls the number format of whatever is not quantized."""


CPU_BATCH_SIZE: Final = 4
"""On one Zen 3 thread the embedded pose network does 23, 25, 24 and 20 crops per second at batch 1, 4, 8 and 16 (torch,
fp32), the detector 30, 29, 26 and 20 frames: larger activations leave the cache."""


CUDA_BATCH_SIZE: Final = 32
"""Not measured yet: a GPU needs more than a CPU to be busy, and frames of a batch are held together."""


_GRAPH_WARM_UPS: Final = 3
"""Passes before a CUDA graph is captured, in which libraries choose their kernels and allocate."""


Outputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Placement:
    """Where and how networks run."""

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = "fp32"
    engine: Literal["torch", "openvino"] = "torch"
    batch_size: int = CPU_BATCH_SIZE
    """Images in every pass."""

    def __str__(self) -> str:
        return f"{self.device} {self.precision} {self.engine}"


PLAIN: Final = Placement()
"""The reference: torch on the CPU in fp32, which every machine has."""


def choose_placement(device: str = "auto", precision: str = "auto", engine: str = "auto") -> Placement:
    """The placement for three settings, each of which may be ``auto``: then the fastest that this machine has.

    That is CUDA where torch sees a device; OpenVINO on a CPU where it is installed; bf16 on CUDA and on processors with
    AMX, else fp32. AVX-512's bf16 is about twice as fast as its fp32, but moves joints, which is not decided silently
    for a factor of two. Raises `SettingsError` for what is not to be had.
    """
    device = resolve_device(device)
    chosen = cast(Precision, ("bf16" if _made_for_bf16(device) else "fp32") if precision == "auto" else precision)
    if chosen == "int8" and device != "cpu":
        raise SettingsError("--precision int8 runs on the CPU; use --device cpu, or bf16 on the GPU")
    possible = device == "cpu" and chosen in _OPENVINO_HINTS
    if engine == "openvino" and not possible:
        raise SettingsError(f"--engine openvino runs on the CPU, in {', '.join(_OPENVINO_HINTS)}; use --engine auto")
    if engine == "torch" and chosen == "int8":
        raise SettingsError("--precision int8 needs --engine openvino or auto")
    installed = importlib.util.find_spec("openvino") is not None
    if not installed and (engine == "openvino" or chosen == "int8"):
        wanted = "--engine openvino" if engine == "openvino" else "--precision int8"
        raise SettingsError(f"{wanted}: OpenVINO is not installed here; pip install 'posebatch[openvino]'")
    use_openvino = possible and installed and engine != "torch"
    runner: Literal["torch", "openvino"] = "openvino" if use_openvino else "torch"
    if device == "cuda":
        return Placement("cuda", chosen, runner, CUDA_BATCH_SIZE)
    return Placement("cpu", chosen, runner)


def resolve_device(device: str) -> str:
    """``cpu`` or ``cuda`` for a device setting. Raises `SettingsError` when CUDA is asked for and not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda: torch sees no CUDA device on this machine; use --device auto or cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _made_for_bf16(device: str) -> bool:
    """Whether bf16 is many times as fast as fp32; processors that only emulate it are several times slower with it."""
    return device == "cuda" or torch.cpu._is_amx_tile_supported()


class Engine(Protocol):
    """A network that is ready to run."""

    batch_size: int
    """Images in every pass; fewer are padded."""
    device: str

    def __call__(self, images: torch.Tensor) -> Outputs:
        """Images (n, 3, h, w) float32, n <= ``batch_size`` -> the network's outputs for them, float32."""
        ...


def start_engine(network: nn.Module, input_size_wh: tuple[int, int], placement: Placement) -> Engine:
    """Make a network with loaded weights ready. It is changed: batch norms are folded, its number format is set."""
    if placement.engine == "torch":
        return TorchEngine(network, input_size_wh, placement)
    return OpenVinoEngine(to_openvino(network, input_size_wh, placement.batch_size), input_size_wh, placement)


def start_quantized(network: QuantizedNetwork, input_size_wh: tuple[int, int], placement: Placement) -> Engine:
    """Make a network that was quantized beforehand ready."""
    import openvino  # noqa: PLC0415 - optional

    model = openvino.Core().read_model(model=network.graph, weights=network.weights)
    return OpenVinoEngine(model, input_size_wh, placement)


class TorchEngine:
    """torch's own kernels; on CUDA as one graph, which spares launching kernel after kernel."""

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

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> Outputs:
        """See `Engine`."""
        padded = pad_batch(images.to(self.device), self.batch_size)
        outputs = self._run(padded.to(self._dtype, memory_format=torch.channels_last))
        return tuple(output[: len(images)].float() for output in outputs)


class OpenVinoEngine:
    """OpenVINO's kernels on the CPU, with as many threads as torch has in this process when it starts."""

    batch_size: int
    device = "cpu"

    def __init__(self, model: Any, input_size_wh: tuple[int, int], placement: Placement) -> None:
        import openvino  # noqa: PLC0415 - optional

        self.batch_size = placement.batch_size
        width, height = input_size_wh
        model.reshape({0: [self.batch_size, 3, height, width]})
        options = {
            "INFERENCE_PRECISION_HINT": _OPENVINO_HINTS[placement.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # the workers of one machine would all be pinned to its first core
        }
        self._request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
        self._outputs = len(model.outputs)

    def __call__(self, images: torch.Tensor) -> Outputs:
        """See `Engine`."""
        padded = pad_batch(images, self.batch_size).contiguous().numpy()
        found = self._request.infer({0: padded}, share_inputs=True)
        return tuple(torch.from_numpy(found[number])[: len(images)] for number in range(self._outputs))


def to_openvino(network: nn.Module, input_size_wh: tuple[int, int], batch_size: int) -> Any:
    """A network with loaded weights as an OpenVINO model; it is changed: batch norms are folded."""
    import openvino  # noqa: PLC0415 - optional

    width, height = input_size_wh
    plain = prepare_network(network, "cpu", torch.float32).to(memory_format=torch.contiguous_format)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # OpenVINO traces the network with what newer versions of torch deprecate
        return openvino.convert_model(plain, example_input=torch.zeros(batch_size, 3, height, width))


def _as_tuple(network: nn.Module) -> Callable[[torch.Tensor], Outputs]:
    def run(images: torch.Tensor) -> Outputs:
        output = network(images)
        return output if isinstance(output, tuple) else (output,)

    return run


@torch.inference_mode()
def _captured(run: Callable[[torch.Tensor], Outputs], images: torch.Tensor) -> Callable[[torch.Tensor], Outputs]:
    """The same function as a CUDA graph for inputs like ``images``.

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

    def replay(given: torch.Tensor) -> Outputs:
        images.copy_(given)
        graph.replay()
        return tuple(output.clone() for output in outputs)  # the next replay overwrites them

    return replay
