"""Messages whose values the database refuses are rejected, and nothing else with them."""

import base64
import contextlib
import itertools
import random
import string
from collections.abc import Iterator

import psycopg2
import pytest
from peewee import Database

from consumer_service.engines import MANY
from consumer_service.sources import Record
from consumer_service.writer import Written
from libaggregator.messages import Reason
from libaggregator.storage.faults import DATABASE_ERRORS, sqlstate_of
from libaggregator.storage.schema import migrate
from tests.storage.conftest import NOON, Store
from tests.support.databases import emptied, migrate_database, open_database
from tests.support.messages import CLUSTERS, HitSpec, payload, record, report
from tests.support.postgresql import ExternalPostgresql
from tests.support.tables import Tables, empty_tables, read_tables

CLUSTER = CLUSTERS[0]
# of random characters, since what can be compressed fits an index at any length
LONG = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=3000))
A = HitSpec("a.report", "K")
TOO_LONG = HitSpec(LONG, "K")
LARGE_ORG = 2_147_483_648


@pytest.fixture(params=[MANY, 1], ids=["", "by COPY"])
def narrow_store(request: pytest.FixtureRequest, postgresql_url: str) -> Iterator[Store]:
    """Yield a store on a database of an existing deployment whose columns were not widened yet."""
    database = open_database(postgresql_url)
    migrate(database)
    for table in ("report", "rule_hit", "recommendation", "report_info"):
        database.execute_sql(f"ALTER TABLE {table} ALTER COLUMN org_id TYPE integer")
    database.execute_sql("ALTER TABLE consumer_error ALTER COLUMN topic_offset TYPE integer")
    yield Store(database, request.param)
    database.close()


@pytest.fixture(params=[MANY, 1], ids=["", "by COPY"])
def latin1_store(request: pytest.FixtureRequest, postgresql: ExternalPostgresql) -> Iterator[Store]:
    """Yield a store on a database whose encoding has few characters."""
    url = postgresql.create_database("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    database = open_database(migrate_database(url))
    yield Store(database, request.param)
    database.close()
    postgresql.drop_database(url)


def cluster(number: int) -> str:
    return f"{number:08d}-0000-4000-8000-000000000000"


def outcomes(written: Written) -> dict[int, str]:
    """Return what became of each record, by offset; each must be there once."""
    found = [(entry.record.offset, "stored") for entry in written.stored]
    found += [(entry.record.offset, str(entry.reason)) for entry in (*written.stale, *written.rejected)]
    assert len(found) == len(dict(found))
    return dict(found)


def errors(database: Database) -> dict[int, str]:
    rows = database.execute_sql("SELECT topic_offset, error FROM consumer_error").fetchall()
    return dict(rows)


def clusters_stored(database: Database) -> set[str]:
    return {row[0] for row in database.execute_sql("SELECT cluster FROM report").fetchall()}


@pytest.mark.parametrize("place", [0, 1, 9, 18, 19])
def test_one_among_good_messages_is_rejected_alone(limited_store: Store, place: int) -> None:
    batch = [
        record(payload(cluster=cluster(number), hits=[TOO_LONG if number == place else A]), number)
        for number in range(20)
    ]
    written = limited_store.write(batch)
    expected = {number: "not_storable" if number == place else "stored" for number in range(20)}
    assert outcomes(written) == expected
    assert clusters_stored(limited_store.database) == {cluster(number) for number in range(20) if number != place}
    assert list(errors(limited_store.database)) == [place]


def test_several_among_good_and_rejected_and_stale_ones_are_rejected_alone(limited_store: Store) -> None:
    limited_store.write([record(payload(cluster=cluster(3), checked="2026-05-02T00:00:00Z"), 99)])
    bad = {2, 7, 8, 15}
    batch = [
        record(payload(cluster=cluster(number), hits=[TOO_LONG if number in bad else A]), number)
        for number in range(16)
    ]
    batch.append(record(b"not a message", 16))
    written = limited_store.write(batch)
    assert outcomes(written) == {
        **{number: "not_storable" if number in bad else "stored" for number in range(16)},
        3: "stale",
        16: "not_json",
    }
    assert set(errors(limited_store.database)) == {*bad, 16}


def test_the_row_names_the_reason_but_not_the_values(limited_store: Store) -> None:
    value = payload(hits=[TOO_LONG])
    (rejected,) = limited_store.write([record(value, 5, key=b"k")]).rejected
    assert rejected.reason is Reason.NOT_STORABLE
    assert errors(limited_store.database) == {5: f"not_storable: {rejected.detail}"}
    assert len(rejected.detail) > len("the database refuses it: ")
    assert LONG not in rejected.detail
    assert len(rejected.detail) <= 1000
    assert limited_store.database.execute_sql("SELECT message FROM consumer_error").fetchone() == (value.decode(),)


def test_nothing_of_the_message_is_left_in_any_table(limited_store: Store) -> None:
    good = record(payload(cluster=CLUSTERS[1], hits=[A], version="4.16.3"), 0)
    limited_store.write([good])
    before = read_tables(limited_store.database)
    message = payload(hits=[A, TOO_LONG], version="4.17.0", gathered="2026-05-01T07:00:00Z")
    limited_store.write([record(message, 1)])
    after = read_tables(limited_store.database)
    assert {table for table in after if after[table] != before[table]} == {"consumer_error"}


@pytest.mark.parametrize("order", sorted(set(itertools.permutations("abX")), key=str), ids="".join)
@pytest.mark.parametrize("is_stored", [True, False], ids=["stored before", "new cluster"])
def test_other_messages_of_its_cluster_are_stored_as_if_it_had_not_been_there(
    limited_store: Store, order: tuple[str, ...], is_stored: bool
) -> None:
    kinds = {"a": [A], "b": [A, HitSpec("b.report", "K")], "X": [TOO_LONG]}
    batch = [
        record(payload(checked=f"2026-05-01T08:0{offset}:00Z", hits=kinds[kind]), offset)
        for offset, kind in enumerate(order, 1)
    ]
    without = [entry for entry, kind in zip(batch, order, strict=True) if kind != "X"]
    assert _tables_after(limited_store, batch, is_stored) == _tables_after(limited_store, without, is_stored)


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored before", "new cluster"])
def test_it_is_rejected_also_if_a_newer_message_of_its_cluster_is_in_the_batch(
    limited_store: Store, is_stored: bool
) -> None:
    if is_stored:
        limited_store.write([record(payload(checked="2026-05-01T08:00:00Z", hits=[A]), 0)])
    limited_store.later()
    written = limited_store.write(
        [
            record(payload(checked="2026-05-01T08:01:00Z", hits=[TOO_LONG]), 1),
            record(payload(checked="2026-05-01T08:02:00Z", hits=[A]), 2),
            record(b"not a message", 3),
        ]
    )
    assert outcomes(written) == {1: "not_storable", 2: "stored", 3: "not_json"}
    assert sorted(errors(limited_store.database)) == [1, 3]
    since = NOON if is_stored else limited_store.now
    found = limited_store.database.execute_sql("SELECT rule_fqdn, created_at FROM rule_hit").fetchall()
    assert found == [("a.report", since.replace(microsecond=0))]


def test_it_does_not_move_its_cluster(narrow_store: Store) -> None:
    narrow_store.write([record(payload(checked="2026-05-01T08:00:00Z", hits=[A], org_id=1), 0)])
    narrow_store.database.execute_sql(
        "INSERT INTO cluster_rule_toggle (cluster_id, rule_id, disabled, updated_at, org_id)"
        f" VALUES ('{CLUSTER}', 'a.report', 1, '2026-05-01 00:00:00', 'untouched')"
    )
    written = narrow_store.write(
        [
            record(payload(checked="2026-05-01T08:01:00Z", hits=[A], org_id=LARGE_ORG), 1),
            record(payload(checked="2026-05-01T08:02:00Z", hits=[A], org_id=1), 2),
        ]
    )
    assert outcomes(written) == {1: "not_storable", 2: "stored"}
    assert narrow_store.database.execute_sql("SELECT org_id FROM cluster_rule_toggle").fetchone() == ("untouched",)


def test_a_message_that_is_already_stale_is_skipped_whatever_its_values(limited_store: Store) -> None:
    limited_store.write([record(payload(checked="2026-05-01T09:00:00Z"), 0)])
    written = limited_store.write([record(payload(checked="2026-05-01T08:00:00Z", hits=[TOO_LONG]), 1)])
    assert outcomes(written) == {1: "stale"}


def test_columns_may_be_widened_between_two_batches_each_of_which_is_stored_at_once(narrow_store: Store) -> None:
    for number, org_id in enumerate([LARGE_ORG - 1, LARGE_ORG]):
        batch = [
            record(payload(cluster(place), f"2026-05-01T08:0{number}:00Z", [A], org_id, version="4.16.3"), place)
            for place in range(30)
        ]
        assert len(narrow_store.write(batch).stored) == 30
        for table in ("report", "rule_hit", "recommendation", "report_info"):
            statement = f"SELECT count(DISTINCT xmin::text), min(org_id), max(org_id) FROM {table}"
            assert narrow_store.database.execute_sql(statement).fetchone() == (1, org_id, org_id)
            narrow_store.database.execute_sql(f"ALTER TABLE {table} ALTER COLUMN org_id TYPE bigint")


def test_an_organization_too_large_for_columns_not_widened_yet_is_rejected_alone(narrow_store: Store) -> None:
    written = narrow_store.write(
        [
            record(payload(cluster=CLUSTERS[0], org_id=LARGE_ORG - 1), 0),
            record(payload(cluster=CLUSTERS[1], org_id=LARGE_ORG, hits=[A], version="4.16.3"), 1),
            record(payload(cluster=CLUSTERS[2], org_id=1), 2),
        ]
    )
    assert outcomes(written) == {0: "stored", 1: "not_storable", 2: "stored"}
    assert clusters_stored(narrow_store.database) == {CLUSTERS[0], CLUSTERS[2]}
    assert errors(narrow_store.database)[1].startswith("not_storable: ")


def test_an_organization_too_large_that_has_nothing_but_its_report_is_rejected_too(narrow_store: Store) -> None:
    narrow_store.write([record(payload(checked="2026-05-01T08:00:00Z", org_id=1, hits=[A]), 0)])
    before = read_tables(narrow_store.database)
    written = narrow_store.write([record(payload(checked="2026-05-01T09:00:00Z", org_id=LARGE_ORG), 1)])
    assert outcomes(written) == {1: "not_storable"}
    after = read_tables(narrow_store.database)
    assert {table for table in after if after[table] != before[table]} == {"consumer_error"}


def test_good_messages_are_stored_beside_a_rejected_one_whose_offset_is_too_large_for_its_column(
    narrow_store: Store,
) -> None:
    """Only the offset is at fault, which is no part of any message."""
    batch = [record(payload(), 1), record(b"not a message", 3_000_000_000)]
    with contextlib.suppress(*DATABASE_ERRORS):
        narrow_store.write(batch)
    assert clusters_stored(narrow_store.database) == {CLUSTER}
    assert 1 not in errors(narrow_store.database)


def test_a_value_that_breaks_a_constraint_is_the_messages_fault(limited_store: Store) -> None:
    limited_store.database.execute_sql("ALTER TABLE report ADD CONSTRAINT no_thirteen CHECK (org_id <> 13)")
    written = limited_store.write(
        [record(payload(cluster=CLUSTERS[0], org_id=13), 0), record(payload(cluster=CLUSTERS[1]), 1)]
    )
    limited_store.database.execute_sql("ALTER TABLE report DROP CONSTRAINT no_thirteen")
    assert outcomes(written) == {0: "not_storable", 1: "stored"}


def test_a_column_that_somebody_adds_and_no_message_fills_is_waited_with(limited_store: Store) -> None:
    batch = [record(payload(cluster=cluster(number), hits=[A], version="4.16.3"), number) for number in range(3)]
    limited_store.database.execute_sql("ALTER TABLE rule_hit ADD COLUMN tenant integer NOT NULL")
    try:
        for _ in range(2):
            with pytest.raises(DATABASE_ERRORS, match='column "tenant" of relation "rule_hit"'):
                limited_store.write(batch)
        assert (clusters_stored(limited_store.database), errors(limited_store.database)) == (set(), {})
        limited_store.database.execute_sql("ALTER TABLE rule_hit ALTER COLUMN tenant SET DEFAULT 1")
        assert set(outcomes(limited_store.write(batch)).values()) == {"stored"}
    finally:
        limited_store.database.execute_sql("ALTER TABLE rule_hit DROP COLUMN tenant")


@pytest.mark.parametrize("component", [LONG, "x" * 10_000], ids=["random", "equal characters"])
def test_sqlite_stores_components_of_any_length(sqlite_url: str, component: str) -> None:
    database = open_database(sqlite_url)
    migrate(database)
    written = Store(database).write([record(payload(hits=[HitSpec(component, "K")]), 0)])
    assert outcomes(written) == {0: "stored"}
    assert database.execute_sql("SELECT rule_fqdn FROM recommendation").fetchone() == (component,)
    database.close()


@pytest.mark.parametrize("many", [MANY, 1], ids=["", "by COPY"])
def test_postgresql_stores_a_long_component_that_can_be_compressed(shared_url: str, many: int) -> None:
    component = "x" * 10_000
    store = Store(open_database(emptied(shared_url)), many)
    assert outcomes(store.write([record(payload(hits=[HitSpec(component, "K")]), 0)])) == {0: "stored"}
    assert store.database.execute_sql("SELECT rule_fqdn FROM rule_hit").fetchone() == (component,)
    store.database.close()


@pytest.mark.parametrize("many", [MANY, 1], ids=["", "by COPY"])
def test_a_statement_that_takes_too_long_is_no_fault_of_the_message(shared_url: str, many: int) -> None:
    """Somebody holds a lock on the row: the whole batch has to be written again, and nobody is rejected."""
    impatient = open_database(emptied(shared_url), statement_timeout=0.2)
    store = Store(impatient, many)
    store.write([record(payload(checked="2026-05-01T08:00:00Z"), 0)])
    batch = [record(payload(checked="2026-05-01T09:00:00Z"), 1), record(b"bad", 2)]
    holder = psycopg2.connect(shared_url)
    with holder, holder.cursor() as cursor:
        cursor.execute("SELECT 1 FROM report FOR UPDATE")
        with pytest.raises(DATABASE_ERRORS) as raised:
            store.write(batch)
        assert sqlstate_of(raised.value) == "57014"
        assert not errors(store.database)
    holder.close()
    assert outcomes(store.write(batch)) == {1: "stored", 2: "not_json"}
    impatient.close()


def _tables_after(store: Store, batch: list[Record], is_stored: bool) -> Tables:
    """Return what a batch leaves, the rows of rejected records apart."""
    empty_tables(store.database)
    store.now = NOON
    if is_stored:
        store.write([record(payload(checked="2026-05-01T08:00:00Z", hits=[A]), 0)])
    store.later()
    store.write(batch)
    found = read_tables(store.database)
    del found["consumer_error"]
    return found


def test_what_the_encoding_of_a_database_has_no_place_for_is_rejected_in_a_form_that_it_has(
    latin1_store: Store,
) -> None:
    euro = payload(cluster(1), hits=[A], Report={**report([A]), "note": "€"}).replace(b"\\u20ac", "€".encode())
    broken = "not JSON: €".encode()
    records = [record(payload(cluster(0), hits=[A]), 0), record(euro, 1, key="€".encode()), record(broken, 2)]
    written = latin1_store.write(records)
    assert outcomes(written) == {0: "stored", 1: "not_storable", 2: "not_json"}
    rows = latin1_store.database.execute_sql(
        "SELECT topic_offset, key, message, error FROM consumer_error ORDER BY topic_offset"
    ).fetchall()
    as_base64 = {1: _marked(euro), 2: _marked(broken)}
    assert {offset: message for offset, _, message, _ in rows} == as_base64
    assert [key for _, key, _, _ in rows] == [_marked("€".encode()), None]
    assert [error.partition(":")[0] for *_, error in rows] == ["not_storable", "not_json"]


def _marked(content: bytes) -> str:
    return "base64:" + base64.b64encode(content).decode()
