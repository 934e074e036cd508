"""The command `aggregator-consumer prune` as an operator has it (`docs/chores.md`)."""

import os
import pty
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from consumer_service.cli import main
from examples.demo.ports import free_port
from libaggregator.clock import utc_now
from tests.support.commands import CLI, Start, printed
from tests.support.databases import migrate_database, open_database
from tests.support.postgresql import PostgresqlServer, table_locked, waiting_for_locks
from tests.support.processes import REPOSITORY
from tests.support.roles import execute
from tests.support.rows import add, add_cluster
from tests.support.waiting import eventually

PASSWORD = "s3cr3t"
DAY = timedelta(days=1)


def fill(url: str, ages: Sequence[timedelta], errors: Sequence[timedelta] = ()) -> None:
    """Insert a cluster for each age, and a rejected message for each of the others."""
    database = open_database(url)
    with database.atomic():
        for number, age in enumerate(ages):
            add_cluster(database, f"{number:08x}-0000-4000-8000-000000000000", utc_now() - age)
        for offset, age in enumerate(errors):
            add(database, "consumer_error", topic_offset=offset, consumed_at=utc_now() - age)
    database.close()


def fill_with_old(url: str, number: int) -> None:
    """Make so many clusters that were not seen for 61 days, with a hit and a version each (PostgreSQL)."""
    migrate_database(url)
    names = f"(SELECT md5(n::text)::uuid::text FROM generate_series(1, {number}) n) AS made (name)"
    execute(
        url,
        "INSERT INTO report (org_id, cluster, report, reported_at)"
        f" SELECT 1, name, '', now() - interval '61 d' FROM {names}",
        f"INSERT INTO rule_hit SELECT 1, name, 'a.report', 'K', '' FROM {names}",
        f"INSERT INTO report_info SELECT 1, name, '4.16.3' FROM {names}",
    )


def counts(url: str, *tables: str) -> list[int]:
    database = open_database(url)
    found = [int(database.execute_sql(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in tables]
    database.close()
    return found


@contextmanager
def deleting_hits_kept_waiting(url: str) -> Iterator[None]:
    """Keep whoever deletes hits waiting in the middle of a transaction."""
    with table_locked(url, "rule_hit", "SHARE"):
        yield


def test_what_is_older_goes_and_a_dry_run_says_the_same_before(start: Start, migrated: str) -> None:
    fill(migrated, [61 * DAY, 59 * DAY, 400 * DAY], [31 * DAY, 29 * DAY])
    lines = [
        "deleted from report 2",
        "deleted from rule_hit 2",
        "deleted from recommendation 2",
        "deleted from report_info 2",
        "deleted from consumer_error 1",
    ]
    options = ("--older-than", "60d", "--errors-older-than", "30d")
    assert printed(start("prune", "--dry-run", *options, DATABASE__URL=migrated)) == [
        *lines,
        "a dry run: nothing was changed",
    ]
    assert counts(migrated, "report", "consumer_error") == [3, 2]
    assert printed(start("prune", *options, DATABASE__URL=migrated)) == lines
    assert counts(migrated, "report", "rule_hit", "recommendation", "report_info", "consumer_error") == [1] * 5


def test_without_a_limit_and_without_a_terminal_it_refuses(start: Start, sqlite: str) -> None:
    expected = ["error: what is to go is not said: expected --older-than, --errors-older-than or both"]
    assert printed(start("prune", "--dry-run", DATABASE__URL=sqlite), 2) == expected


@pytest.mark.parametrize(
    ("answers", "status", "left"),
    [
        ("60\n60d\n\ny\n", 0, [1, 1]),
        pytest.param("60d\n12h\nn\n", 1, [2, 1], marks=pytest.mark.long),
        pytest.param("\n\n", 2, [2, 1], marks=pytest.mark.long),
    ],
)
def test_on_a_terminal_it_asks_for_the_limits_and_makes_sure(
    sqlite: str, answers: str, status: int, left: list[int]
) -> None:
    fill(sqlite, [61 * DAY, DAY], [DAY])
    ours, theirs = pty.openpty()
    os.write(ours, answers.encode())
    environment = {**os.environ, "AGGREGATOR_DATABASE__URL": sqlite}
    run = subprocess.run(
        [*CLI, "prune"],
        stdin=theirs,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
        cwd=REPOSITORY,
    )
    os.close(ours)
    os.close(theirs)
    assert run.returncode == status, run.stdout + run.stderr
    assert "Delete clusters of which no report was stored for (60d, 8w, 12h; nothing: none of them)" in run.stdout
    assert counts(sqlite, "report", "consumer_error") == left


@pytest.mark.parametrize("value", ["60", "0d", "-1d", "1.5d", "60 d", "60D", "2m", "", "d", "9999999d"])
def test_what_is_no_length_of_time_is_named(value: str) -> None:
    result = CliRunner().invoke(main, ["prune", f"--older-than={value}"])
    assert result.exit_code == 2
    expected = f"Invalid value for '--older-than': {value!r}: expected a number from 1 to 999999"
    assert expected in result.output


@pytest.mark.parametrize("option", ["--older-than", "--errors-older-than"])
def test_a_limit_that_is_given_twice_is_refused(option: str) -> None:
    result = CliRunner().invoke(main, ["prune", option, "60d", f"{option}=1d"])
    assert result.exit_code == 2
    assert f"Invalid value for '{option}': given 2 times, expected once" in result.output


def test_a_read_only_database_is_told_in_one_line(start: Start, postgresql_url: str) -> None:
    fill(migrate_database(postgresql_url), [61 * DAY])
    read_only = f"{postgresql_url}?options=-c%20default_transaction_read_only%3Don"
    expected = "Error: the database is read-only, as a replica is: database.url has to name the primary"
    assert printed(start("prune", "--older-than", "60d", DATABASE__URL=read_only), 1)[-1] == expected
    assert counts(postgresql_url, "report") == [1]


@pytest.mark.long
def test_so_it_and_import_are_on_a_replica(start: Start, own_postgresql: PostgresqlServer, tmp_path: Path) -> None:
    url = migrate_database(own_postgresql.create_database())
    fill(url, [61 * DAY])
    file = tmp_path / "export.jsonl"
    assert printed(start("export", str(file), DATABASE__URL=url))
    own_postgresql.demote()
    expected = "Error: the database is read-only, as a replica is: database.url has to name the primary"
    assert printed(start("prune", "--older-than", "60d", DATABASE__URL=url), 1)[-1] == expected
    imported = start("import", "--merge", str(file), DATABASE__URL=url)
    assert printed(imported, 1) == [f"{expected}; nothing was written"]


def test_a_time_before_the_year_1_is_refused() -> None:
    result = CliRunner().invoke(main, ["prune", "--errors-older-than", "999999w"])
    assert (result.exit_code, result.output) == (2, "error: --errors-older-than: that is before the year 1\n")


@pytest.mark.long
def test_a_database_that_is_away_is_told_in_one_line(start: Start) -> None:
    url = f"postgresql://u:{PASSWORD}@127.0.0.1:{free_port()}/x"
    process = start("prune", "--errors-older-than", "1d", DATABASE__URL=url)
    *_, last = printed(process, 1)
    assert last.startswith("Error: the database does not do it: ")
    assert last.endswith("what was done stays done, run it again")
    assert PASSWORD not in process.output


@pytest.mark.long
def test_a_database_without_schema_is_refused(start: Start, sqlite_url: str) -> None:
    process = start("prune", "--older-than", "1d", DATABASE__URL=sqlite_url)
    assert "migrate" in printed(process, 2)[-1]


def test_told_to_stop_it_ends_after_the_page_in_hand_and_the_next_run_goes_on(
    start: Start, postgresql_url: str
) -> None:
    fill_with_old(postgresql_url, 450)
    with deleting_hits_kept_waiting(postgresql_url):
        process = start("prune", "--older-than", "60d", DATABASE__URL=postgresql_url)
        eventually(lambda: waiting_for_locks(postgresql_url), 30, "prune is in the middle of a page")
        process.signal(signal.SIGTERM)
    assert printed(process, 128 + signal.SIGTERM)[:2] == ["deleted from report 200", "deleted from rule_hit 200"]
    assert counts(postgresql_url, "report", "rule_hit", "report_info") == [250, 250, 250]
    second = start("prune", "--older-than", "60d", DATABASE__URL=postgresql_url)
    assert printed(second)[0] == "deleted from report 250"


@pytest.mark.long
def test_an_outage_in_the_middle_leaves_whole_pages_and_the_next_run_goes_on(start: Start, postgresql_url: str) -> None:
    fill_with_old(postgresql_url, 250)
    with deleting_hits_kept_waiting(postgresql_url):
        process = start("prune", "--older-than", "60d", DATABASE__URL=postgresql_url)
        eventually(lambda: waiting_for_locks(postgresql_url), 30, "prune is in the middle of a page")
        name = "aggregator-consumer prune"
        execute(
            postgresql_url,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'",
        )
        lines = printed(process, 1)
    assert lines[0] == "deleted from report 0"
    assert lines[-1].startswith("Error: the database does not do it: ")
    assert counts(postgresql_url, "report", "rule_hit") == [250, 250]
    assert printed(start("prune", "--older-than", "60d", DATABASE__URL=postgresql_url))[0] == (
        "deleted from report 250"
    )


@pytest.mark.long
def test_a_server_that_does_not_answer_is_given_up_and_pages_are_whole(
    start: Start, own_postgresql: PostgresqlServer
) -> None:
    with own_postgresql.database() as url:
        fill_with_old(url, 250)
        with deleting_hits_kept_waiting(url):
            process = start("prune", "--older-than", "60d", DATABASE__URL=url, DATABASE__STATEMENT_TIMEOUT="5")
            eventually(lambda: waiting_for_locks(url), 30, "prune is in the middle of a page")
            with own_postgresql.frozen():
                lines = printed(process, 1)
        assert lines[-1].startswith("Error: the database does not do it: no answer for 10 s")
        eventually(lambda: counts(url, "report", "rule_hit") == [250, 250], what="the page is undone")
