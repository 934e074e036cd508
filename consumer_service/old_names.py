"""Names of the consumer's metrics in existing deployments."""

from collections.abc import Callable

from consumer_service import metrics
from libaggregator.old_names import Labels, LabelValues, OldMetric


def _having(*outcomes: str) -> Callable[[Labels], LabelValues | None]:
    """Return what counts samples with these outcomes, whatever else their labels say."""
    return lambda labels: () if labels["outcome"] in outcomes else None


OLD_METRICS = (
    OldMetric(
        "counter",
        "consumed_messages",
        "messages",
        "Messages that were read and handled",
        metrics.MESSAGES,
        _having(*metrics.OUTCOMES),
    ),
    OldMetric(
        "counter", "consuming_errors", "messages", "Messages that were rejected", metrics.MESSAGES, _having("rejected")
    ),
    OldMetric(
        "counter",
        "written_reports",
        "messages",
        "Messages whose result was stored",
        metrics.MESSAGES,
        _having("stored"),
    ),
    OldMetric(
        "histogram",
        "successful_messages_processing_time",
        "seconds",
        "Seconds of work for one message that was stored or skipped",
        metrics.MESSAGE_SECONDS,
        _having("stored", "skipped"),
    ),
    OldMetric(
        "histogram",
        "failed_messages_processing_time",
        "seconds",
        "Seconds of work for one message that was rejected",
        metrics.MESSAGE_SECONDS,
        _having("rejected"),
    ),
    OldMetric(
        "histogram",
        "last_checked_timestamp_lag_minutes",
        "minutes",
        "Minutes between `LastChecked` of a message and the commit of its result in the database",
        metrics.RESULT_AGE_SECONDS,
        lambda labels: (),
        divisor=60,
    ),
)
"""All of them, in the order of the documentation."""
