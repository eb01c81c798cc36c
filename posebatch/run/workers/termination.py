"""The notice that this process is to end: SIGTERM, which a machine that is taken away sends before it ends.

The process goes on with the tasks that it has and takes no more. Python calls a handler of a signal only in its main
thread, which waits in Ray's own code here. So a thread reads the signals from a pipe, which Python fills at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable


class TerminationNotice:
    """Whether this process was asked to end."""

    def __init__(self) -> None:
        self._given = threading.Event()

    @property
    def is_given(self) -> bool:
        """Whether the notice has come."""
        return self._given.is_set()

    def listen(self, on_notice: Callable[[], None]) -> None:
        """Wait for SIGTERM in a thread; ``on_notice`` is called there. Call it in the main thread, else it is ignored.

        The handler of SIGTERM is replaced: the process does not end.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        threading.Thread(target=self._wait, args=(reader, on_notice), name="termination", daemon=True).start()

    def _wait(self, reader: int, on_notice: Callable[[], None]) -> None:
        while signal.SIGTERM not in os.read(reader, 64):
            pass
        self._given.set()
        on_notice()
