"""The commands `prune` and `status` of `aggregator-consumer` as an operator has them (`docs/chores.md`)."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from click.testing import CliRunner, Result
from kafka import KafkaAdminClient

from consumer_service.cli import main
from examples.demo.ports import free_port
from libaggregator.clock import utc_now
from tests.storage.test_prune import add, add_cluster
from tests.support.brokers import AnyBroker, EmbeddedTestBroker
from tests.support.databases import migrate_database, open_database
from tests.support.deployment import Deployment
from tests.support.kafka import ApacheKafka
from tests.support.messages import CLUSTERS, payload
from tests.support.postgresql import PostgresqlServer, waiting_for_locks
from tests.support.processes import REPOSITORY, Process, Processes
from tests.support.redis import RedisServer
from tests.support.roles import execute
from tests.support.topics import fresh_name
from tests.support.waiting import eventually

CLI = [sys.executable, "-m", "consumer_service.cli"]
PASSWORD = "s3cr3t"
DAY = timedelta(days=1)

Start = Callable[..., Process]


@pytest.fixture
def start(processes: Processes) -> Start:
    """Return a function that starts a command with settings, named as variables without their prefix."""

    def start_command(*command: str, **settings: str) -> Process:
        environment = {f"AGGREGATOR_{name}": value for name, value in settings.items()}
        return processes.start(command[0], [*CLI, *command], environment)

    return start_command


@pytest.fixture
def migrated(database_url: str) -> str:
    """Return the URL of a migrated database, on each engine in turn."""
    return migrate_database(database_url)


@pytest.fixture
def sqlite(sqlite_url: str) -> str:
    """Return the URL of a migrated SQLite database."""
    return migrate_database(sqlite_url)


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


def printed(process: Process, status: int = 0) -> list[str]:
    """Wait for the end of a process and return its lines, each with single spaces."""
    assert process.wait_exit() == status, process.output
    return [" ".join(line.split()) for line in process.output.splitlines()]


class TestPrune:
    def test_what_is_older_goes_and_a_dry_run_says_the_same_before(self, start: Start, migrated: str) -> None:
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

    def test_without_a_limit_and_without_a_terminal_it_refuses(self, start: Start, sqlite: str) -> None:
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
        self, sqlite: str, answers: str, status: int, left: list[int]
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
    def test_what_is_no_length_of_time_is_named(self, value: str) -> None:
        result = CliRunner().invoke(main, ["prune", f"--older-than={value}"])
        assert result.exit_code == 2
        expected = f"Invalid value for '--older-than': {value!r}: expected a number from 1 to 999999"
        assert expected in result.output

    @pytest.mark.parametrize("option", ["--older-than", "--errors-older-than"])
    def test_a_limit_that_is_given_twice_is_refused(self, option: str) -> None:
        result = CliRunner().invoke(main, ["prune", option, "60d", f"{option}=1d"])
        assert result.exit_code == 2
        assert f"Invalid value for '{option}': given 2 times, expected once" in result.output

    def test_a_read_only_database_is_told_in_one_line(self, start: Start, postgresql_url: str) -> None:
        fill(migrate_database(postgresql_url), [61 * DAY])
        read_only = f"{postgresql_url}?options=-c%20default_transaction_read_only%3Don"
        expected = "Error: the database is read-only, as a replica is: database.url has to name the primary"
        assert printed(start("prune", "--older-than", "60d", DATABASE__URL=read_only), 1)[-1] == expected
        assert counts(postgresql_url, "report") == [1]

    @pytest.mark.long
    def test_so_it_and_import_are_on_a_replica(
        self, start: Start, own_postgresql: PostgresqlServer, tmp_path: Path
    ) -> None:
        url = migrate_database(own_postgresql.create_database())
        fill(url, [61 * DAY])
        file = tmp_path / "export.jsonl"
        assert printed(start("export", str(file), DATABASE__URL=url))
        own_postgresql.demote()
        expected = "Error: the database is read-only, as a replica is: database.url has to name the primary"
        assert printed(start("prune", "--older-than", "60d", DATABASE__URL=url), 1)[-1] == expected
        imported = start("import", "--merge", str(file), DATABASE__URL=url)
        assert printed(imported, 1) == [f"{expected}; nothing was written"]

    def test_a_time_before_the_year_1_is_refused(self) -> None:
        result = CliRunner().invoke(main, ["prune", "--errors-older-than", "999999w"])
        assert (result.exit_code, result.output) == (2, "error: --errors-older-than: that is before the year 1\n")

    @pytest.mark.long
    def test_a_database_that_is_away_is_told_in_one_line(self, start: Start) -> None:
        url = f"postgresql://u:{PASSWORD}@127.0.0.1:{free_port()}/x"
        process = start("prune", "--errors-older-than", "1d", DATABASE__URL=url)
        *_, last = printed(process, 1)
        assert last.startswith("Error: the database does not do it: ")
        assert last.endswith("what was done stays done, run it again")
        assert PASSWORD not in process.output

    @pytest.mark.long
    def test_a_database_without_schema_is_refused(self, start: Start, sqlite_url: str) -> None:
        process = start("prune", "--older-than", "1d", DATABASE__URL=sqlite_url)
        assert "migrate" in printed(process, 2)[-1]

    def test_told_to_stop_it_ends_after_the_page_in_hand_and_the_next_run_goes_on(
        self, start: Start, postgresql_url: str
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
    def test_an_outage_in_the_middle_leaves_whole_pages_and_the_next_run_goes_on(
        self, start: Start, postgresql_url: str
    ) -> None:
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


@contextmanager
def deleting_hits_kept_waiting(url: str) -> Iterator[None]:
    """Keep whoever deletes hits waiting in the middle of a transaction."""
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE rule_hit IN SHARE MODE")
            yield
    finally:
        connection.close()


class TestStatus:
    def test_lag_and_dead_letters_are_told_without_joining_the_group(
        self, embedded_broker: EmbeddedTestBroker, processes: Processes, sqlite: str, start: Start
    ) -> None:
        check_lag_and_letters(embedded_broker, processes, sqlite, start)

    @pytest.mark.long
    def test_so_they_are_on_apache_kafka(
        self, apache_kafka: ApacheKafka, processes: Processes, sqlite: str, start: Start
    ) -> None:
        group = check_lag_and_letters(apache_kafka, processes, sqlite, start)
        client = KafkaAdminClient(bootstrap_servers=apache_kafka.bootstrap)
        try:
            (found,) = client.describe_groups([group]).values()
        finally:
            client.close()
        assert found["members"] == []

    def test_a_broker_that_is_away_is_said_and_the_database_is_told_all_the_same(
        self, start: Start, sqlite: str
    ) -> None:
        fill(sqlite, [DAY])
        broker = f"127.0.0.1:{free_port()}"
        process = start("status", DATABASE__URL=sqlite, KAFKA__BOOTSTRAP_SERVERS=broker)
        lines = printed(process, 1)
        assert "report 1" in lines
        assert "topic ccx.ocp.results, group aggregator, lag ?" in lines
        (problem,) = [line for line in lines if line.startswith("Error: ")]
        assert problem.startswith(f"Error: source: can't connect to {broker}")

    @pytest.mark.long
    def test_a_database_that_is_away_is_said_and_the_broker_is_told_all_the_same(
        self, start: Start, embedded_broker: EmbeddedTestBroker
    ) -> None:
        topic = embedded_broker.create_topic(fresh_name("results"))
        process = start(
            "status",
            DATABASE__URL=f"postgresql://u:{PASSWORD}@127.0.0.1:{free_port()}/x",
            KAFKA__BOOTSTRAP_SERVERS=embedded_broker.bootstrap,
            KAFKA__TOPIC=topic,
            KAFKA__DEAD_LETTER_TOPIC="no-such-topic",
        )
        lines = printed(process, 1)
        assert f"topic {topic}, group aggregator, lag 0" in lines
        assert [line for line in lines if line.startswith("Error: ")][1:] == [
            "Error: dead_letters: topic 'no-such-topic' does not exist"
        ]
        assert PASSWORD not in process.output

    def test_another_source_has_no_lag(self, sqlite: str) -> None:
        found = status_as_json({"DATABASE__URL": sqlite, "CONSUMER__SOURCE": "file", "FILE__PATH": str(Path(__file__))})
        nothing = dict.fromkeys(("topic", "group", "lag", "pending", "partitions"))
        assert found["source"] == {"name": "file", **nothing}
        assert found["problems"] == []

    def test_of_a_stream_lag_pending_entries_and_dead_letters_are_told_and_none_is_taken(
        self, redis_server: RedisServer, sqlite: str
    ) -> None:
        stream, letters, group = fresh_name("results"), fresh_name("rejected"), fresh_name("group")
        settings = {"DATABASE__URL": sqlite, "REDIS__DEAD_LETTER_STREAM": letters}
        settings |= redis_server.consumer_settings(stream, group)

        def source_and_letters() -> tuple[object, object]:
            found = status_as_json(settings)
            assert found["problems"] == []
            return [found["source"][key] for key in ("topic", "group", "lag", "pending")], found["dead_letters"][
                "topic"
            ]

        redis_server.produce(stream, [payload()] * 5)
        assert source_and_letters() == ([stream, group, 5, 0], {"name": letters, "records": 0})
        redis_server.client.xgroup_create(stream, group, "0")
        redis_server.client.xreadgroup(group, "somebody", {stream: ">"}, count=2)
        redis_server.produce(letters, [b"bad"])
        for _ in range(2):
            assert source_and_letters() == ([stream, group, 3, 2], {"name": letters, "records": 1})

    def test_a_stream_that_does_not_exist_and_a_server_that_is_away_are_said(
        self, redis_server: RedisServer, sqlite: str
    ) -> None:
        settings = {"DATABASE__URL": sqlite, **redis_server.consumer_settings(fresh_name("missing"), "aggregator")}
        (problem,) = status_as_json(settings, 1)["problems"]
        assert problem == {"part": "source", "problem": f"stream {settings['REDIS__STREAM']!r} does not exist"}
        settings["REDIS__URL"] = f"redis://u:{PASSWORD}@127.0.0.1:{free_port()}"
        (problem,) = status_as_json(settings, 1)["problems"]
        assert problem["part"] == "source"
        assert "refused" in problem["problem"]
        assert PASSWORD not in problem["problem"]

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"KAFKA__BOOTSTRAP_SERVERS": "nowhere"}, "kafka.bootstrap_servers: expected HOST:PORT, got 'nowhere'"),
            ({"CONSUMER__SOURCE": "nope"}, "consumer.source: no source named 'nope'"),
            ({"CONSUMER__SOURCE": "redis", "REDIS__URL": "bad"}, "redis.url: expected redis://"),
            ({"CONSUMER__SOURCE": "file"}, "file.path"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_settings_of_a_source_that_can_not_work_are_refused(
        self, sqlite: str, settings: dict[str, str], said: str
    ) -> None:
        result = run_status({"DATABASE__URL": sqlite, **settings})
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr


@pytest.mark.long
class TestFrozenServer:
    """Nothing is waited for without end: neither a timer nor an operator would hear of it."""

    def test_prune_gives_up_and_leaves_whole_pages(self, start: Start, own_postgresql: PostgresqlServer) -> None:
        with own_postgresql.database() as url:
            fill_with_old(url, 250)
            with deleting_hits_kept_waiting(url):
                process = start("prune", "--older-than", "60d", DATABASE__URL=url, DATABASE__STATEMENT_TIMEOUT="5")
                eventually(lambda: waiting_for_locks(url), 30, "prune is in the middle of a page")
                with own_postgresql.frozen():
                    lines = printed(process, 1)
            assert lines[-1].startswith("Error: the database does not do it: no answer for 10 s")
            eventually(lambda: counts(url, "report", "rule_hit") == [250, 250], what="the page is undone")

    def test_status_says_so_and_tells_of_the_source(
        self, own_postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("consumer_service.status.command.SCAN_SECONDS", 1)
        with own_postgresql.database() as url, ThreadPoolExecutor(1) as pool:
            migrate_database(url)
            environment = {"DATABASE__URL": url, "CONSUMER__SOURCE": "file", "FILE__PATH": str(Path(__file__))}
            with psycopg2.connect(url) as connection, connection.cursor() as cursor:
                cursor.execute("LOCK TABLE report")
                running = pool.submit(run_status, environment)
                eventually(lambda: waiting_for_locks(url), 30, "it counts")
                with own_postgresql.frozen():
                    result = running.result(60)
            connection.close()
        assert (result.exit_code, result.stdout.splitlines()[:3]) == (1, ["database  ?", "", "source  file"])
        assert result.stderr.startswith("Error: database: no answer for 6 s")


def run_status(settings: Mapping[str, str], *options: str) -> Result:
    environment = {f"AGGREGATOR_{name}": value for name, value in settings.items()}
    return CliRunner().invoke(main, ["status", *options], env=environment)


def status_as_json(settings: Mapping[str, str], status: int = 0) -> Any:
    result = run_status(settings, "--json")
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def check_lag_and_letters(broker: AnyBroker, processes: Processes, url: str, start: Start) -> str:
    """Consume a part of a topic, look at the status, and return the name of the group."""
    deployment = Deployment(processes, broker, url)
    broker.create_topic(deployment.topic, partitions=1)
    letters = broker.create_topic(fresh_name("rejected"), partitions=1)
    broker.produce(deployment.topic, [payload(CLUSTERS[0]), b"bad", payload(CLUSTERS[1])])
    consumer = deployment.start_consumer(KAFKA__DEAD_LETTER_TOPIC=letters)
    # before that there may be no coordinator to ask
    deployment.wait_for_rows("report", 2)
    eventually(lambda: broker.committed(deployment.group, deployment.topic).get(0) == 3, 60, "all is committed")
    assert consumer.process.stop() == 0
    broker.produce(deployment.topic, [payload(CLUSTERS[2])] * 2)
    settings = {name.removeprefix("AGGREGATOR_"): value for name, value in deployment.environment.items()}
    process = start("status", "--json", **settings, KAFKA__DEAD_LETTER_TOPIC=letters)
    found: dict[str, Any] = json.loads("\n".join(printed(process)))
    assert found["source"] == {
        "name": "kafka",
        "topic": deployment.topic,
        "group": deployment.group,
        "lag": 2,
        "pending": None,
        "partitions": [{"partition": 0, "committed": 3, "end": 5, "lag": 2}],
    }
    assert found["dead_letters"] == {
        "consumer_error": {"rows": 1, "exact": True},
        "topic": {"name": letters, "records": 1},
    }
    assert found["database"]["rejected_last_hour"] == {"not_json": 1}
    assert found["database"]["tables"]["report"] == {"rows": 2, "exact": True}
    assert found["problems"] == []
    for time in (found["time"], found["database"]["newest_result"], found["database"]["oldest_result"]):
        assert time.endswith("Z")
        assert abs(datetime.fromisoformat(time[:-1]) - utc_now()) < timedelta(hours=1)
    return deployment.group
