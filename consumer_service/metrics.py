"""The metrics of the consumer, one closed list."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry

from consumer_service.pipeline import Skipped, SkipReason
from consumer_service.sources import Partition
from consumer_service.writer import Written
from libaggregator.build import BuildFacts
from libaggregator.messages import Reason
from libaggregator.metrics import BUILD_LABELS, Metric

OUTCOMES = ("stored", "skipped", "rejected")
BATCH_STEPS = ("sort", "write", "dead_letters", "commit")
PARTS = ("database", "source")
DATABASE_STEPS = ("write", "ping")
SOURCE_STEPS = ("poll", "dead_letters", "commit")

_STEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_EPOCH = datetime(1970, 1, 1)

MESSAGES = Metric(
    "counter",
    "aggregator_consumer_messages_total",
    "messages",
    "Messages by outcome (stored, skipped, rejected); the reason is empty for stored ones",
    ("outcome", "reason"),
)
BATCH_MESSAGES = Metric(
    "histogram",
    "aggregator_consumer_batch_messages",
    "messages",
    "Messages in one batch, which is what one poll returned",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
BATCH_SECONDS = Metric(
    "histogram",
    "aggregator_consumer_batch_seconds",
    "seconds",
    "Seconds that a batch took in all its steps, waiting for outages included",
    buckets=_STEP_BUCKETS,
)
STEP_SECONDS = Metric(
    "histogram",
    "aggregator_consumer_step_seconds",
    "seconds",
    "Seconds that a batch took in one step (sort, write, dead_letters, commit), waiting for outages included",
    ("step",),
    buckets=_STEP_BUCKETS,
)
MESSAGE_SECONDS = Metric(
    "histogram",
    "aggregator_consumer_message_seconds",
    "seconds",
    "Seconds of work for one message, by outcome: its share of the time in which its batch was sorted and written",
    ("outcome",),
    buckets=(0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
END_TO_END_SECONDS = Metric(
    "histogram",
    "aggregator_consumer_end_to_end_seconds",
    "seconds",
    "Seconds from the time of a record in the topic until its result was committed in the database; stored messages",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400),
)
RESULT_AGE_SECONDS = Metric(
    "histogram",
    "aggregator_consumer_result_age_seconds",
    "seconds",
    "Seconds between `LastChecked` of a message and the commit of its result in the database; stored messages",
    buckets=(30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21_600, 86_400, 604_800),
)
NEWEST_RESULT_AGE = Metric(
    "gauge",
    "aggregator_consumer_newest_result_age_seconds",
    "seconds",
    "Age of the newest result that this process has stored: seconds since its `LastChecked`; NaN if it has stored none",
)
RETRIES = Metric(
    "counter",
    "aggregator_consumer_retries_total",
    "retries",
    "Times that a step had to be tried again because database (write, ping) or source (poll, dead_letters, commit) was"
    " at fault",
    ("step",),
)
CONFLICTS = Metric(
    "counter",
    "aggregator_consumer_conflicts_total",
    "conflicts",
    "Retries of a write because another consumer had the same clusters at the same time",
)
AVAILABLE = Metric(
    "gauge",
    "aggregator_consumer_available",
    "0 or 1",
    "1 if this part (database, source) worked when it was last used, 0 in an outage",
    ("part",),
)
OUTAGES = Metric(
    "counter",
    "aggregator_consumer_outages_total",
    "outages",
    "Times that a part (database, source) was away; an outage counts once, at its begin, however long it lasts",
    ("part",),
)
DEAD_LETTERS = Metric(
    "counter",
    "aggregator_consumer_dead_letters_total",
    "messages",
    "Rejected messages by what became of their dead letter: sent, or refused by the topic as too large",
    ("result",),
)
LAST_STORED = Metric(
    "gauge",
    "aggregator_consumer_last_stored_timestamp_seconds",
    "seconds",
    "When a message was last stored, seconds since 1970; 0 if none was since the start",
)
HANDLED_OFFSET = Metric(
    "gauge",
    "aggregator_consumer_handled_offset",
    "offset",
    "Offset after the last record that has its effect in the database, of each partition that is read here; after a"
    " rebalance or an outage of the broker it is gone until the next record is handled here, since another consumer may"
    " have gone on",
    ("topic", "partition"),
)
COMMITTED_OFFSET = Metric(
    "gauge",
    "aggregator_consumer_committed_offset",
    "offset",
    "Offset that the broker is known to have as committed, of each partition that is read here; under load it is known"
    " one batch later; after a rebalance or an outage of the broker it is gone until the next commit from here",
    ("topic", "partition"),
)
LAG = Metric(
    "gauge",
    "aggregator_consumer_lag_messages",
    "messages",
    "Offsets between what is handled and the end of each partition that is read here, as of the last look, which is"
    " at most half a minute old but in outages; with Redis the entries that no consumer of the group has taken yet",
    ("topic", "partition"),
)
STALLED_PARTITIONS = Metric(
    "gauge",
    "aggregator_consumer_stalled_partitions",
    "partitions",
    "Partitions that have stood still for `consumer.stalled_after` although there are records and nothing is away",
)
LOOP_SILENT = Metric(
    "gauge",
    "aggregator_consumer_loop_silent_seconds",
    "seconds",
    "Seconds since the loop came round, or a statement of it was answered; `/livez` fails if they are too many",
)
HALTED = Metric(
    "gauge",
    "aggregator_consumer_halted",
    "0 or 1",
    "1 if the consumer has stopped reading since more than `consumer.max_rejected_share` was unusable, else 0",
)
BUILD_INFO = Metric(
    "gauge", "aggregator_consumer_build_info", "1", "Always 1; the labels say what is running", BUILD_LABELS
)

METRICS: tuple[Metric, ...] = (
    MESSAGES,
    BATCH_MESSAGES,
    BATCH_SECONDS,
    STEP_SECONDS,
    MESSAGE_SECONDS,
    END_TO_END_SECONDS,
    RESULT_AGE_SECONDS,
    NEWEST_RESULT_AGE,
    RETRIES,
    CONFLICTS,
    AVAILABLE,
    OUTAGES,
    DEAD_LETTERS,
    LAST_STORED,
    HANDLED_OFFSET,
    COMMITTED_OFFSET,
    LAG,
    STALLED_PARTITIONS,
    LOOP_SILENT,
    HALTED,
    BUILD_INFO,
)
"""All of them, in the order of the documentation."""


class ConsumerMetrics:
    """The metrics of one consumer."""

    def __init__(self, registry: CollectorRegistry, build: BuildFacts, clock: Callable[[], float] = time.time) -> None:
        """Make all metrics in a registry; `clock` returns seconds since 1970.

        What has labels from a closed list is shown from the start with 0, so that its first increase is seen.
        """
        self._clock = clock
        self._newest_checked_at: float | None = None
        self._messages = MESSAGES.counter(registry)
        self._batch_messages = BATCH_MESSAGES.histogram(registry)
        self.batch_seconds = BATCH_SECONDS.histogram(registry)
        self.step_seconds = STEP_SECONDS.histogram(registry)
        self._message_seconds = MESSAGE_SECONDS.batch_histogram(registry)
        self._end_to_end_seconds = END_TO_END_SECONDS.batch_histogram(registry)
        self._result_age_seconds = RESULT_AGE_SECONDS.batch_histogram(registry)
        NEWEST_RESULT_AGE.gauge(registry).set_function(self._newest_result_age)
        self.retries = RETRIES.counter(registry)
        self.conflicts = CONFLICTS.counter(registry)
        self.available = AVAILABLE.gauge(registry)
        self.outages = OUTAGES.counter(registry)
        self.dead_letters = DEAD_LETTERS.counter(registry)
        self._last_stored = LAST_STORED.gauge(registry)
        self.handled_offset = HANDLED_OFFSET.gauge(registry)
        self.committed_offset = COMMITTED_OFFSET.gauge(registry)
        self.lag = LAG.gauge(registry)
        self.stalled_partitions = STALLED_PARTITIONS.gauge(registry)
        self.loop_silent = LOOP_SILENT.gauge(registry)
        self.halted = HALTED.gauge(registry)
        BUILD_INFO.gauge(registry).labels(build.version, build.branch, build.commit).set(1)
        self._show_closed_labels()

    def count_batch(self, written: Written, skipped: Sequence[Skipped], seconds: float) -> None:
        """Count what became of the messages of a batch, which was sorted and written in so many seconds."""
        stored, rejected = len(written.stored), len(written.rejected)
        outcomes = {"stored": stored, "skipped": len(skipped), "rejected": rejected}
        messages = sum(outcomes.values())
        self._batch_messages.observe(messages)
        for outcome, count in outcomes.items():
            self._message_seconds.observe_times(count, seconds / messages, outcome)
        self._messages.labels("stored", "").inc(stored)
        self._count_reasons("skipped", Counter(skip.reason for skip in skipped))
        self._count_reasons("rejected", Counter(rejection.reason for rejection in written.rejected))
        if stored:
            self._count_times(written)

    def _count_reasons(self, outcome: str, reasons: Counter[SkipReason] | Counter[Reason]) -> None:
        for reason, count in reasons.items():
            self._messages.labels(outcome, reason).inc(count)

    def _count_times(self, written: Written) -> None:
        """Tell how old the stored messages are; one whose time is ahead of the clock counts as 0 seconds old."""
        now = self._clock()
        self._last_stored.set(now)
        produced_at = [entry.record.timestamp for entry in written.stored if entry.record.timestamp is not None]
        checked_at = [(entry.message.last_checked_at - _EPOCH).total_seconds() for entry in written.stored]
        self._end_to_end_seconds.observe(_ages(now, [milliseconds / 1000 for milliseconds in produced_at]))
        self._result_age_seconds.observe(_ages(now, checked_at))
        self._newest_checked_at = max([*checked_at, self._newest_checked_at or -math.inf])

    def _newest_result_age(self) -> float:
        return math.nan if self._newest_checked_at is None else self._clock() - self._newest_checked_at

    def _show_closed_labels(self) -> None:
        self._messages.labels("stored", "")
        for skip_reason in SkipReason:
            self._messages.labels("skipped", skip_reason)
        for reason in Reason:
            self._messages.labels("rejected", reason)
        for outcome in OUTCOMES:
            self._message_seconds.show(outcome)
        for step in BATCH_STEPS:
            self.step_seconds.labels(step)
        for step in (*DATABASE_STEPS, *SOURCE_STEPS):
            self.retries.labels(step)
        for part in PARTS:
            self.outages.labels(part)
        for result in ("sent", "too_large"):
            self.dead_letters.labels(result)


def _ages(now: float, times: Sequence[float]) -> list[float]:
    return [now - then if then < now else 0.0 for then in times]


class OffsetMetrics:
    """Shows how far each partition is handled, and how far the broker knows it."""

    def __init__(self, metrics: ConsumerMetrics) -> None:
        self._metrics = metrics
        self._shown: set[Partition] = set()
        self._on_their_way: Mapping[Partition, int] = {}

    def handled(self, offsets: Mapping[Partition, int]) -> None:
        """Take the offsets after what has its effect."""
        self._shown |= offsets.keys()
        for partition, offset in offsets.items():
            self._metrics.handled_offset.labels(*partition).set(offset)

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Take offsets whose commit was begun: those before have arrived."""
        self.arrived()
        self._on_their_way = offsets

    def arrived(self) -> None:
        """Note that the broker has all offsets whose commit was begun."""
        self._shown |= self._on_their_way.keys()
        for partition, offset in self._on_their_way.items():
            self._metrics.committed_offset.labels(*partition).set(offset)
        self._on_their_way = {}

    def keep(self, partitions: set[Partition]) -> None:
        """Show only these, which are read here."""
        for partition in self._shown - partitions:
            self._metrics.handled_offset.remove(*partition)
            self._metrics.committed_offset.remove(*partition)
        self._shown &= partitions
        self._on_their_way = {where: offset for where, offset in self._on_their_way.items() if where in partitions}
