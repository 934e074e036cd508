"""Stores a batch in one transaction (`docs/messages.md`, section 6; `docs/schema.md`, section 7)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain

from msgspec import Raw

from consumer_service import statements
from consumer_service.engines import Conflict, Engine, Row
from consumer_service.errors_table import error_row
from consumer_service.fold import (
    ClusterChange,
    ClusterRows,
    HitRow,
    Measure,
    OwnedKey,
    counts,
    fold,
    fold_repeated,
    measure_of_hits,
    measure_of_recommendations,
    repeats,
)
from consumer_service.pipeline import Accepted, Rejected, Skipped, SkipReason
from libaggregator.messages import Message, Reason
from libaggregator.rules import rule_selector
from libaggregator.storage.faults import DATABASE_ERRORS, Fault, describe, fault_of

_NO_TEXT = Raw(b"")


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

    def __init__(self, engine: Engine, clock: Callable[[], datetime], *, keeps_rejected: bool = True) -> None:
        """Take the database, the clock (UTC, without a zone), and whether rejected records get their rows."""
        self._engine = engine
        self._keeps_rejected = keeps_rejected
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

    def _write_piece(
        self, accepted: Sequence[Accepted], rejected: Sequence[Rejected], *, in_ascii: bool = False
    ) -> Written:
        """Write records in one transaction if the database takes them, else in smaller pieces."""
        if not accepted and not rejected:
            return Written()
        try:
            with self._engine.transaction():
                return self._write_all(accepted, rejected, in_ascii)
        except DATABASE_ERRORS as error:
            if fault_of(error) is not Fault.VALUES or (in_ascii and not accepted):
                self._engine.close()
                raise
            refusal = describe(error)
        if not accepted:
            # the encoding of a database can have no place for their characters
            return self._write_piece([], rejected, in_ascii=True)
        if rejected:
            return self._write_piece(accepted, []) + self._write_piece([], rejected)
        if len(accepted) == 1:
            detail = f"the database refuses it: {refusal}"
            return self._write_piece([], [Rejected(accepted[0].record, Reason.NOT_STORABLE, detail)])
        middle = len(accepted) // 2
        return self._write_piece(accepted[:middle], []) + self._write_piece(accepted[middle:], [])

    def _write_all(self, accepted: Sequence[Accepted], rejected: Sequence[Rejected], in_ascii: bool) -> Written:
        now = self._clock()
        by_cluster = _by_cluster(accepted)
        rows = self._lock_reports(by_cluster)
        stale: list[Skipped] = []
        newer = {cluster: _newer(by_cluster[cluster], rows[cluster].last_checked_at, stale) for cluster in by_cluster}
        newer = {cluster: messages for cluster, messages in newer.items() if messages}
        messages = {cluster: [entry.message for entry in entries] for cluster, entries in newer.items()}
        self._read_versions(messages, rows)
        this_second = now.replace(microsecond=0)
        repeated = self._move_repeated_on(messages, rows, this_second)
        others = {cluster: of_it for cluster, of_it in messages.items() if cluster not in repeated}
        self._move_others_on(others, rows, this_second)
        changes = [
            fold_repeated(rows[cluster], of_it) if cluster in repeated else fold(rows[cluster], of_it, now)
            for cluster, of_it in messages.items()
        ]
        self._write_changes(changes, now, this_second)
        if self._keeps_rejected:
            self._engine.store(statements.STORE_ERRORS, _error_rows(rejected, now, in_ascii))
        return Written(list(chain.from_iterable(newer.values())), stale, list(rejected))

    def _lock_reports(self, by_cluster: dict[str, list[Accepted]]) -> dict[str, ClusterRows]:
        """Lock what the fold starts from, and read the times that say which messages count."""
        found = {cluster: ClusterRows() for cluster in by_cluster}
        wanted = [(cluster, len(entries[-1].message.report_json)) for cluster, entries in by_cluster.items()]
        for cluster, org_id, last_checked_at, text in self._engine.select(statements.LOCK_REPORTS, wanted):
            rows = found[cluster]
            rows.org_id, rows.last_checked_at, rows.text = org_id, last_checked_at, text
        return found

    def _read_versions(self, clusters: Iterable[str], found: dict[str, ClusterRows]) -> None:
        wanted = [(cluster,) for cluster in clusters]
        for cluster, org_id, version in self._engine.select(statements.READ_VERSIONS, wanted):
            found[cluster].version = (org_id, version)

    def _move_repeated_on(
        self, messages: dict[str, list[Message]], found: dict[str, ClusterRows], this_second: datetime
    ) -> set[str]:
        """Return the clusters that are told nothing new, their recommendations moved on.

        Their rows are measured, not read: they belong to the text that is stored, unless somebody changed them by
        hand.
        """
        last = {cluster: of_it[-1] for cluster, of_it in messages.items() if repeats(found[cluster], of_it)}
        hits = self._engine.select(statements.MEASURE_HITS, [(cluster,) for cluster in last])
        owners = [(message.org_id, cluster) for cluster, message in last.items()]
        recommendations = self._engine.select(statements.MOVE_AND_MEASURE_RECOMMENDATIONS, owners, this_second)
        return _fitting(hits, last, measure_of_hits) & _fitting(recommendations, last, measure_of_recommendations)

    def _move_others_on(
        self, messages: dict[str, list[Message]], found: dict[str, ClusterRows], this_second: datetime
    ) -> None:
        """Read the hits and recommendations of clusters, and move all of the latter on, also those that go then."""
        wanted = [(cluster,) for cluster in messages]
        for cluster, org_id, rule, error_key, since, details in self._engine.select(statements.READ_HITS, wanted):
            found[cluster].hits.setdefault(org_id, {})[rule, error_key] = (since, details)
        rows = self._engine.move_recommendations_on(_owners(messages, found), this_second)
        for cluster, org_id, rule, error_key, since in rows:
            found[cluster].recommendations.setdefault(org_id, {})[rule, error_key] = since

    def _write_changes(self, changes: Sequence[ClusterChange], now: datetime, this_second: datetime) -> None:
        """Write the tables one after another, `report` first, since its rows are the locks on all others."""
        self._write_reports(changes, now)
        self._write_hits(changes)
        self._write_recommendations(changes, this_second)
        self._write_versions(changes)
        moved = [(str(change.message.org_id), change.message.cluster) for change in changes if change.has_moved]
        for statement in statements.MOVE_CHOICES:
            self._engine.run_each(statement, moved)

    def _write_reports(self, changes: Sequence[ClusterChange], now: datetime) -> None:
        new = [_report_row(change.message, change.message.report_json, now) for change in changes if change.is_new]
        self._engine.insert(statements.REPORT, new)
        known = [change for change in changes if not change.is_new]
        told = [change.message for change in known if not change.is_repeated]
        changed = [_report_row(message, message.report_json, now) for message in told]
        same = [_report_row(change.message, _NO_TEXT, now) for change in known if change.is_repeated]
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


def _owners(messages: dict[str, list[Message]], found: dict[str, ClusterRows]) -> list[tuple[int, str]]:
    """Every organization that a cluster has or is given in this batch, with the cluster, in the order of cluster id."""
    owners: list[tuple[int, str]] = []
    for cluster, of_it in messages.items():
        organizations = {found[cluster].org_id, *[message.org_id for message in of_it]}
        owners += [(org_id, cluster) for org_id in organizations if org_id is not None]
    return owners


def _fitting(
    measured: Iterable[Row], last: dict[str, Message], expected: Callable[[Message], Measure | None]
) -> set[str]:
    """Return the clusters whose rows measure what they have to."""
    found = {row[0]: row[1:] for row in measured}
    return {cluster for cluster, message in last.items() if found.get(cluster) == expected(message)}


def _owner(change: ClusterChange) -> tuple[int, str]:
    return change.message.org_id, change.message.cluster


def _report_row(message: Message, text: Raw, now: datetime) -> Row:
    kafka_offset = 0  # an index of existing deployments has it: the real one would rewrite every index
    times = (now, message.last_checked_at, message.gathered_at)
    return (message.org_id, message.cluster, text, *times, kafka_offset)


def _hit_rows(changes: Iterable[ClusterChange], rows: Callable[[ClusterChange], Sequence[HitRow]]) -> list[Row]:
    return [
        (org_id, cluster, hit.component, hit.error_key, hit.details_json, created_at)
        for change in changes
        for org_id, cluster in [_owner(change)]
        for hit, created_at in rows(change)
    ]


def _keys_of(changes: Iterable[ClusterChange], gone: Callable[[ClusterChange], Sequence[OwnedKey]]) -> list[Row]:
    return [(org_id, change.message.cluster, *key) for change in changes for org_id, key in gone(change)]


def _error_rows(rejected: Iterable[Rejected], now: datetime, in_ascii: bool) -> list[Row]:
    # of a record that is in the batch twice, PostgreSQL takes only one in a statement
    rows = {
        (entry.record.topic, entry.record.partition, entry.record.offset): error_row(entry, now, in_ascii=in_ascii)
        for entry in rejected
    }
    return [rows[place] for place in sorted(rows)]
