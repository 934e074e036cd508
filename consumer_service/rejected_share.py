"""The opt-in halt: a topic whose messages suddenly are all unusable stops the consumer instead of being drained."""

from collections import Counter
from collections.abc import Sequence

import structlog

from consumer_service.metrics import ConsumerMetrics
from consumer_service.pipeline import Rejected
from consumer_service.sources import Partition, Record
from libaggregator.messages import Reason

_Place = tuple[str, int, int]

log = structlog.get_logger(__name__)


class RejectedShare:
    """The share of the last `window` messages that were rejected, and whether it was above `most`; 0: never is.

    A message that comes again, after a rebalance, counts once as long as it is among the last ones. A halt lasts
    until the end of the process.
    """

    def __init__(self, most: float, window: int, metrics: ConsumerMetrics) -> None:
        self._most = most
        self._window = window
        self._metrics = metrics
        self._outcomes: dict[_Place, Reason | None] = {}
        self._problem: str | None = None

    def admits(self, records: Sequence[Record], rejected: Sequence[Rejected]) -> bool:
        """Count the records of a batch, of which some are rejected; False if the batch must not be written.

        That is when the window is full and more than the share is rejected; it is logged.
        """
        if self._most == 0:
            return True
        reasons = {_place(entry.record): entry.reason for entry in rejected}
        for record in records:
            place = _place(record)
            self._outcomes.pop(place, None)
            self._outcomes[place] = reasons.get(place)
        for place in list(self._outcomes)[: -self._window]:
            del self._outcomes[place]
        return not self._is_exceeded(records)

    def refused(self, rejected: Sequence[Rejected]) -> None:
        """Take what was rejected in the end: the database refuses some only when they are written."""
        for entry in rejected:
            place = _place(entry.record)
            if place in self._outcomes:
                self._outcomes[place] = entry.reason

    def problem(self) -> str | None:
        """Return why the consumer has halted, None if it has not; from any thread."""
        return self._problem

    def _is_exceeded(self, records: Sequence[Record]) -> bool:
        reasons = Counter(reason for reason in self._outcomes.values() if reason)
        share = reasons.total() / self._window
        if len(self._outcomes) < self._window or share <= self._most:
            return False
        (reason, count), *_ = reasons.most_common(1)
        self._problem = (
            f"{reasons.total()} of the last {self._window} messages are unusable, {count} of them {reason};"
            " mend what produces them, or raise consumer.max_rejected_share, and restart"
        )
        self._metrics.halted.set(1)
        log.error(
            "halted: too many messages are unusable; nothing of the batch in hand was written or committed",
            share=share,
            allowed=self._most,
            window=self._window,
            reason=reason,
            count=count,
            stopped_at=_beginnings(records),
            advice="mend what produces them, or raise consumer.max_rejected_share, and restart",
        )
        return True


def _place(record: Record) -> _Place:
    return record.topic, record.partition, record.offset


def _beginnings(records: Sequence[Record]) -> str:
    """Return the first offset of each partition, which is where its reading goes on after a restart."""
    first: dict[Partition, int] = {}
    for record in records:
        first.setdefault(Partition(record.topic, record.partition), record.offset)
    return ", ".join(f"{topic} {number} at {offset}" for (topic, number), offset in sorted(first.items()))
