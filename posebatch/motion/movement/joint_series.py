"""Joints of tracks made smooth: doubtful ones left out, short gaps filled, noise filtered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posebatch.core.motion_settings import MotionSettings
from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.motion.movement.gaps import FilledSeries, fill_gaps
from posebatch.motion.movement.outliers import half_window, outliers
from posebatch.motion.movement.smoothing import LowPass, smooth
from posebatch.motion.movement.swaps import Swaps, exchanged_joints, find_jumps, find_swaps, repaired
from posebatch.motion.movement.torso import local_torso, torso_lengths
from posebatch.motion.movement.track_rows import TrackRows

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class JointSeries:
    """Joints of the rows (m,) of `TrackRows`."""

    raw: Array
    """(m, 17, 2) joints above the score threshold, pixels; NaN elsewhere."""
    xy: Array
    """(m, 17, 2) smooth, short gaps filled; NaN where not known."""
    score: Array
    """(m, 17) 0 where interpolated, NaN where not known."""
    linked: Flags
    """(m, 17) rows that continue the row before in a run that is smooth: a speed can be told."""
    filtered: bool
    """Whether smooth runs are filtered: the frame rate is high enough for the cut-off frequency."""
    torso: Array
    """(m,) local torso length, pixels."""
    swapped: Flags
    """(m,) left and right of arms or legs seem exchanged."""
    jumps: Flags
    """(m,) the person lies too far from the row before."""


def joint_series(
    rows: TrackRows, settings: MotionSettings, kpt_thr: float, low_pass: LowPass, origin: float
) -> JointSeries:
    """Smooth the joints of ``rows``. ``origin`` is the time of the video's first frame."""
    keypoints = np.where(rows.keypoints[..., 2:] > kpt_thr, rows.keypoints, np.nan)
    torso = local_torso(rows, torso_lengths(keypoints[..., :2]), origin)
    swaps = find_swaps(rows.time_s, rows.track, keypoints[..., :2], torso)
    jumps = find_jumps(rows.time_s, keypoints[..., :2], torso)
    unrepaired = swaps.swapped
    if settings.repair_swaps:
        keypoints, unrepaired = repaired(keypoints, swaps), swaps.swapped & ~swaps.repairable
    raw = keypoints[..., :2]
    doubtful = outliers(raw, torso, half_window(low_pass.interval_s)) & ~exchanged_joints(unrepaired)
    known = np.where(doubtful[..., None], np.nan, raw)
    breaks = _breaks(rows, known, torso, unrepaired, swaps, max(settings.max_gap_seconds, 1.5 * low_pass.interval_s))
    xy, interpolated, linked = _smoothed(rows, known, breaks, settings.max_gap_seconds, low_pass)
    score = np.where(interpolated, 0.0, np.where(np.isnan(xy[..., 0]), np.nan, keypoints[..., 2]))
    swapped: Flags = swaps.swapped[:, 0] | swaps.swapped[:, 1]
    return JointSeries(raw, xy, score, linked, not low_pass.passes_all, torso, swapped, jumps)


def _breaks(rows: TrackRows, known: Array, torso: Array, unrepaired: Flags, swaps: Swaps, longest_s: float) -> Flags:
    """Rows (m, 17) that do not continue the row before: another track, a pause of the video, a jump, an exchange.

    Jumps are searched again after outliers are left out: a person that is elsewhere in one frame is no cut.
    """
    starts = rows.track != np.concatenate([[-2], rows.track[:-1]])
    step = np.diff(rows.time_s, prepend=np.nan)
    pauses = (step > longest_s) | (step <= 0)
    whole = starts | pauses | find_jumps(rows.time_s, known, torso)
    changed = unrepaired != np.concatenate([np.zeros((1, 2), np.bool_), unrepaired[:-1]])
    lone = swaps.exchanges & unrepaired
    breaks: Flags = whole[:, None] | exchanged_joints(changed | lone)
    return breaks


def _smoothed(
    rows: TrackRows, known: Array, breaks: Flags, max_gap_s: float, low_pass: LowPass
) -> tuple[Array, Flags, Flags]:
    """Joints (m, 17, 2), which are interpolated (m, 17), and which continue the row before (m, 17).

    The series of all joints lie one after the other: one call handles all.
    """
    m = len(rows)
    time = np.tile(rows.time_s, NUM_KEYPOINTS)
    series = fill_gaps(time, known.transpose(1, 0, 2).reshape(-1, 2), breaks.T.ravel(), max_gap_s)
    continues = (np.diff(series.run, prepend=-1) == 0) & (series.run >= 0)
    xy, smooth_run = _filtered(time, series, continues, low_pass)
    linked = continues & smooth_run[series.run] if len(smooth_run) else continues
    shape = NUM_KEYPOINTS, m
    return (
        np.ascontiguousarray(xy.reshape(*shape, 2).transpose(1, 0, 2)),
        series.interpolated.reshape(shape).T,
        linked.reshape(shape).T,
    )


def _filtered(time: Array, series: FilledSeries, continues: Flags, low_pass: LowPass) -> tuple[Array, Flags]:
    starts = np.flatnonzero((series.run >= 0) & ~continues)
    stops = starts + np.bincount(series.run[series.run >= 0], minlength=len(starts))
    return smooth(time, series.xy, starts, stops, low_pass)
