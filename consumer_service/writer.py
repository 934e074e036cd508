"""Stores a batch in one transaction (`docs/messages.md`, section 6; `docs/schema.md`, section 7)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from consumer_service import statements
from consumer_service.engines import Engine
from consumer_service.errors_table import error_row
from consumer_service.fold import ClusterChange, ClusterRows, OwnedKey, RuleKey, counts, fold
from consumer_service.pipeline import Accepted, Rejected, Skipped, SkipReason
from libaggregator.messages import Message, Reason
from libaggregator.rules import rule_selector
from libaggregator.storage.faults import DATABASE_ERRORS, Fault, describe, fault_of


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch: each of its records is in one of the lists."""

    stored: list[Accepted] = field(default_factory=list)
    stale: list[Skipped] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    def __add__(self, other: "Written") -> "Written":
        return Written(self.stored + other.stored, self.stale + other.stale, self.rejected + other.rejected)


class Writer:
    """Writes batches to one database."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        """Take the database and the clock (UTC, without a zone)."""
        self._engine = engine
        self._clock = clock

    def write(self, accepted: Sequence[Accepted], rejected: Sequence[Rejected]) -> Written:
        """Store the messages that are newer than what is stored, and a row for each rejected record.

        All of it is committed when this returns, in one transaction unless the database refuses a message for its
        values: the batch is split until that one is alone, and it is rejected as `not_storable`. Raises Conflict or
        one of DATABASE_ERRORS if the database is at fault; then the same call has to be made again, until it
        returns, and it does not matter how far it came before.
        """
        first, *others = self._pieces(accepted)
        written = self._write_piece(first, rejected)
        for piece in others:
            written += self._write_piece(piece, [])
        return written

    def ping(self) -> None:
        """Raise one of DATABASE_ERRORS if the database does not answer."""
        try:
            self._engine.ping()
        except DATABASE_ERRORS:
            self._engine.close()
            raise

    def _pieces(self, accepted: Sequence[Accepted]) -> Iterator[Sequence[Accepted]]:
        """Cut a batch before and after each message that may be refused and has a later one of its cluster in it.

        The fold writes only what is there in the end, so that the refusal would not be seen.
        """
        last_places = {entry.message.cluster: place for place, entry in enumerate(accepted)}
        start = 0
        for place, entry in enumerate(accepted):
            if place < last_places[entry.message.cluster] and self._engine.may_refuse(entry.message):
                yield accepted[start:place]
                yield accepted[place : place + 1]
                start = place + 1
        yield accepted[start:]

    def _write_piece(self, accepted: Sequence[Accepted], rejected: Sequence[Rejected]) -> Written:
        if not accepted and not rejected:
            return Written()
        try:
            with self._engine.transaction():
                return self._write_all(accepted, rejected)
        except DATABASE_ERRORS as error:
            if fault_of(error) is not Fault.VALUES or not accepted:
                self._engine.close()
                raise
            refusal = describe(error)
        if rejected:
            return self._write_piece(accepted, []) + self._write_piece([], rejected)
        if len(accepted) == 1:
            detail = f"the database refuses it: {refusal}"
            return self._write_piece([], [Rejected(accepted[0].record, Reason.NOT_STORABLE, detail)])
        middle = len(accepted) // 2
        return self._write_piece(accepted[:middle], []) + self._write_piece(accepted[middle:], [])

    def _write_all(self, accepted: Sequence[Accepted], rejected: Sequence[Rejected]) -> Written:
        now = self._clock()
        by_cluster = _by_cluster(accepted)
        stored_rows = self._read_rows(by_cluster, now)
        stored: list[Accepted] = []
        stale: list[Skipped] = []
        changes = []
        for cluster, entries in by_cluster.items():
            rows = stored_rows[cluster]
            newer = _newer(entries, rows.last_checked_at, stale)
            stored += newer
            if change := fold(rows, [entry.message for entry in newer], now):
                changes.append(change)
        self._write_changes(changes, now)
        self._engine.insert(statements.STORE_ERRORS, _error_rows(rejected, now))
        return Written(stored, stale, list(rejected))

    def _read_rows(self, by_cluster: dict[str, list[Accepted]], now: datetime) -> dict[str, ClusterRows]:
        """Lock and read what the fold starts from. A time that is NULL counts as this second (section 6.2)."""
        engine, this_second = self._engine, now.replace(microsecond=0)
        found = {cluster: ClusterRows() for cluster in by_cluster}
        clusters = [(cluster,) for cluster in by_cluster]
        for cluster, org_id, last_checked_at in engine.select(statements.LOCK_REPORTS, clusters):
            found[cluster].org_id = org_id
            found[cluster].last_checked_at = engine.time(last_checked_at)
        for cluster, org_id, rule, error_key, since in engine.select(statements.READ_HITS, clusters):
            rows = found[cluster].hits.setdefault(org_id, {})
            rows[RuleKey(rule, error_key)] = engine.time(since) or this_second
        owners = _owners(by_cluster, found)
        for cluster, org_id, rule, error_key, since in engine.select(statements.READ_RECOMMENDATIONS, owners):
            rows = found[cluster].recommendations.setdefault(org_id, {})
            rows[RuleKey(rule, error_key)] = engine.time(since) or this_second
        return found

    def _write_changes(self, changes: Sequence[ClusterChange], now: datetime) -> None:
        """Write the tables one after another, `report` first, since its rows are the locks on all others."""
        engine, this_second = self._engine, now.replace(microsecond=0)
        engine.insert_counted(
            statements.STORE_REPORTS,
            [_report_row(change.message, now) for change in changes],
            new=sum(change.is_new for change in changes),
        )
        engine.run_each(statements.DELETE_HITS, _keys_of(changes, lambda change: change.gone_hits))
        engine.insert(statements.STORE_HITS, [row for change in changes for row in _hit_rows(change)])
        engine.run_each(
            statements.DELETE_RECOMMENDATIONS, _keys_of(changes, lambda change: change.gone_recommendations)
        )
        engine.insert(
            statements.STORE_RECOMMENDATIONS,
            [row for change in changes for row in _recommendation_rows(change, this_second)],
        )
        moved = [change.message for change in changes if change.has_moved]
        engine.run_each(statements.MOVE_VERSION, [(message.org_id, message.cluster) for message in moved])
        engine.insert(
            statements.STORE_VERSIONS,
            [(change.message.org_id, change.message.cluster, change.version) for change in changes if change.version],
        )
        for statement in statements.MOVE_CHOICES:
            engine.run_each(statement, [(str(message.org_id), message.cluster) for message in moved])


def _by_cluster(accepted: Iterable[Accepted]) -> dict[str, list[Accepted]]:
    """Group by cluster, in the order of cluster id: the order in which every consumer takes its locks."""
    groups: dict[str, list[Accepted]] = {}
    for entry in accepted:
        groups.setdefault(entry.message.cluster, []).append(entry)
    return dict(sorted(groups.items()))


def _newer(entries: Iterable[Accepted], last_checked_at: datetime | None, stale: list[Skipped]) -> list[Accepted]:
    """Return the entries that count, each compared with the one before; the others go to `stale`."""
    newer = []
    for entry in entries:
        if counts(entry.message, last_checked_at):
            newer.append(entry)
            last_checked_at = entry.message.last_checked_at
        else:
            stale.append(Skipped(entry.record, SkipReason.STALE))
    return newer


def _owners(by_cluster: dict[str, list[Accepted]], found: dict[str, ClusterRows]) -> list[tuple[int, str]]:
    """Every organization that a cluster has or is given in this batch, with the cluster."""
    owners = {(entry.message.org_id, cluster) for cluster, entries in by_cluster.items() for entry in entries}
    owners |= {(rows.org_id, cluster) for cluster, rows in found.items() if rows.org_id is not None}
    return sorted(owners)


def _report_row(message: Message, now: datetime) -> tuple[object, ...]:
    kafka_offset = 0  # an index of existing deployments has it: the real one would rewrite every index
    return (
        message.org_id,
        message.cluster,
        message.report,
        now,
        message.last_checked_at,
        message.gathered_at,
        kafka_offset,
    )


def _hit_rows(change: ClusterChange) -> Iterable[tuple[object, ...]]:
    org_id, cluster = change.message.org_id, change.message.cluster
    for row in change.hits:
        yield org_id, cluster, row.hit.component, row.hit.error_key, row.hit.details, row.created_at


def _recommendation_rows(change: ClusterChange, this_second: datetime) -> Iterable[tuple[object, ...]]:
    org_id, cluster = change.message.org_id, change.message.cluster
    for (rule, error_key), since in change.recommendations.items():
        yield org_id, cluster, rule, error_key, rule_selector(rule, error_key), this_second, since


def _keys_of(
    changes: Iterable[ClusterChange], gone: Callable[[ClusterChange], Sequence[OwnedKey]]
) -> list[tuple[object, ...]]:
    return [
        (org_id, change.message.cluster, key.rule, key.error_key) for change in changes for org_id, key in gone(change)
    ]


def _error_rows(rejected: Iterable[Rejected], now: datetime) -> list[tuple[object, ...]]:
    # of a record that is in the batch twice, PostgreSQL takes only one in a statement
    rows = {
        (entry.record.topic, entry.record.partition, entry.record.offset): error_row(entry, now) for entry in rejected
    }
    return [rows[place] for place in sorted(rows)]
