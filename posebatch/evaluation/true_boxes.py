"""True boxes as a detector might give them: some missing, all a little wrong. They test a linker alone."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.evaluation.identity_score import Identities
from posebatch.motion.blocks import FrameBlock

MISSED: Final = 0.1
"""Share of the boxes that is left out."""


NOISE: Final = 0.03
"""Standard deviation of each edge of a box, in heights of the box."""


SCORE: Final = 0.9


def noisy_boxes(
    truth: Identities, frame_index: NDArray[np.int64], pts: NDArray[np.int64], time_s: NDArray[np.float64], seed: int
) -> FrameBlock:
    """The true boxes of the frames given, `MISSED` of them left out, with `NOISE`. No joint is seen: all score 0.

    ``frame_index``, ``pts`` and ``time_s`` (f,) are the frames of the truth, ascending.
    """
    random = np.random.default_rng(seed)
    labelled = np.flatnonzero((truth.person > 0) & np.isin(truth.frame_index, frame_index))
    rows = labelled[random.random(len(labelled)) >= MISSED]
    boxes = truth.bbox_xyxy[rows]
    height = boxes[:, 3] - boxes[:, 1]
    boxes = boxes + random.normal(size=boxes.shape) * NOISE * height[:, None]
    frame = np.searchsorted(frame_index, truth.frame_index[rows])
    first = np.searchsorted(frame, frame)
    return FrameBlock(
        frame_index=frame_index,
        pts=pts,
        time_s=time_s,
        frame=frame.astype(np.int64),
        person=(np.arange(len(rows)) - first).astype(np.int32),
        bbox_xyxy=boxes.astype(np.float32),
        bbox_scores=np.full(len(rows), SCORE, np.float32),
        pose_scores=np.zeros(len(rows), np.float32),
        keypoints=np.zeros((len(rows), NUM_KEYPOINTS, 3), np.float32),
    )
