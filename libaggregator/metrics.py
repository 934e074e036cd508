"""How metrics are declared: each process has one closed list of `Metric`, from which its metrics are made.

The page `docs/metrics.md` is made from the same lists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name with unit, what it tells, its labels, and the buckets of a histogram.

    `across` is what is shown of a gauge where several worker processes have it: the sum or the largest of the living.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    description: str
    labels: Sequence[str] = ()
    buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS
    across: Literal["livesum", "livemax"] = "livesum"

    def counter(self, registry: CollectorRegistry) -> Counter:
        """Make the counter of this declaration."""
        return Counter(self.name, self.description, self.labels, registry=registry)

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        """Make the gauge of this declaration."""
        return Gauge(self.name, self.description, self.labels, registry=registry, multiprocess_mode=self.across)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """Make the histogram of this declaration."""
        return Histogram(self.name, self.description, self.labels, buckets=self.buckets, registry=registry)


def process_registry() -> CollectorRegistry:
    """Return a registry that has what Prometheus knows of any process: `process_*` and `python_info`."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry
