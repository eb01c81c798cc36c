"""The retry policy of all requests to a store."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from posebatch.core.errors import (
    StorageUnavailableError,
)

if TYPE_CHECKING:
    pass


P = ParamSpec("P")


T = TypeVar("T")


TRIES = 8
"""How often a store is asked for one thing."""


FIRST_PAUSE_S = 0.2
"""The longest pause before the second try; doubles with each try. Pauses are random: many do not return at once."""


LONGEST_PAUSE_S = 20.0


PATIENCE_S = 120.0
"""After so many seconds no further try is begun."""


def retried(act: Callable[P, T]) -> Callable[P, T]:
    """Do something again while the store does not answer: the one policy of retries, see `TRIES`."""

    @functools.wraps(act)
    def patiently(*args: P.args, **kwargs: P.kwargs) -> T:
        begun = time.monotonic()
        for tried in range(TRIES - 1):
            try:
                return act(*args, **kwargs)
            except StorageUnavailableError:
                pause = random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**tried))
                if time.monotonic() - begun + pause > PATIENCE_S:
                    raise
                time.sleep(pause)
        return act(*args, **kwargs)

    return patiently
