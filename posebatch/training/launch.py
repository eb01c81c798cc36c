"""Where a training runs: in this process, or on the workers of Ray Train."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from posebatch.errors import TrainingError
from posebatch.models.registry import AnyRecord
from posebatch.training.loop import Row, Worker, averaged_weights, train
from posebatch.training.plots import write_progress
from posebatch.training.recipes import Recipe

_PICTURE_SECONDS: Final = 60.0
"""Between two pictures of the progress: drawing one takes as long as learning from several examples."""

_MAX_FAILURES: Final = 3
"""How often Ray Train starts the workers again before it gives up."""


def train_here(recipe: Recipe, folder: Path, device: str) -> AnyRecord:
    """Train in this process; see `finish`."""
    train(recipe.prepare(device), recipe.loop, folder, report=_progress(recipe, folder))
    return finish(recipe, folder)


def train_on_ray(recipe: Recipe, folder: Path, workers: int, use_gpu: bool) -> AnyRecord:
    """Train on ``workers`` workers of Ray Train, one GPU or one core each; see `finish`.

    ``folder`` must be one that all of them see. When a worker dies, all start again from the last checkpoint there.
    Raises `TrainingError` when Ray Train gives up.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig  # noqa: PLC0415 - seconds, and not always there
    from ray.train.torch import TorchTrainer  # noqa: PLC0415

    trainer = TorchTrainer(
        _work,
        train_loop_config={"recipe": recipe, "folder": str(folder.resolve())},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name="ray", storage_path=str(folder.resolve()), failure_config=FailureConfig(max_failures=_MAX_FAILURES)
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        raise TrainingError(
            f"{folder}: Ray Train gave up ({str(error).splitlines()[0]}); the same command goes on where it stopped"
        ) from error
    return finish(recipe, folder)


def _work(config: dict[str, Any]) -> None:
    """What each worker of Ray Train does."""
    from ray import train as ray_train  # noqa: PLC0415
    from ray.train.torch import get_device  # noqa: PLC0415

    recipe, folder = config["recipe"], Path(config["folder"])
    context = ray_train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size())
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(1)  # its share: one core
    train(recipe.prepare(str(device)), recipe.loop, folder, worker, _progress(recipe, folder))


def finish(recipe: Recipe, folder: Path) -> AnyRecord:
    """Write what a training in ``folder`` gives: weights with their record, the history and its picture."""
    averaged, history = averaged_weights(folder)
    _write_history(history, folder)
    return recipe.finish(averaged, history, folder / f"{recipe.name}.safetensors")


def _progress(recipe: Recipe, folder: Path) -> Callable[[list[Row]], None]:
    """Prints a line for each new row of the history, and keeps file and picture up to date."""
    began = drawn = time.monotonic()
    first_step: list[float] = []

    def report(history: list[Row]) -> None:
        nonlocal drawn
        row = history[-1]
        first_step.append(row["step"])
        done = row["step"] - first_step[0]
        seconds = time.monotonic() - began
        left = f", {(recipe.loop.steps - row['step']) * seconds / done / 60:.0f} min left" if done else ""
        figures = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "step")
        print(f"step {row['step']:.0f} of {recipe.loop.steps}: {figures}{left}", flush=True)
        if time.monotonic() - drawn > _PICTURE_SECONDS:
            drawn = time.monotonic()
            _write_history(history, folder)

    return report


def _write_history(history: list[Row], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "history.json").write_text(json.dumps(history))
    write_progress(history, folder / "progress.png")
