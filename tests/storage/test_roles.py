"""The roles of `deploy/postgresql/roles.sql`: each may do what its program does, and nothing else."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import psycopg2
import pytest
from psycopg2.errors import InsufficientPrivilege, RaiseException, ReadOnlySqlTransaction

from consumer_service.engines import MANY
from consumer_service.pruning.pruner import Limits
from consumer_service.sources import Record
from consumer_service.transfer.exporter import export
from consumer_service.transfer.importer import DatabaseRefused, Order, Summary, import_file
from libaggregator.settings import DatabaseSettings, Secret
from libaggregator.storage.connections import open_reader
from libaggregator.storage.models import TABLES, AggregatorMigration
from libaggregator.storage.schema import SchemaError, check_schema
from tests.storage.conftest import NOON, Store
from tests.storage.test_prune import prune
from tests.support.databases import migrate_database, open_database
from tests.support.messages import CLUSTERS, payload
from tests.support.postgresql import PostgresqlServer, table_locked
from tests.support.roles import (
    FILE,
    OWNER,
    PRUNER,
    READER,
    WRITER,
    RoleUrls,
    as_role,
    database_with_roles,
    execute,
    make_roles,
)
from tests.support.rows import add, add_cluster
from tests.support.tables import empty_tables
from tests.support.traffic import Traffic

TABLE_NAMES = sorted(model._meta.table_name for model in (*TABLES, AggregatorMigration))
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
CHOICES = ("cluster_rule_toggle", "cluster_user_rule_disable_feedback", "cluster_rule_user_feedback")
WRITER_MAY = {
    "report": ["SELECT", "INSERT", "UPDATE"],
    "rule_hit": ["SELECT", "INSERT", "UPDATE", "DELETE"],
    "recommendation": ["SELECT", "INSERT", "UPDATE", "DELETE"],
    "report_info": ["SELECT", "INSERT", "UPDATE"],
    "consumer_error": ["SELECT", "INSERT", "UPDATE", "DELETE"],
    "migration_info": ["SELECT"],
    "aggregator_migration": ["SELECT"],
}
PRUNED = ("report", "rule_hit", "recommendation", "report_info", "consumer_error")
# everything that the file can change, in an order of its own
SNAPSHOT = """
SELECT 'relation', relname, relowner::regrole::text, (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(relacl) a)
FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT 'column', attrelid::regclass || '.' || attname, '', attacl::text[]
FROM pg_attribute WHERE attacl IS NOT NULL
UNION ALL SELECT 'database', datname, datdba::regrole::text, datacl::text[]
FROM pg_database WHERE datname = current_database()
UNION ALL SELECT 'schema', nspname, nspowner::regrole::text, nspacl::text[] FROM pg_namespace WHERE nspname = 'public'
UNION ALL SELECT 'default', defaclrole::regrole::text, '', defaclacl::text[] FROM pg_default_acl
UNION ALL SELECT 'function', oid::regprocedure::text, '', proacl::text[] FROM pg_proc WHERE proacl IS NOT NULL
UNION ALL SELECT 'role', rolname, row(rolcanlogin, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls)::text,
    rolconfig
FROM pg_roles WHERE rolname LIKE 'aggregator%'
UNION ALL SELECT 'member', roleid::regrole::text, member::regrole::text, ARRAY[grantor::regrole::text]
FROM pg_auth_members
ORDER BY 1, 2, 3, 4
"""


def no_progress(label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda steps: None)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """Yield a server for this module: roles belong to a server, and others may have theirs."""
    server = PostgresqlServer()
    try:
        server.start()
        execute(server.admin_url, "CREATE ROLE old_service LOGIN", "CREATE ROLE console LOGIN")
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def urls(server: PostgresqlServer) -> RoleUrls:
    """Return a database that its owner has made the tables in, with the roles made before and after that."""
    urls = database_with_roles(server)
    migrate_database(urls.owner)
    make_roles(urls.superuser)
    return urls


@pytest.fixture
def adopted(server: PostgresqlServer) -> Iterator[RoleUrls]:
    """Yield a database of an existing deployment, whose service owns the tables and those of another component."""
    urls = RoleUrls(server.create_database())
    # as it was by default before version 15
    execute(urls.superuser, "GRANT CREATE ON SCHEMA public TO PUBLIC")
    old = migrate_database(as_role(urls.superuser, "old_service"))
    execute(
        old,
        "DROP TABLE aggregator_migration",
        "GRANT INSERT ON cluster_rule_toggle TO console",
        "CREATE TABLE of_others (org_id integer)",
        "CREATE VIEW worst AS SELECT * FROM report",
    )
    yield urls
    server.drop_database(urls.superuser)


def _record(offset: int, value: bytes | None) -> Record:
    return Record("results", 0, offset, None, value, (), None)


def rights(url: str, role: str, table: str) -> list[str]:
    return [
        privilege
        for privilege in PRIVILEGES
        if execute(url, f"SELECT has_table_privilege('{role}', '{table}', '{privilege}')") == [(True,)]
    ]


class TestRights:
    @pytest.mark.parametrize("table", TABLE_NAMES)
    def test_the_reader_may_select_what_the_api_reads_and_nothing_else(self, urls: RoleUrls, table: str) -> None:
        assert rights(urls.superuser, READER, table) == ([] if table == "consumer_error" else ["SELECT"])

    @pytest.mark.parametrize("table", TABLE_NAMES)
    def test_the_writer_may_change_the_rows_that_the_consumer_changes_and_nothing_else(
        self, urls: RoleUrls, table: str
    ) -> None:
        assert rights(urls.superuser, WRITER, table) == WRITER_MAY.get(table, [])

    @pytest.mark.parametrize("table", CHOICES)
    def test_of_what_users_chose_the_writer_may_change_the_organization_alone(self, urls: RoleUrls, table: str) -> None:
        found = execute(
            urls.superuser,
            f"SELECT column_name, privilege_type FROM information_schema.column_privileges"
            f" WHERE grantee = '{WRITER}' AND table_name = '{table}' ORDER BY 1",
        )
        assert found == [("cluster_id", "SELECT"), ("org_id", "UPDATE")]

    @pytest.mark.parametrize(
        "statement",
        [
            "INSERT INTO migration_info (version) VALUES (33)",
            "UPDATE report SET report = '{}'",
            "DELETE FROM cluster_rule_toggle",
            "TRUNCATE advisor_ratings",
            "SELECT * FROM rule_hit FOR UPDATE",
            "SELECT * FROM consumer_error",
            "CREATE TABLE mine (n integer)",
            "CREATE TEMPORARY TABLE mine (n integer)",
            "DROP INDEX recommendation_org_id_rule_id_idx",
            "ALTER TABLE report ADD COLUMN mine integer",
            "SELECT lo_creat(-1)",
            "SELECT lo_create(0)",
            "SELECT lo_from_bytea(0, 'x')",
            "SELECT lo_import('/etc/hostname')",
            "SELECT lo_put(1, 0, 'x')",
            "SELECT lowrite(0, 'x')",
            "SELECT lo_truncate(0, 0)",
            "SELECT lo_truncate64(0, 0)",
            "SELECT lo_unlink(1)",
            f"SET ROLE {WRITER}",
        ],
    )
    def test_the_reader_can_not_write_even_in_a_session_that_it_made_writable(
        self, urls: RoleUrls, statement: str
    ) -> None:
        with pytest.raises(InsufficientPrivilege):
            execute(urls.reader, "SET default_transaction_read_only = off", statement)

    def test_a_session_of_the_reader_is_read_only_whoever_opens_it(self, urls: RoleUrls) -> None:
        with pytest.raises(ReadOnlySqlTransaction):
            execute(urls.reader, "CREATE TABLE mine (n integer)")

    @pytest.mark.parametrize(
        "statement",
        [
            "ALTER TABLE report ADD COLUMN mine integer",
            "ALTER TABLE report DROP CONSTRAINT report_pkey",
            "ALTER TABLE rule_hit DISABLE TRIGGER ALL",
            "DROP TABLE rule_hit",
            "DROP INDEX recommendation_org_id_rule_id_idx",
            "CREATE INDEX ON rule_hit (created_at)",
            "CREATE TABLE mine (n integer)",
            "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
            "CREATE SCHEMA mine",
            "TRUNCATE rule_hit",
            "DELETE FROM report",
            "DELETE FROM report_info",
            "UPDATE migration_info SET version = 33",
            "DELETE FROM aggregator_migration",
            "UPDATE cluster_rule_toggle SET disabled = 0",
            "SELECT message FROM cluster_user_rule_disable_feedback",
            "INSERT INTO rule_disable (org_id, rule_id, error_key, created_at) VALUES ('1', 'r', 'k', now())",
            "SELECT * FROM advisor_ratings",
            f"SET ROLE {OWNER}",
        ],
    )
    def test_the_writer_can_not_alter_drop_create_or_truncate_nor_touch_what_is_not_the_consumers(
        self, urls: RoleUrls, statement: str
    ) -> None:
        with pytest.raises(InsufficientPrivilege):
            execute(urls.writer, statement)

    @pytest.mark.parametrize("table", TABLE_NAMES)
    def test_the_pruner_may_delete_what_the_consumer_fills_and_nothing_else(self, urls: RoleUrls, table: str) -> None:
        expected = ["DELETE"] if table in PRUNED else ["SELECT"] if table.endswith(("_info", "_migration")) else []
        assert rights(urls.superuser, PRUNER, table) == expected

    @pytest.mark.parametrize(
        "statement",
        [
            "SELECT report FROM report",
            "UPDATE report SET report = ''",
            "UPDATE report SET reported_at = NULL",
            "SELECT template_data FROM rule_hit",
            "UPDATE rule_hit SET created_at = NULL",
            "SELECT message FROM consumer_error",
            "INSERT INTO report_info VALUES (1, 'c', '4.16.3')",
            "SELECT user_vote FROM cluster_rule_user_feedback",
            "DELETE FROM cluster_rule_user_feedback",
            "DELETE FROM cluster_rule_toggle",
            "DELETE FROM rule_disable",
            "UPDATE migration_info SET version = 33",
            "TRUNCATE rule_hit",
            "CREATE TABLE mine (n integer)",
            "CREATE TEMPORARY TABLE mine (n integer)",
            f"SET ROLE {WRITER}",
        ],
    )
    def test_the_pruner_sees_and_changes_nothing_that_it_needs_not(self, urls: RoleUrls, statement: str) -> None:
        with pytest.raises(InsufficientPrivilege):
            execute(urls.pruner, statement)

    def test_roles_that_are_not_ours_can_not_connect(self, server: PostgresqlServer, urls: RoleUrls) -> None:
        server.execute("CREATE ROLE stranger LOGIN")
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            execute(as_role(urls.superuser, "stranger"), "SELECT 1")


class TestPrograms:
    @pytest.mark.parametrize("many", [MANY, 1], ids=["", "by COPY"])
    def test_the_writer_stores_all_that_a_topic_can_bring(self, urls: RoleUrls, many: int) -> None:
        database = open_database(urls.writer)
        store = Store(database, many)
        records = [_record(n, sent.value) for n, sent in enumerate(Traffic(many, clusters=20).take(600))]
        stored = rejected = 0
        for batch in (records[start : start + 50] for start in range(0, len(records), 50)):
            written = store.write(batch)
            store.later()
            stored, rejected = stored + len(written.stored), rejected + len(written.rejected)
        database.close()
        assert stored > 300
        assert rejected > 10

    def test_what_users_chose_moves_along_with_a_cluster(self, urls: RoleUrls) -> None:
        execute(
            urls.superuser,
            "INSERT INTO cluster_rule_toggle (cluster_id, rule_id, error_key, org_id, disabled, updated_at)"
            f" VALUES ('{CLUSTERS[0]}', 'r', 'k', '1', 1, now())",
        )
        database = open_database(urls.writer)
        for second, org_id in enumerate((1, 2)):
            message = payload(CLUSTERS[0], f"2026-05-01T08:00:0{second}Z", org_id=org_id)
            Store(database).write([_record(second, message)])
        database.close()
        found = execute(urls.reader, f"SELECT org_id FROM cluster_rule_toggle WHERE cluster_id = '{CLUSTERS[0]}'")
        assert found == [("2",)]

    def test_the_owner_exports_and_imports_and_the_writer_may_not(
        self, server: PostgresqlServer, urls: RoleUrls, tmp_path: Path
    ) -> None:
        file = str(tmp_path / "export.jsonl")
        order, stop = Order(file, merge=False), Event()
        source = DatabaseSettings(url=Secret(urls.owner))
        exported = export(source, file, force=False, stop=stop, progress=no_progress)
        target = database_with_roles(server)
        migrate_database(target.owner)
        make_roles(target.superuser)
        writer = DatabaseSettings(url=Secret(target.writer))
        with pytest.raises(DatabaseRefused, match="may not write to cluster_rule_toggle; import as the owner"):
            import_file(writer, order, stop, no_progress, Summary())
        owner, summary = DatabaseSettings(url=Secret(target.owner)), Summary()
        import_file(owner, order, stop, no_progress, summary)
        assert summary.added == exported
        server.drop_database(target.superuser)

    def test_the_pruner_prunes_everything_that_can_be_pruned(self, urls: RoleUrls) -> None:
        old = NOON - timedelta(days=61)
        writer, pruner = open_database(urls.superuser), open_database(urls.pruner)
        with writer.atomic():
            empty_tables(writer)
        add_cluster(writer, CLUSTERS[0], old)
        add_cluster(writer, CLUSTERS[1], old)
        add(writer, "cluster_rule_user_feedback", cluster_id=CLUSTERS[1])
        for table in ("rule_hit", "recommendation", "report_info"):
            add(writer, table, cluster_id=CLUSTERS[2])
        add(writer, "consumer_error")
        limits = Limits(NOON - timedelta(days=60), NOON)
        rehearsed, summary = prune(pruner, limits, dry=True), prune(pruner, limits)
        assert summary == rehearsed
        assert summary.deleted == {
            "report": 1,
            "rule_hit": 2,
            "recommendation": 2,
            "report_info": 2,
            "consumer_error": 1,
        }
        assert summary.voted == 1
        with writer.atomic():
            empty_tables(writer)
        writer.close()
        pruner.close()

    def test_each_finds_the_schema_in_order(self, urls: RoleUrls) -> None:
        writer = open_database(urls.writer)
        pruner = open_database(urls.pruner)
        reader = open_reader(DatabaseSettings(url=Secret(urls.reader)), "tests")
        for database in (writer, pruner, reader):
            assert check_schema(database) == []
            database.close()

    @pytest.mark.parametrize("url", ["writer", "reader"])
    def test_what_the_owner_made_since_the_last_run_can_be_used_at_once(
        self, server: PostgresqlServer, url: str
    ) -> None:
        urls = database_with_roles(server)
        migrate_database(urls.owner)
        database = open_database(getattr(urls, url))
        assert check_schema(database) == []
        database.close()
        execute(urls.writer, "INSERT INTO report_info VALUES (1, 'c', '4.16.3')")
        assert execute(urls.reader, "SELECT version_info FROM report_info") == [("4.16.3",)]

    def test_a_role_that_may_not_use_the_schema_is_told_so(self, server: PostgresqlServer) -> None:
        urls = database_with_roles(server)
        execute(urls.superuser, "REVOKE ALL ON SCHEMA public FROM PUBLIC, aggregator_writer")
        database = open_database(urls.writer)
        with pytest.raises(SchemaError, match="no schema public, or the role may not use it"):
            check_schema(database)
        database.close()


class TestRunAgain:
    def test_a_second_run_changes_nothing(self, urls: RoleUrls) -> None:
        before = execute(urls.superuser, SNAPSHOT)
        make_roles(urls.superuser)
        assert execute(urls.superuser, SNAPSHOT) == before
        assert len(before) > len(TABLE_NAMES)

    def test_a_second_run_in_an_adopted_database_changes_nothing(self, adopted: RoleUrls) -> None:
        make_roles(adopted.superuser)
        before = execute(adopted.superuser, SNAPSHOT)
        make_roles(adopted.superuser)
        assert execute(adopted.superuser, SNAPSHOT) == before

    @pytest.mark.parametrize(
        "statement",
        [
            f"GRANT TRUNCATE ON report TO {READER}",
            f"GRANT UPDATE (report) ON report TO {READER}",
            f"GRANT SELECT ON report TO {PRUNER}",
            f"GRANT UPDATE (report) ON report TO {PRUNER}",
            f"GRANT ALL ON rule_disable TO {WRITER}",
            f"GRANT CREATE ON SCHEMA public TO {WRITER}",
            f"GRANT ALL ON SCHEMA public TO {READER} WITH GRANT OPTION",
            f"GRANT CREATE, TEMPORARY ON DATABASE {{database}} TO {READER}",
            f"GRANT CREATE ON DATABASE {{database}} TO {WRITER}",
            f"GRANT {OWNER} TO {WRITER}",
            f"GRANT {OWNER} TO {READER} WITH ADMIN OPTION",
            f"GRANT {WRITER} TO {READER}",
            f"GRANT {WRITER} TO {PRUNER}",
            f"ALTER ROLE {PRUNER} CREATEDB",
            f"ALTER ROLE {READER} CREATEDB CREATEROLE",
            f"ALTER ROLE {OWNER} REPLICATION",
            f"ALTER ROLE {WRITER} BYPASSRLS",
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} IN SCHEMA public GRANT ALL ON TABLES TO {READER}",
        ],
    )
    def test_it_takes_back_what_somebody_granted(self, urls: RoleUrls, statement: str) -> None:
        before = execute(urls.superuser, SNAPSHOT)
        execute(urls.superuser, statement.format(database=urlsplit(urls.superuser).path.removeprefix("/")))
        assert execute(urls.superuser, SNAPSHOT) != before
        make_roles(urls.superuser)
        assert execute(urls.superuser, SNAPSHOT) == before

    def test_it_takes_back_what_one_of_the_roles_passed_on(self, urls: RoleUrls) -> None:
        before = execute(urls.superuser, SNAPSHOT)
        execute(
            urls.superuser,
            f"GRANT {OWNER} TO {WRITER} WITH ADMIN OPTION",
            f"GRANT SELECT ON rule_disable TO {WRITER} WITH GRANT OPTION",
        )
        execute(urls.writer, f"GRANT {OWNER} TO {READER}", "GRANT SELECT ON rule_disable TO console")
        make_roles(urls.superuser)
        assert execute(urls.superuser, SNAPSHOT) == before

    def test_it_leaves_what_is_not_about_our_tables(self, adopted: RoleUrls) -> None:
        make_roles(adopted.superuser)
        execute(adopted.superuser, f"GRANT SELECT ON of_others TO {READER}", f"GRANT pg_monitor TO {READER}")
        before = execute(adopted.superuser, SNAPSHOT)
        make_roles(adopted.superuser)
        after = execute(adopted.superuser, SNAPSHOT)
        execute(adopted.superuser, f"REVOKE pg_monitor FROM {READER}")
        assert after == before

    def test_psql_runs_it_and_stops_at_no_error(self, server: PostgresqlServer, urls: RoleUrls) -> None:
        command = [str(server.programs / "psql"), "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-f", str(FILE)]
        result = subprocess.run([*command, urls.superuser], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, "")

    @pytest.mark.long
    def test_the_owner_of_the_database_can_run_it_with_createrole_alone(self) -> None:
        own = PostgresqlServer()
        try:
            own.start()
            own.execute("CREATE ROLE provider LOGIN CREATEROLE")
            urls = RoleUrls(own.create_database("OWNER provider"))
            provider = as_role(urls.superuser, "provider")
            make_roles(provider)
            migrate_database(urls.owner)
            make_roles(provider)
            before = execute(urls.superuser, SNAPSHOT)
            make_roles(provider)
            assert execute(urls.superuser, SNAPSHOT) == before
            assert rights(urls.superuser, WRITER, "report") == WRITER_MAY["report"]
        finally:
            own.close()

    @pytest.mark.long
    def test_a_second_administrator_of_the_server_is_told_what_is_missing_and_can_run_it_then(self) -> None:
        own = PostgresqlServer()
        try:
            own.start()
            own.execute("CREATE ROLE dba LOGIN CREATEROLE")
            database_with_roles(own)
            urls = RoleUrls(own.create_database("OWNER dba"))
            dba = as_role(urls.superuser, "dba")
            with pytest.raises(RaiseException, match=f"{OWNER} was made by somebody else") as refused:
                make_roles(dba)
            own.execute(str(refused.value.diag.message_hint).removeprefix("A superuser has to run: "))
            make_roles(dba)
            migrate_database(urls.owner)
            make_roles(dba)
            assert rights(urls.superuser, WRITER, "report") == WRITER_MAY["report"]
        finally:
            own.close()

    def test_a_role_that_is_a_superuser_is_refused(self, urls: RoleUrls) -> None:
        execute(urls.superuser, f"ALTER ROLE {READER} SUPERUSER")
        try:
            with pytest.raises(RaiseException, match=f"the role {READER} is a superuser"):
                make_roles(urls.superuser)
        finally:
            execute(urls.superuser, f"ALTER ROLE {READER} NOSUPERUSER")


class TestAdoptedDatabase:
    def test_our_tables_pass_to_our_owner_and_those_of_others_do_not(self, adopted: RoleUrls) -> None:
        make_roles(adopted.superuser)
        tables = "relkind = 'r' AND relnamespace = 'public'::regnamespace"
        found = execute(adopted.superuser, f"SELECT relname, relowner::regrole::text FROM pg_class WHERE {tables}")
        ours = set(TABLE_NAMES) - {"aggregator_migration"}
        assert dict(found) == {**dict.fromkeys(ours, OWNER), "of_others": "old_service"}
        execute(adopted.owner, "ALTER TABLE rule_hit ALTER COLUMN org_id TYPE bigint")

    def test_the_service_of_the_existing_deployment_goes_on(self, adopted: RoleUrls) -> None:
        make_roles(adopted.superuser)
        old = as_role(adopted.superuser, "old_service")
        for table in set(TABLE_NAMES) - {"aggregator_migration"}:
            assert rights(adopted.superuser, "old_service", table) == [*PRIVILEGES]
        assert execute(old, "SELECT * FROM worst") == []
        execute(old, "INSERT INTO of_others VALUES (1)", "CREATE TEMPORARY TABLE mine (n integer)")
        execute(old, "CREATE TABLE of_others_too (n integer)")
        assert rights(adopted.superuser, "console", "cluster_rule_toggle") == ["INSERT"]

    @pytest.mark.parametrize("role", [WRITER, READER])
    def test_our_roles_see_nothing_of_other_components(self, adopted: RoleUrls, role: str) -> None:
        make_roles(adopted.superuser)
        assert rights(adopted.superuser, role, "of_others") == []
        assert rights(adopted.superuser, role, "worst") == []

    def test_what_everybody_may_stays_for_our_roles_too(self, adopted: RoleUrls) -> None:
        make_roles(adopted.superuser)
        writable = "SET default_transaction_read_only = off"
        execute(adopted.reader, writable, "CREATE TEMPORARY TABLE mine (n integer)", "SELECT lo_create(0)")

    @pytest.mark.parametrize("role", [WRITER, READER, "console"])
    def test_nobody_else_may_make_tables_in_it(self, adopted: RoleUrls, role: str) -> None:
        make_roles(adopted.superuser)
        with pytest.raises(InsufficientPrivilege):
            execute(as_role(adopted.superuser, role), "SET default_transaction_read_only = off", "CREATE TABLE t ()")

    def test_both_programs_find_a_database_that_they_can_use(self, adopted: RoleUrls) -> None:
        make_roles(adopted.superuser)
        for url in (adopted.writer, adopted.reader):
            database = open_database(url)
            assert "0001_schema_32" in check_schema(database)
            database.close()

    @pytest.mark.long
    def test_a_table_that_is_in_use_is_not_waited_for_long_and_nothing_is_half_done(self, adopted: RoleUrls) -> None:
        before = execute(adopted.superuser, SNAPSHOT)
        with (
            table_locked(adopted.superuser, "rule_hit", "ACCESS SHARE"),
            pytest.raises(psycopg2.errors.LockNotAvailable),
        ):
            make_roles(adopted.superuser)
        assert execute(adopted.superuser, SNAPSHOT) == before
