"""How metrics are declared: each process has one closed list of `Metric`, from which its metrics are made.

The page `docs/metrics.md` is made from the same lists.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from threading import Lock
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

BUILD_LABELS = ("version", "branch", "commit")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name, the unit of its value, what it tells, its labels, and the buckets of a histogram.

    `across` is what is shown of a gauge where several worker processes have it: the sum or the largest of the living.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    unit: str
    description: str
    labels: Sequence[str] = ()
    buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS
    across: Literal["livesum", "livemax"] = "livesum"

    def counter(self, registry: CollectorRegistry | None) -> Counter:
        """Make the counter of this declaration; without a registry it is to be registered later."""
        return Counter(self.name, self.description, self.labels, registry=registry)

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        """Make the gauge of this declaration."""
        return Gauge(self.name, self.description, self.labels, registry=registry, multiprocess_mode=self.across)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """Make the histogram of this declaration."""
        return Histogram(self.name, self.description, self.labels, buckets=self.buckets, registry=registry)

    def batch_histogram(self, registry: CollectorRegistry) -> "BatchHistogram":
        """Make the histogram of this declaration, for values that come many at once in a process without workers."""
        return BatchHistogram(self, registry)


class _Series:
    """The values with the same labels: how many in each bucket, and their sum."""

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.sum = 0.0


class BatchHistogram(Collector):
    """A histogram that takes many values at once, in an eighth of the time of a call for each.

    It is for one process: several workers can't add theirs up.
    """

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._metric = metric
        self._bounds = [*metric.buckets, math.inf]
        self._lock = Lock()
        self._series: dict[tuple[str, ...], _Series] = {}
        if not metric.labels:
            self.show()
        registry.register(self)

    def show(self, *labels: str) -> None:
        """Show these labels from the start, with nothing counted."""
        self.observe([], *labels)

    def observe(self, values: Iterable[float], *labels: str) -> None:
        """Count each of the values."""
        bounds = self._bounds
        total = 0.0
        counts = [0] * len(bounds)
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        with self._lock:
            series = self._series_of(labels)
            series.counts = [before + more for before, more in zip(series.counts, counts, strict=True)]
            series.sum += total

    def observe_times(self, times: int, value: float, *labels: str) -> None:
        """Count the same value so many times."""
        with self._lock:
            series = self._series_of(labels)
            series.counts[bisect_left(self._bounds, value)] += times
            series.sum += times * value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield what was counted."""
        family = HistogramMetricFamily(self._metric.name, self._metric.description, labels=self._metric.labels)
        bounds = [floatToGoString(bound) for bound in self._bounds]
        with self._lock:
            for labels, series in self._series.items():
                buckets = list(zip(bounds, accumulate(series.counts), strict=True))
                family.add_metric(labels, buckets, series.sum)
        yield family

    def _series_of(self, labels: tuple[str, ...]) -> _Series:
        if labels not in self._series:
            self._series[labels] = _Series(len(self._bounds))
        return self._series[labels]


def process_registry() -> CollectorRegistry:
    """Return a registry that has what Prometheus knows of any process: `process_*` and `python_info`.

    It has the metrics that are declared and no others: the library is told to show no `_created` beside each counter
    and histogram, for the whole process. Metrics of workers, which are in files, never have any.
    """
    disable_created_metrics()
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry
