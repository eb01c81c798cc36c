"""From the peak of a heatmap to a published score: the share of right joints among those with such a peak.

Networks with the same accuracy have peaks of different heights. Weight files hold the curve that was measured for them
(`PoseRecord.score_calibration`); docs/accuracy.md has the measurement.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def calibrate_scores(peaks: NDArray[np.float32], knots: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    """Published scores of peaks of any shape; the peaks themselves without ``knots``.

    Straight lines between the knots. Below the first and above the last one, their scores::

        >>> calibrate_scores(np.array([-0.1, 0.2, 0.3], np.float32), [(0, 0), (0.4, 0.8), (1, 1)]).round(3).tolist()
        [0.0, 0.4, 0.6]
    """
    if not knots:
        return peaks
    from_peak, to_score = np.array(knots, np.float64).T
    return np.interp(peaks, from_peak, to_score).astype(np.float32)
