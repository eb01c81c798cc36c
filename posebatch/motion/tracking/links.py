"""Who is who: the track of each person row of a video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posebatch.core.frames import check_array


@dataclass(frozen=True)
class Links:
    """The track of each person row, in the order of rows, and the range of each track."""

    track_ids: NDArray[np.int32]
    """(rows,) from 0 in the order of first appearance; -1 belongs to no track."""
    first_frame: NDArray[np.int64]
    """(tracks,) ``frame_index`` of the first row of each track."""
    last_frame: NDArray[np.int64]
    """(tracks,) ``frame_index`` of the last row of each track."""

    def __post_init__(self) -> None:
        check_array("track_ids", self.track_ids, np.int32, (None,))
        check_array("first_frame", self.first_frame, np.int64, (None,))
        check_array("last_frame", self.last_frame, np.int64, (len(self.first_frame),))
