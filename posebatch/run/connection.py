"""The connection of a run to Ray, opened once there is something to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from posebatch.models.weights.names import weight_file
from posebatch.run.context import RunContext
from posebatch.run.pool import Pool
from posebatch.run.progress import Progress
from posebatch.run.stop_request import StopRequest, stop_on_signals

OpenPool = Callable[[RunContext, StopRequest, Progress], AbstractContextManager[Pool]]
"""Opens the pool of a run; the pool closes on exit."""


@contextmanager
def ray_pool(
    context: RunContext, stop: StopRequest, progress: Progress, worker_class: type | None = None
) -> Iterator[Pool]:
    """Connect to Ray; the connection and the workers end on exit. ``worker_class``: in place of `SegmentWorker`."""
    # Ray takes seconds to import and to start, so a run with nothing to do must not load it.
    from posebatch.run.workers.actors import SegmentWorker  # noqa: PLC0415
    from posebatch.run.workers.ray_cluster import RayCluster  # noqa: PLC0415
    from posebatch.run.workers.ray_metrics import RayMetrics  # noqa: PLC0415
    from posebatch.run.workers.ray_pool import RayPool  # noqa: PLC0415
    from posebatch.run.workers.ray_session import choose_device, choose_workers, connected  # noqa: PLC0415

    def fetch_weights() -> None:
        # Once here: workers on this machine share the cache, and a failed download is reported at once.
        weight_file("detector", context.settings.estimator.detector_name)
        weight_file("pose", context.settings.estimator.pose_name)

    def stop_without_ray(ended: str) -> None:
        if stop.reason is not None:  # the signal that stops the run may have ended Ray, too
            return
        try:  # the line first: Ray may end this process at any moment
            progress.warn(f"stopped by {ended}: the same command goes on from here")
        finally:
            stop.request(ended)

    execution = context.settings.execution
    with ExitStack() as connection:
        with progress.during("starting Ray"):
            connection.enter_context(connected(execution, progress.say, stop.check, stop_without_ray))
        progress.meter.connect(RayMetrics())
        stop_on_signals(stop)  # connecting has replaced the signal handlers
        cluster = RayCluster(stop.check)
        device = "cpu" if context.only_derives else choose_device(execution, cluster)
        workers = choose_workers(execution, device, cluster)
        pool = RayPool(
            context, workers, device, worker_class or SegmentWorker, before_workers=fetch_weights, cluster=cluster
        )
        try:
            yield pool
        finally:
            pool.close()
