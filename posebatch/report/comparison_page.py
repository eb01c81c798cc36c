"""The page of a comparison: one self-contained HTML file without scripts."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from posebatch.core.extras import need
from posebatch.core.version import __version__
from posebatch.motion.comparing.comparison import Comparison
from posebatch.motion.comparing.performance import Performance, in_torsos, torso_px
from posebatch.motion.comparing.reference_band import Band
from posebatch.report.curves import curves_svg
from posebatch.report.drawing import DRAWING_THRESHOLDS, draw_skeletons
from posebatch.report.source_frames import SourceFrame
from posebatch.report.stick_figures import Window, figure_svg

Array = NDArray[np.float64]

ANGLES_IN_WORDS: Final = 3
"""Angles that the words beside a moment name."""

CROP_MARGIN: Final = 0.25
"""Space around a person in a picture, of its larger side."""


@dataclass(frozen=True)
class Side:
    """A performance as the page shows it."""

    performance: Performance
    grade: str | None
    mirrored: bool
    frames: Sequence[SourceFrame] | None
    """Frames of the video at the moments; None if it cannot be read."""
    drawn: Array
    """(moments, 17, 3) joints at the moments, pixels of the displayed frame; if mirrored, with sides exchanged."""

    @property
    def label(self) -> str:
        """Its name."""
        return self.performance.label


def comparison_html(
    comparison: Comparison,
    sides: tuple[Side, Side],
    moments: Sequence[int],
    band: Band | None,
    gif: bytes,
    notes: Sequence[str] = (),
) -> str:
    """The page. ``notes`` are sentences that the reader should know. Names of videos are escaped.

    Raises `UsageError` if Jinja2 is not installed.
    """
    need("jinja2")
    import jinja2  # noqa: PLC0415 - an optional extra

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("posebatch.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("comparison.html.j2").render(
        title=f"{sides[0].label} and {sides[1].label}",
        sides=[
            {
                "label": side.label,
                "mirrored": side.mirrored,
                "grade": side.grade,
                "from_s": float(times[0]),
                "to_s": float(times[-1]),
            }
            for side, times in zip(sides, (comparison.time_a, comparison.time_b), strict=True)
        ],
        mean_difference=float(np.sqrt(np.nanmean(comparison.difference**2))),
        references=0 if band is None else band.references,
        left_out=comparison.left_out,
        notes=notes,
        gif=base64.b64encode(gif).decode(),
        moments=_moments(comparison, sides, moments),
        angles=[_angle(comparison, number, moments, band) for number in range(len(comparison.angle_names))],
        version=__version__,
    )


def _angle(comparison: Comparison, number: int, moments: Sequence[int], band: Band | None) -> dict[str, Any]:
    import markupsafe  # noqa: PLC0415 - comes with Jinja2

    difference = comparison.difference[:, number]
    known = ~np.isnan(difference)
    largest = int(np.nanargmax(np.abs(difference)))
    inside = np.nan
    if band is not None:
        b, low, high = (values[:, number] for values in (comparison.b, band.low, band.high))
        sure = ~np.isnan(b + low)
        inside = float(((b >= low) & (b <= high))[sure].mean()) if sure.any() else np.nan
    return {
        "name": comparison.angle_names[number],
        "curves": markupsafe.Markup(curves_svg(comparison, number, moments, band)),  # numbers and names of angles
        "rms": float(np.sqrt(np.mean(difference[known] ** 2))),
        "mean": round(float(difference[known].mean()), 1) + 0.0,  # no -0.0
        "largest": float(difference[largest]),
        "largest_phase": float(comparison.phase[largest]),
        "known": float(known.mean()),
        "inside": inside,
    }


def _moments(comparison: Comparison, sides: tuple[Side, Side], moments: Sequence[int]) -> list[dict[str, Any]]:
    import markupsafe  # noqa: PLC0415 - comes with Jinja2

    times = [comparison.time_a[list(moments)], comparison.time_b[list(moments)]]
    figures = [
        in_torsos(side.performance.joints_at(at), torso_px(side.performance.joints))
        for side, at in zip(sides, times, strict=True)
    ]
    window = Window.around(*figures)
    shown = []
    for number, step in enumerate(moments):
        pictures = [
            {
                "time_s": float(at[number]),
                "figure": markupsafe.Markup(figure_svg(joints[number], window, f"skeleton of {letter}")),
                "jpeg": _jpeg(side, number),
            }
            for letter, side, at, joints in zip("AB", sides, times, figures, strict=True)
        ]
        words = _words(comparison, step)
        shown.append({"phase": float(comparison.phase[step]), "words": words, "pictures": pictures})
    return shown


def _words(comparison: Comparison, step: int) -> str:
    """The angles that differ most at a step, such as ``left_knee 40° against 62°``."""
    difference = comparison.difference[step]
    ranked = [i for i in np.argsort(-np.abs(np.nan_to_num(difference))).tolist() if not np.isnan(difference[i])]
    return "; ".join(
        f"{comparison.angle_names[i]}: A {comparison.a[step, i]:.0f}°, B {comparison.b[step, i]:.0f}°"
        for i in ranked[:ANGLES_IN_WORDS]
    )


def _jpeg(side: Side, number: int) -> str | None:
    """The person in a frame of its video, with its skeleton; base64."""
    if side.frames is None:
        return None
    frame, joints = side.frames[number], side.drawn[number]
    known = ~np.isnan(joints[:, 0])
    image = frame.image
    if known.any():
        # an interpolated joint is drawn too: the page shows what was compared
        scored = np.where(known[:, None], joints, 0.0).astype(np.float32)
        scored[:, 2] = np.where(known, 1.0, 0.0)
        image = draw_skeletons(image, scored[None], DRAWING_THRESHOLDS, frame.scale)
        low, high = joints[known, :2].min(axis=0) * frame.scale, joints[known, :2].max(axis=0) * frame.scale
        reach = float((high - low).max()) * (0.5 + CROP_MARGIN)
        left, top = np.maximum((low + high) / 2 - reach, 0).astype(int)
        right, bottom = ((low + high) / 2 + reach).astype(int)
        image = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    picture, sink = Image.fromarray(np.ascontiguousarray(image)), io.BytesIO()
    if side.mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture.thumbnail((480, 480))
    picture.save(sink, "JPEG", quality=80)
    return base64.b64encode(sink.getvalue()).decode()
