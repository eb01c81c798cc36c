"""The training loop with its checkpoints, and the order of the examples.

Seed and step number determine the examples of a step. A resumed training therefore takes the same examples in the same
order as one that was never killed. A checkpoint is written beside the last one and then replaces it atomically.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from posebatch.core.errors import TrainingError
from posebatch.storage.spool import write_atomically

Row = dict[str, float]
"""One row of the history: figures of a training at one step, by name."""


CHECKPOINT_NAME: Final = "checkpoint.pt"


@dataclass(frozen=True)
class LoopSettings:
    """Length, learning rate and intervals of a training."""

    steps: int
    batch_size: int = 32
    """Examples per step, of all workers together."""
    learning_rate: float = 1e-3
    """The highest learning rate."""
    warmup_steps: int = 100
    """Steps in which the learning rate rises from 0."""
    constant_share: float = 0.35
    """Share of the steps before the learning rate falls to 0, along a cosine."""
    ema_decay: float = 0.998
    """Decay of the exponential moving average of the weights, which is the result."""
    log_every: int = 20
    """Steps per row of the history."""
    evaluate_every: int = 500
    """Steps between measurements on the validation images."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    seed: int = 0
    bf16: bool = False
    """Whether to use mixed precision."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "evaluate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "warmup_steps", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("constant_share", "ema_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in 0..1, got {getattr(self, name)}")


class Task(Protocol):
    """A network with its examples, its loss and its measure."""

    network: nn.Module
    """The network, on the device of the training."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimiser, each with ``params`` and ``scale``, a factor on the learning rate."""
        ...

    def loss(self, network: nn.Module, example_numbers: range, progress: float) -> dict[str, torch.Tensor]:
        """The loss over some examples of the endless shuffled stream: ``loss``, and its parts for the history.

        ``network`` is `network`, possibly wrapped for several workers. ``progress`` is the share of the steps taken,
        0..1.
        """
        ...

    def evaluate(self, network: nn.Module) -> Row:
        """Figures of merit of a copy of `network`; empty without validation images."""
        ...


@dataclass(frozen=True)
class Worker:
    """The rank of this process among the ``count`` processes that share each batch."""

    rank: int = 0
    count: int = 1


def learning_rate_at(step: int, settings: LoopSettings) -> float:
    """The learning rate of a step: warm-up, constant, then a cosine that reaches 0 at the end."""
    warm = min((step + 1) / max(settings.warmup_steps, 1), 1.0)
    progress = step / settings.steps
    falling = max(progress - settings.constant_share, 0) / max(1 - settings.constant_share, 1e-9)
    return settings.learning_rate * warm * (1 + math.cos(math.pi * falling)) / 2


def examples_of(step: int, worker: Worker, batch_size: int) -> range:
    """The numbers of the examples, in the endless stream, that a worker takes in a step."""
    first = step * batch_size
    share = [first + batch_size * rank // worker.count for rank in (worker.rank, worker.rank + 1)]
    return range(*share)


def train(
    task: Task,
    settings: LoopSettings,
    folder: Path,
    worker: Worker = Worker(),
    report: Callable[[list[Row]], None] = lambda history: None,
) -> None:
    """Train from the last checkpoint in ``folder``, if any, to the last step. The last checkpoint is the result.

    ``report`` is called with the history after each new row. Raises `TrainingError` if ``folder`` holds a checkpoint of
    another network or with another batch size or seed, and if the loss is not finite.
    """
    network = task.network
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True)  # type: ignore[no-untyped-call]
    optimiser = torch.optim.Adam(task.parameter_groups(), settings.learning_rate)
    history: list[Row] = []
    path = folder / CHECKPOINT_NAME
    first_step = _restore(path, settings, network, average, optimiser, history) if path.exists() else 0
    trained = DistributedDataParallel(network) if worker.count > 1 else network
    device = next(network.parameters()).device
    sums: Row = {}
    began, began_step = time.monotonic(), first_step
    for step in range(first_step, settings.steps):
        rate = learning_rate_at(step, settings)
        for group in optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        mixed = torch.autocast(device.type, dtype=torch.bfloat16) if settings.bf16 else nullcontext()
        with mixed:
            losses = task.loss(trained, examples_of(step, worker, settings.batch_size), progress=step / settings.steps)
        _add(sums, losses)
        done = step + 1
        if not math.isfinite(sums["loss"]):
            raise TrainingError(
                f"{folder}: the loss is {sums['loss']} at step {done}; lower the learning rate "
                f"({settings.learning_rate:g}) and start in a new folder"
            )
        optimiser.zero_grad()
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        average.update_parameters(network)
        last = done == settings.steps
        if done % settings.log_every == 0 or last:
            history.append(_row(done, rate, sums, (done - began_step) * settings.batch_size, time.monotonic() - began))
            sums, began, began_step = {}, time.monotonic(), done
            if worker.rank == 0:
                if done % settings.evaluate_every == 0 or last:
                    history[-1] |= task.evaluate(average.module)
                    began = time.monotonic()
                report(history)
        if worker.rank == 0 and (done % settings.checkpoint_every == 0 or last):
            _save(path, settings, done, network, average, optimiser, history)


def averaged_weights(folder: Path) -> tuple[dict[str, torch.Tensor], list[Row]]:
    """The averaged weights of the last checkpoint, on the CPU, and its history."""
    content = torch.load(folder / CHECKPOINT_NAME, map_location="cpu", weights_only=True)
    prefix = "module."  # AveragedModel adds it
    average = content["average"].items()
    return {key.removeprefix(prefix): value for key, value in average if key.startswith(prefix)}, content["history"]


def shuffled(number: int, length: int, seed: int) -> int:
    """The index of example ``number`` of the endless stream: each round is a new permutation of ``length`` examples."""
    round_number, position = divmod(number, length)
    return int(_permutation(length, seed, round_number)[position])


@functools.lru_cache(maxsize=4)
def _permutation(length: int, seed: int, round_number: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, round_number, length]).permutation(length)


def _add(sums: Row, losses: Mapping[str, torch.Tensor]) -> None:
    for name, value in losses.items():
        sums[name] = sums.get(name, 0.0) + float(value.detach())
    sums["count"] = sums.get("count", 0.0) + 1


def _row(step: int, rate: float, sums: Row, examples: int, seconds: float) -> Row:
    means = {name: value / sums["count"] for name, value in sums.items() if name != "count"}
    return {"step": step, "learning_rate": rate, **means, "examples_per_second": examples / max(seconds, 1e-9)}


def _fixed(settings: LoopSettings) -> dict[str, Any]:
    """The settings that must not change when a training is resumed: they determine the stream of examples."""
    return {name: value for name, value in asdict(settings).items() if name in ("batch_size", "seed")}


def _save(
    path: Path,
    settings: LoopSettings,
    step: int,
    network: nn.Module,
    average: AveragedModel,
    optimiser: torch.optim.Optimizer,
    history: list[Row],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"step": step, "settings": _fixed(settings), "history": history, "network": network.state_dict()}
    content |= {"average": average.state_dict(), "optimiser": optimiser.state_dict()}
    write_atomically(path, functools.partial(torch.save, content), path.with_suffix(".unfinished"))


def _restore(
    path: Path,
    settings: LoopSettings,
    network: nn.Module,
    average: AveragedModel,
    optimiser: torch.optim.Optimizer,
    history: list[Row],
) -> int:
    """Load a checkpoint; returns the number of steps taken so far."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["settings"] != _fixed(settings):
            raise ValueError(f"it was begun with {content['settings']}, not {_fixed(settings)}")
        network.load_state_dict(content["network"])
        average.load_state_dict(content["average"])
        optimiser.load_state_dict(content["optimiser"])
    except Exception as error:  # torch raises many classes on damaged and foreign files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TrainingError(
            f"{path}: cannot resume from this checkpoint ({reason[:300]}); resume with the settings it was begun "
            "with, or train in a new folder"
        ) from error
    history[:] = content["history"]
    return int(content["step"])
