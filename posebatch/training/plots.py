"""How a training went, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posebatch.training.loop import Row

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
