"""Whole runs in this process, on the fake pool."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from posebatch.run.context import RunContext
from posebatch.run.progress import Progress
from posebatch.run.stop_request import StopRequest
from support.fake_pool import FakePool, no_fault, perform_without_networks


@contextmanager
def kept_signal_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def working_pool(context: RunContext, _stop: StopRequest, _progress: Progress) -> Iterator[FakePool]:
    yield FakePool(context, no_fault, lambda _: False, lambda task: perform_without_networks(task, context))
