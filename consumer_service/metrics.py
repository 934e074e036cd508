"""The metrics of the consumer, one closed list."""

from prometheus_client import CollectorRegistry

from libaggregator.metrics import Metric

MESSAGES = Metric(
    "counter",
    "aggregator_consumer_messages_total",
    "Messages by outcome (stored, skipped, rejected); the reason is empty for stored ones",
    ("outcome", "reason"),
)
BATCH_MESSAGES = Metric(
    "histogram",
    "aggregator_consumer_batch_messages",
    "Messages in one batch, which is what one poll returned",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
STEP_SECONDS = Metric(
    "histogram",
    "aggregator_consumer_step_seconds",
    "Seconds that a batch took in one step (sort, write, dead_letters, commit), waiting for outages included",
    ("step",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
RETRIES = Metric(
    "counter",
    "aggregator_consumer_retries_total",
    "Times that a step had to be tried again because database or source was at fault",
    ("step",),
)
AVAILABLE = Metric(
    "gauge",
    "aggregator_consumer_available",
    "1 if this part (database, source) worked when it was last used, 0 in an outage",
    ("part",),
)
DEAD_LETTERS = Metric(
    "counter",
    "aggregator_consumer_dead_letters_total",
    "Rejected messages by what became of their dead letter: sent, or refused by the topic as too large",
    ("result",),
)
LAST_STORED = Metric(
    "gauge",
    "aggregator_consumer_last_stored_timestamp_seconds",
    "When a message was last stored, seconds since 1970; 0 if none was since the start",
)
LAG = Metric(
    "gauge",
    "aggregator_consumer_lag_messages",
    "Offsets between what is handled and the end of each partition that is read here, as of the last look, which is"
    " at most half a minute old but in outages",
    ("topic", "partition"),
)
STALLED_PARTITIONS = Metric(
    "gauge",
    "aggregator_consumer_stalled_partitions",
    "Partitions that have stood still for `consumer.stalled_after` although there are records and nothing is away",
)
LOOP_SILENT = Metric(
    "gauge",
    "aggregator_consumer_loop_silent_seconds",
    "Seconds since the loop came round, or a statement of it was answered; `/livez` fails if they are too many",
)
HALTED = Metric(
    "gauge",
    "aggregator_consumer_halted",
    "1 if the consumer has stopped reading since more than `consumer.max_rejected_share` was unusable, else 0",
)

METRICS: tuple[Metric, ...] = (
    MESSAGES,
    BATCH_MESSAGES,
    STEP_SECONDS,
    RETRIES,
    AVAILABLE,
    DEAD_LETTERS,
    LAST_STORED,
    LAG,
    STALLED_PARTITIONS,
    LOOP_SILENT,
    HALTED,
)
"""All of them, in the order of the documentation."""


class ConsumerMetrics:
    """The metrics of one consumer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make all metrics in a registry."""
        self.messages = MESSAGES.counter(registry)
        self.batch_messages = BATCH_MESSAGES.histogram(registry)
        self.step_seconds = STEP_SECONDS.histogram(registry)
        self.retries = RETRIES.counter(registry)
        self.available = AVAILABLE.gauge(registry)
        self.dead_letters = DEAD_LETTERS.counter(registry)
        self.last_stored = LAST_STORED.gauge(registry)
        self.lag = LAG.gauge(registry)
        self.stalled_partitions = STALLED_PARTITIONS.gauge(registry)
        self.loop_silent = LOOP_SILENT.gauge(registry)
        self.halted = HALTED.gauge(registry)
