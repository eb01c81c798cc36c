"""An endless stream of examples in random order, in which every number has its place without the ones before it."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray


def shuffled(number: int, length: int, seed: int) -> int:
    """Which of ``length`` examples stands at a place of the stream: each once in every round of ``length`` places."""
    round_number, place = divmod(number, length)
    return int(_permutation(length, seed, round_number)[place])


@functools.lru_cache(maxsize=4)
def _permutation(length: int, seed: int, round_number: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, round_number, length]).permutation(length)
