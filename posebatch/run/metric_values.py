"""The values of a run's metrics, kept until a sink takes them: Ray starts late, and only if there is work."""

from __future__ import annotations

from collections import defaultdict
from typing import TypeAlias

from posebatch.run.metrics import Metric, MetricsSink

_Series: TypeAlias = tuple[Metric, tuple[tuple[str, str], ...]]
"""A metric with its labels."""


class MetricValues:
    """Counters and gauges, which `send` gives to the sink. Without one, only values of histograms are lost.

    >>> values = MetricValues()
    >>> values.count(FRAMES, 5)
    >>> values.connect(sink)  # sends 5
    """

    def __init__(self) -> None:
        self._sink: MetricsSink | None = None
        self._counters: defaultdict[_Series, float] = defaultdict(float)
        self._sent: defaultdict[_Series, float] = defaultdict(float)
        self._gauges: dict[_Series, float] = {}

    @property
    def is_connected(self) -> bool:
        """Whether there is a sink."""
        return self._sink is not None

    def connect(self, sink: MetricsSink) -> None:
        """Send all values to ``sink`` from now on, and those so far at once."""
        self._sink = sink
        self.send()

    def count(self, metric: Metric, value: float = 1, **labels: str) -> None:
        """Raise a counter."""
        self._counters[metric, tuple(labels.items())] += value

    def count_to(self, metric: Metric, total: float, **labels: str) -> None:
        """Raise a counter to ``total``."""
        self._counters[metric, tuple(labels.items())] = total

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._gauges[metric, tuple(labels.items())] = value

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        if self._sink:
            self._sink.observe(metric, value, labels)

    def send(self) -> None:
        """Give the sink what was counted since the last call, and all gauges."""
        if self._sink is None:
            return
        for series, total in self._counters.items():
            if total > self._sent[series]:
                self._sink.add(series[0], total - self._sent[series], dict(series[1]))
                self._sent[series] = total
        for (metric, labels), value in self._gauges.items():
            self._sink.set(metric, value, dict(labels))
