"""From two names to the files of a comparison."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.errors import InputError
from posebatch.core.skeleton import FLIP_ORDER
from posebatch.dataset.performances import Wanted, matching_videos, parse_wanted, read_performance
from posebatch.dataset.tables.comparisons import comparison_parquet
from posebatch.motion.comparing.comparison import DEFAULT_ANGLES, Comparison, compare, largest_moments
from posebatch.motion.comparing.mirroring import is_frontal, mirrored
from posebatch.motion.comparing.performance import Performance, in_torsos, torso_px
from posebatch.motion.comparing.reference_band import Band, reference_band
from posebatch.report.comparison_page import Side, comparison_html
from posebatch.report.gif import encode_gif
from posebatch.report.mp4 import Mp4Writer
from posebatch.report.picture_writer import AnnotatedFrame
from posebatch.report.source_frames import frames_at
from posebatch.report.stick_figures import frames_in_step

Array = NDArray[np.float64]

FRAME_HEIGHT: Final = 900
"""Frames of the source are reduced to this height, pixels, before the person is cut out."""


MIN_PLAY_S: Final = 4.0
"""A shorter performance is shown slowed down to this time."""


MAX_PLAY_S: Final = 12.0
"""A longer one is shown faster."""


GIF_FRAMES_PER_S: Final = 10


MP4_FRAMES_PER_S: Final = 25


@dataclass(frozen=True)
class ComparisonRequest:
    """What to compare, as the command line states it."""

    a: str
    """The reference: ``VIDEO[#track][@from-to]``."""
    b: str
    output: str
    output_b: str | None = None
    angles: tuple[str, ...] = DEFAULT_ANGLES
    mirror: str | None = None
    """``A`` or ``B``."""
    reference: str | None = None
    """A glob over videos of ``output`` that are references too."""
    endpoint_url: str | None = None


@dataclass(frozen=True)
class ComparisonFiles:
    """The files of a comparison, and what happened on the way."""

    comparison: Comparison
    band: Band | None
    html: str
    gif: bytes
    mp4: bytes
    parquet: bytes
    notes: tuple[str, ...]
    """References that could not be used, and why; pixels that could not be read."""


def comparison_files(request: ComparisonRequest) -> ComparisonFiles:
    """Read, align, compare and draw. Raises `InputError` for whatever cannot be found, or cannot be compared."""
    wanted = parse_wanted(request.a), parse_wanted(request.b)
    outputs = request.output, request.output_b or request.output
    chosen = [read_performance(uri, item, request.endpoint_url) for uri, item in zip(outputs, wanted, strict=True)]
    flags = [request.mirror == letter for letter in "AB"]
    a, b = (mirrored(one.performance) if flag else one.performance for one, flag in zip(chosen, flags, strict=True))
    comparison = compare(a, b, request.angles)
    band, notes = _band(request, a, comparison, {(uri, one.video) for uri, one in zip(outputs, chosen, strict=True)})
    notes += _view_notes(a, b)
    moments = largest_moments(comparison)
    sides = []
    for one, performance, flag, times in zip(
        chosen, (a, b), flags, (comparison.time_a, comparison.time_b), strict=True
    ):
        at = times[list(moments)]
        frames = frames_at(one.source, at.tolist(), FRAME_HEIGHT, request.endpoint_url)
        if frames is None:
            notes.append(f"{one.source} cannot be read: its pictures are left out")
        drawn = one.performance.joints_at(at)
        sides.append(Side(performance, one.grade, flag, frames, drawn[:, FLIP_ORDER] if flag else drawn))
    notes, (gif, mp4) = list(dict.fromkeys(notes)), _clips(comparison, a, b)
    html = comparison_html(comparison, (sides[0], sides[1]), moments, band, gif, notes)
    parquet = comparison_parquet(comparison, band, (a.label, b.label))
    return ComparisonFiles(comparison, band, html, gif, mp4, parquet, tuple(notes))


def _view_notes(a: Performance, b: Performance) -> list[str]:
    """A warning if the cameras look from other directions, as far as the shoulders tell."""
    frontal = [is_frontal(one) for one in (a, b)]
    if frontal[0] == frontal[1]:
        return []
    front, side = (a, b) if frontal[0] else (b, a)
    return [
        f"{front.label} is seen from the front or the back and {side.label} is not: their angles differ by the view"
    ]


def _band(
    request: ComparisonRequest, a: Performance, first: Comparison, compared: set[tuple[str, str]]
) -> tuple[Band | None, list[str]]:
    """The band of A and the references, without A and B themselves; and the references that were left out."""
    if request.reference is None:
        return None, []
    others: list[Comparison] = []
    notes: list[str] = []
    for video in matching_videos(request.output, request.reference, request.endpoint_url):
        if (request.output, video) in compared:
            continue
        try:
            other = read_performance(request.output, Wanted(video), request.endpoint_url).performance
            others.append(compare(a, other, first.angle_names))
        except InputError as error:
            notes.append(f"reference left out: {error}")
    if not others:
        raise InputError(
            f"--reference {request.reference}: no reference besides A and B{': ' if notes else ''}{'; '.join(notes)}"
        )
    return reference_band(first, others), notes


def _clips(comparison: Comparison, a: Performance, b: Performance) -> tuple[bytes, bytes]:
    """Both skeletons in step, as a GIF and as an MP4."""
    duration_s = float(np.clip(np.ptp(comparison.time_a), MIN_PLAY_S, MAX_PLAY_S))
    gif, mp4 = _frames(comparison, a, b, duration_s, GIF_FRAMES_PER_S), io.BytesIO()
    with Mp4Writer(Fraction(1, MP4_FRAMES_PER_S)) as writer:
        for frame in _frames(comparison, a, b, duration_s, MP4_FRAMES_PER_S):
            writer.add(frame)
        writer.finish(mp4)
    return encode_gif(gif)[0], mp4.getvalue()


def _frames(
    comparison: Comparison, a: Performance, b: Performance, duration_s: float, frames_per_s: int
) -> Iterator[AnnotatedFrame]:
    count = round(duration_s * frames_per_s)
    at = np.linspace(0.0, 1.0, count)
    joints = [
        in_torsos(one.joints_at(np.interp(at, comparison.phase, times)), torso_px(one.joints))
        for one, times in ((a, comparison.time_a), (b, comparison.time_b))
    ]
    shown = (np.arange(count) / frames_per_s).tolist()
    return frames_in_step(shown, joints[0], joints[1], (a.label, b.label))
