"""A compaction that dies at a chosen step: ``python compaction_child.py ROOT STEP`` ends with SIGKILL there.

Steps are the moments before and after each write: of a file, of a new table, of a transaction, of a checkpoint.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from posebatch.dataset.compaction import compaction as compaction_module
from posebatch.dataset.compaction import delta
from posebatch.dataset.compaction.compaction import compact
from posebatch.storage.local import LocalStore


class KilledError(BaseException):
    """Stands for the death of the process: nothing catches it."""


def compact_until(root: str, step: int, die: Callable[[], Any]) -> int:
    """Compact, and die at a step; returns the number of steps if it is never reached."""
    steps = 0

    def watched(write: Callable[..., Any]) -> Callable[..., Any]:
        def writing(*arguments: Any, **named: Any) -> Any:
            moment()
            outcome = write(*arguments, **named)
            moment()
            return outcome

        return writing

    def moment() -> None:
        nonlocal steps
        if steps == step:
            die()
        steps += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "put", watched(LocalStore.put))
        patch.setattr(delta.Table, "commit", watched(delta.Table.commit))
        patch.setattr(delta, "CHECKPOINT_VERSIONS", 1)
        for name in ("create_table", "write_checkpoint"):
            patch.setattr(compaction_module, name, watched(getattr(compaction_module, name)))
        compact(LocalStore(root))
    return steps


def die_here() -> None:
    """As in a thread: an exception that ends the compaction without any of its own steps."""
    raise KilledError


if __name__ == "__main__":
    compact_until(sys.argv[1], int(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL))
