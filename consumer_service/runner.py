"""The loop of the consumer: poll, sort, write, dead letters, commit (`docs/architecture.md`).

A fault of database or source is waited out, and the step is done again as a whole; what the loop did before is
never undone, because each step has no effect when it is done twice.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import TypeVar

import structlog
from tenacity import RetryCallState, wait_exponential, wait_random

from consumer_service.batch_spans import BatchSpans, NoSpans
from consumer_service.engines import Conflict
from consumer_service.metrics import DATABASE_STEPS, ConsumerMetrics, OffsetMetrics
from consumer_service.pipeline import Accepted, Batch, Pipeline, Rejected
from consumer_service.progress import ProgressWatch
from consumer_service.rejected_share import RejectedShare
from consumer_service.sources import DeadLetter, MessageSource, Partition, Record, SourceUnavailable
from consumer_service.writer import Writer, Written
from libaggregator.admin import Heartbeat
from libaggregator.storage.faults import DATABASE_ERRORS, describe, is_conflict

T = TypeVar("T")

POLL_SECONDS = 0.5
"""How long the loop waits for records before it looks whether it has to stop."""

_PING_SECONDS = 5.0
_SLOW_SECONDS = 15.0  # a batch of the largest messages takes less
_FASTEST_RETRY, _SLOWEST_RETRY = 0.1, 10.0

log = structlog.get_logger(__name__)


class Stopped(Exception):
    """The process has to end while a step is still waiting for database or source."""


class Halted(Exception):
    """Too many messages are unusable: the batch in hand must not be written."""


class BatchLimit:
    """How many records a batch may have, so that one write stays well below `max_poll_interval`."""

    def __init__(self, most: int, max_poll_interval: float) -> None:
        self._most = most
        self._slow = max_poll_interval / 3
        self.records = most

    def observe(self, records: int, seconds: float) -> None:
        """Learn from a batch of so many records that was written in so many seconds."""
        if seconds > self._slow:
            self.records = max(1, min(self.records, records) // 2)
        elif seconds < self._slow / 4:
            self.records = min(self._most, self.records * 2)

    def cut(self, records: int) -> None:
        """Learn that a poll brought more than a batch can hold, which had room for so many: its records are large."""
        self.records = min(self.records, 2 * records)


class Outages:
    """What is away at the moment, for logs, metrics and readiness; each outage is reported once."""

    def __init__(self, metrics: ConsumerMetrics) -> None:
        self._metrics = metrics
        self._problems: dict[str, str | None] = {"database": "not used yet", "source": "not used yet"}
        self._reported: set[str] = set()
        self._called: dict[str, float] = {}
        for part in self._problems:
            metrics.available.labels(part).set(0)

    @contextmanager
    def watching(self, part: str) -> Iterator[None]:
        """Tell that a part is called until the end of the block: a frozen one shows by not coming back."""
        self._called[part] = time.monotonic()
        try:
            yield
        finally:
            self._called.pop(part, None)

    def began(self, part: str, problem: str) -> None:
        """Tell that a part failed."""
        if part not in self._reported:
            log.warning(f"{part} unavailable, waiting for it", problem=problem)
            self._metrics.outages.labels(part).inc()
        self._reported.add(part)
        self._problems[part] = problem
        self._metrics.available.labels(part).set(0)

    def ended(self, part: str) -> None:
        """Tell that a part worked."""
        if part in self._reported:
            log.info(f"{part} available again")
        self._reported.discard(part)
        self._problems[part] = None
        self._metrics.available.labels(part).set(1)

    @property
    def are_on(self) -> bool:
        """Whether a part is away, or was not used yet."""
        return any(self._problems.values())

    def problem(self, part: str) -> str | None:
        """Return what is wrong with a part, None if it worked lately; from any thread."""
        waited = time.monotonic() - self._called.get(part, math.inf)
        return f"no answer for {waited:.0f} s" if waited > _SLOW_SECONDS else self._problems[part]


class Runner:
    """Moves messages from a source into the database until it is told to stop or the source has ended."""

    def __init__(
        self,
        *,
        source: MessageSource,
        pipeline: Pipeline,
        writer: Writer,
        limit: BatchLimit,
        metrics: ConsumerMetrics,
        outages: Outages,
        progress: ProgressWatch,
        rejected_share: RejectedShare,
        heartbeat: Heartbeat,
        stop: Event,
        spans: BatchSpans | None = None,
    ) -> None:
        """Take the parts; without `spans` nothing is traced."""
        self._source = source
        self._pipeline = pipeline
        self._writer = writer
        self._limit = limit
        self._metrics = metrics
        self._offsets = OffsetMetrics(metrics)
        self._outages = outages
        self._progress = progress
        self._rejected_share = rejected_share
        self._heartbeat = heartbeat
        self._stop = stop
        self._spans: BatchSpans = spans or NoSpans()
        self._wait = wait_exponential(multiplier=_FASTEST_RETRY, max=_SLOWEST_RETRY) + wait_random(0, _FASTEST_RETRY)
        self._next_ping = 0.0

    def run(self) -> None:
        """Go on until `stop` is set; the batch in hand is finished, but in an outage it is given up uncommitted."""
        try:
            while not self._stop.is_set() and not self._source.exhausted:
                self._heartbeat.beat()
                records = list(self._poll())
                if records:
                    self._handle(records)
                else:
                    self._offsets.arrived()
                    self._ping()
                self._look_at_progress()
        except Halted:
            self._stay_halted()
        except Stopped:
            log.info("stopped during an outage, nothing committed for the batch in hand")

    def _poll(self) -> Sequence[Record]:
        def poll() -> Sequence[Record]:
            return self._source.poll(POLL_SECONDS, self._limit.records)

        records = self._until_done("poll", poll)
        if not records and self._source.problem():
            # a source that waits for its broker returns nothing, and the loop polls again
            self._metrics.retries.labels("poll").inc()
        return records

    def _handle(self, records: list[Record]) -> None:
        """Handle the records of a poll, in as many batches as they fill, and let go of each that is handled."""
        while records:
            self._heartbeat.beat()
            with self._metrics.batch_seconds.time(), self._spans.batch() as note_records:
                handled = self._handle_batch(records)
                note_records(records[:handled])
            if handled < len(records):
                self._limit.cut(handled)
            del records[:handled]

    def _handle_batch(self, records: Sequence[Record]) -> int:
        """Handle the first ones of some records; return how many."""
        begin = time.monotonic()
        with self._timed("sort"):
            batch = self._pipeline.sort(records)
        self._admit(records[: len(batch)], batch.rejected)
        with self._timed("write"):
            written = self._until_done("write", lambda: self._write(batch))
        self._report(batch, written, time.monotonic() - begin)
        if len(written.rejected) > len(batch.rejected):
            self._admit(records[: len(batch)], written.rejected)
        if written.rejected:
            with self._timed("dead_letters"):
                self._send_dead_letters(written.rejected)
        offsets = _offsets_after(records[: len(batch)])
        self._offsets.handled(offsets)
        with self._timed("commit"):
            self._until_done("commit", lambda: self._source.commit(offsets))
        self._offsets.committed(offsets)
        return len(batch)

    def _admit(self, records: Sequence[Record], rejected: Sequence[Rejected]) -> None:
        """Raise Halted if so many of the last messages are rejected that an operator wants to stop there."""
        if not self._rejected_share.admits(records, rejected):
            raise Halted

    def _write(self, batch: Batch) -> Written:
        begin = time.monotonic()
        written = self._writer.write(batch.accepted, batch.rejected)
        self._limit.observe(len(batch), time.monotonic() - begin)
        return written

    def _send_dead_letters(self, rejected: Sequence[Rejected]) -> None:
        letters = [DeadLetter(entry.record, entry.reason, entry.detail) for entry in rejected]
        delivery = self._until_done("dead_letters", lambda: self._source.send_dead_letters(letters))
        self._metrics.dead_letters.labels("sent").inc(delivery.sent)
        for letter in delivery.too_large:
            self._metrics.dead_letters.labels("too_large").inc()
            log.warning("dead letter too large for its topic, only consumer_error has it", **_place(letter.record))

    def _ping(self) -> None:
        """Notice an outage of the database also while there is nothing to write."""
        if time.monotonic() >= self._next_ping:
            self._until_done("ping", self._writer.ping)
            self._next_ping = time.monotonic() + _PING_SECONDS

    def _look_at_progress(self) -> None:
        if self._progress.is_due() and not self._outages.are_on:
            found = self._source.progress()
            self._progress.observe(found)
            self._offsets.keep(set(found))

    def _stay_halted(self) -> None:
        """Keep the partitions until told to stop: another consumer would halt at the same messages, or drain them."""
        self._progress.forget("the consumer has halted")
        while not self._stop.is_set():
            self._heartbeat.beat()
            self._source.keep_alive(POLL_SECONDS)
            self._measure_lag()

    def _measure_lag(self) -> None:
        """Tell how far behind it is also while nothing is read."""
        if self._progress.is_lag_due():
            self._progress.measure(self._source.progress())

    def _until_done(self, step: str, action: Callable[[], T]) -> T:
        """Do a step until it succeeds, and stay a member of the group meanwhile; raises Stopped if told to."""
        attempt = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        part = "database" if step in DATABASE_STEPS else "source"
        while True:
            try:
                with self._outages.watching(part):
                    result = action()
            except Conflict as conflict:
                self._metrics.conflicts.inc()
                log.info("conflict with another consumer, the batch is done again", problem=str(conflict))
            except DATABASE_ERRORS as error:
                if is_conflict(error):
                    self._metrics.conflicts.inc()
                    log.info("conflict with another consumer, the batch is done again", problem=describe(error))
                else:
                    self._outages.began("database", describe(error))
            except SourceUnavailable as error:
                self._outages.began("source", str(error))
            else:
                self._settle(step)
                return result
            self._progress.forget("its messages could not be handled")
            self._metrics.retries.labels(step).inc()
            self._stay_alive(self._wait(attempt), source_is_there=part == "database")
            attempt.attempt_number += 1

    def _settle(self, step: str) -> None:
        """Note that a step worked; a source can wait for its broker and return nothing, without an error."""
        if step in DATABASE_STEPS:
            self._outages.ended("database")
        elif problem := self._source.problem():
            self._outages.began("source", problem)
            self._progress.forget("the source is away")
        else:
            self._outages.ended("source")

    def _stay_alive(self, seconds: float, *, source_is_there: bool) -> None:
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            if self._stop.is_set():
                raise Stopped
            self._heartbeat.beat()
            self._source.keep_alive(min(remaining, POLL_SECONDS))
            if source_is_there:
                self._measure_lag()

    def _report(self, batch: Batch, written: Written, seconds: float) -> None:
        """Count and log what became of each message, once it is certain; it took so many seconds."""
        skipped = [*batch.skipped, *written.stale]
        self._metrics.count_batch(written, skipped, seconds)
        for skip in skipped:
            log.debug("message skipped", reason=skip.reason, **_place(skip.record))
        for rejection in written.rejected:
            log.warning(
                "message rejected", reason=rejection.reason, detail=rejection.detail, **_place(rejection.record)
            )
        if log.is_enabled_for(logging.DEBUG):
            for entry in written.stored:
                _log_stored(entry)
        log.info("batch done", stored=len(written.stored), skipped=len(skipped), rejected=len(written.rejected))

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        with self._metrics.step_seconds.labels(step).time(), self._spans.step(step):
            yield


def _offsets_after(records: Sequence[Record]) -> dict[Partition, int]:
    """Return where each partition goes on after these records."""
    return {Partition(record.topic, record.partition): record.offset + 1 for record in records}


def _log_stored(entry: Accepted) -> None:
    message = entry.message
    log.debug(
        "message stored",
        org_id=message.org_id,
        cluster=message.cluster,
        request_id=message.request_id,
        **_place(entry.record),
    )


def _place(record: Record) -> dict[str, object]:
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}
