"""The end of a local Ray while a run needs it: its processes may be killed, by hand or for memory.

Ray does not say so in plain words. Without its GCS, calls wait five minutes for another one, see
`posebatch.run.workers.ray_start.LIMITS`. When its raylet ends, Ray prints pages of its state, and may end the driver.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import ray
import ray._private.worker

WATCH_SECONDS: Final = 0.1
"""Time between two looks at Ray's processes, in seconds. A look takes microseconds."""

GRACE_SECONDS: Final = 20.0
"""Time from the end of a process of Ray until the others are killed, in seconds. Calls of workers end then; a question
to the GCS does not, see `posebatch.run.workers.ray_cluster`."""

NEEDED: Final = ("gcs_server", "raylet")
"""The processes without which Ray does no work, by Ray's names."""


@contextmanager
def local_ray_watched(on_end: Callable[[str], None]) -> Iterator[None]:
    """Call ``on_end`` once, from another thread, with what has ended, if a process of the local Ray ends early.

    The rest of that Ray is killed `GRACE_SECONDS` later, or when the block ends.
    """
    node: Any = getattr(ray._private.worker, "_global_node", None)
    if not hasattr(node, "all_processes"):  # a version of Ray with other names
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_SECONDS):
            if ended := _ended(node):
                try:
                    on_end(ended)
                finally:
                    over.wait(GRACE_SECONDS)
                    node.kill_all_processes(check_alive=False, allow_graceful=False)
                return

    thread = threading.Thread(target=watch, name="local Ray", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _ended(node: Any) -> str:
    """The first of Ray's needed processes that has ended, and how; empty while all run."""
    for name in NEEDED:
        for started in node.all_processes.get(name, []):
            status = started.process.poll()
            if status is not None:
                how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
                return f"the end of Ray's {name} on this machine, {how}"
    return ""
