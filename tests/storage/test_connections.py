"""From a URL to a session: who may write, and what is set in every session."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peewee import Database, PostgresqlDatabase, SqliteDatabase

from libaggregator.settings import DatabaseSettings, Secret, SettingsError
from libaggregator.storage.connections import missing_file, open_reader, open_writer
from libaggregator.storage.faults import DATABASE_ERRORS
from libaggregator.storage.schema import migrate

PASSWORD = "s3cr3t"


def settings(url: str, read_url: str = "", **others: float) -> DatabaseSettings:
    return DatabaseSettings(url=Secret(url), read_url=Secret(read_url), **others)


def value(database: Database, statement: str) -> object:
    return database.execute_sql(statement).fetchone()[0]


def closed_after(database: Database) -> Iterator[Database]:
    yield database
    database.close()


@pytest.fixture
def writer(database_url: str) -> Iterator[Database]:
    """Yield a migrated database with one report."""
    database = open_writer(settings(database_url), "tests")
    migrate(database)
    database.execute_sql("INSERT INTO report (org_id, cluster, report) VALUES (1, 'c', '{}')")
    yield from closed_after(database)


@pytest.fixture
def reader(writer: Database, database_url: str) -> Iterator[Database]:
    yield from closed_after(open_reader(settings(database_url), "tests"))


@pytest.fixture
def postgresql_reader(postgresql_url: str) -> Iterator[Database]:
    yield from closed_after(open_reader(settings(postgresql_url), "tests of sessions"))


class TestReader:
    @pytest.mark.parametrize(
        "statement",
        [
            "INSERT INTO report (org_id, cluster, report) VALUES (2, 'd', '{}')",
            "UPDATE report SET org_id = 2",
            "DELETE FROM report",
            "CREATE TABLE others (x integer)",
            "DROP TABLE advisor_ratings",
            "CREATE INDEX others ON report (reported_at)",
        ],
    )
    def test_it_can_not_write(self, writer: Database, reader: Database, statement: str) -> None:
        tables = sorted(writer.get_tables())
        with pytest.raises(DATABASE_ERRORS, match=r"(?i)read.?only"):
            reader.execute_sql(statement)
        assert writer.execute_sql("SELECT org_id, cluster FROM report").fetchall() == [(1, "c")]
        assert sorted(writer.get_tables()) == tables

    def test_it_reads_what_the_writer_has_committed(self, writer: Database, reader: Database) -> None:
        assert value(reader, "SELECT count(*) FROM report") == 1
        writer.execute_sql("INSERT INTO report (org_id, cluster, report) VALUES (2, 'd', '{}')")
        assert value(reader, "SELECT count(*) FROM report") == 2

    def test_it_reads_while_the_writer_is_in_a_transaction(self, writer: Database, reader: Database) -> None:
        with writer.atomic() as transaction:
            writer.execute_sql("DELETE FROM report")
            assert value(reader, "SELECT count(*) FROM report") == 1
            transaction.rollback()

    def test_each_thread_has_a_connection_of_its_own(self, reader: Database) -> None:
        mine = reader.connection()
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(reader.connection).result()
            assert other is not mine
            pool.submit(reader.close).result()
        assert value(reader, "SELECT count(*) FROM report") == 1

    def test_the_read_url_is_used_if_there_is_one(self, tmp_path: Path) -> None:
        given_urls = settings(f"sqlite:///{tmp_path}/primary.db", f"sqlite:///{tmp_path}/replica.db")
        assert missing_file(open_reader(given_urls, "tests")) == tmp_path / "replica.db"
        assert missing_file(open_writer(given_urls, "tests")) == tmp_path / "primary.db"


class TestSqliteFile:
    def test_a_missing_one_is_not_made_by_a_reader(self, tmp_path: Path) -> None:
        reader = open_reader(settings(f"sqlite:///{tmp_path}/missing.db"), "tests")
        assert missing_file(reader) == tmp_path / "missing.db"
        with pytest.raises(DATABASE_ERRORS):
            reader.connect()
        assert list(tmp_path.iterdir()) == []

    def test_a_missing_one_is_made_by_a_writer_only_when_it_connects(self, tmp_path: Path) -> None:
        writer = open_writer(settings(f"sqlite:///{tmp_path}/new.db"), "tests")
        assert missing_file(writer) == tmp_path / "new.db"
        writer.connect()
        assert missing_file(writer) is None
        writer.close()

    @pytest.mark.parametrize("name", ["with blank.db", "50%25.db", "what?mode=rw.db", "a#b.db", "žluť.db", "a&b=c.db"])
    def test_it_may_have_any_name(self, tmp_path: Path, name: str) -> None:
        url = f"sqlite:///{tmp_path}/{name}"
        assert missing_file(open_writer(settings(url), "tests")) == tmp_path / name
        writer = open_writer(settings(url), "tests")
        migrate(writer)
        assert (tmp_path / name).exists()
        reader = open_reader(settings(url), "tests")
        assert value(reader, "SELECT version FROM migration_info") == 32
        reader.close()
        writer.close()
        assert missing_file(reader) is None

    def test_a_relative_one_is_found_from_where_the_process_was_started(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        writer = open_writer(settings("sqlite:///relative.db"), "tests")
        monkeypatch.chdir("/")
        assert missing_file(writer) == tmp_path / "relative.db"
        migrate(writer)
        writer.close()
        assert (tmp_path / "relative.db").exists()

    def test_what_is_committed_survives_a_power_cut_and_readers_do_not_wait(self, sqlite_url: str) -> None:
        first = open_writer(settings(sqlite_url), "tests")
        assert isinstance(first, SqliteDatabase)
        migrate(first)
        first.close()
        writer = open_writer(settings(sqlite_url), "tests")
        full = 2
        assert value(writer, "PRAGMA journal_mode") == "wal"
        assert value(writer, "PRAGMA synchronous") == full
        assert value(writer, "PRAGMA foreign_keys") == 1
        writer.close()

    def test_a_reader_leaves_the_files_as_they_are(self, sqlite_url: str, tmp_path: Path) -> None:
        """Also if the writer ended without writing its log back; that is the business of the next writer."""
        writer = open_writer(settings(sqlite_url), "tests")
        migrate(writer)
        writer.execute_sql("INSERT INTO report (org_id, cluster, report) VALUES (1, 'c', '{}')")
        left = tmp_path / "left by a writer that was killed"
        left.mkdir()
        for file in tmp_path.glob("aggregator.db*"):
            shutil.copy(file, left)
        writer.close()
        before = {name: (left / name).read_bytes() for name in ("aggregator.db", "aggregator.db-wal")}
        reader = open_reader(settings(f"sqlite:///{left}/aggregator.db"), "tests")
        assert value(reader, "SELECT count(*) FROM report") == 1
        reader.close()
        assert before["aggregator.db-wal"]
        assert {name: (left / name).read_bytes() for name in before} == before

    def test_a_writer_waits_for_another_one(self, sqlite_url: str) -> None:
        writer = open_writer(settings(sqlite_url, connect_timeout=7), "tests")
        assert value(writer, "PRAGMA busy_timeout") == 7000
        writer.close()


class TestPostgresqlSession:
    def test_it_is_in_utc_and_unicode_and_can_be_recognised(self, postgresql_reader: Database) -> None:
        assert value(postgresql_reader, "SHOW timezone") == "UTC"
        assert value(postgresql_reader, "SHOW client_encoding") == "UTF8"
        assert value(postgresql_reader, "SHOW application_name") == "tests of sessions"
        assert value(postgresql_reader, "SHOW search_path") == "public"

    def test_a_reader_is_read_only_and_a_writer_is_not(self, postgresql_reader: Database, postgresql_url: str) -> None:
        assert value(postgresql_reader, "SHOW transaction_read_only") == "on"
        writer = open_writer(settings(postgresql_url), "tests")
        assert value(writer, "SHOW transaction_read_only") == "off"
        writer.close()

    @pytest.mark.parametrize(("seconds", "shown"), [(60.0, "1min"), (0.25, "250ms"), (0, "0")])
    def test_statements_end_after_the_timeout(self, postgresql_url: str, seconds: float, shown: str) -> None:
        database = open_writer(settings(postgresql_url, statement_timeout=seconds), "tests")
        assert value(database, "SHOW statement_timeout") == shown
        assert value(database, "SHOW idle_in_transaction_session_timeout") == shown
        database.close()

    @pytest.mark.parametrize("chosen", ["", "pglz"])
    def test_a_writer_compresses_the_quick_way_where_the_server_can_and_nobody_chose(
        self, postgresql_url: str, chosen: str
    ) -> None:
        options = f"?options=-c%20default_toast_compression%3D{chosen}" if chosen else ""
        database = open_writer(settings(postgresql_url + options), "tests")
        can = value(database, "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'")
        assert value(database, "SHOW default_toast_compression") == (chosen or ("lz4" if can else "pglz"))
        database.close()

    def test_options_of_libpq_in_the_url_win_over_ours(self, postgresql_url: str) -> None:
        options = "application_name=mine&keepalives_idle=99&options=-c%20work_mem%3D5MB%20-c%20statement_timeout%3D9s"
        database = open_writer(settings(f"{postgresql_url}?{options}&sslmode=prefer"), "tests")
        assert value(database, "SHOW application_name") == "mine"
        assert value(database, "SHOW work_mem") == "5MB"
        assert value(database, "SHOW statement_timeout") == "9s"
        assert value(database, "SHOW timezone") == "UTC"
        assert database.connect_params["keepalives_idle"] == "99"
        assert database.connect_params["sslmode"] == "prefer"
        database.close()

    @pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
    def test_every_part_of_the_url_is_used(self, scheme: str) -> None:
        url = f"{scheme}://us%40er:p%2Fw%3A%40@db.example:6543/na%20me?sslmode=verify-full&sslrootcert=/ca.pem"
        database = open_writer(settings(url, connect_timeout=3), "tests")
        assert isinstance(database, PostgresqlDatabase)
        assert database.database == "na me"
        found = {key: database.connect_params[key] for key in ("user", "password", "host", "port")}
        assert found == {"user": "us@er", "password": "p/w:@", "host": "db.example", "port": "6543"}
        assert database.connect_params["connect_timeout"] == "3"
        assert database.connect_params["sslmode"] == "verify-full"
        assert database.connect_params["sslrootcert"] == "/ca.pem"
        assert missing_file(database) is None

    def test_several_hosts_can_be_named(self) -> None:
        url = "postgresql://user@one:1,two:2/name?target_session_attrs=read-write"
        database = open_writer(settings(url), "tests")
        assert (database.connect_params["host"], database.connect_params["port"]) == ("one,two", "1,2")
        assert database.connect_params["target_session_attrs"] == "read-write"

    def test_nothing_is_connected_before_it_is_used(self) -> None:
        database = open_writer(settings("postgresql://nobody@127.0.0.1:1/nothing"), "tests")
        assert database.is_closed()


BAD_URLS = [
    "",
    "aggregator.db",
    "sqlite://",
    "sqlite:///",
    "mysql://user:s3cr3t@host/name",
    "postgresql+psycopg2://user:s3cr3t@host/name",
    "postgresql://user:s3cr3t@host/name?no_such_option=1",
    "postgresql://user:s3cr3t@[host/name",
    "postgresql://user:s3cr3t%zz@host/name",
    "postgresql://host/name?password=s3cr3t&no_such_option=1",
    "postgresql://host/name?no_such_option=1&sslpassword=s3cr3t",
    "host=db.example user=user password=s3cr3t dbname=name",
    "postgresql:/user:s3cr3t@host/name",
    "postgresql//user:s3cr3t@host/name",
    "user:s3cr3t@host/name",
    "POSTGRESQL:user:s3cr3t@host/name",
]


class TestBadUrl:
    @pytest.mark.parametrize("url", BAD_URLS)
    def test_it_is_named_with_its_setting_and_without_its_password(self, url: str) -> None:
        with pytest.raises(SettingsError) as raised:
            open_writer(settings(url), "tests")
        (problem,) = raised.value.problems
        assert problem.startswith("database.url: ")
        assert PASSWORD not in problem
        assert "\n" not in problem

    @pytest.mark.parametrize("userinfo", ["u:TOP@s3cr3t", "u:s3cr3t/x", "u:s3cr3t:1/x", "u@s3cr3t"])
    def test_a_password_that_is_not_encoded_is_not_taken_for_a_host(self, userinfo: str) -> None:
        with pytest.raises(SettingsError, match="%40") as raised:
            open_writer(settings(f"postgresql://{userinfo}@host/name"), "tests")
        assert PASSWORD not in str(raised.value)

    @pytest.mark.parametrize("url", ["mysql://host/name", "postgresql://host/name?no_such_option=1"])
    def test_a_bad_read_url_is_named_as_such(self, url: str) -> None:
        with pytest.raises(SettingsError, match=r"^database\.read_url: "):
            open_reader(settings("sqlite:///x.db", url), "tests")

    @given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
    def test_no_password_is_shown_whatever_is_in_it(self, noise: str) -> None:
        password = f"{PASSWORD}{noise}{PASSWORD}"
        with pytest.raises(SettingsError) as raised:
            open_writer(settings(f"postgresql://user:{password}@host/name?no_such_option=1"), "tests")
        assert PASSWORD not in str(raised.value)

    def test_the_error_has_no_cause_that_shows_it(self) -> None:
        with pytest.raises(SettingsError) as raised:
            open_writer(settings("postgresql://user:s3cr3t@host/name?no_such_option=1"), "tests")
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__
