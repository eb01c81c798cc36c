"""The connection to Ray, and the choice of device and number of workers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Final

import ray
import ray.exceptions

from posebatch.core.errors import RunAbortedError
from posebatch.core.execution_settings import ExecutionSettings
from posebatch.models.weights.environment import MIRROR_VARIABLE
from posebatch.run.workers.ray_cluster import RayCluster
from posebatch.run.workers.ray_end import local_ray_watched
from posebatch.run.workers.ray_start import start_local_ray

ACTORS_PER_GPU: Final = 2
"""While one decodes or waits, the networks of the other keep the GPU busy."""

GPU_ACTOR_CPUS: Final = 2
"""CPU cores of a GPU worker while no node with a GPU is up; see `cores_of_gpu_worker`."""

OBJECT_STORE_BYTES: Final = 100 << 20
"""Size of the object store of a local Ray. Only messages go through it, never pixels."""


def cores_of_gpu_worker(nodes: Iterable[Mapping[str, Any]]) -> int:
    """CPU cores for each GPU worker: an equal share of its node's cores, which decoding needs.

    ``nodes`` is the answer of ``ray.nodes()``. All workers of a run get the smallest share of any node.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    shares = [int(each.get("CPU", 0) // (each["GPU"] * ACTORS_PER_GPU)) for each in resources if each.get("GPU")]
    return max(1, min(shares, default=GPU_ACTOR_CPUS))


@contextmanager
def connect_to_ray(
    num_cpus: int,
    object_store_bytes: int | None = None,
    dashboard: bool = False,
    log_to_driver: bool = True,
    say: Callable[[str], None] = print,
    check: Callable[[], None] = lambda: None,
    on_end: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Connect to the cluster of ``RAY_ADDRESS`` (set inside ``ray job submit``), else start a local Ray.

    All arguments but ``log_to_driver`` are of the local Ray, which ends with the connection; see `start_local_ray` and
    `local_ray_watched`. Raises `RunAbortedError`.
    """
    address = os.environ.get("RAY_ADDRESS")
    with ExitStack() as connection:
        if address:
            try:
                ray.init(address=address, log_to_driver=log_to_driver, logging_level=logging.WARNING)
            except Exception as error:  # Ray raises many types here, even a plain Exception
                raise RunAbortedError(f"cannot connect to the Ray cluster at RAY_ADDRESS={address}: {error}") from error
            connection.callback(ray.shutdown)
        else:
            start_local_ray(num_cpus, object_store_bytes, dashboard, log_to_driver, say, check)
            connection.callback(ray.shutdown)
            if on_end is not None:
                connection.enter_context(local_ray_watched(on_end))
        yield


def connected(
    execution: ExecutionSettings,
    say: Callable[[str], None] = print,
    check: Callable[[], None] = lambda: None,
    on_end: Callable[[str], None] | None = None,
) -> AbstractContextManager[None]:
    """Connect to Ray for a run; see `connect_to_ray`."""
    workers = int(execution.workers) if execution.workers != "auto" else 0
    cores = max(workers, os.cpu_count() or 1)
    return connect_to_ray(cores, OBJECT_STORE_BYTES, say=say, check=check, on_end=on_end)


def environment_for_workers() -> dict[str, str]:
    """The environment variables that workers need: the settings of S3, and the mirror of weights.

    They travel as an object of Ray, not in its ``runtime_env``. The dashboard and ``ray list`` show that one to
    everybody, and each node writes it into its logs.
    """
    return {name: value for name, value in os.environ.items() if name.startswith(("AWS_", MIRROR_VARIABLE))}


def choose_device(execution: ExecutionSettings, cluster: RayCluster) -> str:
    """The device of the settings; for ``auto``, ``cuda`` if the cluster has a GPU and ``cpu`` if not."""
    if execution.device != "auto":
        return execution.device
    return "cuda" if cluster.resources().get("GPU", 0) else "cpu"


def choose_workers(execution: ExecutionSettings, device: str, cluster: RayCluster) -> int:
    """The number of workers of the settings; for ``auto``, one for each CPU core, or `ACTORS_PER_GPU` for each GPU."""
    if execution.workers != "auto":
        return int(execution.workers)
    resources = cluster.resources()
    if device == "cuda":
        return max(1, int(resources.get("GPU", 0) * ACTORS_PER_GPU))
    return max(1, int(resources.get("CPU", 1)))
