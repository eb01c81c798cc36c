"""The command line without Ray and without networks: each person stands at the number of the frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from support.driver_runs import kept_signal_handlers
from support.fake_pool import FAST, FakePool, Fault, no_fault, perform_without_networks

from posebatch.cli import derive as derive_commands
from posebatch.cli import run as run_commands
from posebatch.cli.entry import main
from posebatch.run.context import RunContext
from posebatch.run.derivation import derive_job
from posebatch.run.driver import run_job
from posebatch.run.progress import Progress
from posebatch.run.stop_request import StopRequest

Command = Callable[..., int]


def plain_command(patch: pytest.MonkeyPatch, fault: Fault = no_fault) -> Command:
    """``posebatch`` as a function from arguments to the exit code; ``fault`` chooses the tasks that fail."""

    @contextmanager
    def pool(context: RunContext, _: StopRequest, __: Progress) -> Iterator[FakePool]:
        yield FakePool(context, fault, lambda _: False, lambda task: perform_without_networks(task, context))

    def command(*arguments: str) -> int:
        with kept_signal_handlers():
            return main(arguments)

    patch.setattr(run_commands, "run_job", partial(run_job, open_pool=pool, limits=FAST))
    patch.setattr(derive_commands, "derive_job", partial(derive_job, open_pool=pool, limits=FAST))
    return command
