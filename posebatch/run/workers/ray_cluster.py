"""Ray's answers about its cluster: nodes, cores, GPUs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, Final, TypeVar

import ray

POLL_SECONDS: Final = 0.2
"""Time between two calls of ``check`` while an answer is waited for, in seconds."""

_Answer = TypeVar("_Answer")


class RayCluster:
    """Asks Ray's GCS in a thread of its own, because such a call waits for minutes if the GCS is gone.

    Nothing interrupts that call, neither a signal nor the end of the other processes of Ray.
    """

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        """``check`` is called while an answer is waited for, and may raise to end the wait."""
        self._check = check

    def nodes(self) -> Sequence[Mapping[str, Any]]:
        """The answer of ``ray.nodes()``."""
        return self._answer(ray.nodes)

    def resources(self) -> Mapping[str, float]:
        """The answer of ``ray.cluster_resources()``."""
        return self._answer(ray.cluster_resources)

    def _answer(self, question: Callable[[], _Answer]) -> _Answer:
        answer: Future[_Answer] = Future()

        def ask() -> None:
            try:
                answer.set_result(question())
            except BaseException as error:  # raised again where the answer is waited for
                answer.set_exception(error)

        threading.Thread(target=ask, name="question to Ray", daemon=True).start()
        while not wait([answer], POLL_SECONDS).done:
            self._check()
        return answer.result()
