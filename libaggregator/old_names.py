"""Metrics under the names that dashboards of existing deployments query (`docs/metrics.md`).

They are counted from ours whenever somebody looks, so that they cost nothing in between, and so that they hold for
several workers. Existing deployments have counters whose names do not end in `_total`; the library writes such a name
only for metrics without a type.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import HistogramMetricFamily, UntypedMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from libaggregator.metrics import Metric
from libaggregator.settings import MetricsSettings, SettingsError

_NAMESPACE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

Labels = Mapping[str, str]
LabelValues = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OldMetric:
    """A metric of existing deployments, and how it follows from one of ours.

    `label_values` gives the values of `labels` for a sample of `source` with these labels, None if the sample does not
    count; samples that get the same values are added up. A value of `source` is `divisor` times as large.
    """

    kind: Literal["counter", "histogram"]
    name: str
    unit: str
    description: str
    source: Metric
    label_values: Callable[[Labels], LabelValues | None]
    labels: Sequence[str] = ()
    divisor: float = 1.0


def registry_with_old_names(
    own: CollectorRegistry, old: Sequence[OldMetric], settings: MetricsSettings
) -> CollectorRegistry:
    """Return the registry that is shown: `own`, with the old names too if the settings say so.

    Raises SettingsError if `metrics.namespace` can't begin the name of a metric.
    """
    if settings.namespace and not _NAMESPACE.fullmatch(settings.namespace):
        raise SettingsError(
            [f"metrics.namespace: expected letters, digits and `_`, no digit first, got {settings.namespace!r}"]
        )
    if not settings.legacy_names:
        return own
    shown = CollectorRegistry()
    shown.register(_WithOldNames(own, old, settings.namespace))
    return shown


class _WithOldNames(Collector):
    """Everything in a registry, and what follows from it."""

    def __init__(self, own: CollectorRegistry, old: Sequence[OldMetric], namespace: str) -> None:
        self._own = own
        self._old = old
        self._prefix = f"{namespace}_" if namespace else ""

    def collect(self) -> Iterator[Family]:
        """Yield the registry's own metrics, then the old ones, all from the same look."""
        found: dict[str, Family] = {}
        for family in self._own.collect():
            found[family.name] = family
            yield family
        for old in self._old:
            # the library calls the metric without the ending of its samples
            source = found.get(old.source.name.removesuffix("_total"))
            derive = _histogram if old.kind == "histogram" else _counter
            yield derive(old, self._prefix + old.name, source)


def _counter(old: OldMetric, name: str, source: Family | None) -> Family:
    totals: dict[LabelValues, float] = defaultdict(float)
    for values, _, amount in _samples(old, source, ""):
        totals[values] += amount
    family = UntypedMetricFamily(name, old.description, labels=old.labels)
    for values, total in totals.items():
        family.add_metric(values, total)
    return family


def _histogram(old: OldMetric, name: str, source: Family | None) -> Family:
    buckets: dict[LabelValues, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    sums: dict[LabelValues, float] = defaultdict(float)
    for values, labels, amount in _samples(old, source, "_bucket"):
        buckets[values][float(labels["le"]) / old.divisor] += amount
    for values, _, amount in _samples(old, source, "_sum"):
        sums[values] += amount / old.divisor
    family = HistogramMetricFamily(name, old.description, labels=old.labels)
    for values, counts in buckets.items():
        family.add_metric(values, [(floatToGoString(le), counts[le]) for le in sorted(counts)], sums[values])
    return family


def _samples(old: OldMetric, source: Family | None, ending: str) -> Iterator[tuple[LabelValues, Labels, float]]:
    """Yield each sample of the source that counts and has this ending: the old labels, its own ones, its value."""
    for sample in source.samples if source else ():
        if sample.name == old.source.name + ending:
            values = old.label_values(sample.labels)
            if values is not None:
                yield values, sample.labels, sample.value
