"""DeepLabCut's tables of several individuals, as HDF5 and CSV: one pair of files a video."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.dataset.export.files import ExportedFile, bytes_written
from posebatch.dataset.export.video_motion import VideoMotion, joints_of

if TYPE_CHECKING:
    import pandas as pd

SCORER: Final = "posebatch"


KEY: Final = "df_with_missing"
"""The key under which DeepLabCut stores and looks for the table."""


def dlc_files(motion: VideoMotion) -> Iterator[ExportedFile]:
    """The same table twice: HDF5 and CSV."""
    table = dlc_table(motion)

    def write(path: str) -> None:
        table.to_hdf(path, key=KEY, mode="w", format="fixed")

    yield ExportedFile(".dlc.h5", bytes_written(write, ".h5"))
    yield ExportedFile(".dlc.csv", table.to_csv().encode())


def dlc_table(motion: VideoMotion) -> pd.DataFrame:
    """One row for each frame of the video, from 0 to the last that was processed; NaN where nothing is known.

    The columns have DeepLabCut's four levels: scorer, individuals (``track0``), bodyparts, coords (x, y, likelihood).
    """
    import pandas as pd  # noqa: PLC0415 - every command would pay for it

    frames = int(motion.frames.frame_index.max()) + 1
    values = np.full((frames, len(motion.track_ids), len(KEYPOINT_NAMES), 3), np.nan, np.float32)
    for place, (_, rows, _) in enumerate(motion.each_track()):
        values[rows.frame_index.to_numpy(), place] = joints_of(rows)
    individuals = [f"track{track_id}" for track_id in motion.track_ids]
    levels = ([SCORER], individuals, list(KEYPOINT_NAMES), ["x", "y", "likelihood"])
    columns = pd.MultiIndex.from_product(
        [pd.Index(level, dtype=object) for level in levels], names=["scorer", "individuals", "bodyparts", "coords"]
    )
    return pd.DataFrame(values.reshape(frames, -1), columns=columns)
