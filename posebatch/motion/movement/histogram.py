"""A median in bounded memory."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_LOW: Final = np.log(1e-4)
_STEP: Final = 0.005
_BINS: Final = 4200
"""Up to 1.3e5."""


class LogHistogram:
    """Counts values above 0 in bins of 0.5 %. Smaller ones than 1e-4 count as 1e-4. Order does not matter."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int32)

    def add(self, values: NDArray[np.floating[Any]]) -> None:
        """Count ``values`` (n,), NaN left out."""
        values = values[~np.isnan(values)]
        bins = ((np.log(np.maximum(values, 1e-4)) - _LOW) / _STEP).astype(np.int64).clip(0, _BINS - 1)
        self._counts += np.bincount(bins, minlength=_BINS).astype(np.int32)

    def median(self) -> float:
        """The middle of the bin that holds the median, at most 0.25 % off; NaN without values."""
        sums = np.cumsum(self._counts)
        if not sums[-1]:
            return float("nan")
        index = int(np.searchsorted(sums, (sums[-1] + 1) // 2))
        return float(np.exp(_LOW + (index + 0.5) * _STEP))
