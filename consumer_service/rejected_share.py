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
    """The share of the last `window` messages that were rejected, and whether it ever was above `most`; 0: never is.

    A message that comes again, after a rebalance, counts once as long as it is among the last ones. A halt lasts
    until the end of the process.
    """

    def __init__(self, most: float, window: int, metrics: ConsumerMetrics) -> None:
        self._most = most
        self._window = window
        self._metrics = metrics
        self._outcomes: dict[_Place, Reason | None] = {}
        self._reasons: Counter[Reason] = Counter()
        self._problem: str | None = None

    def admits(self, records: Sequence[Record], rejected: Sequence[Rejected]) -> bool:
        """Count the records of a batch, of which some are rejected; False if the consumer has to halt.

        That is when, after any of them, the window is full and more than the share of it is rejected; it is logged.
        A batch can be counted again when more is known: the database refuses some messages only when they are
        written.
        """
        if self._most == 0:
            return True
        reasons = {_place(entry.record): entry.reason for entry in rejected}
        places = [_place(record) for record in records]
        for place in places:
            self._forget(place)
        for place in places:
            self._count(place, reasons.get(place))
            if self._is_exceeded():
                self._halt(records)
                return False
        return True

    def problem(self) -> str | None:
        """Return why the consumer has halted, None if it has not; from any thread."""
        return self._problem

    def _count(self, place: _Place, reason: Reason | None) -> None:
        self._outcomes[place] = reason
        if reason:
            self._reasons[reason] += 1
        if len(self._outcomes) > self._window:
            self._forget(next(iter(self._outcomes)))

    def _forget(self, place: _Place) -> None:
        if reason := self._outcomes.pop(place, None):
            self._reasons[reason] -= 1

    def _is_exceeded(self) -> bool:
        return len(self._outcomes) == self._window and self._reasons.total() > self._most * self._window

    def _halt(self, records: Sequence[Record]) -> None:
        total = self._reasons.total()
        ((reason, count),) = self._reasons.most_common(1)
        self._problem = (
            f"{total} of the last {self._window} messages are unusable, {count} of them {reason};"
            " mend what produces them, or raise consumer.max_rejected_share, and restart"
        )
        self._metrics.halted.set(1)
        log.error(
            "halted: too many messages are unusable; nothing of the batch in hand is committed",
            share=total / self._window,
            allowed=self._most,
            window=self._window,
            reason=reason,
            count=count,
            stopped_at=_beginnings(records),
            advice="mend what produces them, or raise consumer.max_rejected_share, and restart",
        )


def _place(record: Record) -> _Place:
    return record.topic, record.partition, record.offset


def _beginnings(records: Sequence[Record]) -> str:
    """Return the first offset of each partition, which is where its reading goes on after a restart."""
    first: dict[Partition, int] = {}
    for record in records:
        first.setdefault(Partition(record.topic, record.partition), record.offset)
    return ", ".join(f"{topic} {number} at {offset}" for (topic, number), offset in sorted(first.items()))
