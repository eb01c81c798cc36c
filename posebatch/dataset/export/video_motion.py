"""The movement of one video, as every format of the export takes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.dataset.tables.schemas import BBOX, KEYPOINT_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

BOX_COLUMNS: Final = (*BBOX, "bbox_score", "pose_score")
"""Columns of the table ``poses`` that `VideoMotion.rows` has besides those of ``motion``."""


ASSUMED_HEIGHT_CM: Final = 170.0
"""The height of a person when nobody states it, near the mean of adults (NCD-RisC, eLife 2016: 171 and 159 cm)."""


@dataclass(frozen=True)
class BodyHeight:
    """The height of the person, which sets the scale of formats in metres."""

    cm: float = ASSUMED_HEIGHT_CM
    is_assumed: bool = True

    @property
    def mark(self) -> str:
        """The part of a file name that says that the height is assumed; empty where it is known."""
        return f".assumed-{self.cm:g}cm" if self.is_assumed else ""


@dataclass(frozen=True)
class VideoMotion:
    """The chosen tracks of one video."""

    video: str
    """Path in the archive."""
    width: int
    """Width and height of the displayed frame, pixels."""
    height: int
    fps: float
    """Frames per second from the header; 0 if unknown."""
    frames: pd.DataFrame
    """``frame_index`` and ``time_s`` of each processed frame."""
    tracks: pd.DataFrame
    """Rows of the table ``tracks``, ordered by track_id."""
    rows: pd.DataFrame
    """Rows of the table ``motion``, ordered by frame_index and track_id, with `BOX_COLUMNS` (NaN in gaps)."""
    smoothed: pd.DataFrame
    """The same rows with smoothed joints. In ``rows`` they may be raw."""
    body: BodyHeight = field(default_factory=BodyHeight)

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.smoothed):
            raise ValueError(f"{len(self.rows)} rows, but {len(self.smoothed)} smoothed ones")
        strangers = set(self.rows.track_id) - set(self.tracks.track_id)
        if strangers:
            raise ValueError(f"rows of tracks that the table of tracks does not have: {sorted(strangers)}")

    @property
    def is_raw(self) -> bool:
        """Whether the joints of ``rows`` are as the networks found them."""
        return self.rows is not self.smoothed

    @property
    def track_ids(self) -> list[int]:
        """The ids of the tracks, ascending."""
        return [int(track_id) for track_id in self.tracks.track_id]

    def each_track(self) -> Iterator[tuple[int, pd.DataFrame, pd.DataFrame]]:
        """Id, rows and smoothed rows of each track, in the order of time."""
        places = self.rows.groupby("track_id").indices
        for track_id in self.track_ids:
            own = places.get(track_id, np.empty(0, np.int64))
            yield track_id, self.rows.iloc[own], self.smoothed.iloc[own]


def joints_of(rows: pd.DataFrame) -> NDArray[np.float32]:
    """Joints (rows, 17, 3): x and y in pixels of the displayed frame, and score; NaN where they are not known."""
    return rows[list(KEYPOINT_COLUMNS)].to_numpy(np.float32).reshape(len(rows), NUM_KEYPOINTS, 3)


def xy_of(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Joints (rows, 17, 2): x and y, both NaN where either is not known."""
    xy = joints_of(rows)[:, :, :2].astype(np.float64)
    xy[np.isnan(xy).any(axis=2)] = np.nan
    return xy


def has_joint(joints: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether any of the joints (rows, 17, 3) of a row is known."""
    missing: NDArray[np.float32] = np.isnan(joints).astype(np.float32).max(axis=2)
    return missing.min(axis=1, initial=1) == 0
