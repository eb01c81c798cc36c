"""The metrics of a run, exported by Ray.

All are recorded in the process of the driver: workers are killed at the end of a run, and with them what they have not
exported yet. Ray sends the last values when the driver disconnects. The node's agent keeps counters as long as the node
lives, and gauges for two export intervals (20 s).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import ray
from ray.util.metrics import Counter, Gauge, Histogram

from posebatch.run.meter import RunMeter
from posebatch.run.metrics import METRICS, Metric, MetricsSink

_LOGGER: Final = logging.getLogger(__name__)


class RayMetrics(MetricsSink):
    """The metrics of this process at the Prometheus endpoint of its node."""

    def __init__(self, defined: tuple[Metric, ...] = METRICS) -> None:
        self._exported = {metric: _exported(metric) for metric in defined}
        self._has_failed = False

    def add(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """See `MetricsSink`."""
        self._record(metric, lambda counter: counter.inc(value, dict(labels)))

    def set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """See `MetricsSink`."""
        self._record(metric, lambda gauge: gauge.set(value, dict(labels)))

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """See `MetricsSink`."""
        self._record(metric, lambda histogram: histogram.observe(value, dict(labels)))

    def _record(self, metric: Metric, record: Callable[[Any], None]) -> None:
        if self._has_failed:
            return
        try:
            record(self._exported[metric])
        except Exception:  # whatever Ray raises: a run goes on without metrics
            self._has_failed = True
            _LOGGER.warning("the metrics of this run are no longer exported", exc_info=True)


def report_to_cluster(meter: RunMeter) -> None:
    """Export the metrics of a run that has started no workers, at the cluster of ``RAY_ADDRESS``.

    Otherwise a night without work would look like a night that is missing. Never raises.
    """
    try:
        ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.ERROR)
        meter.connect(RayMetrics())
        ray.shutdown()
    except Exception:  # whatever Ray raises: the run has ended, and only its metrics are missing
        _LOGGER.warning("the metrics of this run could not be exported", exc_info=True)


def _exported(metric: Metric) -> Counter | Gauge | Histogram:
    match metric.kind:
        case "counter":
            return Counter(metric.name, metric.help, metric.labels)
        case "gauge":
            return Gauge(metric.name, metric.help, metric.labels)
        case "histogram":
            return Histogram(metric.name, metric.help, list(metric.buckets), metric.labels)
