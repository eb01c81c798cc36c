"""Running a training: in this process or on Ray Train, with its progress, history, plot and result."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from posebatch.core.errors import TrainingError
from posebatch.evaluation.progress_bar import progress_bar
from posebatch.models.weights.records import AnyRecord
from posebatch.training.loop import Row, Worker, averaged_weights, train
from posebatch.training.recipes import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_PLOT_SECONDS: Final = 60.0
"""Seconds between two plots of the progress. Drawing a plot takes as long as learning from several examples."""


_MAX_FAILURES: Final = 3
"""Restarts of the workers by Ray Train before it gives up."""


_NOT_ACCURACY: Final = frozenset(
    {"step", "learning_rate", "examples_per_second", "loss", "mse", "cross_entropy", "class_loss", "box_loss"}
)
"""Columns of the history that are no figures of merit."""


def train_here(recipe: Recipe, folder: Path, device: str) -> AnyRecord:
    """Train in this process, then `finish`."""
    train(recipe.prepare(device), recipe.loop, folder, report=_progress(recipe, folder))
    return finish(recipe, folder)


def train_on_ray(recipe: Recipe, folder: Path, workers: int, device: str) -> AnyRecord:
    """Train on ``workers`` workers of Ray Train, one GPU or one core each, then `finish`.

    ``device`` is ``cuda``, ``cpu``, or ``auto``: GPUs if the cluster has any. All workers must see ``folder``. If a
    worker dies, all restart from the last checkpoint. Raises `TrainingError` if a batch has fewer examples than there
    are workers, if Ray cannot be reached, and if Ray Train gives up.
    """
    import ray  # noqa: PLC0415 - takes seconds, and is not always installed
    from ray.train import FailureConfig, RunConfig, ScalingConfig  # noqa: PLC0415
    from ray.train.torch import TorchTrainer  # noqa: PLC0415

    from posebatch.run.workers.ray_session import connect_to_ray  # noqa: PLC0415

    if recipe.loop.batch_size < workers:
        raise TrainingError(
            f"{workers} workers cannot share batches of {recipe.loop.batch_size}; ask for fewer workers"
        )
    here = str(folder.resolve())
    try:
        # Ray Train asks the dashboard every second whether the training still runs
        with connect_to_ray(max(workers, os.cpu_count() or 1), dashboard=True):
            use_gpu = device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) > 0)  # type: ignore[no-untyped-call]
            TorchTrainer(
                _train_as_worker,
                train_loop_config={"recipe": recipe, "folder": here},
                scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
                run_config=RunConfig(
                    name="ray", storage_path=here, failure_config=FailureConfig(max_failures=_MAX_FAILURES)
                ),
            ).fit()
    except Exception as error:  # Ray raises any class; the reason is the last line, after the worker's traceback
        reason = ([line for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1]
        raise TrainingError(
            f"{folder}: Ray Train gave up ({reason}); the same command goes on where it stopped"
        ) from error
    return finish(recipe, folder)


def _train_as_worker(config: dict[str, Any]) -> None:
    """The function that each worker of Ray Train runs."""
    from ray import train as ray_train  # noqa: PLC0415
    from ray.train.torch import get_device  # noqa: PLC0415

    recipe, folder = config["recipe"], Path(config["folder"])
    context = ray_train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size())
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(1)  # a worker has one core
    train(recipe.prepare(str(device)), recipe.loop, folder, worker, _progress(recipe, folder))


def finish(recipe: Recipe, folder: Path) -> AnyRecord:
    """Write the result of a training in ``folder``: weights with their record, history and plot."""
    averaged, history = averaged_weights(folder)
    _write_history(history, folder)
    return recipe.finish(averaged, history, folder / f"{recipe.name}.safetensors")


def _progress(recipe: Recipe, folder: Path) -> Callable[[list[Row]], None]:
    """A callback for new rows of the history: shows each, and rewrites history and plot now and then."""
    steps, drawn = recipe.loop.steps, time.monotonic()
    bar = progress_bar(f"training {recipe.name}, step", steps, "step", log_seconds=0, timing=False)

    def report(history: list[Row]) -> None:
        nonlocal drawn
        row = history[-1]
        minutes = (steps - row["step"]) * recipe.loop.batch_size / row["examples_per_second"] / 60
        figures = [f"{name} {value:.4g}" for name, value in row.items() if name != "step"]
        bar.set_postfix_str(", ".join([*figures, f"{minutes:.0f} min left"]), refresh=False)
        bar.update(int(row["step"]) - bar.n)
        if row["step"] == steps:
            bar.close()
        if time.monotonic() - drawn > _PLOT_SECONDS:
            drawn = time.monotonic()
            _write_history(history, folder)

    return report


def _write_history(history: list[Row], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "history.json").write_text(json.dumps(history))
    plot_history(history, folder / "progress.png")


def plot_history(history: Sequence[Row], path: Path) -> None:
    """Draw loss, learning rate and figures of merit over the steps, as a PNG."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _plot_loss(left, history)
    _plot_accuracy(right, history)
    figure.savefig(path, dpi=100)


def _plot_loss(axes: Axes, history: Sequence[Row]) -> None:
    steps = [row["step"] for row in history]
    axes.plot(steps, [row["loss"] for row in history], color="tab:blue", linewidth=0.6, alpha=0.5)
    axes.plot(steps, trailing_mean([row["loss"] for row in history]), color="tab:blue")
    axes.set(xlabel="step", ylabel="loss", title="loss, and learning rate (grey)")
    rate = axes.twinx()
    rate.plot(steps, [row["learning_rate"] for row in history], color="grey", linewidth=0.8)
    rate.set_ylabel("learning rate")


def _plot_accuracy(axes: Axes, history: Sequence[Row]) -> None:
    axes.set(xlabel="step", title="on the validation images")
    for name in sorted({key for row in history for key in row} - _NOT_ACCURACY):
        rows = [row for row in history if name in row]
        axes.plot([row["step"] for row in rows], [row[name] for row in rows], marker=".", label=name)
    if axes.lines:
        axes.legend()


def trailing_mean(values: Sequence[float], share: float = 0.05) -> list[float]:
    """Means over windows that end at each value and hold a ``share`` of all values."""
    width = max(int(len(values) * share), 1)
    windows = (values[max(i + 1 - width, 0) : i + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]
