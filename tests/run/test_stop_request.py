"""The request to stop a run."""

import signal
import threading

import pytest

from posebatch.core.errors import RunAbortedError
from posebatch.run.stop_request import StopRequest


def test_stop_request_begins_without_a_reason():
    stop = StopRequest()
    stop.check()
    assert stop.reason is None


def test_stop_request_keeps_its_first_reason():
    stop = StopRequest()
    for reason in ("SIGTERM", "another run"):
        stop.request(reason)
    assert stop.reason == "SIGTERM"
    with pytest.raises(RunAbortedError, match="stopped by SIGTERM; the same command goes on from here"):
        stop.check()


def test_stop_request_may_come_from_another_thread_and_from_a_signal_handler():
    stop = StopRequest()
    before = signal.signal(signal.SIGUSR1, lambda number, _: stop.request(signal.Signals(number).name))
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert stop.reason == "SIGUSR1"
    other = StopRequest()
    thread = threading.Thread(target=other.request, args=["the lease"])
    thread.start()
    thread.join()
    assert other.reason == "the lease"
