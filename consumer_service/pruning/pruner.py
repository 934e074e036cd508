"""Deletes what is older than a limit, page by page, each page in a transaction of its own."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from threading import Event
from typing import TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from consumer_service.engines import Engine, Row
from consumer_service.pruning import statements
from consumer_service.pruning.statements import LEFTOVERS, OF_CLUSTERS, RECOMMENDATIONS, Doomed, Leftover
from libaggregator.storage.faults import is_conflict, is_lock_held

T = TypeVar("T")

PAGE_ROWS = 200
"""Clusters that one transaction deletes at most: consumers that get a report of one of them wait for so many."""

ATTEMPTS = 10
"""How often a transaction is begun in all while others are in its way."""

LOOKED_AT = 2000
"""Rows that one statement looks at to find them."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_NO_ERROR = ("", -1, -1)
_NO_CLUSTER = ""

OF_REPORTS = ("report", "rule_hit", "recommendation", "report_info")
OF_ERRORS = ("consumer_error",)

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows how far it is: takes what is gone through and how much of it, and gives a function that takes what was done."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Instants (UTC) before which a cluster was seen last, or a message was rejected, to go; None: none of them go."""

    reports: datetime | None = None
    errors: datetime | None = None


@dataclass(slots=True)
class Summary:
    """Rows that went, by table, and clusters that did not although they are old."""

    deleted: Counter[str] = field(default_factory=Counter)
    voted: int = 0
    """With votes, which would go with the report."""
    timeless: int = 0
    """Of which nobody knows when they were seen."""
    in_use: int = 0
    """In the hands of a consumer, or reported again, while this ran."""

    def lines(self, limits: Limits) -> list[str]:
        """Return a line for each table that was asked for, and for each reason for which clusters were kept."""
        tables = (OF_REPORTS if limits.reports else ()) + (OF_ERRORS if limits.errors else ())
        counts = [(f"deleted from {table}", self.deleted[table]) for table in tables]
        kept = [("users voted", self.voted), ("no time known", self.timeless), ("in use", self.in_use)]
        counts += [(f"clusters kept, {why}", count) for why, count in kept if count]
        return [f"{name:<34}{count:>10}" for name, count in counts]


class Pruner:
    """Prunes one database, beside consumers."""

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        stop: Event,
        *,
        dry: bool,
        page_rows: int = PAGE_ROWS,
        looked_at: int = LOOKED_AT,
    ) -> None:
        """Take the database, what is to go, and what ends the work after the page in hand. A dry run only counts."""
        self._engine = engine
        self._limits = limits
        self._stop = stop
        self._dry = dry
        self._page_rows = page_rows
        self._looked_at = looked_at

    def prune(self, summary: Summary, progress: Progress) -> None:
        """Go through the tables, delete and count.

        What was counted in `summary` is committed, whatever happens. Raises one of DATABASE_ERRORS if the database is
        at fault, or others are in the way again and again.
        """
        if self._limits.reports:
            self._prune_reports(self._limits.reports, summary, progress)
            for leftover in LEFTOVERS:
                self._prune_leftover(leftover, self._limits.reports, summary)
        if self._limits.errors:
            self._prune_errors(self._limits.errors, summary, progress)

    # clusters

    def _prune_reports(self, limit: datetime, summary: Summary, progress: Progress) -> None:
        with progress("Clusters", self._count(statements.COUNT_REPORTS)) as advance:
            for found in self._pages(statements.FIND_REPORTS, (_NO_CLUSTER,), slice(0, 1), limit):
                summary.timeless += sum(is_old is None for _, _, is_old in found)
                old = [(cluster, org_id) for cluster, org_id, is_old in found if is_old]
                for page in _cut(old, self._page_rows):
                    if self._stop.is_set():
                        return
                    self._prune_clusters(page, limit, summary)
                advance(len(found))

    def _prune_clusters(self, old: Sequence[Row], limit: datetime, summary: Summary) -> None:
        """Delete clusters that were found old; those without votes, and if they still are."""
        if self._dry:
            with self._engine.reading():
                self._sort_out(old, summary, self._count_rows)
            return
        page = self._in_turn(partial(self._delete_clusters, old, limit))
        summary.deleted += page.deleted
        summary.voted += page.voted
        summary.in_use += len(old) - page.voted - page.deleted["report"]

    def _delete_clusters(self, old: Sequence[Row], limit: datetime) -> Summary:
        page = Summary()
        names = [(cluster,) for cluster, _ in old]
        with self._engine.transaction():
            locked = list(self._engine.select(statements.LOCK_OLD_REPORTS, names, limit))
            self._sort_out(locked, page, lambda doomed, rows: self._engine.run(doomed.delete, rows))
        return page

    def _sort_out(
        self, clusters: Sequence[Row], summary: Summary, doom: Callable[[Doomed, Sequence[Row]], int]
    ) -> None:
        names = [(cluster,) for cluster, _ in clusters]
        voted = {cluster for (cluster,) in self._engine.select(statements.FIND_VOTED, names)}
        summary.voted += len(voted)
        going = [(cluster, org_id) for cluster, org_id in clusters if cluster not in voted]
        for doomed in OF_CLUSTERS:
            summary.deleted[doomed.table] += doom(doomed, [(cluster,) for cluster, _ in going])
        owners = [(org_id, cluster) for cluster, org_id in going]
        summary.deleted[RECOMMENDATIONS.table] += doom(RECOMMENDATIONS, owners)

    def _count_rows(self, doomed: Doomed, rows: Sequence[Row], *values: object) -> int:
        return sum(count for (count,) in self._engine.select(doomed.count, rows, *values))

    # rows without a report

    def _prune_leftover(self, leftover: Leftover, limit: datetime, summary: Summary) -> None:
        of_limit = (limit,) if leftover.has_time else ()
        for found in self._pages(leftover.find, leftover.first, slice(None)):
            if self._stop.is_set():
                return
            with self._engine.reading():
                left = self._without_report(leftover, found, limit)
                count = self._count_rows(leftover.old, left, *of_limit)
            if count and not self._dry:
                count = self._in_turn(partial(self._delete_leftover, leftover, left, of_limit))
            summary.deleted[leftover.table] += count

    def _without_report(self, leftover: Leftover, keys: Sequence[Row], limit: datetime) -> Sequence[Row]:
        if self._dry and leftover.would_be:
            return list(self._engine.select(leftover.would_be, keys, limit))
        return list(self._engine.select(leftover.without_report, keys))

    def _delete_leftover(self, leftover: Leftover, keys: Sequence[Row], of_limit: Sequence[object]) -> int:
        with self._engine.transaction():
            # a consumer that is making the report has looked at these rows already, and will not write them
            self._engine.keep_writers_out()
            return self._engine.run(leftover.delete, keys, *of_limit)

    # rejected messages

    def _prune_errors(self, limit: datetime, summary: Summary, progress: Progress) -> None:
        before: Row = _NO_ERROR
        with progress("Rejected messages", self._count(statements.COUNT_ERRORS)) as advance:
            for found in self._pages(statements.FIND_ERRORS, _NO_ERROR, slice(0, 3), limit):
                if self._stop.is_set():
                    return
                count = sum(bool(is_old) for *_, is_old in found)
                last = found[-1][:3]
                if count and not self._dry:
                    count = self._in_turn(partial(self._delete_errors, (*before, *last), limit))
                summary.deleted["consumer_error"] += count
                before = last
                advance(len(found))

    def _delete_errors(self, places: Sequence[object], limit: datetime) -> int:
        with self._engine.transaction():
            return self._engine.change(statements.DELETE_ERRORS, *places, limit)

    # all of them

    def _in_turn(self, transaction: Callable[[], T]) -> T:
        """Run a transaction, again and again while others are in its way, ten times at most; then let others write."""
        retrying = Retrying(
            retry=retry_if_exception(_is_in_the_way),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(_FIRST_PAUSE, _LONGEST_PAUSE),
            before_sleep=_report_conflict,
            reraise=True,
        )
        result = retrying(transaction)
        self._stop.wait(self._engine.pause)
        return result

    def _count(self, statement: str) -> int:
        ((count,),) = self._engine.read(statement)
        return int(count)

    def _pages(self, statement: str, first: Row, key: slice, *values: object) -> Iterator[Sequence[Row]]:
        """Yield what a statement finds after one key, and after the last one of that, and so on."""
        after = first
        while found := self._engine.read(statement, *values, *after, self._looked_at):
            yield found
            after = found[-1][key]


def _is_in_the_way(error: BaseException) -> bool:
    return is_conflict(error) or is_lock_held(error)


def _cut(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _report_conflict(attempt: RetryCallState) -> None:
    log.debug("others are in the way, done again", attempts=attempt.attempt_number)
