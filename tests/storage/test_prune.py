"""What `aggregator-consumer prune` deletes and what it keeps, on each engine (`docs/chores.md`)."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta
from threading import Event
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peewee import Database

from consumer_service.engines import Engine, Row, engine_for
from consumer_service.pruning import pruner as pruning
from consumer_service.pruning.pruner import Limits, Pruner, Summary
from consumer_service.statements import Query
from libaggregator.messages import Limits as MessageLimits
from libaggregator.messages import decode
from libaggregator.storage.faults import DATABASE_ERRORS
from tests.storage.conftest import NOON, Store
from tests.support.databases import emptied, open_database
from tests.support.messages import CLUSTERS, HitSpec, payload, record
from tests.support.model import Model
from tests.support.rows import CLUSTER, OF_CLUSTERS, OLD, add, add_cluster
from tests.support.tables import Tables, empty_tables, read_tables
from tests.support.waiting import eventually
from tests.support.writers import Consumer, Interrupted

DAY = timedelta(days=1)
LIMIT = OLD + DAY
YOUNG = LIMIT + DAY
OTHER = CLUSTERS[1]
A, B, C = HitSpec("a.report", "K", 1), HitSpec("b.report", "K", 2), HitSpec("c.report", "K", 3)
LONG_AGO = "2026-03-01T08:00:00Z"
FIRST = payload(checked=LONG_AGO, hits=[A, B], version="4.16.3")
CLUSTERS_ALONE = Limits(reports=LIMIT)


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """Yield a database without rows, on each engine in turn."""
    database = open_database(emptied(migrated_url))
    yield database
    database.close()


@pytest.fixture
def on_postgresql(shared_url: str) -> Iterator[Database]:
    """Yield a database without rows on PostgreSQL."""
    database = open_database(emptied(shared_url))
    yield database
    database.close()


def prune(
    database: Database,
    limits: Limits = CLUSTERS_ALONE,
    *,
    dry: bool = False,
    wrap: Callable[[Engine], Engine] = lambda engine: engine,
    stop: Event | None = None,
    **pages: int,
) -> Summary:
    """Prune without pauses, with pages of a few rows."""
    summary = Summary()
    engine = wrap(engine_for(database))
    engine.pause = 0.0
    pages = {"page_rows": 2, "looked_at": 3, **pages}
    Pruner(engine, limits, stop or Event(), dry=dry, **pages).prune(summary, lambda what, total: nullcontext(count))
    return summary


class Watched(Interrupted):
    """The engine of a prune: something else happens before its first transaction, or before one of its questions."""

    def __init__(self, engine: Engine, before: Query | None, meanwhile: Callable[[], object]) -> None:
        super().__init__(engine, meanwhile)
        self._before = before

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._before is None:
            self._interrupt()
        with self._engine.transaction():
            yield

    def select(self, query: Query, rows: Sequence[Row], *values: Any) -> Iterable[Row]:
        if query == self._before:
            self._interrupt()
        return self._engine.select(query, rows, *values)

    def run(self, statement: str, rows: Sequence[Row], *values: Any) -> int:
        return self._engine.run(statement, rows, *values)


def count(done: int) -> None:
    """Take how far it is."""


def clusters(tables: Tables, table: str = "report") -> list[str]:
    return sorted(row[1] for row in tables[table])


def clusters_by_table(tables: Tables) -> dict[str, list[str]]:
    return {table: clusters(tables, table) for table in OF_CLUSTERS}


def each_table(names: list[str]) -> dict[str, list[str]]:
    return {table: sorted(names) for table in OF_CLUSTERS}


def deleted(before: Tables, after: Tables) -> dict[str, int]:
    """Return by how many rows each table got smaller, of those that did."""
    return {table: len(before[table]) - len(after[table]) for table in before if before[table] != after[table]}


class TestClusters:
    def test_one_that_was_not_seen_since_goes_with_all_that_the_consumer_keeps_of_it(self, database: Database) -> None:
        add_cluster(database)
        add_cluster(database, OTHER, YOUNG)
        summary = prune(database)
        tables = read_tables(database)
        assert clusters_by_table(tables) == each_table([OTHER])
        assert summary == Summary(deleted=summary.deleted)
        assert dict(summary.deleted) == dict.fromkeys(OF_CLUSTERS, 1)

    @pytest.mark.parametrize(
        ("reported_at", "last_checked_at", "goes"),
        [
            (OLD, OLD, True),
            (OLD, YOUNG, True),
            (YOUNG, OLD, False),
            (None, OLD, True),
            (None, YOUNG, False),
            (OLD, None, True),
            (None, None, False),
            (LIMIT, OLD, False),
            (LIMIT - timedelta(microseconds=1), YOUNG, True),
        ],
    )
    def test_it_was_seen_when_its_report_was_stored_and_only_without_that_when_it_was_checked(
        self, database: Database, reported_at: datetime | None, last_checked_at: datetime | None, goes: bool
    ) -> None:
        add_cluster(database, reported_at=reported_at, last_checked_at=last_checked_at)
        summary = prune(database)
        assert clusters(read_tables(database)) == ([] if goes else [CLUSTER])
        assert summary.timeless == (reported_at is None and last_checked_at is None)

    def test_one_with_votes_stays_as_it_is_and_is_counted(self, database: Database) -> None:
        add_cluster(database)
        add_cluster(database, OTHER)
        add(database, "cluster_rule_user_feedback")
        add(database, "cluster_rule_user_feedback", user_id="another")
        before = read_tables(database)
        summary = prune(database)
        after = read_tables(database)
        assert clusters_by_table(after) == each_table([CLUSTER])
        assert after["cluster_rule_user_feedback"] == before["cluster_rule_user_feedback"]
        assert (summary.voted, summary.deleted["report"]) == (1, 1)

    def test_what_users_chose_stays_whatever_goes(self, database: Database) -> None:
        add_cluster(database)
        chosen = ("cluster_rule_toggle", "cluster_user_rule_disable_feedback", "rule_disable", "advisor_ratings")
        for table in chosen:
            add(database, table)
        before = read_tables(database)
        prune(database, Limits(LIMIT, LIMIT))
        after = read_tables(database)
        assert deleted(before, after) == dict.fromkeys(OF_CLUSTERS, 1)
        assert {table: after[table] for table in chosen} == {table: before[table] for table in chosen}

    def test_one_that_comes_back_is_new(self, database: Database) -> None:
        store = Store(database)
        store.now = OLD
        store.write([record(FIRST)])
        prune(database)
        store.now = NOON
        message = payload(checked="2026-05-01T09:00:00Z", hits=[A], version="4.16.3")
        assert len(store.write([record(message)]).stored) == 1
        model = Model()
        model.apply(decode(message, MessageLimits(), NOON), NOON)
        tables = read_tables(database)
        assert {table: tables[table] for table in model.tables()} == model.tables()

    def test_all_pages_are_gone_through_whatever_their_size(self, database: Database) -> None:
        names = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(23)]
        for number, name in enumerate(names):
            add_cluster(database, name, OLD if number % 3 else YOUNG)
        young = names[::3]
        prune(database, page_rows=4, looked_at=10)
        tables = read_tables(database)
        assert clusters_by_table(tables) == each_table(young)


class TestLeftOverRows:
    def test_old_ones_whose_cluster_has_no_report_go(self, database: Database) -> None:
        add(database, "rule_hit")
        add(database, "rule_hit", error_key="NEVER", created_at=None)
        add(database, "rule_hit", error_key="YOUNG", created_at=YOUNG)
        add(database, "recommendation")
        add(database, "recommendation", error_key="YOUNG", created_at=YOUNG)
        add(database, "report_info")
        summary = prune(database)
        tables = read_tables(database)
        assert [row[3] for row in tables["rule_hit"]] == ["YOUNG"]
        assert [row[3] for row in tables["recommendation"]] == ["YOUNG"]
        assert tables["report_info"] == []
        assert summary.deleted == Counter(rule_hit=2, recommendation=1, report_info=1)

    def test_those_of_a_cluster_with_a_report_stay_also_of_another_organization(self, database: Database) -> None:
        add_cluster(database, seen=YOUNG)
        add(database, "rule_hit", org_id=2)
        add(database, "recommendation", org_id=2)
        before = read_tables(database)
        prune(database)
        assert read_tables(database) == before

    def test_those_of_another_organization_go_with_the_report(self, database: Database) -> None:
        add_cluster(database)
        add(database, "rule_hit", org_id=2)
        add(database, "recommendation", org_id=2)
        before = read_tables(database)
        expected = {"report": 1, "rule_hit": 2, "recommendation": 2, "report_info": 1}
        assert dict(prune(database, dry=True).deleted) == expected
        assert dict(prune(database).deleted) == expected
        assert deleted(before, read_tables(database)) == expected


class TestRejectedMessages:
    def test_rows_go_by_their_own_age(self, database: Database) -> None:
        ages = [OLD, YOUNG, OLD, LIMIT, OLD, OLD, OLD, YOUNG]
        for offset, consumed_at in enumerate(ages):
            add(database, "consumer_error", topic_offset=offset, partition=offset % 2, consumed_at=consumed_at)
        add(database, "consumer_error", topic="another", consumed_at=OLD)
        summary = prune(database, Limits(errors=LIMIT))
        assert sorted(row[2] for row in read_tables(database)["consumer_error"]) == [1, 3, 7]
        assert dict(summary.deleted) == {"consumer_error": 6}

    def test_each_limit_prunes_its_part_alone(self, database: Database) -> None:
        add_cluster(database)
        add(database, "rule_hit", cluster_id=OTHER)
        add(database, "consumer_error")
        before = read_tables(database)
        prune(database, Limits(errors=LIMIT))
        after = read_tables(database)
        assert deleted(before, after) == {"consumer_error": 1}
        add(database, "consumer_error")
        prune(database, Limits(reports=LIMIT))
        assert len(read_tables(database)["consumer_error"]) == 1

    def test_a_row_that_a_consumer_replaces_meanwhile_stays(self, database: Database) -> None:
        add(database, "consumer_error")
        store = Store(database)

        prune(
            database,
            Limits(errors=LIMIT),
            wrap=lambda engine: Watched(engine, None, lambda: store.write([record(b"bad again")])),
        )
        assert [row[6] for row in read_tables(database)["consumer_error"]] == ["bad again"]


def test_the_summary_names_each_table_that_was_asked_for_and_why_clusters_stayed() -> None:
    summary = Summary(voted=3, timeless=1, in_use=2)
    summary.deleted.update(report=12, rule_hit=60, consumer_error=7)
    assert summary.lines(Limits(LIMIT, LIMIT)) == [
        "deleted from report                       12",
        "deleted from rule_hit                     60",
        "deleted from recommendation                0",
        "deleted from report_info                   0",
        "deleted from consumer_error                7",
        "clusters kept, users voted                 3",
        "clusters kept, no time known               1",
        "clusters kept, in use                      2",
    ]
    assert Summary().lines(Limits(errors=LIMIT)) == ["deleted from consumer_error                0"]


# Any rows at all

_NAMES = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(6)]
_TIMES = st.sampled_from([None, OLD, LIMIT, YOUNG])
_ROWS = st.fixed_dictionaries(
    {
        "reports": st.dictionaries(st.sampled_from(_NAMES), st.tuples(st.integers(1, 2), _TIMES, _TIMES)),
        "votes": st.sets(st.sampled_from(_NAMES)),
        "rule_hit": st.dictionaries(
            st.tuples(st.integers(1, 2), st.sampled_from(_NAMES), st.sampled_from("KL")), _TIMES, max_size=12
        ),
        "recommendation": st.dictionaries(
            st.tuples(st.integers(1, 2), st.sampled_from(_NAMES), st.sampled_from("KL")), _TIMES, max_size=12
        ),
        "report_info": st.dictionaries(st.sampled_from(_NAMES), st.integers(1, 2)),
        "errors": st.dictionaries(st.tuples(st.sampled_from("ab"), st.integers(0, 1), st.integers(0, 3)), _TIMES),
    }
)


def expected_of(rows: dict[str, Any]) -> tuple[dict[str, set[Any]], dict[str, int]]:
    """Return the keys of the rows that stay, and how many clusters are kept for which reason."""
    seen = {name: reported or checked for name, (_, reported, checked) in rows["reports"].items()}
    old = {name for name, time in seen.items() if time and time < LIMIT}
    known = seen.keys() - (old - rows["votes"])

    def stay(table: str) -> set[Any]:
        young = {key for key, time in rows[table].items() if time and time >= LIMIT}
        return {key for key in rows[table] if key[1] in known} | {key for key in young if key[1] not in old}

    # no index finds those of another organization when their cluster goes: they are left over, and judged by their age
    others = {
        key
        for key, time in rows["recommendation"].items()
        if key[1] in old and rows["reports"][key[1]][0] != key[0] and time and time >= LIMIT
    }
    return {
        "report": known,
        "rule_hit": stay("rule_hit"),
        "recommendation": stay("recommendation") | others,
        "report_info": rows["report_info"].keys() & known,
        "consumer_error": {place for place, time in rows["errors"].items() if time is None or time >= LIMIT},
    }, {"voted": len(old & rows["votes"]), "timeless": sum(time is None for time in seen.values())}


def insert_all(database: Database, rows: dict[str, Any]) -> None:
    with database.atomic():
        empty_tables(database)
        for name, (org_id, reported, checked) in rows["reports"].items():
            add(database, "report", org_id=org_id, cluster=name, reported_at=reported, last_checked_at=checked)
        for name in rows["votes"] & rows["reports"].keys():
            add(database, "cluster_rule_user_feedback", cluster_id=name)
        for table in ("rule_hit", "recommendation"):
            for (org_id, name, key), time in rows[table].items():
                add(database, table, org_id=org_id, cluster_id=name, error_key=key, created_at=time)
        for name, org_id in rows["report_info"].items():
            add(database, "report_info", org_id=org_id, cluster_id=name)
        for (topic, partition, offset), time in rows["errors"].items():
            place = {"topic": topic, "partition": partition, "topic_offset": offset}
            add(database, "consumer_error", **place, consumed_at=time or NOON)


def keys_of(tables: Tables) -> dict[str, set[Any]]:
    return {
        "report": {row[1] for row in tables["report"]},
        "rule_hit": {(row[0], row[1], row[3]) for row in tables["rule_hit"]},
        "recommendation": {(row[0], row[1], row[3]) for row in tables["recommendation"]},
        "report_info": {row[1] for row in tables["report_info"]},
        "consumer_error": {row[:3] for row in tables["consumer_error"]},
    }


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_ROWS, page_rows=st.integers(1, 3), looked_at=st.integers(1, 4))
def test_whatever_there_is_what_goes_is_what_the_rules_say_and_a_dry_run_says_so_before(
    database: Database, rows: dict[str, Any], page_rows: int, looked_at: int
) -> None:
    insert_all(database, rows)
    before = read_tables(database)
    limits = Limits(LIMIT, LIMIT)
    rehearsed = prune(database, limits, dry=True, page_rows=page_rows, looked_at=looked_at)
    assert read_tables(database) == before
    summary = prune(database, limits, page_rows=page_rows, looked_at=looked_at)
    after = read_tables(database)
    expected, kept = expected_of(rows)
    assert keys_of(after) == expected
    assert {table: number for table, number in summary.deleted.items() if number} == deleted(before, after)
    assert summary == rehearsed
    assert {"voted": summary.voted, "timeless": summary.timeless} == kept
    again = prune(database, limits, page_rows=page_rows, looked_at=looked_at)
    assert again.deleted.total() == 0
    assert read_tables(database) == after


# Beside others


def test_a_newer_report_that_comes_between_looking_and_locking_is_kept_whole(database: Database) -> None:
    store = Store(database)
    store.now = OLD
    store.write([record(FIRST), record(payload(OTHER, LONG_AGO, [A]))])
    newer = payload(checked="2026-05-01T09:00:00Z", hits=[B, C], version="4.16.4")
    store.now = NOON
    summary = prune(database, wrap=lambda engine: Watched(engine, None, lambda: store.write([record(newer)])))
    model = Model()
    model.apply(decode(FIRST, MessageLimits(), NOON), OLD)
    model.apply(decode(newer, MessageLimits(), NOON), NOON)
    tables = read_tables(database)
    assert {table: tables[table] for table in model.tables()} == model.tables()
    assert (summary.deleted["report"], summary.in_use) == (1, 1)


def test_a_vote_that_comes_between_looking_and_locking_is_kept(database: Database) -> None:
    add_cluster(database)

    def vote() -> None:
        add(database, "cluster_rule_user_feedback")

    summary = prune(database, wrap=lambda engine: Watched(engine, None, vote))
    tables = read_tables(database)
    assert len(tables["cluster_rule_user_feedback"]) == 1
    assert [len(tables[table]) for table in OF_CLUSTERS] == [1, 1, 1, 1]
    assert summary.voted == 1


def test_a_vote_can_not_come_between_locking_and_deleting(on_postgresql: Database, shared_url: str) -> None:
    """It would be deleted with the report; so it waits, and is refused then, as for a cluster that nobody knows."""
    add_cluster(on_postgresql)
    other = open_database(shared_url)
    other.execute_sql("SET lock_timeout = '100ms'")

    def vote() -> None:
        with pytest.raises(DATABASE_ERRORS, match="lock timeout"):
            add(other, "cluster_rule_user_feedback")

    prune(on_postgresql, wrap=lambda engine: Watched(engine, pruning.statements.FIND_VOTED, vote))
    assert clusters(read_tables(on_postgresql)) == []
    with pytest.raises(DATABASE_ERRORS, match="foreign key"):
        add(other, "cluster_rule_user_feedback")
    other.close()


@pytest.mark.parametrize("statement", ["SELECT cluster FROM report WHERE cluster = %s FOR UPDATE", "vote"])
def test_a_cluster_in_the_hands_of_somebody_is_left_and_not_waited_for(
    on_postgresql: Database, shared_url: str, statement: str
) -> None:
    add_cluster(on_postgresql)
    add_cluster(on_postgresql, OTHER)
    other = open_database(shared_url)
    with other.atomic() as transaction:
        if statement == "vote":
            add(other, "cluster_rule_user_feedback")
        else:
            other.execute_sql(statement, (CLUSTER,))
        summary = prune(on_postgresql)
        transaction.rollback()
    other.close()
    assert clusters(read_tables(on_postgresql)) == [CLUSTER]
    assert (summary.deleted["report"], summary.in_use) == (1, 1)


def test_left_over_rows_of_a_cluster_whose_report_is_on_its_way_are_kept(
    shared_url: str, on_postgresql: Database
) -> None:
    """The consumer has looked at them already, and does not write what is there."""
    add(on_postgresql, "rule_hit", template_data="1")
    consumer = Consumer(shared_url, NOON)
    pruner = Consumer(shared_url, NOON)
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Any] = []

        def start_to_prune() -> None:
            waiting.append(pool.submit(prune, pruner.database))
            eventually(consumer.lets_another_wait, what="prune waits for the consumer")

        message = record(payload(hits=[A]))
        consumer.write_once([message], Interrupted(consumer.engine, start_to_prune))
        summary: Summary = waiting[0].result(30)
    assert summary.deleted.total() == 0
    assert [row[2] for row in read_tables(on_postgresql)["rule_hit"]] == ["a.report"]
    consumer.database.close()


def test_consumers_that_write_at_the_same_time_lose_nothing_and_nobody_deadlocks(
    database: Database, migrated_url: str
) -> None:
    """Half of the clusters get a report while prune runs, again and again; of the others nothing is left."""
    rng = random.Random(7)
    names = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(120)]
    store = Store(database)
    store.now = OLD
    first = [payload(name, LONG_AGO, [A, B], version="4.16.3") for name in names]
    store.write([record(message, offset) for offset, message in enumerate(first)])
    reporting = rng.sample(names, 60)
    newest = {name: payload(name, "2026-05-01T09:00:00Z", [B, C], version="4.16.4") for name in reporting}
    begun, stop = Event(), Event()

    def consume(share: Sequence[str]) -> None:
        consumer = Consumer(migrated_url, NOON)
        begun.wait(30)
        for start in range(0, len(share), 6):
            consumer.write([record(newest[name]) for name in share[start : start + 6]])
        consumer.database.close()

    def keep_pruning() -> int:
        own = open_database(migrated_url)
        gone = 0
        while True:
            begun.set()
            is_last = stop.is_set()
            gone += prune(own, page_rows=5, looked_at=40).deleted["report"]
            if is_last:
                own.close()
                return gone

    with ThreadPoolExecutor(3) as pool:
        pruned = pool.submit(keep_pruning)
        consumers = [pool.submit(consume, share) for share in (reporting[:30], reporting[30:])]
        for consumer in consumers:
            consumer.result(60)
        stop.set()
        assert pruned.result(60) >= 60
    tables = read_tables(database)
    assert clusters(tables) == sorted(reporting)
    assert sorted((row[1], row[2]) for row in tables["rule_hit"]) == sorted(
        (name, hit.component) for name in reporting for hit in (B, C)
    )
    assert clusters(tables, "recommendation") == sorted(reporting * 2)
    assert [row[2] for row in tables["report_info"]] == ["4.16.4"] * 60


def test_told_to_stop_it_finishes_the_page_in_hand_and_the_next_run_goes_on(database: Database) -> None:
    for number in range(9):
        add_cluster(database, f"{number:08x}-0000-4000-8000-000000000000")
    stop = Event()
    summary = prune(database, stop=stop, wrap=lambda engine: Watched(engine, None, stop.set))
    assert summary.deleted["report"] == 2
    assert {len(read_tables(database)[table]) for table in OF_CLUSTERS} == {7}
    assert prune(database).deleted["report"] == 7


@pytest.mark.parametrize("dry", [True, False])
def test_what_is_asked_of_a_page_goes_through_indexes_whatever_is_known_of_the_tables(
    on_postgresql: Database, dry: bool
) -> None:
    add_cluster(on_postgresql)
    add(on_postgresql, "recommendation", cluster_id=OTHER)
    planned: set[str] = set()

    class Planned(Interrupted):
        def select(self, query: Query, rows: Sequence[Row], *values: Any) -> Iterable[Row]:
            planned.add(self._engine.read("SHOW enable_seqscan")[0][0])
            return self._engine.select(query, rows, *values)

        def reading(self) -> AbstractContextManager[None]:
            return self._engine.reading()

        def transaction(self) -> AbstractContextManager[None]:
            return self._engine.transaction()

    prune(on_postgresql, dry=dry, wrap=lambda engine: Planned(engine, lambda: None))
    assert planned == {"off"}
