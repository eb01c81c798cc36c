"""Cuts of the camera, as far as boxes tell."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.motion.tracking.row_window import RowWindow

JUMP_IOU: Final = 0.05
"""A box jumps if it overlaps no box of the frame before by this IoU."""


LONGEST_STEP_S: Final = 0.25
"""Between frames further apart, people may walk that far."""


def find_cuts(window: RowWindow, orders: range) -> NDArray[np.int64]:
    """Frames of ``orders`` after which all boxes jump and no tracklet goes on. Counted from the video's start.

    Both frames must have persons: a person who vanishes is no cut.
    """
    frames = len(window.time_s)
    people = np.bincount(window.order, minlength=frames) > 0
    rows = np.flatnonzero(window.following >= 0)
    steps = np.zeros(frames + 1, np.int64)
    np.add.at(steps, window.order[rows], 1)
    np.add.at(steps, window.order[window.following[rows]], -1)
    crossed = np.cumsum(steps)[:frames] > 0
    before = np.arange(orders.start, min(orders.stop, frames - 1))
    jump = people[before] & people[before + 1] & ~crossed[before] & (window.closest_iou[before] < JUMP_IOU)
    jump &= window.time_s[before + 1] - window.time_s[before] <= LONGEST_STEP_S
    return before[jump] + window.first_order
