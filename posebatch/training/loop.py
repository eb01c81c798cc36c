"""The training loop: a number of steps, whatever happens in between.

Everything that a step needs follows from the seed and the step's number, so a run that was killed and resumed takes the
same examples in the same order as one that was not. A checkpoint replaces the last one only when it is whole.
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
"""What is known of a run at one step, by name."""


CHECKPOINT_NAME: Final = "checkpoint.pt"


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to learn."""

    steps: int
    batch_size: int = 32
    """Of all workers together."""
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    """Steps in which the learning rate rises from 0."""
    constant_share: float = 0.35
    """Share of the steps before the learning rate falls, along a cosine, to 0."""
    ema_decay: float = 0.998
    """Of the running mean of the weights, which is what a run gives."""
    log_every: int = 20
    evaluate_every: int = 500
    checkpoint_every: int = 100
    seed: int = 0
    bf16: bool = False

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
    """What is learnt."""

    network: nn.Module
    """On the device on which it is trained."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For the optimiser; each with ``params`` and ``scale``, a factor on the learning rate."""
        ...

    def loss(self, network: nn.Module, example_numbers: range, progress: float) -> dict[str, torch.Tensor]:
        """The loss over examples of the endless shuffled stream, as ``loss`` and, for the log, its parts.

        ``network`` is `network`, perhaps wrapped; ``progress`` goes from 0 to 1.
        """
        ...

    def evaluate(self, network: nn.Module) -> Row:
        """Figures of merit of a network like `network`; empty when there is nothing to evaluate on."""
        ...


@dataclass(frozen=True)
class Worker:
    """One of the processes that share the work."""

    rank: int = 0
    count: int = 1


def learning_rate_at(step: int, settings: LoopSettings) -> float:
    """Warm-up, constant, cosine to 0 at the last step."""
    warm = min((step + 1) / max(settings.warmup_steps, 1), 1.0)
    progress = step / settings.steps
    falling = max(progress - settings.constant_share, 0) / max(1 - settings.constant_share, 1e-9)
    return settings.learning_rate * warm * (1 + math.cos(math.pi * falling)) / 2


def examples_of(step: int, worker: Worker, batch_size: int) -> range:
    """The numbers, in the endless stream of examples, that one worker takes in one step."""
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
    """Take the steps that are still missing in ``folder``; the last checkpoint there is the result.

    ``report`` gets the history so far each time something is added to it. Raises `TrainingError` when ``folder`` holds
    a checkpoint of another network or stream of examples, or when the loss is no longer a number.
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


def _add(sums: Row, losses: Mapping[str, torch.Tensor]) -> None:
    for name, value in losses.items():
        sums[name] = sums.get(name, 0.0) + float(value.detach())
    sums["count"] = sums.get("count", 0.0) + 1


def _row(step: int, rate: float, sums: Row, examples: int, seconds: float) -> Row:
    means = {name: value / sums["count"] for name, value in sums.items() if name != "count"}
    return {"step": step, "learning_rate": rate, **means, "examples_per_second": examples / max(seconds, 1e-9)}


def _fixed(settings: LoopSettings) -> dict[str, Any]:
    """What may not change between the parts of one run; its length may."""
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


def averaged_weights(folder: Path) -> tuple[dict[str, torch.Tensor], list[Row]]:
    """The averaged weights, on the CPU, and the history of the last checkpoint."""
    content = torch.load(folder / CHECKPOINT_NAME, map_location="cpu", weights_only=True)
    prefix = "module."  # of AveragedModel
    average = content["average"].items()
    return {key.removeprefix(prefix): value for key, value in average if key.startswith(prefix)}, content["history"]


def _restore(
    path: Path,
    settings: LoopSettings,
    network: nn.Module,
    average: AveragedModel,
    optimiser: torch.optim.Optimizer,
    history: list[Row],
) -> int:
    """Load a checkpoint; returns the number of steps it has taken."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["settings"] != _fixed(settings):
            raise ValueError(f"it was begun with {content['settings']}, not {_fixed(settings)}")
        network.load_state_dict(content["network"])
        average.load_state_dict(content["average"])
        optimiser.load_state_dict(content["optimiser"])
    except Exception as error:  # torch raises what it likes on damaged and foreign files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TrainingError(
            f"{path}: this checkpoint cannot be gone on from ({reason[:300]}); continue with the settings it was begun "
            "with, or train in a new folder"
        ) from error
    history[:] = content["history"]
    return int(content["step"])


def shuffled(number: int, length: int, seed: int) -> int:
    """Which of ``length`` examples stands at a place of the stream: each once in every round of ``length`` places."""
    round_number, place = divmod(number, length)
    return int(_permutation(length, seed, round_number)[place])


@functools.lru_cache(maxsize=4)
def _permutation(length: int, seed: int, round_number: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, round_number, length]).permutation(length)
