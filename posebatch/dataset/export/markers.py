"""Marker trajectories in metres of one track, for the formats of motion capture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.dataset.export.metres import Scale, scale_of
from posebatch.dataset.export.timing import Timing, timing_of
from posebatch.dataset.export.video_motion import BodyHeight, VideoMotion, joints_of, xy_of

if TYPE_CHECKING:
    import pandas as pd


def _marker_name(joint: str) -> str:
    side, _, part = joint.rpartition("_")
    return f"{side[:1].upper()}{part.capitalize()}"


MARKER_NAMES: Final = tuple(_marker_name(joint) for joint in KEYPOINT_NAMES)
"""Nose, LEye, ..., RAnkle: the names of Pose2Sim and Sports2D, whose OpenSim models know them."""


@dataclass(frozen=True)
class Markers:
    """The joints of one track as markers."""

    video: str
    track_id: int
    time_s: NDArray[np.float64]
    frame_index: NDArray[np.int64]
    points: NDArray[np.float64]
    """(frames, 17, 3) metres, see `Scale`; NaN where a joint is not known."""
    timing: Timing
    scale: Scale
    body: BodyHeight

    @property
    def note(self) -> str:
        """What a user must know: an assumed height, a person who never stands."""
        notes = []
        if self.body.is_assumed:
            notes.append(f"height of {self.body.cm:g} cm assumed, state it with --height-cm")
        if not self.scale.standing_frames:
            notes.append("the person never stands upright, so the scale comes from other postures")
        return "; ".join(notes)


def each_markers(motion: VideoMotion) -> Iterator[tuple[int, Markers | None]]:
    """Each track as markers; None if no frame shows enough of the body to know its scale."""
    for track_id, rows, smoothed in motion.each_track():
        time_s = rows.time_s.to_numpy(np.float64)
        scale = scale_of(xy_of(smoothed), motion.body, motion.height)
        if scale is None:
            yield track_id, None
            continue
        timing, frame_index = timing_of(time_s, motion.fps), rows.frame_index.to_numpy(np.int64)
        points = scale.metres(_marker_xy(rows, smoothed, motion.is_raw))
        yield track_id, Markers(motion.video, track_id, time_s, frame_index, points, timing, scale, motion.body)


def _marker_xy(rows: pd.DataFrame, smoothed: pd.DataFrame, is_raw: bool) -> NDArray[np.float64]:
    """Joints (n, 17, 2). Markers have no score, so raw joints that the smoothing did not take as data are left out."""
    xy = xy_of(rows)
    if is_raw:
        xy[~(joints_of(smoothed)[:, :, 2] > 0)] = np.nan
    return xy


NO_SCALE: Final = "no frame shows head, trunk and a leg, so there is no scale in metres; export it as csv or dlc"
