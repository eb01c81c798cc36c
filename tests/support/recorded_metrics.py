"""A sink that keeps metrics in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from posebatch.run.metrics import Metric

Labels = tuple[str, ...]
"""The values of the labels, in the order of the definition."""


@dataclass
class RecordedMetrics:
    """The values of all series, by metric and labels."""

    counters: dict[Metric, defaultdict[Labels, float]] = field(default_factory=dict)
    gauges: dict[Metric, dict[Labels, float]] = field(default_factory=dict)
    observed: dict[Metric, defaultdict[Labels, list[float]]] = field(default_factory=dict)

    def add(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        assert metric.kind == "counter"
        assert value > 0
        self.counters.setdefault(metric, defaultdict(float))[self._values(metric, labels)] += value

    def set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        assert metric.kind == "gauge"
        self.gauges.setdefault(metric, {})[self._values(metric, labels)] = value

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        assert metric.kind == "histogram"
        self.observed.setdefault(metric, defaultdict(list))[self._values(metric, labels)].append(value)

    def _values(self, metric: Metric, labels: Mapping[str, str]) -> Labels:
        assert {*labels} == {*metric.labels}, metric.name
        return tuple(labels[label] for label in metric.labels)

    def counted(self, metric: Metric) -> dict[Labels, float]:
        return dict(self.counters.get(metric, {}))
