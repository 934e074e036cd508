"""Two consumers that hold the same clusters for a moment leave what one would have left."""

import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from peewee import Database

from consumer_service import statements
from consumer_service.engines import Conflict, Engine, Row, engine_for
from consumer_service.sources import Record
from consumer_service.statements import Query, Table, Upsert
from consumer_service.writer import Written
from libaggregator.messages import Limits, decode
from libaggregator.storage.faults import DATABASE_ERRORS, Fault, fault_of, sqlstate_of
from tests.storage.conftest import NOON, UrlOn, stores_on
from tests.support.databases import emptied, open_database
from tests.support.engines import ENGINES, Ability, engines_with, name_of
from tests.support.messages import CLUSTERS, HitSpec, payload, record
from tests.support.model import Model
from tests.support.tables import read_tables
from tests.support.waiting import eventually
from tests.support.writers import Consumer, Interrupted, without

NOON_PLUS_MINUTE = (NOON + timedelta(seconds=60)).replace(microsecond=0)
CLUSTER, OTHER_CLUSTER = CLUSTERS[:2]
PATIENCE = 30.0
DEADLOCK = "40P01"
A, B, C = HitSpec("a.report", "K", 1), HitSpec("b.report", "K", 2), HitSpec("c.report", "K", 3)


@pytest.fixture(params=ENGINES, ids=name_of)
def url(request: pytest.FixtureRequest, shared_url_on: UrlOn) -> str:
    """Return the URL of a migrated database without rows, on each engine in turn."""
    return emptied(shared_url_on(request.param))


@pytest.fixture(params=stores_on(engines_with(Ability.ROW_LOCKS)))
def consumers(request: pytest.FixtureRequest, shared_url_on: UrlOn) -> Iterator[tuple[Consumer, Consumer]]:
    """Yield two consumers on one database without rows, on each engine in turn; the clock of the second is ahead."""
    engine, many = request.param
    url = emptied(shared_url_on(engine))
    pair = Consumer(url, NOON, many, engine), Consumer(url, NOON + timedelta(seconds=60), many, engine)
    yield pair
    for consumer in pair:
        consumer.database.close()


class Recording(Interrupted):
    """An engine that remembers what was written, statement by statement."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, lambda: None)
        self.written: list[tuple[str, Sequence[Row]]] = []

    def move_recommendations_on(self, owners: Sequence[Row], this_second: datetime) -> Iterable[Row]:
        self.written.append((statements.MOVE_RECOMMENDATIONS_ON, owners))
        return super().move_recommendations_on(owners, this_second)

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        self.written.append((f"INSERT INTO {table.name} ", rows))
        super().insert(table, rows)

    def store(self, upsert: Upsert, rows: Sequence[Row]) -> int:
        self.written.append((upsert.text, rows))
        return super().store(upsert, rows)

    def run(self, statement: str, rows: Sequence[Row], *values: Any) -> int:
        self.written.append((statement, rows))
        return super().run(statement, rows, *values)

    def run_each(self, statement: str, rows: Sequence[Row]) -> None:
        self.written.append((statement, rows))
        super().run_each(statement, rows)


def at(minute: int, hits: Sequence[HitSpec] = (), cluster: str = CLUSTER, org_id: int = 1) -> Record:
    """Return a record whose version and offset are its minute."""
    value = payload(cluster, f"2026-05-01T08:{minute:02}:00Z", hits, org_id, version=f"4.16.{minute}")
    return record(value, minute)


def stored(database: Database, model: Model) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is stored and what the model expects, of the tables that the model has."""
    expected = model.tables()
    found = read_tables(database)
    return {table: found[table] for table in expected}, expected


def test_another_consumer_that_stores_a_newer_report_first_is_not_overwritten(
    consumers: tuple[Consumer, Consumer],
) -> None:
    ours, other = consumers
    engine = Interrupted(ours.engine, lambda: other.write_once([at(9, [B])]))
    with pytest.raises(Conflict):
        ours.write_once([at(8, [A])], engine)
    assert read_tables(ours.database)["rule_hit"] == [(1, CLUSTER, "b.report", "K", "2", NOON_PLUS_MINUTE)]
    written = ours.write_once([at(8, [A])], engine)
    assert [skip.record.offset for skip in written.stale] == [8]
    model = Model()
    model.apply(decode(at(9, [B]).value, Limits(), NOON), other.now)
    found, expected = stored(ours.database, model)
    assert found == expected


def test_another_consumer_that_stores_an_older_report_first_is_a_conflict_and_then_the_start(
    consumers: tuple[Consumer, Consumer],
) -> None:
    ours, other = consumers
    engine = Interrupted(ours.engine, lambda: other.write_once([at(8, [A, B])]))
    with pytest.raises(Conflict):
        ours.write_once([at(9, [B, C])], engine)
    ours.now += timedelta(hours=1)
    assert len(ours.write_once([at(9, [B, C])], engine).stored) == 1
    model = Model()
    model.apply(decode(at(8, [A, B]).value, Limits(), NOON), other.now)
    model.apply(decode(at(9, [B, C]).value, Limits(), NOON), ours.now)
    found, expected = stored(ours.database, model)
    assert found == expected


def test_a_conflict_leaves_nothing_of_the_rest_of_the_batch(consumers: tuple[Consumer, Consumer]) -> None:
    ours, other = consumers
    engine = Interrupted(ours.engine, lambda: other.write_once([at(9)]))
    batch = [at(8), at(7, [A], OTHER_CLUSTER), record(b"bad", 3)]
    with pytest.raises(Conflict):
        ours.write_once(batch, engine)
    assert ours.database.execute_sql("SELECT cluster FROM report").fetchall() == [(CLUSTER,)]
    assert ours.database.execute_sql("SELECT count(*) FROM consumer_error").fetchone() == (0,)
    written = ours.write_once(batch, engine)
    assert (len(written.stored), len(written.stale), len(written.rejected)) == (1, 1, 1)


def test_a_row_that_was_read_stays_locked_until_it_is_written(
    consumers: tuple[Consumer, Consumer],
) -> None:
    ours, other = consumers
    ours.write_once([at(8, [A])])
    with ThreadPoolExecutor(1) as pool:
        deleting: list[Any] = []

        def start_to_delete() -> None:
            deleting.append(pool.submit(other.database.execute_sql, "DELETE FROM report"))
            eventually(ours.lets_another_wait, what="whoever deletes the row waits")

        ours.write_once([at(9, [B])], Interrupted(ours.engine, start_to_delete))
        deleting[0].result(PATIENCE)
    assert ours.database.execute_sql("SELECT rule_fqdn FROM rule_hit").fetchall() == [("b.report",)]


@pytest.mark.parametrize("newer", [True, False])
def test_a_consumer_waits_for_the_other_one_that_has_its_cluster_in_hand(
    consumers: tuple[Consumer, Consumer], newer: bool
) -> None:
    ours, other = consumers
    ours.write_once([at(5, [A])])
    late = at(7, [A, C]) if newer else at(5, [C])
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Any] = []

        def start_the_other() -> None:
            waiting.append(pool.submit(other.write_once, [late]))
            eventually(ours.lets_another_wait, what="the other consumer waits")

        ours.now += timedelta(seconds=10)
        ours.write_once([at(6, [A, B])], Interrupted(ours.engine, start_the_other))
        written: Written = waiting[0].result(PATIENCE)
    model = Model()
    model.apply(decode(at(5, [A]).value, Limits(), NOON), NOON)
    model.apply(decode(at(6, [A, B]).value, Limits(), NOON), ours.now)
    if newer:
        model.apply(decode(late.value, Limits(), NOON), other.now)
    assert len(written.stored if newer else written.stale) == 1
    found, expected = stored(ours.database, model)
    assert found == expected


@pytest.mark.parametrize("upsert", [statements.CHANGE_REPORTS, statements.REFRESH_REPORTS], ids=lambda it: it.name)
@pytest.mark.parametrize("many", [1, 1000])
def test_the_statement_itself_keeps_a_newer_report(url: str, many: int, upsert: Upsert) -> None:
    """Whatever was read before, an older or equal report does not get into the table."""
    database = open_database(url)
    engine = engine_for(database, many)
    noon = datetime(2026, 5, 1, 12)
    # microseconds from noon, and the organization that the row has afterwards
    for org_id, (microseconds, expected) in enumerate([(0, 0), (0, 0), (-1, 0), (1, 3)]):
        row = (org_id, CLUSTER, "{}", NOON, noon + timedelta(microseconds=microseconds), None, 0)
        with engine.transaction():
            written = engine.store(upsert, [row])
        assert written == (expected == org_id)
        assert database.execute_sql("SELECT org_id FROM report").fetchall() == [(expected,)]
    database.execute_sql("UPDATE report SET last_checked_at = NULL")
    with engine.transaction():
        assert engine.store(upsert, [(7, CLUSTER, "{}", NOON, datetime.min, None, 0)]) == 1
    assert database.execute_sql("SELECT org_id FROM report").fetchall() == [(7,)]
    database.close()


class Misled(Interrupted):
    """An engine that tells the fold that no stored report has a time."""

    def select(self, query: Query, rows: Sequence[Row], *values: Any) -> Iterable[Row]:
        found = super().select(query, rows, *values)
        return [(*row[:2], None, *row[3:]) for row in found] if query == statements.LOCK_REPORTS else found


@pytest.mark.parametrize("text", ["the same", "another"])
def test_a_report_that_the_statement_keeps_undoes_the_batch(url: str, text: str) -> None:
    consumer = Consumer(url, NOON)
    consumer.write_once([at(8, [A])])
    before = read_tables(consumer.database)
    older = record(payload(CLUSTER, "2026-05-01T07:00:00Z", [A], version="4.16.8" if text == "the same" else "5"))
    with pytest.raises(Conflict):
        consumer.write_once([at(9, [B], OTHER_CLUSTER), older], Misled(consumer.engine, lambda: None))
    assert read_tables(consumer.database) == before
    consumer.database.close()


def test_rows_are_locked_and_written_in_the_order_of_cluster_id(consumers: tuple[Consumer, Consumer]) -> None:
    ours, _ = consumers
    clusters = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(20)]
    shuffled = random.Random(1).sample(clusters, len(clusters))
    for minute in (8, 9):
        engine = Recording(ours.engine)
        hits = [A, B] if minute == 8 else []
        ours.write_once([at(minute, hits, cluster, org_id=minute) for cluster in shuffled], engine)
        for statement, rows in engine.written:
            written = [value for row in rows for value in row if value in clusters]
            assert written == sorted(written), statement
    tables = " ".join(statement for statement, rows in engine.written if rows)
    assert all(name in tables for name in ("report ", "rule_hit ", "recommendation ", "report_info ", "toggle "))


def test_overlapping_batches_of_known_clusters_never_deadlock(consumers: tuple[Consumer, Consumer]) -> None:
    clusters = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(40)]
    consumers[0].write([at(0, [A], cluster) for cluster in clusters])
    work = [
        [
            [
                at(minute, [A, B], cluster, org_id)
                for cluster in random.Random(f"{org_id} {minute}").sample(clusters, 30)
            ]
            for minute in range(1, 25)
        ]
        for org_id in (1, 2)
    ]
    run_both(consumers, work)
    assert [sqlstate_of(error) for consumer in consumers for error in consumer.conflicts] == []


@pytest.mark.parametrize("seed", range(8))
def test_whoever_comes_first_the_newest_message_of_each_cluster_is_what_is_stored(
    consumers: tuple[Consumer, Consumer], seed: int
) -> None:
    """Also for clusters that both of them see for the first time."""
    rng = random.Random(seed)
    clusters = [f"{seed:04x}{number:04x}-0000-4000-8000-000000000000" for number in range(12)]
    minutes = {cluster: rng.sample(range(1, 60), 16) for cluster in clusters}
    work: list[list[list[Record]]] = [[], []]
    newest: dict[str, Record] = {}
    for _ in range(8):
        for share in work:
            batch = []
            for cluster in rng.sample(clusters, 8):
                hits = rng.sample([A, B, C], rng.randint(0, 3))
                entry = at(minutes[cluster].pop(), hits, cluster, org_id=rng.randint(1, 3))
                newest[cluster] = max(newest.get(cluster, entry), entry, key=lambda other: other.offset)
                batch.append(entry)
            rng.shuffle(batch)
            share.append(batch)
    run_both(consumers, work)

    model = Model()
    for entry in newest.values():
        model.apply(decode(entry.value, Limits(), NOON), NOON)
    found, expected = stored(consumers[0].database, model)
    times = {"report": [3], "rule_hit": [5], "recommendation": [5, 6], "report_info": []}
    for table, places in times.items():
        assert [without(row, places) for row in found[table]] == [without(row, places) for row in expected[table]]
    allowed = {consumer.now for consumer in consumers}
    allowed |= {now.replace(microsecond=0) for now in allowed}
    assert {row[place] for table, places in times.items() for row in found[table] for place in places} <= allowed


@pytest.mark.parametrize("seed", range(8))
def test_both_make_the_same_new_clusters_at_once(consumers: tuple[Consumer, Consumer], seed: int) -> None:
    clusters = [f"{seed:04x}{number:04x}-0000-4000-8000-000000000000" for number in range(60)]
    rng = random.Random(seed)
    work = [
        [[at(minute, [A, hit], cluster) for cluster in rng.sample(clusters, len(clusters))]]
        for minute, hit in ((8, B), (9, C))
    ]
    results = run_both(consumers, work)
    model = Model()
    for entry in work[1][0]:
        model.apply(decode(entry.value, Limits(), NOON), NOON)
    found, expected = stored(consumers[0].database, model)
    assert [row[:3] for row in found["report"]] == [row[:3] for row in expected["report"]]
    assert [row[:5] for row in found["rule_hit"]] == [row[:5] for row in expected["rule_hit"]]
    assert [row[:5] for row in found["recommendation"]] == [row[:5] for row in expected["recommendation"]]
    assert found["report_info"] == expected["report_info"]
    # the newer one counted for each cluster, the older one wholly or not at all
    assert len(results[1][0].stored) == len(clusters)
    assert len(results[0][0].stored) in (0, len(clusters))
    # what both of them have is as old as the first of them to come
    first = consumers[0].now if results[0][0].stored else consumers[1].now
    since = {row[5] for row in found["rule_hit"] if row[2] == A.component}
    assert since == {first.replace(microsecond=0)}


def run_both(
    consumers: tuple[Consumer, Consumer], work: Sequence[Sequence[Sequence[Record]]]
) -> tuple[list[Written], list[Written]]:
    """Let both consumers write their batches, starting at the same moment."""
    barrier = Barrier(2)

    def write_all(consumer: Consumer, batches: Sequence[Sequence[Record]]) -> list[Written]:
        barrier.wait(PATIENCE)
        try:
            return [consumer.write(batch) for batch in batches]
        finally:
            # a connection belongs to its thread
            consumer.database.close()

    with ThreadPoolExecutor(2) as pool:
        first, second = (
            pool.submit(write_all, consumer, batches) for consumer, batches in zip(consumers, work, strict=True)
        )
        return first.result(PATIENCE), second.result(PATIENCE)


def test_a_lock_is_waited_for_no_longer_than_a_group_can_wait_for_a_member(shared_url: str) -> None:
    """On PostgreSQL, whose table can be locked as a whole."""
    holder, waiting = Consumer(emptied(shared_url), NOON), Consumer(shared_url, NOON)
    with holder.database.atomic():
        holder.database.execute_sql("LOCK TABLE report IN EXCLUSIVE MODE")
        with pytest.raises(DATABASE_ERRORS) as raised:
            waiting.write_once([record(payload())])
    assert sqlstate_of(raised.value) == "55P03"
    assert fault_of(raised.value) is Fault.OUTAGE
    waiting.write_once([record(payload())])
