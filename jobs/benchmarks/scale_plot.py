"""Simulated fleets: how busy GPUs and drivers are, and what the store refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.fleet_simulation import FleetFigures


def write_scale_plot(figures: Sequence[FleetFigures], path: Path) -> None:
    """Draw three bars for each fleet, in per cent: GPUs busy, busiest driver busy, answers that ask to slow down."""
    figure = Figure(figsize=(9, 0.9 * len(figures) + 1.2), layout="constrained")
    axes = figure.subplots()
    parts = [
        ("GPUs busy", "tab:green", [100 * one.busy for one in figures]),
        ("busiest driver busy", "tab:blue", [100 * one.driver_busy for one in figures]),
        ("answers that ask to slow down", "tab:red", [100 * one.slowed_share for one in figures]),
    ]
    for number, (name, colour, values) in enumerate(parts):
        places = [place + 0.27 * (number - 1) for place in range(len(figures))]
        bars = axes.barh(places, values, height=0.25, color=colour, label=name)
        axes.bar_label(bars, [f"{value:.0f}" for value in values], padding=2, fontsize=8)
    labels = [f"{one.fleet.name}\n{one.rate:.0f} of {one.ideal:.0f} videos/s" for one in figures]
    axes.set_yticks(range(len(figures)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xlabel("per cent")
    axes.set_title(f"{figures[0].fleet.workers} made-up workers, simulated")
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)
