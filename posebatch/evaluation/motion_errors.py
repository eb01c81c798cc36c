"""Errors of movement against figures whose joints are known: raw poses, and smoothed ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.motion_settings import MotionSettings
from posebatch.core.text_table import text_table
from posebatch.motion.blocks import FrameBlock
from posebatch.motion.movement.angles import ANGLE_NAMES, PERIODS, body_angles
from posebatch.motion.movement.motion_block import MotionBlock
from posebatch.motion.movement.quality import TrackSummary
from posebatch.motion.movement.series import Movement
from posebatch.motion.tracking.links import Links

Array = NDArray[np.float64]

KPT_THR: Final = 0.3
KNEES: Final = [ANGLE_NAMES.index("left_knee"), ANGLE_NAMES.index("right_knee")]
LARGEST_DELAY: Final = 10
"""Frames."""


@dataclass(frozen=True)
class Noise:
    """Errors of a network, as drawn by `noisy`."""

    median_px: float
    """Median distance of a joint from the truth."""
    kept: float
    """Share of the error that stays from frame to frame: 0 is white noise."""
    outliers: float = 0.01
    """Share of joints that lie anywhere within about 40 px."""
    dropouts: float = 0.03
    """Share of joints below the score threshold."""


@dataclass(frozen=True)
class Errors:
    """Of one kind of joints or angles, over all frames in which raw poses tell it."""

    median: float
    rms: float
    known: float
    """Share of all frames in which it is told."""


def noisy(truth: Array, noise: Noise, rng: np.random.Generator) -> NDArray[np.float32]:
    """Keypoints (f, 17, 3) with errors from joints (f, 17, 2) in pixels."""
    sigma = noise.median_px / np.sqrt(2 * np.log(2))  # the distance is Rayleigh distributed
    errors = rng.normal(0, sigma, truth.shape)
    for frame in range(1, len(errors)):
        errors[frame] = noise.kept * errors[frame - 1] + np.sqrt(1 - noise.kept**2) * errors[frame]
    wild = rng.random(truth.shape[:2]) < noise.outliers
    errors[wild] += rng.normal(0, 40, (int(wild.sum()), 2))
    scores = np.where(rng.random(truth.shape[:2]) < noise.dropouts, 0.1, 0.8)
    return np.concatenate([truth + errors, scores[..., None]], axis=2).astype(np.float32)


def block_of(time_s: Array, keypoints: NDArray[np.float32], first: int = 0) -> FrameBlock:
    """Frames of persons (f, n, 17, 3), all seen in each frame."""
    frames, persons = keypoints.shape[:2]
    rows = keypoints.reshape(frames * persons, *keypoints.shape[2:])
    index = np.arange(first, first + frames)
    return FrameBlock(
        frame_index=index,
        pts=np.round(time_s * 90_000).astype(np.int64),
        time_s=time_s,
        frame=np.repeat(np.arange(frames), persons),
        person=np.tile(np.arange(persons, dtype=np.int32), frames),
        bbox_xyxy=np.concatenate([rows[..., :2].min(axis=1), rows[..., :2].max(axis=1)], axis=1),
        bbox_scores=np.full(len(rows), 0.9, np.float32),
        pose_scores=np.full(len(rows), 0.8, np.float32),
        keypoints=rows,
    )


def all_seen(frames: int, persons: int) -> Links:
    """Links of persons that keep their rank over all frames."""
    ends = np.zeros(persons, np.int64), np.full(persons, frames - 1, np.int64)
    return Links(np.tile(np.arange(persons, dtype=np.int32), frames), *ends)


def movement_of(
    time_s: Array, keypoints: NDArray[np.float32], settings: MotionSettings
) -> tuple[list[MotionBlock], tuple[TrackSummary, ...]]:
    """The movement of one person (f, 17, 3)."""
    series = Movement(all_seen(len(time_s), 1), settings, (1920, 1080), KPT_THR)
    blocks = [*series.add(block_of(time_s, keypoints[:, None])), *series.finish()]
    return blocks, series.summaries()


def compare(time_s: Array, truth: Array, keypoints: NDArray[np.float32], settings: MotionSettings) -> str:
    """A table of errors of raw and of smoothed joints and angles, and the delay of smoothed knee angles."""
    blocks, summaries = movement_of(time_s, keypoints, settings)
    raw = np.where(keypoints[..., 2:] > KPT_THR, keypoints[..., :2], np.nan).astype(np.float64)
    smooth = np.concatenate([block.joints[..., :2] for block in blocks])
    angles = np.concatenate([block.angles for block in blocks])
    right = np.ones(len(truth))
    true_angles, raw_angles = body_angles(truth, right), body_angles(raw, right)
    rows = [
        ("joints, px", *_both(_distance(raw, truth), _distance(smooth, truth))),
        ("knee, degrees", *_both(_apart(raw_angles, true_angles)[:, KNEES], _apart(angles, true_angles)[:, KNEES])),
        ("all angles, degrees", *_both(_apart(raw_angles, true_angles), _apart(angles, true_angles))),
    ]
    header = ["", "raw: median", "RMS", "known", "smoothed: median", "RMS", "known", "RMS ratio"]
    delay = delay_frames(angles[:, KNEES[0]], true_angles[:, KNEES[0]])
    text = text_table(header, [list(row) for row in rows])
    return f"{text}\ndelay of the left knee's angle: {delay} frames; grade {summaries[0].grade}"


def delay_frames(values: NDArray[np.floating[Any]], truth: Array) -> int:
    """The shift at which two series (f,) correlate best, frames; above 0 ``values`` come late."""
    shifts = np.arange(-LARGEST_DELAY, LARGEST_DELAY + 1)
    inside = slice(LARGEST_DELAY, -LARGEST_DELAY)
    level = np.nan_to_num(values - np.nanmean(values))
    scores = [float((np.roll(level, -shift) * (truth - truth.mean()))[inside].sum()) for shift in shifts]
    return int(shifts[int(np.argmax(scores))])


def _both(raw: Array, smooth: Array) -> Iterator[str]:
    """Cells of one row: both are judged where the raw value is known."""
    told = ~np.isnan(raw)
    first, second = _errors(raw[told], raw), _errors(smooth[told & ~np.isnan(smooth)], smooth)
    for errors in (first, second):
        yield from (f"{errors.median:.2f}", f"{errors.rms:.2f}", f"{errors.known:.1%}")
    yield f"{second.rms / first.rms:.2f}"


def _errors(values: Array, everywhere: Array) -> Errors:
    known = float((~np.isnan(everywhere)).mean())
    return Errors(float(np.median(np.abs(values))), float(np.sqrt((values**2).mean())), known)


def _distance(a: NDArray[np.floating[Any]], b: Array) -> Array:
    distance: Array = np.hypot(*np.moveaxis(a - b, -1, 0))
    return distance


def _apart(a: NDArray[np.floating[Any]], b: Array) -> Array:
    apart: Array = (a - b + PERIODS / 2) % PERIODS - PERIODS / 2
    return apart
