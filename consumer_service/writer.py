"""Stores a batch in one transaction (`docs/messages.md`, section 6; `docs/schema.md`, section 7)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain

from consumer_service import statements
from consumer_service.engines import Conflict, Engine, Row
from consumer_service.errors_table import error_row
from consumer_service.fold import ClusterChange, ClusterRows, HitRow, OwnedKey, counts, fold
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
        rows = self._lock_reports(by_cluster)
        stale: list[Skipped] = []
        newer = {cluster: _newer(by_cluster[cluster], rows[cluster].last_checked_at, stale) for cluster in by_cluster}
        newer = {cluster: messages for cluster, messages in newer.items() if messages}
        self._read_others(newer, rows)
        changes = [fold(rows[cluster], [entry.message for entry in entries], now) for cluster, entries in newer.items()]
        self._write_changes(changes, now)
        self._engine.store(statements.STORE_ERRORS, _error_rows(rejected, now))
        return Written(list(chain.from_iterable(newer.values())), stale, list(rejected))

    def _lock_reports(self, clusters: Iterable[str]) -> dict[str, ClusterRows]:
        """Lock what the fold starts from, and read the times that say which messages count."""
        found = {cluster: ClusterRows() for cluster in clusters}
        wanted = [(cluster,) for cluster in found]
        for cluster, org_id, last_checked_at, digest in self._engine.select(statements.LOCK_REPORTS, wanted):
            rows = found[cluster]
            rows.org_id, rows.last_checked_at = org_id, last_checked_at
            rows.text_digest = None if digest is None else bytes(digest)
        return found

    def _read_others(self, newer: dict[str, list[Accepted]], found: dict[str, ClusterRows]) -> None:
        """Read what else is stored of the clusters that have messages that count."""
        engine, wanted = self._engine, [(cluster,) for cluster in newer]
        for cluster, org_id, rule, error_key, since, details in engine.select(statements.READ_HITS, wanted):
            found[cluster].hits.setdefault(org_id, {})[rule, error_key] = (since, details)
        owners = _owners(newer, found)
        for cluster, org_id, rule, error_key, since in engine.select(statements.READ_RECOMMENDATIONS, owners):
            found[cluster].recommendations.setdefault(org_id, {})[rule, error_key] = since
        for cluster, org_id, version in engine.select(statements.READ_VERSIONS, wanted):
            found[cluster].version = (org_id, version)

    def _write_changes(self, changes: Sequence[ClusterChange], now: datetime) -> None:
        """Write the tables one after another, `report` first, since its rows are the locks on all others."""
        self._write_reports(changes, now)
        self._write_hits(changes)
        self._write_recommendations(changes, now.replace(microsecond=0))
        self._write_versions(changes)
        moved = [(str(change.message.org_id), change.message.cluster) for change in changes if change.has_moved]
        for statement in statements.MOVE_CHOICES:
            self._engine.run_each(statement, moved)

    def _write_reports(self, changes: Sequence[ClusterChange], now: datetime) -> None:
        new = [_report_row(change.message, change.message.report, now) for change in changes if change.is_new]
        self._engine.insert(statements.REPORT, new)
        known = [change for change in changes if not change.is_new]
        changed = [_report_row(change.message, change.message.report, now) for change in known if change.has_new_text]
        same = [_report_row(change.message, "", now) for change in known if not change.has_new_text]
        written = self._engine.store(statements.CHANGE_REPORTS, changed)
        written += self._engine.store(statements.REFRESH_REPORTS, same)
        if written != len(known):
            raise Conflict("another consumer stored a report of the same cluster")

    def _write_hits(self, changes: Sequence[ClusterChange]) -> None:
        self._engine.run(statements.DELETE_HITS, _keys_of(changes, lambda change: change.gone_hits))
        self._engine.store(statements.CHANGE_HITS, _hit_rows(changes, lambda change: change.changed_hits))
        self._engine.insert(statements.RULE_HIT, _hit_rows(changes, lambda change: change.new_hits))

    def _write_recommendations(self, changes: Sequence[ClusterChange], this_second: datetime) -> None:
        engine = self._engine
        engine.run(statements.DELETE_RECOMMENDATIONS, _keys_of(changes, lambda change: change.gone_recommendations))
        lasting = [_owner(change) for change in changes if change.has_lasting_recommendations]
        engine.run(statements.MOVE_RECOMMENDATIONS_ON, lasting, this_second)
        changed = [
            (since, *_owner(change), *key) for change in changes for key, since in change.changed_recommendations
        ]
        engine.run_each(statements.CHANGE_RECOMMENDATIONS, changed)
        new = [
            (*owner, rule, error_key, rule_selector(rule, error_key), this_second, since)
            for change in changes
            for owner in [_owner(change)]
            for (rule, error_key), since in change.new_recommendations
        ]
        engine.insert(statements.RECOMMENDATION, new)

    def _write_versions(self, changes: Sequence[ClusterChange]) -> None:
        changed = [(*_owner(change), change.changed_version) for change in changes if change.changed_version]
        self._engine.store(statements.CHANGE_VERSIONS, changed)
        new = [(*_owner(change), change.new_version) for change in changes if change.new_version]
        self._engine.insert(statements.REPORT_INFO, new)


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


def _owners(newer: dict[str, list[Accepted]], found: dict[str, ClusterRows]) -> list[tuple[int, str]]:
    """Every organization that a cluster has or is given in this batch, with the cluster."""
    owners = {(entry.message.org_id, cluster) for cluster, entries in newer.items() for entry in entries}
    owners |= {(org_id, cluster) for cluster in newer if (org_id := found[cluster].org_id) is not None}
    return sorted(owners)


def _owner(change: ClusterChange) -> tuple[int, str]:
    return change.message.org_id, change.message.cluster


def _report_row(message: Message, text: str, now: datetime) -> Row:
    kafka_offset = 0  # an index of existing deployments has it: the real one would rewrite every index
    times = (now, message.last_checked_at, message.gathered_at)
    return (message.org_id, message.cluster, text, *times, kafka_offset)


def _hit_rows(changes: Iterable[ClusterChange], rows: Callable[[ClusterChange], Sequence[HitRow]]) -> list[Row]:
    return [
        (org_id, cluster, hit.component, hit.error_key, hit.details, created_at)
        for change in changes
        for org_id, cluster in [_owner(change)]
        for hit, created_at in rows(change)
    ]


def _keys_of(changes: Iterable[ClusterChange], gone: Callable[[ClusterChange], Sequence[OwnedKey]]) -> list[Row]:
    return [(org_id, change.message.cluster, *key) for change in changes for org_id, key in gone(change)]


def _error_rows(rejected: Iterable[Rejected], now: datetime) -> list[Row]:
    # of a record that is in the batch twice, PostgreSQL takes only one in a statement
    rows = {
        (entry.record.topic, entry.record.partition, entry.record.offset): error_row(entry, now) for entry in rejected
    }
    return [rows[place] for place in sorted(rows)]
