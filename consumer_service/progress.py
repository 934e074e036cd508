"""Whether each partition moves on: one that stands still although nothing is away is *stalled*.

What is seen of a partition counts only while the loop looks at it, from one look to the next. An outage, a rebalance,
a batch that takes long, and a new assignment begin the count anew, so that none of them is taken for a stall.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from consumer_service.metrics import ConsumerMetrics
from consumer_service.sources import Partition, Progress

_LOOKS = 4
_LONGEST_INTERVAL = 30.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Seen:
    """What was found of a partition, and since when it stands there with records behind its position."""

    progress: Progress
    since: float
    is_stalled: bool = False


class ProgressWatch:
    """Measures the lag of each partition and finds the stalled ones.

    `stalled_after` is the time in seconds that a partition with records behind its position may stand still. `clock`
    counts seconds from anywhere. All calls but `problem` come from one thread.
    """

    def __init__(self, stalled_after: float, metrics: ConsumerMetrics, clock: Callable[[], float]) -> None:
        self._stalled_after = stalled_after
        self._interval = min(_LONGEST_INTERVAL, stalled_after / _LOOKS)
        self._metrics = metrics
        self._clock = clock
        self._last_look = self._last_measured = -float("inf")
        self._seen: dict[Partition, _Seen] = {}
        self._problem: str | None = None

    def is_due(self) -> bool:
        """Whether it is time for the next look."""
        return self._clock() >= self._last_look + self._interval

    def is_lag_due(self) -> bool:
        """Whether it is time to measure the lag, if nobody looks."""
        return self._clock() >= max(self._last_look, self._last_measured) + self._interval

    def observe(self, found: Mapping[Partition, Progress]) -> None:
        """Take what the source found of each partition that is being read at the moment."""
        now = self._clock()
        if now > self._last_look + self._stalled_after / 2:
            self.forget("nobody looked at it for a while")
        self._last_look = now
        for partition in self._seen.keys() - found.keys():
            self._leave(partition)
        self.measure(found)
        for partition, progress in found.items():
            self._compare(partition, progress, now)
        self._tell(now)

    def measure(self, found: Mapping[Partition, Progress]) -> None:
        """Take the lag of partitions alone: while nothing is read on purpose, none of them is stalled."""
        self._last_measured = self._clock()
        for partition, progress in found.items():
            self._metrics.lag.labels(*partition).set(progress.lag)

    def forget(self, reason: str) -> None:
        """Begin the count of every partition anew, for a reason in words: what follows says nothing about before."""
        for partition, seen in self._seen.items():
            self._note_end(partition, seen, reason)
        # the lag stays, as it was when it was last known
        self._seen = {partition: _Seen(seen.progress, self._clock()) for partition, seen in self._seen.items()}
        self._tell(self._clock())

    def problem(self) -> str | None:
        """Return which partitions are stalled and where, None if none is; from any thread."""
        return self._problem

    def _compare(self, partition: Partition, progress: Progress, now: float) -> None:
        seen = self._seen.get(partition)
        if seen is None or not _stands_still(seen.progress, progress):
            if seen is not None:
                self._note_end(partition, seen, "it moved on")
            self._seen[partition] = _Seen(progress, now)
            return
        seen.progress = progress
        if not seen.is_stalled and now - seen.since >= self._stalled_after:
            seen.is_stalled = True
            log.warning(
                "partition stalled",
                topic=partition.topic,
                partition=partition.number,
                position=progress.position,
                end=progress.end,
                seconds=round(now - seen.since),
            )

    def _leave(self, partition: Partition) -> None:
        self._note_end(partition, self._seen.pop(partition), "it is not read here at the moment")
        self._metrics.lag.remove(*map(str, partition))

    def _note_end(self, partition: Partition, seen: _Seen, reason: str) -> None:
        if seen.is_stalled:
            log.info("partition no longer stalled", topic=partition.topic, partition=partition.number, reason=reason)

    def _tell(self, now: float) -> None:
        stalled = {partition: seen for partition, seen in sorted(self._seen.items()) if seen.is_stalled}
        self._metrics.stalled_partitions.set(len(stalled))
        texts = [
            f"partition {partition.number} of {partition.topic!r} has stood at offset {seen.progress.position}"
            f" for {now - seen.since:.0f} s, its end is {seen.progress.end}"
            for partition, seen in stalled.items()
        ]
        self._problem = "; ".join(texts) or None


def _stands_still(before: Progress, now: Progress) -> bool:
    """Whether there were records behind the position all the time, and it did not move."""
    return before.lag > 0 and now.lag > 0 and now.stands_where(before)
