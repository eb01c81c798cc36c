"""The default of ``--max-memory-gb``: a share of the container's memory where that is limited."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from posebatch.core.execution_settings import ExecutionSettings
from posebatch.run.workers.ray_session import ACTORS_PER_GPU

MOST_BYTES: Final = 16e9
"""The default without a limit of the container, and never exceeded by a share of one."""

LEAST_BYTES: Final = 4e9
"""Less than this ends workers that only load their networks. Where memory is so short, the kernel decides."""

SHARE_OF_WORKERS: Final = 0.8
"""The rest of the container's memory is for Ray, its object store, and helpers."""

UNLIMITED_BYTES: Final = 1 << 60
"""cgroup v1 states a number above this where there is no limit."""

LIMIT_FILES: Final = ("memory.max", "memory/memory.limit_in_bytes")
"""The files of cgroup v2 and v1."""


def default_memory_bytes(container_bytes: int | None, workers: int) -> float:
    """Memory of one worker in bytes, if ``--max-memory-gb`` is not given.

    ``container_bytes``: limit of the container, None if there is none. ``workers``: those that share the container.

    >>> default_memory_bytes(24 << 30, workers=2) / 1e9
    10.3079215104
    """
    if container_bytes is None:
        return MOST_BYTES
    return min(MOST_BYTES, max(LEAST_BYTES, SHARE_OF_WORKERS * container_bytes / workers))


def container_memory_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The memory limit of this container in bytes; None if it has none, or none that can be read."""
    for name in LIMIT_FILES:
        try:
            limit = int((root / name).read_text())
        except (OSError, ValueError):  # no such version of cgroups, or the word "max"
            continue
        return limit if limit < UNLIMITED_BYTES else None
    return None


def workers_on_node(resources: Mapping[str, float], execution: ExecutionSettings) -> int:
    """The most workers of a run on one node, at least 1. ``resources``: those of the node, as Ray names them."""
    gpus = 0.0 if execution.device == "cpu" else resources.get("GPU", 0.0)
    places = int(gpus * ACTORS_PER_GPU) if gpus else int(resources.get("CPU", 0.0))
    wanted = places if execution.workers == "auto" else int(execution.workers)
    return max(1, min(places, wanted))
