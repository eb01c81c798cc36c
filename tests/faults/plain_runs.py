"""The job as a user starts it, but without Ray and without networks: everybody stands at the number of their frame."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from test_runner import FakePool, Fault, Job, no_fault, process

from posebatch import job as job_module
from posebatch import runner as runner_module
from posebatch.cli import main
from posebatch.plan import RunContext
from posebatch.runner import Runner
from posebatch.tasks import perform
from posebatch.types import SegmentJob

Command = Callable[..., int]


def plain_command(patch: pytest.MonkeyPatch, fault: Fault = no_fault) -> Command:
    """``posebatch``, as a function of its arguments that returns the exit code; ``fault`` says which jobs fail."""

    @contextmanager
    def pool(context: RunContext, _: Runner) -> Iterator[FakePool]:
        def really(job: Job) -> object:
            return process(job, context) if isinstance(job, SegmentJob) else perform(job, context)

        yield FakePool(context, fault, lambda _: False, really)

    def command(*arguments: str) -> int:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return main(arguments)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    patch.setattr(job_module, "_ray_pool", pool)
    patch.setattr(runner_module, "RETRY_SECONDS", 0.0)
    patch.setattr(runner_module, "POLL_SECONDS", 0.01)
    return command
