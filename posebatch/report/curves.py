"""Curves of angles over the phase as inline SVG, which follows the colours of its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.motion.comparing.angle_facts import periods, wrapped
from posebatch.motion.comparing.comparison import Comparison
from posebatch.motion.comparing.reference_band import Band

Array = NDArray[np.float64]

WIDTH: Final = 360
HEIGHT: Final = 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 12, 26
_MIN_SPAN_DEG: Final = 20.0
_TICKS: Final = (1, 2, 5, 10, 20, 30, 45, 90, 180)


def curves_svg(comparison: Comparison, angle: int, moments: Sequence[int], band: Band | None) -> str:
    """One angle of both performances over the phase, with the band of the references and the marked moments."""
    phase, name = comparison.phase, comparison.angle_names[angle]
    period = periods([name])
    a = _unwrapped(comparison.a[:, angle], float(period[0]))
    lines = [a, a + comparison.difference[:, angle]]
    alone = np.isnan(lines[1])
    lines[1][alone] = comparison.b[alone, angle]
    edges: list[Array] = []
    if band is not None:
        edges = [a + wrapped(values[:, angle] - comparison.a[:, angle], period) for values in (band.low, band.high)]
    low, high, step = _scale([*lines, *edges])

    def y(values: Array) -> Array:
        return _TOP + (high - values) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    x = _x(phase)
    parts = _grid(np.arange(np.ceil(low / step), high / step) * step + 0.0, y)
    for number, moment in enumerate(moments, 1):
        at = float(x[moment])
        parts.append(f'<line class="moment" x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="moment" x="{at:.1f}" y="{_TOP - 2}" text-anchor="middle">{number}</text>')
    if edges:
        parts.append(_band(x, y(edges[0]), y(edges[1])))
    parts += [
        f'<path class="{kind}" d="{_path(x, y(values), _jumps(values))}"/>'
        for kind, values in zip("ab", lines, strict=True)
    ]
    return (
        f'<svg class="curves" role="img" viewBox="0 0 {WIDTH} {HEIGHT}"><title>{name} of A and B over the phase'
        f"</title>{''.join(parts)}</svg>"
    )


def _x(phase: Array) -> Array:
    return _LEFT + phase * (WIDTH - _LEFT - _RIGHT)


def _grid(ticks: Array, y: Callable[[Array], Array]) -> list[str]:
    parts = []
    for degrees, at in zip(ticks.tolist(), y(ticks).tolist(), strict=True):
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{at:.1f}" x2="{WIDTH - _RIGHT}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 4}" y="{at + 4:.1f}" text-anchor="end">{degrees:.0f}°</text>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = float(_x(np.array([share]))[0])
        anchor = {0.0: "start", 1.0: "end"}.get(share, "middle")
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{share:.0%}</text>')
    return parts


def _scale(lines: Sequence[Array]) -> tuple[float, float, float]:
    """Lower end, upper end and step of the axis, degrees."""
    known = np.concatenate(lines)
    known = known[~np.isnan(known)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    missing = max(0.0, _MIN_SPAN_DEG - (high - low)) / 2
    low, high = low - missing, high + missing
    step = next((tick for tick in _TICKS if (high - low) / tick <= 5), 360)
    return low - 0.05 * (high - low), high + 0.05 * (high - low), float(step)


def _unwrapped(angles: Array, period: float) -> Array:
    """Angles (n,) that go on beyond the end of their period instead of jumping; NaN stays."""
    result, known = angles.copy(), ~np.isnan(angles)
    result[known] = np.unwrap(angles[known], period=period)
    return result


def _jumps(values: Array) -> NDArray[np.bool_]:
    """Points (n,) to which the way from the point before is the longer way round: no movement goes there."""
    return np.concatenate([[False], np.abs(np.diff(values)) > 180.0])


def _path(x: Array, y: Array, jumps: NDArray[np.bool_]) -> str:
    """An SVG path that is interrupted where ``y`` is NaN, and before jumps. A lone point becomes a short line."""
    steps, drawing = [], False
    for at, value, jump in zip(x.tolist(), y.tolist(), jumps.tolist(), strict=True):
        drawing = drawing and not jump
        if np.isnan(value):
            drawing = False
            continue
        steps.append(f"{'L' if drawing else 'M'}{at:.1f} {value:.1f}" + ("" if drawing else "h.1"))
        drawing = True
    return "".join(steps)


def _band(x: Array, low: Array, high: Array) -> str:
    """Polygons between two curves, one for each stretch in which both are known."""
    known = np.flatnonzero(~np.isnan(low + high))
    stretches = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1) if len(known) else []
    polygons = []
    for rows in stretches:
        there = [f"{at:.1f},{value:.1f}" for at, value in zip(x[rows], high[rows], strict=True)]
        back = [f"{at:.1f},{value:.1f}" for at, value in zip(x[rows][::-1], low[rows][::-1], strict=True)]
        polygons.append(f'<polygon class="band" points="{" ".join(there + back)}"/>')
    return "".join(polygons)
