"""`migrate` on the database of an existing deployment (`docs/schema.md`, 4): nothing is lost, or nothing changed."""

import itertools
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest
from peewee import Database
from prometheus_client import CollectorRegistry

from api_service.database import Reader, Statement
from api_service.metrics import ApiMetrics
from consumer_service.sources import Record
from libaggregator.build import build_facts
from libaggregator.settings import DatabaseSettings, Secret
from libaggregator.storage.catalogue import column_types
from libaggregator.storage.connections import open_reader
from libaggregator.storage.faults import DATABASE_ERRORS
from libaggregator.storage.models import WIDENED
from libaggregator.storage.schema import SchemaError, check_schema, migrate, plan
from libaggregator.storage.session import MigrationStopped, Session
from libaggregator.storage.steps import all_steps
from tests.storage.conftest import Store
from tests.support.databases import open_database
from tests.support.existing import INSERTS_OF_OLD_SERVICE, digests, load_existing
from tests.support.messages import HitSpec, payload
from tests.support.postgresql import ExternalPostgresql, PostgresqlServer, waiting_for_locks
from tests.support.roles import as_role, execute
from tests.support.waiting import eventually

STEPS = list(all_steps())
ADOPTED = ["0001_schema_32", "0004_room_for_updates", "0002_bigint", "0003_read_indexes"]
REWRITE = "0002_bigint"
INDEXES = [
    "cluster_rule_toggle_org_id_rule_id_error_key_idx",
    "cluster_user_rule_disable_feedback_user_id_idx",
    "recommendation_org_id_rule_id_idx",
]
PATIENCE = 30.0
LARGE_ORG = 4_294_967_295
CLUSTER = "5d5892d3-1f74-4ccf-91af-548dfc9767aa"
NEW_CLUSTER = "11111111-1111-1111-1111-111111111111"

# everything that a database is, but for its rows
DEFINITIONS = """
    SELECT 'column', attrelid::regclass::text, attname::text, format_type(atttypid, atttypmod), attnotnull::text,
        pg_get_expr(adbin, adrelid)
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace::regnamespace::text IN ('public', 'dvo') AND attnum > 0 AND NOT attisdropped AND relkind <> 'i'
    UNION ALL SELECT 'index', schemaname, indexname, indexdef, '', '' FROM pg_indexes
    WHERE schemaname IN ('public', 'dvo')
    UNION ALL SELECT 'valid', indexrelid::regclass::text, indisvalid::text, '', '', '' FROM pg_index
    WHERE indexrelid::regclass::text !~ '^pg_'
    UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
    FROM pg_constraint WHERE connamespace::regnamespace::text IN ('public', 'dvo')
    UNION ALL SELECT 'view', viewname, definition, '', '', '' FROM pg_views WHERE schemaname = 'public'
    UNION ALL SELECT 'options', relname, reloptions::text, '', '', '' FROM pg_class WHERE reloptions IS NOT NULL
        AND relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'statistics', stxname, pg_get_statisticsobjdef(oid), '', '', '' FROM pg_statistic_ext
"""


@pytest.fixture(scope="module")
def template(postgresql: ExternalPostgresql) -> Iterator[str]:
    """Yield the name of a database with the dump and two hundred clusters more, which is copied for each test."""
    with postgresql.database() as url:
        load_existing(url, 200)
        yield url.rpartition("/")[2]


@pytest.fixture
def existing(postgresql: ExternalPostgresql, template: str) -> Iterator[str]:
    """Yield the URL of a database of an existing deployment."""
    url = postgresql.create_database(f"TEMPLATE {template}")
    yield url
    postgresql.drop_database(url)


@contextmanager
def opened(url: str, **settings: Any) -> Iterator[Database]:
    with closing(open_database(url, **settings)) as database:
        yield database


def definitions(url: str) -> set[tuple[object, ...]]:
    return set(execute(url, DEFINITIONS))


def adopt(url: str, tell: Callable[[str], None] = lambda line: None, *, skip_rewrite: bool = False) -> list[str]:
    with opened(url) as database:
        return migrate(database, skip_rewrite=skip_rewrite, session=Session(database, tell))


def narrow_columns(url: str) -> set[str]:
    with opened(url) as database:
        types = column_types(database)
    return {table for table, column in WIDENED.items() if types[table][column] == "integer"}


def tables_of(url: str) -> list[object]:
    return [name for (name,) in execute(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]


def index_names(url: str) -> set[object]:
    valid = "SELECT relname FROM pg_class JOIN pg_index ON indexrelid = oid WHERE indisvalid"
    return {name for (name,) in execute(url, valid)}


@contextmanager
def open_transaction(url: str, *statements: str) -> Iterator[None]:
    """Have a transaction open that executed statements: it has their locks, and a snapshot."""
    with closing(psycopg2.connect(url)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ")
        with connection.cursor() as cursor:
            for statement in ("SELECT 1", *statements):
                cursor.execute(statement)
        yield
        connection.rollback()


def waits_for_older_transactions(url: str) -> bool:
    """Whether a session of a database waits for the end of another one's transaction, which CONCURRENTLY does."""
    statement = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'virtualxid'"
    return execute(url, statement) == [(1,)]


class TestAdopted:
    def test_nothing_is_lost_and_everything_is_there_that_ours_needs(self, existing: str) -> None:
        rows, before = digests(existing), definitions(existing)
        assert adopt(existing) == ADOPTED
        assert digests(existing) == rows
        gone, new = before - definitions(existing), definitions(existing) - before
        widened = set(WIDENED.items())
        assert {(kind, table, name) for kind, table, name, *_ in gone} == {("column", *column) for column in widened}
        assert {row[3] for row in gone} == {"integer"}
        assert {(row[1], row[2]) for row in new if row[3] == "bigint"} == widened
        assert {row[2] for row in new if row[0] == "index"} == {*INDEXES, "aggregator_migration_pkey"}
        assert {row[1:3] for row in new if row[0] == "options"} == {
            ("recommendation", "{fillfactor=50}"),
            ("report", "{fillfactor=70}"),
        }
        rest = {row for row in new if row[0] not in ("index", "options", "valid") and row[3] != "bigint"}
        assert {row[1] for row in rest} == {"aggregator_migration"}
        assert execute(existing, "SELECT name FROM aggregator_migration ORDER BY 1") == [(step,) for step in STEPS]
        with opened(existing) as database:
            assert check_schema(database) == plan(database) == []

    def test_a_second_run_does_nothing(self, existing: str) -> None:
        adopt(existing)
        before = execute(
            existing, "SELECT oid, relfilenode, xmin::text FROM pg_class WHERE relname !~ '^pg_' ORDER BY 1"
        )
        assert adopt(existing) == []
        after = execute(
            existing, "SELECT oid, relfilenode, xmin::text FROM pg_class WHERE relname !~ '^pg_' ORDER BY 1"
        )
        assert after == before

    def test_a_table_that_somebody_widened_is_left(self, existing: str) -> None:
        execute(existing, "ALTER TABLE report ALTER COLUMN org_id TYPE bigint")
        told: list[str] = []
        adopt(existing, told.append)
        written = {line.split()[2] for line in told if line.startswith("writing table ")}
        assert written == set(WIDENED) - {"report"}

    def test_the_old_service_writes_as_before_and_larger_organizations_too(self, existing: str) -> None:
        adopt(existing)
        for number, org_id in enumerate((5, LARGE_ORG)):
            values = {"org_id": org_id, "cluster": NEW_CLUSTER[:-1] + str(number)}
            execute(existing, *(statement.format(**values) for statement in INSERTS_OF_OLD_SERVICE))
        found = execute(existing, f"SELECT org_id, weight FROM rule_hit WHERE cluster_id LIKE '{NEW_CLUSTER[:-1]}%'")
        assert sorted(found, key=repr) == [(LARGE_ORG, 7), (5, 7)]

    def test_the_planner_knows_the_widened_columns(self, existing: str) -> None:
        adopt(existing)
        known = execute(existing, "SELECT tablename, attname FROM pg_stats WHERE schemaname = 'public'")
        assert set(WIDENED.items()) <= set(known)
        vacuumed = "SELECT relname FROM pg_stat_user_tables WHERE vacuum_count > 0 AND analyze_count > 0"
        eventually(
            lambda: set(WIDENED) == {table for (table,) in execute(existing, vacuumed)}, what="all five vacuumed"
        )

    def test_tables_that_are_written_anew_have_room_on_their_pages_at_once(self, existing: str) -> None:
        ((before,),) = execute(existing, "SELECT pg_relation_size('recommendation')")
        adopt(existing)
        ((after,),) = execute(existing, "SELECT pg_relation_size('recommendation')")
        assert int(str(after)) > 1.7 * int(str(before))

    @pytest.mark.long
    def test_a_hundred_thousand_clusters_are_all_kept(self, postgresql_url: str) -> None:
        load_existing(postgresql_url, 100_000, hits=2)
        rows = digests(postgresql_url)
        assert (rows["public.report"][0], rows["public.rule_hit"][0]) == (100_003, 200_004)
        assert adopt(postgresql_url) == ADOPTED
        assert digests(postgresql_url) == rows


class TestSkippedRewrite:
    def test_it_is_left_out_until_a_later_run(self, existing: str) -> None:
        rows = digests(existing)
        assert adopt(existing, skip_rewrite=True) == [step for step in ADOPTED if step != REWRITE]
        assert narrow_columns(existing) == set(WIDENED)
        with opened(existing) as database:
            assert check_schema(database) == [REWRITE]
            assert plan(database, skip_rewrite=True) == [f"left out by --skip-rewrite: {REWRITE}"]
        assert adopt(existing, skip_rewrite=True) == []
        assert adopt(existing) == [REWRITE]
        assert narrow_columns(existing) == set()
        assert digests(existing) == rows

    def test_what_is_only_in_the_way_of_the_rewrite_does_not_matter(self, existing: str) -> None:
        execute(existing, "CREATE VIEW by_organization AS SELECT org_id FROM report")
        assert adopt(existing, skip_rewrite=True) == [step for step in ADOPTED if step != REWRITE]
        with pytest.raises(SchemaError, match="by_organization"):
            adopt(existing)

    def test_an_organization_too_large_is_rejected_until_then(self, existing: str) -> None:
        def outcome(offset: int) -> tuple[int, int]:
            with opened(existing) as database:
                message = payload(cluster=NEW_CLUSTER, hits=[HitSpec("r.report", "K")], org_id=LARGE_ORG)
                written = Store(database).write([Record("fresh", 0, offset, None, message, (), None)])
                return len(written.stored), len(written.rejected)

        adopt(existing, skip_rewrite=True)
        assert outcome(1) == (0, 1)
        rejected = "SELECT error LIKE 'not_storable: %' FROM consumer_error WHERE topic = 'fresh'"
        assert execute(existing, rejected) == [(True,)]
        adopt(existing)
        assert outcome(2) == (1, 0)

    def test_a_rejected_message_at_an_offset_too_large_for_its_row_is_kept_waiting_until_then(
        self, existing: str
    ) -> None:
        def reject() -> None:
            with opened(existing) as database:
                Store(database).write([Record("fresh", 0, 3_000_000_000, None, b"no JSON", (), None)])

        adopt(existing, skip_rewrite=True)
        with pytest.raises(DATABASE_ERRORS, match="out of range"):
            reject()
        adopt(existing)
        reject()
        assert execute(existing, "SELECT topic_offset FROM consumer_error WHERE topic = 'fresh'") == [(3_000_000_000,)]


class TestPlan:
    def test_it_tells_each_step_with_sizes_and_changes_nothing(self, existing: str) -> None:
        rows, before = digests(existing), definitions(existing)
        with opened(existing) as database:
            lines = plan(database)
        assert [line.removeprefix("to do: ") for line in lines if not line.startswith(" ")] == ADOPTED
        for table, column in WIDENED.items():
            (line,) = [line for line in lines if f"{table}.{column} to bigint" in line]
            assert " MB)" in line
        assert sum(" of free disk" in line for line in lines) == 1
        for index in INDEXES:
            assert sum(f"index {index} ON " in line for line in lines) == 1
        assert (digests(existing), definitions(existing)) == (rows, before)

    def test_what_is_done_already_is_not_in_it(self, existing: str) -> None:
        execute(existing, "ALTER TABLE report ALTER COLUMN org_id TYPE bigint")
        with opened(existing) as database:
            text = "\n".join(plan(database))
        assert "report.org_id to bigint" not in text
        assert "rule_hit.org_id to bigint" in text

    def test_it_refuses_what_a_run_would_refuse(self, existing: str) -> None:
        execute(existing, "CREATE VIEW by_organization AS SELECT org_id FROM report")
        with opened(existing) as database, pytest.raises(SchemaError, match="by_organization"):
            plan(database)


class PooledConnection(psycopg2.extensions.connection):
    """A connection as a pooler makes it, which gives its client a number of its own for the server's process."""

    def get_backend_pid(self) -> int:
        return super().get_backend_pid() + 1


class TestRefusals:
    def test_a_version_other_than_32_is_told_and_nothing_is_changed(self, existing: str) -> None:
        rows, before = digests(existing), definitions(existing)
        with opened(existing) as database:
            for versions, said in [
                ((31,), "found schema version 31, needs 32; bring the database to 32 with the tools of the existing"),
                ((0,), "found schema version 0, needs 32"),
                ((33,), "found schema version 33, newer than this program knows (32)"),
                ((), "table migration_info has no row"),
                ((32, 32), "table migration_info has 2 rows"),
            ]:
                execute(existing, "DELETE FROM migration_info")
                execute(existing, *(f"INSERT INTO migration_info VALUES ({version})" for version in versions))
                for refusing in (migrate, plan):
                    with pytest.raises(SchemaError, match=re.escape(said)):
                        refusing(database)
        execute(existing, "DELETE FROM migration_info", "INSERT INTO migration_info VALUES (32)")
        assert (digests(existing), definitions(existing)) == (rows, before)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            (["DROP TABLE migration_info"], ["beside report, rule_hit,", "neither empty nor a known database"]),
            (
                [
                    "ALTER TABLE report DROP COLUMN gathered_at",
                    "DROP TABLE rule_disable",
                    "ALTER TABLE rule_hit ALTER COLUMN template_data TYPE text",
                    "ALTER TABLE report_info ALTER COLUMN org_id TYPE smallint USING 1",
                    "ALTER TABLE recommendation DROP CONSTRAINT recommendation_pk",
                    "ALTER TABLE report_info DROP CONSTRAINT report_info_cluster_id_key",
                    "ALTER TABLE rule_hit DROP CONSTRAINT rule_hit_pkey",
                    "CREATE UNIQUE INDEX part ON rule_hit (cluster_id, org_id, rule_fqdn, error_key) WHERE org_id > 5",
                    "ALTER TABLE consumer_error DROP CONSTRAINT consumer_error_pkey",
                    "ALTER TABLE consumer_error ADD UNIQUE (topic, partition, topic_offset) DEFERRABLE",
                ],
                [
                    "missing: column report.gathered_at (timestamp without time zone)",
                    "missing: table rule_disable",
                    "column rule_hit.template_data is text, needs character varying",
                    "column report_info.org_id is smallint, needs bigint",
                    "missing: unique constraint recommendation_pk on recommendation (org_id, cluster_id, rule_fqdn,",
                    "missing: unique constraint report_info_cluster_id_key on report_info (cluster_id)",
                    "missing: unique constraint rule_hit_pkey on",
                    "missing: unique constraint consumer_error_pkey on",
                ],
            ),
            (
                [
                    "ALTER TABLE rule_hit ADD COLUMN tenant integer NOT NULL DEFAULT 1",
                    "ALTER TABLE rule_hit ALTER COLUMN tenant DROP DEFAULT",
                    "CREATE DOMAIN sure AS text NOT NULL",
                    "DELETE FROM report_info",
                    "ALTER TABLE report_info ADD COLUMN asked sure",
                    "UPDATE report SET gathered_at = now()",
                    "ALTER TABLE report ALTER COLUMN gathered_at SET NOT NULL",
                    "UPDATE consumer_error SET key = 'k', message = ''",
                    "ALTER TABLE consumer_error ALTER COLUMN key SET NOT NULL, ALTER COLUMN message SET NOT NULL",
                ],
                [
                    "schema version 32, but column report.gathered_at is NOT NULL, and some messages have no value for",
                    "; column rule_hit.tenant is NOT NULL without a default, and this program does not fill it: give",
                    "; column report_info.asked is NOT NULL without a default",
                    "; column consumer_error.key is NOT NULL, and some messages have no value for it",
                    "; column consumer_error.message is NOT NULL, and some",
                ],
            ),
            (
                [
                    "CREATE TABLE aggregator_migration (name varchar PRIMARY KEY, applied_at timestamp NOT NULL)",
                    "INSERT INTO aggregator_migration VALUES ('0099_future', now())",
                ],
                ["0099_future", "made by a newer version"],
            ),
            (
                [
                    "CREATE VIEW by_organization AS SELECT org_id, cluster FROM report",
                    "CREATE MATERIALIZED VIEW dvo.counted AS SELECT org_id, count(*) FROM rule_hit GROUP BY org_id",
                    "CREATE RULE noted AS ON INSERT TO recommendation WHERE NEW.org_id = 5 DO ALSO NOTHING",
                    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
                    "CREATE TRIGGER moved BEFORE UPDATE OF org_id ON report FOR EACH ROW EXECUTE FUNCTION f()",
                    "CREATE POLICY own ON report_info USING (org_id = 1)",
                    "ALTER TABLE consumer_error ADD COLUMN half integer GENERATED ALWAYS AS (topic_offset / 2) STORED",
                    "CREATE TABLE dvo.copies (r public.report[])",
                    "CREATE TABLE child () INHERITS (report)",
                    "CREATE INDEX recommendation_org_id_rule_id_idx ON delivery (org_id)",
                    "CREATE TABLE cluster_user_rule_disable_feedback_user_id_idx (x integer)",
                ],
                [
                    "nothing was changed: ",
                    "view by_organization uses column report.org_id",
                    "materialized view dvo.counted uses column rule_hit.org_id",
                    "rule noted on recommendation uses column recommendation.org_id",
                    "trigger moved on table report uses column report.org_id",
                    "policy own on table report_info uses column report_info.org_id",
                    "column half of table consumer_error uses column consumer_error.topic_offset",
                    "column dvo.copies.r uses the row type of table report",
                    "table report is partitioned or inherits",
                    "recommendation_org_id_rule_id_idx is there and is not the index on recommendation (org_id, rule_",
                    "cluster_user_rule_disable_feedback_user_id_idx is there and is not the index on",
                ],
            ),
            (
                [
                    "CREATE FUNCTION f4(integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT $1'",
                    "CREATE INDEX ix ON rule_hit (f4(org_id))",
                    'CREATE UNIQUE INDEX "Part USING it" ON recommendation (org_id, cluster_id, rule_fqdn, error_key)'
                    " WHERE f4(org_id) > 5",
                    "CREATE INDEX pages ON report USING brin (org_id int4_minmax_multi_ops)",
                    "ALTER TABLE report ADD CONSTRAINT above CHECK (int4pl(org_id, 0) > -10)",
                    "ALTER TABLE consumer_error ADD CONSTRAINT other EXCLUDE USING hash (f4(topic_offset) WITH =)"
                    " WHERE (false)",
                    "CREATE STATISTICS known ON f4(org_id), cluster_id FROM report_info",
                ],
                [
                    "nothing was changed: constraint above on table report uses column org_id and does not hold for"
                    " bigint (function int4pl(bigint, integer) does not exist): drop it, migrate, make it anew;",
                    "index ix on table rule_hit uses column org_id and does not hold for bigint (function f4(bigint)",
                    'index "Part USING it" on table recommendation uses column org_id and does not hold for bigint (f',
                    "index pages on table report uses column org_id and does not hold for bigint (operator class",
                    "constraint other on table consumer_error uses column topic_offset and does not hold for bigint (f",
                    "statistics known on table report_info uses column org_id and does not hold for bigint (function",
                ],
            ),
        ],
        ids=[
            "no migration_info",
            "another shape",
            "columns that demand values",
            "a step of a newer version",
            "users of columns, parts, names",
            "what does not hold for bigint",
        ],
    )
    def test_all_that_is_in_the_way_is_told_by_name_and_nothing_is_changed(
        self, existing: str, changes: list[str], said: list[str]
    ) -> None:
        execute(existing, *changes)
        rows, before = digests(existing), definitions(existing)
        with opened(existing) as database:
            for refusing in (migrate, plan):
                with pytest.raises(SchemaError) as raised:
                    refusing(database)
                for text in said:
                    assert text in str(raised.value)
                assert "\n" not in str(raised.value)
        assert (digests(existing), definitions(existing)) == (rows, before)

    def test_columns_of_others_that_need_no_value_of_ours_are_no_obstacle(self, existing: str) -> None:
        execute(
            existing,
            "ALTER TABLE report ADD COLUMN number integer GENERATED ALWAYS AS IDENTITY,"
            " ADD COLUMN width integer NOT NULL GENERATED ALWAYS AS (length(cluster)) STORED,"
            " ALTER COLUMN kafka_offset SET DEFAULT 0",
            "CREATE DOMAIN word AS text DEFAULT 'x' NOT NULL",
            "ALTER TABLE rule_hit ADD COLUMN given word",
            "ALTER TABLE rule_disable ADD COLUMN tenant integer NOT NULL DEFAULT 1",
            "ALTER TABLE rule_disable ALTER COLUMN tenant DROP DEFAULT",
            "ALTER TABLE report_info ADD COLUMN filled integer NOT NULL DEFAULT 1",
            "ALTER TABLE report_info ALTER COLUMN filled DROP DEFAULT",
            "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.filled := 1; RETURN NEW; END'",
            "CREATE TRIGGER fill BEFORE INSERT ON report_info FOR EACH ROW EXECUTE FUNCTION fill()",
        )
        assert adopt(existing) == ADOPTED
        message = payload(NEW_CLUSTER, hits=[HitSpec("r.report", "K")], version="4.16.3")
        with opened(existing) as database:
            assert len(Store(database).write([Record("results", 0, 5, None, message, (), None)]).stored) == 1

    def test_a_column_that_demands_a_value_keeps_nobody_from_reading(self, existing: str) -> None:
        adopt(existing)
        execute(
            existing,
            "ALTER TABLE report ADD COLUMN tenant integer NOT NULL DEFAULT 1",
            "ALTER TABLE report ALTER COLUMN tenant DROP DEFAULT",
        )
        with opened(existing) as database:
            assert check_schema(database, to_write=False) == []
            with pytest.raises(SchemaError, match=re.escape("column report.tenant is NOT NULL without a default")):
                check_schema(database)

    def test_what_holds_for_bigint_too_is_kept_or_named_where_it_can_not_be_tried(self, existing: str) -> None:
        execute(
            existing,
            "CREATE INDEX large ON rule_hit (cluster_id) WHERE org_id > 5",
            "CREATE INDEX halves ON recommendation ((org_id / 2))",
            "ALTER TABLE report ADD CONSTRAINT positive CHECK (org_id > 0)",
            "ALTER TABLE report ADD CONSTRAINT alone EXCLUDE USING hash (cluster WITH =) WHERE (org_id > 5)",
            "DROP ROLE IF EXISTS untrying",
            "CREATE ROLE untrying LOGIN",
            *(f"ALTER TABLE {table} OWNER TO untrying" for table in tables_of(existing)),
            "GRANT CREATE ON SCHEMA public TO untrying",
        )
        name = existing.rpartition("/")[2]
        try:
            execute(existing, f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
            before = definitions(existing)
            with pytest.raises(SchemaError) as raised:
                adopt(as_role(existing, "untrying"))
            for what in ("index large", "index halves", "constraint positive", "constraint alone"):
                assert f"{what} on table" in str(raised.value)
            assert str(raised.value).count("may not hold for bigint, which a role with TEMPORARY on the database") == 4
            assert definitions(existing) == before
            execute(existing, f"GRANT TEMPORARY ON DATABASE {name} TO untrying")
            assert adopt(as_role(existing, "untrying")) == ADOPTED
        finally:
            execute(existing, "DROP OWNED BY untrying CASCADE", "DROP ROLE untrying")

    def test_an_index_of_another_form_is_not_taken_for_ours(self, existing: str) -> None:
        with opened(existing) as database:
            for form in (
                "USING brin (org_id, rule_id)",
                "(org_id, rule_id DESC)",
                "(org_id, rule_id varchar_pattern_ops)",
                '(org_id, rule_id COLLATE "POSIX")',
            ):
                execute(existing, f"CREATE INDEX {INDEXES[2]} ON recommendation {form}")
                with pytest.raises(SchemaError, match=f"{INDEXES[2]} is there and is not the index on recommendation"):
                    plan(database)
                execute(existing, f"DROP INDEX {INDEXES[2]}")
            execute(existing, f"CREATE INDEX {INDEXES[2]} ON recommendation (org_id, rule_id)")
            plan(database)

    def test_what_has_the_name_of_the_table_of_steps_is_not_taken_for_it(self, existing: str) -> None:
        for statement, said in [
            ("CREATE VIEW aggregator_migration AS SELECT text 'x' AS name", "aggregator_migration is no table"),
            ("CREATE TABLE aggregator_migration (foo integer)", "missing: column aggregator_migration.name"),
            (
                "CREATE TABLE aggregator_migration (name integer, applied_at timestamp)",
                "column aggregator_migration.name is integer, needs character varying",
            ),
        ]:
            execute(existing, statement)
            before = definitions(existing)
            with opened(existing) as database:
                for refusing in (migrate, plan, check_schema):
                    with pytest.raises(SchemaError, match=f"{said}.*: aggregator_migration is not the table of this"):
                        refusing(database)
            assert definitions(existing) == before
            execute(existing, f"DROP {statement.split()[1]} aggregator_migration")

    def test_a_pooler_is_refused_before_anything_is_locked(self, existing: str) -> None:
        database = open_database(existing)
        database.connect_params["connection_factory"] = PooledConnection
        with closing(database):
            for refusing in (migrate, plan):
                with pytest.raises(SchemaError, match="use a direct connection to the server"):
                    refusing(database)
            assert execute(existing, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]

    @pytest.mark.long
    def test_a_replica_is_refused(self, own_postgresql: PostgresqlServer) -> None:
        url = load_existing(own_postgresql.create_database())
        own_postgresql.demote()
        with opened(url) as database:
            for refusing in (migrate, plan):
                with pytest.raises(SchemaError, match="this server is a replica, which can't be changed: use the prim"):
                    refusing(database)

    def test_postgresql_itself_would_refuse_what_we_refuse(self, existing: str) -> None:
        """What is looked for beforehand is what it calls a feature that is not supported."""
        for statement, change in [
            ("CREATE VIEW v AS SELECT org_id FROM report", "DROP VIEW v"),
            ("CREATE POLICY own ON report USING (org_id = 1)", "DROP POLICY own ON report"),
            ("CREATE TABLE copies (r report)", "DROP TABLE copies"),
        ]:
            execute(existing, statement)
            with pytest.raises(psycopg2.errors.FeatureNotSupported):
                execute(existing, "ALTER TABLE report ALTER COLUMN org_id TYPE bigint")
            execute(existing, change)
        adopt(existing)

    def test_a_role_that_may_not_alter_the_tables_is_told_whose_they_are(self, existing: str) -> None:
        execute(existing, "DROP ROLE IF EXISTS stranger", "DROP ROLE IF EXISTS old_service")
        execute(existing, "CREATE ROLE stranger LOGIN", "CREATE ROLE old_service")
        grants = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
        try:
            execute(existing, f"GRANT {grants} TO stranger", "ALTER TABLE report OWNER TO old_service")
            before = definitions(existing)
            with pytest.raises(SchemaError) as raised:
                adopt(as_role(existing, "stranger"))
            said = str(raised.value)
            assert "the role stranger may not alter table report, which belongs to old_service" in said
            for table in {*WIDENED, "cluster_rule_toggle", "cluster_user_rule_disable_feedback"} - {"report"}:
                assert said.count(f"may not alter table {table},") == 1
            assert "the role stranger may not create anything in the schema public" in said
            assert definitions(existing) == before
            execute(existing, "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM stranger")
            with opened(as_role(existing, "stranger")) as database:
                for refusing in (migrate, plan):
                    with pytest.raises(SchemaError) as raised:
                        refusing(database)
                    assert "the role stranger may not read table migration_info, which belongs to" in str(raised.value)
                    assert "may not alter table report, which belongs to old_service" in str(raised.value)
        finally:
            execute(existing, "DROP OWNED BY stranger, old_service CASCADE", "DROP ROLE stranger, old_service")

    def test_a_member_of_the_owner_may(self, existing: str) -> None:
        execute(existing, "DROP ROLE IF EXISTS deputy", "DROP ROLE IF EXISTS old_owner")
        execute(existing, "CREATE ROLE old_owner", "CREATE ROLE deputy LOGIN IN ROLE old_owner")
        try:
            execute(existing, "GRANT CREATE ON SCHEMA public TO old_owner")
            for table in tables_of(existing):
                execute(existing, f"ALTER TABLE {table} OWNER TO old_owner")
            assert adopt(as_role(existing, "deputy")) == ADOPTED
        finally:
            execute(existing, "DROP OWNED BY deputy, old_owner CASCADE", "DROP ROLE deputy, old_owner")


class BreakingSession(Session):
    """A session whose connection PostgreSQL ends before, or after, one of the statements that change anything."""

    def __init__(self, database: Database, url: str, number: int, after: bool) -> None:
        super().__init__(database)
        self._url = url
        self._remaining = number
        self._after = after

    def execute(self, statement: str) -> Any:
        if not statement.startswith(("ALTER", "VACUUM", "CREATE", "DROP")):
            return super().execute(statement)
        self._remaining -= 1
        if self._remaining:
            return super().execute(statement)
        if self._after:
            super().execute(statement)
        ((pid,),) = self.database.execute_sql("SELECT pg_backend_pid()").fetchall()
        execute(self._url, f"SELECT pg_terminate_backend({pid})")
        return self.database.execute_sql("SELECT 1")


class TestInterrupted:
    @pytest.mark.parametrize("after", [pytest.param(False, marks=pytest.mark.long), True], ids=["before", "after"])
    def test_a_run_that_breaks_at_any_statement_is_continued_and_records_no_step_that_is_not_done(
        self, existing: str, after: bool
    ) -> None:
        rows = digests(existing)
        for number in itertools.count(1):
            with opened(existing) as database:
                try:
                    migrate(database, session=BreakingSession(database, existing, number, after))
                except DATABASE_ERRORS:
                    recorded = {name for (name,) in execute(existing, "SELECT name FROM aggregator_migration")}
                    assert REWRITE not in recorded or narrow_columns(existing) == set()
                    assert "0003_read_indexes" not in recorded or set(INDEXES) <= index_names(existing)
                else:
                    break
        assert number > 5
        with opened(existing) as database:
            assert check_schema(database) == []
        assert digests(existing) == rows
        assert narrow_columns(existing) == set()
        assert set(INDEXES) <= index_names(existing)

    def test_an_index_that_was_not_finished_is_made_again(self, existing: str) -> None:
        adopt(existing, skip_rewrite=True)
        execute(
            existing, f"DROP INDEX {INDEXES[2]}", "DELETE FROM aggregator_migration WHERE name = '0003_read_indexes'"
        )
        with ThreadPoolExecutor(1) as pool, open_transaction(existing):
            running = pool.submit(adopt, existing, skip_rewrite=True)
            eventually(lambda: waits_for_older_transactions(existing), what="the index waits")
            execute(existing, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
            with pytest.raises(DATABASE_ERRORS):
                running.result(PATIENCE)
        assert INDEXES[2] not in index_names(existing)
        with opened(existing) as database:
            assert any(INDEXES[2] in line for line in plan(database))
        told: list[str] = []
        assert adopt(existing, told.append, skip_rewrite=True) == ["0003_read_indexes"]
        assert f"dropping index {INDEXES[2]}, which was not finished" in told
        assert INDEXES[2] in index_names(existing)

    def test_a_stop_ends_a_statement_that_waits_and_the_next_run_continues(self, existing: str) -> None:
        with opened(existing) as database, ThreadPoolExecutor(1) as pool, open_transaction(existing):
            session = Session(database)
            running = pool.submit(migrate, database, session=session)
            eventually(lambda: waits_for_older_transactions(existing), what="an index waits")
            session.stop()
            with pytest.raises(MigrationStopped):
                running.result(PATIENCE)
            pool.submit(database.close).result()
        assert adopt(existing) == ["0003_read_indexes"]


class TestOthersAtWork:
    def test_a_long_reader_is_not_waited_for_in_front_of_everybody_else(self, existing: str) -> None:
        told: list[str] = []
        with ThreadPoolExecutor(1) as pool, open_transaction(existing, "SELECT count(*) FROM rule_hit"):
            running = pool.submit(adopt, existing, told.append)
            eventually(lambda: any("rule_hit is in use by" in line for line in told), what="it tells who is in the way")
            # nobody queues behind a run that pauses
            execute(existing, "SET statement_timeout = '5s'", "SELECT count(*) FROM rule_hit")
            assert not running.done()
            assert "report" not in narrow_columns(existing)
        assert running.result(PATIENCE) == ADOPTED
        (line,) = [line for line in told if "rule_hit is in use by" in line][:1]
        assert "(process " in line
        assert line.endswith("trying again in 1 s")

    @pytest.mark.parametrize("limits", ["-c%20lock_timeout%3D100", "-c%20statement_timeout%3D300"])
    def test_no_limit_of_time_ends_a_wait(self, existing: str, limits: str) -> None:
        with ThreadPoolExecutor(1) as pool, open_transaction(existing):
            running = pool.submit(adopt, f"{existing}?options={limits}", skip_rewrite=True)
            eventually(lambda: waits_for_older_transactions(existing), what="an index waits")
            time_in_the_wait = time.monotonic()
            eventually(lambda: time.monotonic() - time_in_the_wait > 0.5 or running.done())
            assert waits_for_older_transactions(existing)
        assert running.result(PATIENCE) == [step for step in ADOPTED if step != REWRITE]

    def test_two_runs_at_once_wait_for_each_other_and_not_in_a_circle(self, existing: str) -> None:
        told: list[str] = []
        with ThreadPoolExecutor(2) as pool:
            with open_transaction(existing, "SELECT count(*) FROM report"):
                first: Future[list[str]] = pool.submit(adopt, existing, told.append)
                eventually(lambda: any("report is in use" in line for line in told), what="the first is at work")
                second_told: list[str] = []
                second = pool.submit(adopt, existing, second_told.append)
                eventually(lambda: second_told, what="the second waits")
            # the first makes indexes now, which waits for whoever has a snapshot
            assert first.result(PATIENCE) == ADOPTED
            assert second.result(PATIENCE) == []
        assert second_told == ["another run is at work, waiting for its end"]

    def test_writers_go_on_while_an_index_waits(self, existing: str) -> None:
        with ThreadPoolExecutor(1) as pool, open_transaction(existing):
            running = pool.submit(adopt, existing)
            eventually(lambda: waits_for_older_transactions(existing), what="an index waits")
            values = {"org_id": 5, "cluster": NEW_CLUSTER}
            execute(
                existing,
                "SET lock_timeout = '5s'",
                *(statement.format(**values) for statement in INSERTS_OF_OLD_SERVICE),
            )
            assert not running.done()
        assert running.result(PATIENCE) == ADOPTED
        assert execute(existing, f"SELECT count(*) FROM recommendation WHERE cluster_id = '{NEW_CLUSTER}'") == [(1,)]


class TestWhoeverWaitsForARewrite:
    """Who has an older snapshot finds a table empty that was written anew."""

    @contextmanager
    def rewritten(self, url: str, table: str) -> Iterator[None]:
        """Have a table locked, written anew when the block ends."""
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} ALTER COLUMN org_id TYPE bigint")
            yield
            connection.commit()

    def test_the_api_reads_what_was_there(self, existing: str) -> None:
        settings = DatabaseSettings(url=Secret(existing))
        metrics = ApiMetrics(CollectorRegistry(), build_facts())
        reader = Reader(lambda: open_reader(settings, "tests"), prepare=True, metrics=metrics)
        statement = Statement("cluster", "SELECT cluster FROM report WHERE cluster = :cluster", {"cluster": "varchar"})
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(reader.read, statement, cluster=CLUSTER).result(PATIENCE) == [(CLUSTER,)]
            with self.rewritten(existing, "report"):
                waiting = pool.submit(reader.read, statement, cluster=CLUSTER)
                eventually(lambda: waiting_for_locks(existing) == 1, what="the API waits")
            assert waiting.result(PATIENCE) == [(CLUSTER,)]

    @pytest.mark.parametrize(
        "table", ["report", *(pytest.param(table, marks=pytest.mark.long) for table in ("rule_hit", "recommendation"))]
    )
    def test_the_consumer_finds_the_rows_that_it_changes(self, existing: str, table: str) -> None:
        message = payload(CLUSTER, "2026-05-02T08:00:00Z", [HitSpec("ccx_rules_ocp.external.rules.a.report", "A")], 1)
        with opened(existing) as database, ThreadPoolExecutor(1) as pool:
            with self.rewritten(existing, table):
                waiting = pool.submit(Store(database).write, [Record("results", 0, 5, None, message, (), None)])
                eventually(lambda: waiting_for_locks(existing) == 1, what="the consumer waits")
            assert len(waiting.result(PATIENCE).stored) == 1
            pool.submit(database.close).result()
        since = f"SELECT impacted_since::text FROM recommendation WHERE cluster_id = '{CLUSTER}'"
        assert execute(existing, since) == [("2026-04-01 00:00:00",)]
        assert execute(existing, f"SELECT count(*) FROM rule_hit WHERE cluster_id = '{CLUSTER}'") == [(1,)]
