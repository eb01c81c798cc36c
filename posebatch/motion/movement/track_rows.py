"""The persons of one window, sorted into one row per track and frame, tracks one below the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.motion.movement.windows import Window
from posebatch.motion.tracking.links import Links

_MANY: Final = 30_000
"""Rows above which the tracks of a window are handled in several parts: a crowd does not need more memory."""


@dataclass(frozen=True)
class TrackRows:
    """Rows (m,) of several tracks. Each track is surrounded by ``padding`` empty rows, so that it never meets another.

    A track has one row per frame of the window from its first to its last, persons seen or not.
    """

    track: NDArray[np.int64]
    """(m,) number of the track, -1 in the padding."""
    frame: NDArray[np.int64]
    """(m,) position in the window's frames, 0 in the padding."""
    time_s: NDArray[np.float64]
    """(m,) NaN in the padding."""
    person: NDArray[np.int32]
    """(m,) rank in the frame, -1 where not seen."""
    height: NDArray[np.float64]
    """(m,) height of the box, pixels, NaN where not seen."""
    center_x: NDArray[np.float64]
    """(m,) middle of the box, pixels, NaN where not seen."""
    pose_score: NDArray[np.float64]
    """(m,) NaN where not seen."""
    keypoints: NDArray[np.float64]
    """(m, 17, 3) x, y and score, NaN where not seen."""
    begins: NDArray[np.int64]
    """(k,) position of the first row of each track."""
    ends: NDArray[np.int64]
    """(k,) position after its last row."""

    def __len__(self) -> int:
        return len(self.track)


def track_rows(window: Window, links: Links, padding: int) -> Iterator[TrackRows]:
    """The rows of the tracks that have frames in the window itself, a number of tracks at a time."""
    block = window.block
    indices = block.frame_index
    if window.start == window.stop:
        return
    inside = (links.first_frame <= indices[window.stop - 1]) & (links.last_frame >= indices[window.start])
    tracks = np.flatnonzero(inside)
    low = np.searchsorted(indices, links.first_frame[tracks])
    high = np.searchsorted(indices, links.last_frame[tracks], side="right")
    part = np.cumsum(high - low) // _MANY
    for number in np.unique(part):
        chosen = part == number
        yield _stacked(window, tracks[chosen], low[chosen], high[chosen], padding)


def _stacked(
    window: Window, tracks: NDArray[np.intp], low: NDArray[np.intp], high: NDArray[np.intp], padding: int
) -> TrackRows:
    block, lengths = window.block, high - low
    ends = np.cumsum(lengths + padding)
    begins = ends - lengths
    rows = int(ends[-1]) + padding
    target = np.arange(int(lengths.sum())) + np.repeat(begins - np.cumsum(lengths) + lengths, lengths)
    track, frame = np.full(rows, -1), np.zeros(rows, np.int64)
    track[target] = np.repeat(tracks, lengths)
    frame[target] = np.arange(len(target)) + np.repeat(low - np.cumsum(lengths) + lengths, lengths)
    time = np.full(rows, np.nan)
    time[target] = block.time_s[frame[target]]

    place = np.searchsorted(tracks, window.track_ids).clip(max=len(tracks) - 1)
    source = np.flatnonzero(tracks[place] == window.track_ids)
    place = place[source]
    at = begins[place] + block.frame[source] - low[place]
    person = np.full(rows, -1, np.int32)
    person[at] = block.person[source]
    values = np.full((rows, 3 + NUM_KEYPOINTS * 3), np.nan)
    boxes = block.bbox_xyxy[source].astype(np.float64)
    values[at, 0] = boxes[:, 3] - boxes[:, 1]
    values[at, 1] = (boxes[:, 0] + boxes[:, 2]) / 2
    values[at, 2] = block.pose_scores[source]
    values[at, 3:] = block.keypoints[source].reshape(len(source), -1)
    keypoints = values[:, 3:].reshape(rows, NUM_KEYPOINTS, 3)
    return TrackRows(track, frame, time, person, values[:, 0], values[:, 1], values[:, 2], keypoints, begins, ends)
