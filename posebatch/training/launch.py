"""Where a training runs: in this process, or on the workers of Ray Train."""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posebatch.core.errors import TrainingError
from posebatch.models.weights.records import AnyRecord
from posebatch.training.loop import Row, Worker, averaged_weights, train
from posebatch.training.recipes import Recipe

_PICTURE_SECONDS: Final = 60.0
"""Between two pictures of the progress: drawing one takes as long as learning from several examples."""


_MAX_FAILURES: Final = 3
"""How often Ray Train starts the workers again before it gives up."""


def train_here(recipe: Recipe, folder: Path, device: str) -> AnyRecord:
    """Train in this process; see `finish`."""
    train(recipe.prepare(device), recipe.loop, folder, report=_progress(recipe, folder))
    return finish(recipe, folder)


def train_on_ray(recipe: Recipe, folder: Path, workers: int, device: str) -> AnyRecord:
    """Train on ``workers`` workers of Ray Train, one GPU or one core each; see `finish`.

    ``device`` is ``cuda``, ``cpu``, or ``auto``: GPUs where the cluster has any. ``folder`` must be one that all of
    them see. When a worker dies, all start again from the last checkpoint there. Raises `TrainingError` when a batch
    has too few examples to share, and when Ray cannot be reached or gives up.
    """
    import ray  # noqa: PLC0415 - seconds, and not always there
    from ray.train import FailureConfig, RunConfig, ScalingConfig  # noqa: PLC0415
    from ray.train.torch import TorchTrainer  # noqa: PLC0415

    if recipe.loop.batch_size < workers:
        raise TrainingError(
            f"{workers} workers cannot share batches of {recipe.loop.batch_size}; ask for fewer workers"
        )
    here = str(folder.resolve())
    try:
        with _ray_connection(workers):
            use_gpu = device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) > 0)  # type: ignore[no-untyped-call]
            TorchTrainer(
                _work,
                train_loop_config={"recipe": recipe, "folder": here},
                scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
                run_config=RunConfig(
                    name="ray", storage_path=here, failure_config=FailureConfig(max_failures=_MAX_FAILURES)
                ),
            ).fit()
    except Exception as error:  # Ray raises anything; the reason stands last, behind the worker's traceback
        reason = ([line for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1]
        raise TrainingError(
            f"{folder}: Ray Train gave up ({reason}); the same command goes on where it stopped"
        ) from error
    return finish(recipe, folder)


@contextmanager
def _ray_connection(workers: int) -> Iterator[None]:
    """The cluster that ``RAY_ADDRESS`` names, or a Ray of our own that ends with us."""
    import ray  # noqa: PLC0415

    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # else each line of the progress comes twice
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING)
    else:
        # a token of this Ray's own; else Ray writes one into the home folder, which later clusters then ask for
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # with a dashboard: Ray Train asks it every second whether the training still runs
        ray.init(address="local", num_cpus=max(workers, os.cpu_count() or 1), logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


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
    drawn = time.monotonic()

    def report(history: list[Row]) -> None:
        nonlocal drawn
        row = history[-1]
        examples_left = (recipe.loop.steps - row["step"]) * recipe.loop.batch_size
        minutes = examples_left / row["examples_per_second"] / 60
        figures = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "step")
        print(f"step {row['step']:.0f} of {recipe.loop.steps}: {figures}, {minutes:.0f} min left", flush=True)
        if time.monotonic() - drawn > _PICTURE_SECONDS:
            drawn = time.monotonic()
            _write_history(history, folder)

    return report


def _write_history(history: list[Row], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "history.json").write_text(json.dumps(history))
    write_progress(history, folder / "progress.png")


_NOT_DRAWN = {"step", "learning_rate", "examples_per_second", "loss", "mse", "cross_entropy", "class_loss", "box_loss"}


mpl.use("Agg")


def write_progress(history: Sequence[Row], path: Path) -> None:
    """The loss, the learning rate and the figures of merit over the steps, as a PNG."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _loss(left, history)
    _merit(right, history)
    figure.savefig(path, dpi=100)


def _loss(axes: Axes, history: Sequence[Row]) -> None:
    steps = [row["step"] for row in history]
    axes.plot(steps, [row["loss"] for row in history], color="tab:blue", linewidth=0.6, alpha=0.5)
    axes.plot(steps, smoothed([row["loss"] for row in history]), color="tab:blue")
    axes.set(xlabel="step", ylabel="loss", title="loss, and learning rate (grey)")
    rate = axes.twinx()
    rate.plot(steps, [row["learning_rate"] for row in history], color="grey", linewidth=0.8)
    rate.set_ylabel("learning rate")


def _merit(axes: Axes, history: Sequence[Row]) -> None:
    axes.set(xlabel="step", title="on the validation images")
    for name in sorted({key for row in history for key in row} - _NOT_DRAWN):
        rows = [row for row in history if name in row]
        axes.plot([row["step"] for row in rows], [row[name] for row in rows], marker=".", label=name)
    if axes.lines:
        axes.legend()


def smoothed(values: Sequence[float], share: float = 0.05) -> list[float]:
    """A trailing mean over a share of the values."""
    width = max(int(len(values) * share), 1)
    windows = (values[max(i + 1 - width, 0) : i + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]
