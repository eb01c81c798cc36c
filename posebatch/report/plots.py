"""Angles of a person over time, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from posebatch.core.errors import UsageError
from posebatch.core.extras import need
from posebatch.core.options import nearest
from posebatch.dataset.performances import parse_wanted, read_performance
from posebatch.motion.comparing.angle_facts import joints_of
from posebatch.motion.comparing.performance import Performance
from posebatch.motion.movement.motion_block import ANGLE_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


def plot_angles(
    output: str, video: str, angles: Sequence[str], track: int | None = None, endpoint_url: str | None = None
) -> Figure:
    """Read a performance ``VIDEO[#track][@from-to]`` and draw its angles; see `posebatch.plot`."""
    for name in angles:
        if name not in ANGLE_NAMES:
            raise UsageError(f"no angle is called {name!r}{nearest(name, ANGLE_NAMES)}")
    need("matplotlib")
    wanted = parse_wanted(video)
    if track is not None and wanted.track not in (None, track):
        raise UsageError(f"{video!r} names track {wanted.track}, and track {track} was chosen too: leave one out")
    chosen = read_performance(output, wanted if track is None else replace(wanted, track=track), endpoint_url)
    return angles_figure(chosen.performance, angles)


def angles_figure(performance: Performance, angles: Sequence[str]) -> Figure:
    """A figure of angles over the time of the video: gaps are gaps, interpolated parts are dashed."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an optional extra

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    dashed = False
    for name in angles:
        dashed |= _draw(axes, performance, name)
    axes.set_title(_printable(performance.label), loc="left", parse_math=False)
    axes.set_xlabel("time in the video, s")
    axes.set_ylabel("angle, degrees")
    axes.set_xlim(performance.time_s[0], max(performance.time_s[-1], performance.time_s[0] + 0.1))
    axes.grid(alpha=0.3)
    if dashed:
        axes.plot([], [], color="grey", linestyle=(0, (2, 2)), label="interpolated")
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")  # within the axes it would hide curves
    return figure


def interpolated(performance: Performance, angle: str) -> NDArray[np.bool_]:
    """Rows (m,) in which a joint of the angle is interpolated: its score is 0."""
    scores = performance.joints[:, list(joints_of(angle)), 2]
    return np.asarray((scores == 0).any(axis=1))


def _draw(axes: Axes, performance: Performance, name: str) -> bool:
    """Draw one angle; returns whether a part of it is interpolated."""
    values = performance.angles[:, performance.angle_names.index(name)]
    guessed = interpolated(performance, name) & ~np.isnan(values)
    # a dashed part reaches to the measured rows on both sides, so that the curve does not break there
    beside = guessed | np.concatenate([guessed[1:], [False]]) | np.concatenate([[False], guessed[:-1]])
    jump = np.concatenate([[False], np.abs(np.diff(values)) > 180.0])  # the angle passes the end of its range
    measured = np.where(guessed, np.nan, values)
    label = name.replace("_", " ") if (~np.isnan(values)).any() else f"{name.replace('_', ' ')} (never known)"
    (line,) = axes.plot(*_broken(performance.time_s, measured, jump), label=label, linewidth=1.6)
    lone = ~np.isnan(measured) & _nan_beside(measured)
    axes.plot(performance.time_s[lone], measured[lone], ".", color=line.get_color(), markersize=3)
    if guessed.any():
        shown = np.where(beside, values, np.nan)
        axes.plot(
            *_broken(performance.time_s, shown, jump), color=line.get_color(), linestyle=(0, (2, 2)), linewidth=1.4
        )
    return bool(guessed.any())


def _broken(time_s: Array, values: Array, before: NDArray[np.bool_]) -> tuple[Array, Array]:
    """The curve with a NaN inserted before each marked row."""
    at = np.flatnonzero(before)
    return np.insert(time_s, at, time_s[at]), np.insert(values, at, np.nan)


def _nan_beside(values: Array) -> NDArray[np.bool_]:
    unknown = np.isnan(values)
    return np.concatenate([[True], unknown[:-1]]) & np.concatenate([unknown[1:], [True]])


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)
