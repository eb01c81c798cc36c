"""The request to stop a run early."""

from __future__ import annotations

import signal

from posebatch.core.errors import RunAbortedError


class StopRequest:
    """A request to stop, made by a signal, by the lease or by a caller; the first reason counts.

    >>> stop = StopRequest()
    >>> stop.request("SIGTERM")
    >>> stop.reason
    'SIGTERM'
    """

    def __init__(self) -> None:
        # Appending to a list is atomic. A lock could deadlock: a signal handler interrupts the thread that holds it.
        self._reasons: list[str] = []

    def request(self, reason: str) -> None:
        """Ask the run to stop soon. Safe in any thread and in a signal handler."""
        self._reasons.append(reason)

    @property
    def reason(self) -> str | None:
        """Why the run shall stop; None while nobody has asked."""
        return self._reasons[0] if self._reasons else None

    def check(self) -> None:
        """Raise `RunAbortedError` if a stop was requested."""
        if self.reason is not None:
            raise RunAbortedError(f"stopped by {self.reason}; the same command goes on from here")


def stop_on_signals(stop: StopRequest) -> None:
    """Make SIGINT and SIGTERM ask for a clean stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda caught, _: stop.request(signal.Signals(caught).name))
