"""The command line without Ray and without networks: each person stands at the number of the frame."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from support.fake_pool import FAST, FakePool, Fault, Task, no_fault, process

from posebatch.cli import derive as derive_commands
from posebatch.cli import run as run_commands
from posebatch.cli.entry import main
from posebatch.run.context import RunContext
from posebatch.run.derivation import derive_job
from posebatch.run.driver import run_job
from posebatch.run.progress import Progress
from posebatch.run.stop_request import StopRequest
from posebatch.run.tasks import SegmentTask
from posebatch.run.workers.video_tasks import perform

Command = Callable[..., int]


def plain_command(patch: pytest.MonkeyPatch, fault: Fault = no_fault) -> Command:
    """``posebatch`` as a function from arguments to the exit code; ``fault`` chooses the tasks that fail."""

    @contextmanager
    def pool(context: RunContext, _: StopRequest, __: Progress) -> Iterator[FakePool]:
        def really(task: Task) -> object:
            return process(task, context) if isinstance(task, SegmentTask) else perform(task, context)

        yield FakePool(context, fault, lambda _: False, really)

    def command(*arguments: str) -> int:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return main(arguments)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    patch.setattr(run_commands, "run_job", partial(run_job, open_pool=pool, limits=FAST))
    patch.setattr(derive_commands, "derive_job", partial(derive_job, open_pool=pool, limits=FAST))
    return command
