"""The peaks of heatmaps, and which of them the track of a person suggests: an experiment, no part of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from numpy.typing import NDArray

from posebatch.motion.movement.torso import torso_lengths
from posebatch.pose.heatmaps import decode_heatmaps

Array = NDArray[np.float64]

PEAKS: Final = 3
RADIUS_PX: Final = 3
"""A peak is the highest pixel within this distance on both axes, heatmap pixels."""
LEAST_SHARE: Final = 0.6
"""A lower peak counts from this share of the highest peak's score on."""
SIGMA: Final = 0.3
"""Standard deviation of a joint from where its last two positions lead to, torso lengths at 30 frames per second."""
ANYWHERE: Final = 1e-4
"""Likelihood of any other place, against 1 for the predicted one."""
LONGEST_STEP: Final = 4
"""Nothing is predicted over more frame intervals than this."""


@dataclass(frozen=True)
class Track:
    """A person (f frames) with the peaks of the heatmaps."""

    time_s: Array
    peaks: Array
    """(f, 17, PEAKS, 3) x and y in the frame, score; the highest first, score 0 where there is no other."""
    size_wh: tuple[int, int]
    joints: Array | None = None
    """(f, 17, 2) the true joints, if known."""
    visible: NDArray[np.bool_] | None = None
    """(f, 17)."""


def top_peaks(heatmaps: NDArray[np.float32]) -> NDArray[np.float32]:
    """The highest local maxima of maps (n, k, h, w): (n, k, PEAKS, 3) x, y, score. The first is that of a run."""
    maps, width = torch.from_numpy(heatmaps), heatmaps.shape[3]
    highest = F.max_pool2d(maps, 2 * RADIUS_PX + 1, stride=1, padding=RADIUS_PX) == maps
    tops = (maps * highest).flatten(2).topk(PEAKS, dim=2)
    y, x = np.divmod(tops.indices.numpy()[..., None, None], width)  # (n, k, PEAKS, 1, 1)
    rows, columns = np.indices(heatmaps.shape[2:])
    near = (np.abs(rows - y) <= RADIUS_PX) & (np.abs(columns - x) <= RADIUS_PX)
    found = [decode_heatmaps(heatmaps, "dark")]
    found += [decode_heatmaps(heatmaps * near[:, :, peak], "dark") for peak in range(1, PEAKS)]
    peaks = np.stack(found, axis=2)
    exists = tops.values.numpy() > 0
    return np.where(exists[..., None], peaks, 0).astype(np.float32)


def choose(peaks: Array, time_s: Array, torso: Array) -> NDArray[np.intp]:
    """The peak (f, 17) of each joint such that scores and predicted places fit best over the track (Viterbi).

    A state is the pair of peaks in two frames. The cost of a peak is -log(score), that of a step -log of a Gaussian of
    the distance from the uniform continuation, plus `ANYWHERE`.
    """
    f, k, p, _ = peaks.shape
    if f < 3:
        return np.zeros((f, k), np.intp)
    scores, xy = peaks[..., 2], peaks[..., :2]
    allowed = (scores > 0) & (scores >= LEAST_SHARE * scores[..., :1])
    allowed[..., 0] = True
    unlikely = np.where(allowed, -np.log(np.maximum(scores, 1e-9)), 1e6)
    interval = float(np.median(np.diff(time_s)))
    cost = unlikely[0][:, :, None] + unlikely[1][:, None, :]  # (k, before, now)
    back = np.zeros((f, k, p, p), np.intp)
    for t in range(2, f):
        before, now = time_s[t - 1] - time_s[t - 2], time_s[t] - time_s[t - 1]
        total = np.repeat(cost[..., None], p, axis=3)  # (k, before, now, next)
        if 0 < max(before, now) <= LONGEST_STEP * interval:
            ratio = now / before
            predicted = (1 + ratio) * xy[t - 1][:, None] - ratio * xy[t - 2][:, :, None]
            off = np.linalg.norm(xy[t][:, None, None] - predicted[:, :, :, None], axis=-1)
            total -= np.log(np.exp(-((off / (SIGMA * 30 * interval * torso[t])) ** 2) / 2) + ANYWHERE)
        back[t] = total.argmin(axis=1)
        cost = total.min(axis=1) + unlikely[t][:, None, :]
    best, joints = np.zeros((f, k), np.intp), np.arange(k)
    best[-2], best[-1] = np.divmod(cost.reshape(k, p * p).argmin(axis=1), p)
    for t in range(f - 1, 1, -1):
        best[t - 2] = back[t][joints, best[t - 1], best[t]]
    return best


def choices(track: Track) -> dict[str, Array]:
    """Keypoints (f, 17, 3): the highest peaks, those that the track suggests, and those nearest to the true joints."""
    peaks, highest = track.peaks, track.peaks[:, :, 0]
    torso = np.full(len(peaks), max(1.0, float(np.nanmedian(torso_lengths(highest[..., :2])))))
    chosen = {"highest": np.zeros(peaks.shape[:2], np.intp), "track": choose(peaks, track.time_s, torso)}
    if track.joints is not None:
        away = np.linalg.norm(peaks[..., :2] - track.joints[:, :, None], axis=3)
        chosen["best of 3"] = np.where(peaks[..., 2] > 0, away, np.inf).argmin(axis=2)
    return {name: np.take_along_axis(peaks, at[..., None, None], axis=2)[:, :, 0] for name, at in chosen.items()}
