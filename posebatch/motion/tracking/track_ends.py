"""What is known of a person at the start or the end of a tracklet: place, velocity, size, proportions, pose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.motion.tracking.local_motion import local_motion, walk
from posebatch.motion.tracking.row_window import RowWindow

ROWS_SEEN: Final = 16
"""An end is described by at most so many rows."""


_JOINT: Final = {name: index for index, name in enumerate(KEYPOINT_NAMES)}


_BONES: Final = tuple(
    (_JOINT[f"{side}_{a}"], _JOINT[f"{side}_{b}"])
    for a, b in (("shoulder", "hip"), ("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
    for side in ("left", "right")
)
"""Bones (10), a left and a right one for each length of `TrackEnds.bones`."""


@dataclass(frozen=True)
class TrackEnds:
    """Ends (n) of tracklets, all starts or all finishes."""

    piece: NDArray[np.int64]
    """(n,)"""
    order: NDArray[np.int64]
    """(n,) frame of the end, counted from the video's start."""
    time_s: NDArray[np.float64]
    """(n,)"""
    lost_s: NDArray[np.float64]
    """(n,) time of the frame after."""
    centre: NDArray[np.float64]
    """(n, 2) pixels."""
    velocity: NDArray[np.float64]
    """(n, 2) pixels a second."""
    speed_variance: NDArray[np.float64]
    """(n,) of either component of the velocity, (heights a second) squared."""
    height: NDArray[np.float64]
    """(n,) pixels, median."""
    bones: NDArray[np.float64]
    """(n, 5) logarithms of lengths in pixels: torso, thigh, shank, upper arm, forearm. NaN where not seen."""
    box: NDArray[np.float64]
    """(n, 4) pixels, at the end."""
    pose: NDArray[np.float32]
    """(n, 17, 3) at the end."""

    def __len__(self) -> int:
        return len(self.piece)

    def take(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> TrackEnds:
        """Some of the ends."""
        return TrackEnds(**{name: values[which] for name, values in vars(self).items()})

    def joined(self, more: TrackEnds) -> TrackEnds:
        """These ends, and more."""
        return TrackEnds(**{name: np.concatenate([values, getattr(more, name)]) for name, values in vars(self).items()})


def track_ends(window: RowWindow, rows: NDArray[np.int64], neighbour: NDArray[np.int64], kpt_thr: float) -> TrackEnds:
    """Describe the ends at ``rows`` (n,).

    ``neighbour`` leads from the ends into the tracklets: `RowWindow.previous` for finishes, `RowWindow.following` for
    starts.
    """
    seen, known = walk(window, rows, neighbour, ROWS_SEEN)
    time = window.time_s[window.order[seen]]
    boxes = window.boxes[seen]
    height = _median(np.where(known, boxes[..., 3] - boxes[..., 1], np.nan)[..., None])[:, 0].clip(1.0)
    centre, velocity, variance = local_motion(time, (boxes[..., :2] + boxes[..., 2:]) / 2, known)
    order = window.order[rows]
    after = np.minimum(order + 1, len(window.time_s) - 1)
    return TrackEnds(
        piece=window.piece[rows],
        order=order + window.first_order,
        time_s=window.time_s[order],
        lost_s=window.time_s[after],
        centre=centre,
        velocity=velocity,
        speed_variance=variance,
        height=height,
        bones=_bones(window.poses[seen], known, kpt_thr),
        box=window.boxes[rows],
        pose=window.poses[rows],
    )


def _bones(poses: NDArray[np.float32], known: NDArray[np.bool_], kpt_thr: float) -> NDArray[np.float64]:
    """Logarithms of bone lengths (n, 5), from poses (n, k, 17, 3): the median over time and sides."""
    first, second = (poses[:, :, [bone[side] for bone in _BONES]].astype(np.float64) for side in (0, 1))
    length = np.hypot(first[..., 0] - second[..., 0], first[..., 1] - second[..., 1])
    seen = (first[..., 2] > kpt_thr) & (second[..., 2] > kpt_thr) & known[..., None]
    logs = np.where(seen, np.log(length.clip(1.0)), np.nan)  # (n, k, 10)
    lengths = len(_BONES) // 2
    paired = logs.reshape(len(logs), logs.shape[1], lengths, 2).swapaxes(2, 3)
    return _median(paired.reshape(len(logs), 2 * logs.shape[1], lengths))


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Medians (n, m) of what is known of (n, k, m), NaN where nothing is. The lower one of two in the middle."""
    count = np.isfinite(values).sum(axis=1, keepdims=True)
    ordered = np.sort(values, axis=1)  # NaN is last
    medians: NDArray[np.float64] = np.take_along_axis(ordered, (count - 1).clip(0) // 2, axis=1)[:, 0]
    return medians
