"""The time of a frame by stage, as stacked bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.figures import EndToEnd, Peer, Scenario

_COLOURS: Final = {
    "decode": "tab:blue",
    "detect": "tab:orange",
    "pose": "tab:green",
    "publish": "tab:red",
    "beyond the stages": "lightgrey",
    "all stages": "grey",
}


_LONGEST_BAR: Final = 3.0
"""Longest bar, as a multiple of the median. A longer bar is cut off; its figure stands beside it."""


def core_ms(scenario: Scenario) -> dict[str, dict[str, float]]:
    """Core milliseconds per frame, by program and stage.

    The job's bars are its stages measured alone. Its time beyond their sum is a part of its own.
    """
    runs = {run.name: _job_bar(run, scenario.cores) for run in (*scenario.on_ray, scenario.one_process)}
    return runs | {peer.name: _peer_bar(peer, scenario.cores) for peer in scenario.peers}


def _job_bar(run: EndToEnd, cores: int) -> dict[str, float]:
    stages = {stage: 1e3 * run.stages.threads * seconds for stage, seconds in run.stages.stages.items()}
    beyond = 1e3 * cores / run.measured.rate - sum(stages.values())
    return {**stages, "beyond the stages": max(0.0, beyond)}


def _peer_bar(peer: Peer, cores: int) -> dict[str, float]:
    if not peer.stages:
        return {"all stages": 1e3 * cores / peer.measured.rate}
    return {stage: 1e3 * cores * seconds for stage, seconds in peer.stages.items()}


def write_plot(scenarios: Sequence[Scenario], path: Path) -> None:
    """Draw a PNG, one panel for each scenario."""
    height = 0.6 + sum(1.1 + 0.32 * len(core_ms(scenario)) for scenario in scenarios)
    figure = Figure(figsize=(9, height), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(scenarios), 1))
    for axes, scenario in zip(panels, scenarios, strict=True):
        bars = core_ms(scenario)
        for stage, colour in _COLOURS.items():
            widths = [bar.get(stage, 0.0) for bar in bars.values()]
            if any(widths):
                axes.barh(list(bars), widths, left=[_left_edge(bar, stage) for bar in bars.values()], color=colour)
        totals = [sum(bar.values()) for bar in bars.values()]
        limit = min(max(totals), _LONGEST_BAR * median(totals))  # a far slower program must not hide the others
        for row, total in enumerate(totals):
            axes.text(min(total, limit) + 0.01 * limit, row, f"{total:.0f}", va="center", fontsize="small")
        axes.set_xlim(0, 1.1 * limit)
        axes.invert_yaxis()
        axes.set_title(scenario.name, fontsize="medium", loc="left")
    panels[-1].set_xlabel("core milliseconds a frame")
    handles = [Patch(color=colour, label=stage) for stage, colour in _COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    figure.savefig(path, dpi=100)


def _left_edge(bar: dict[str, float], stage: str) -> float:
    """The left edge of a stage's part of a bar, ms."""
    stages = list(_COLOURS)
    return sum(bar.get(other, 0.0) for other in stages[: stages.index(stage)])
