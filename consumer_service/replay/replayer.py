"""Puts letters through pipeline and writer, and sees to their rows in `consumer_error`."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from consumer_service import statements
from consumer_service.engines import Conflict, Engine
from consumer_service.errors_table import error_text
from consumer_service.pipeline import Pipeline, Rejected
from consumer_service.replay.letters import Letter
from consumer_service.sources import Record
from consumer_service.writer import Writer
from libaggregator.storage.faults import is_conflict

T = TypeVar("T")

ATTEMPTS = 10
"""How often something is done in all while live consumers, or another replay, are in its way."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Summary:
    """How many messages came to which end; those that are replayed are the sum of all outcomes."""

    stored: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    strangers: int = 0
    """Records of the topic that are no dead letters of ours, and were not replayed."""

    @property
    def replayed(self) -> int:
        """Messages that went through the pipeline."""
        return self.stored + self.skipped.total() + self.rejected.total()

    def lines(self) -> list[str]:
        """Return a line for each outcome, and one with their sum."""
        counts = [("stored", self.stored)]
        counts += [(f"skipped, {reason}", count) for reason, count in sorted(self.skipped.items())]
        counts += [(f"rejected again, {reason}", count) for reason, count in sorted(self.rejected.items())]
        counts += [("replayed", self.replayed)]
        if self.strangers:
            counts.append(("not a dead letter of ours", self.strangers))
        return [f"{name:<34}{count:>10}" for name, count in counts]


class Replayer:
    """Replays letters into one database."""

    def __init__(self, pipeline: Pipeline, writer: Writer, engine: Engine, *, renews_errors: bool, dry: bool) -> None:
        """Take the parts of a consumer; the writer must not keep rejected records.

        With `renews_errors`, the row of a message that is rejected for something else than before says so
        afterwards. A `dry` run touches no row; its writer has to be on an engine that undoes everything.
        """
        self._pipeline = pipeline
        self._writer = writer
        self._engine = engine
        self._renews_errors = renews_errors
        self._dry = dry

    def replay(self, letters: Sequence[Letter], summary: Summary) -> None:
        """Store what can be stored now, remove the rows of what succeeded, and count.

        The rows go after the messages were written: if the process ends in between, they are replayed again, are
        stale then, and go. Raises Conflict or one of DATABASE_ERRORS if the database is at fault, or others are in
        the way again and again.
        """
        rejected: list[Rejected] = []
        records: Sequence[Record] = [letter.record for letter in letters]
        while records:
            handled = self._replay_batch(records, rejected, summary)
            records = records[handled:]
        if not self._dry:
            self._settle_rows(letters, rejected)

    def _replay_batch(self, records: Sequence[Record], rejected: list[Rejected], summary: Summary) -> int:
        """Replay the first ones of some records, as many as fill a batch; return how many."""
        batch = self._pipeline.sort(records)
        written = _without_conflicts(lambda: self._writer.write(batch.accepted, []))
        skipped = [*batch.skipped, *written.stale]
        rejected_here = [*batch.rejected, *written.rejected]
        summary.stored += len(written.stored)
        summary.skipped.update(str(skip.reason) for skip in skipped)
        summary.rejected.update(str(rejection.reason) for rejection in rejected_here)
        rejected += rejected_here
        for entry in written.stored:
            message = entry.message
            log.debug("message stored", org_id=message.org_id, cluster=message.cluster, **_place(entry.record))
        for skip in skipped:
            log.debug("message skipped", reason=skip.reason, **_place(skip.record))
        for rejection in rejected_here:
            place = _place(rejection.record)
            log.debug("message rejected again", reason=rejection.reason, detail=rejection.detail, **place)
        return len(batch)

    def _settle_rows(self, letters: Sequence[Letter], rejected: Sequence[Rejected]) -> None:
        # a record is not its place: a topic that was made anew has other records at the same places
        errors = {id(rejection.record): error_text(rejection) for rejection in rejected}
        with_row = [(letter.row, errors.get(id(letter.record))) for letter in letters if letter.row]
        done = {row for row, error in with_row if error is None}
        renewed = [(error, *row) for row, error in with_row if error is not None and error != row.error]
        if not self._renews_errors:
            renewed = []
        if done or renewed:
            _without_conflicts(lambda: self._change_rows(sorted(done), renewed))

    def _change_rows(self, done: Sequence[tuple[object, ...]], renewed: Sequence[tuple[object, ...]]) -> None:
        with self._engine.transaction():
            self._engine.run(statements.DELETE_ERRORS, done)
            if renewed:
                self._engine.run_each(statements.RENEW_ERRORS, renewed)


def _without_conflicts(action: Callable[[], T]) -> T:
    """Do something that others may be in the way of, again and again, until it is done or was tried ten times."""
    retrying = Retrying(
        retry=retry_if_exception(_is_conflict),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(_FIRST_PAUSE, _LONGEST_PAUSE),
        before_sleep=_report_conflict,
        reraise=True,
    )
    return retrying(action)


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, Conflict) or is_conflict(error)


def _report_conflict(attempt: RetryCallState) -> None:
    log.debug("conflict with another consumer, done again", attempts=attempt.attempt_number)


def _place(record: Record) -> dict[str, object]:
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}
