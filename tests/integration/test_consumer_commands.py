"""The command `aggregator-consumer` as an operator has it: real processes, their output and their exit status."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from peewee import Database

from examples.demo.ports import free_port
from libaggregator.admin import ask
from libaggregator.storage.schema import check_schema, migrate
from tests.support.brokers import EmbeddedTestBroker
from tests.support.commands import Start
from tests.support.databases import open_database
from tests.support.messages import CLUSTERS, HitSpec, payload
from tests.support.processes import REPOSITORY, Process, Processes
from tests.support.topics import fresh_name
from tests.support.waiting import eventually

BAD_MESSAGES = REPOSITORY / "tests" / "contract" / "dataset" / "bad_messages.jsonl"
REASONS = {
    "not_json": 15,
    "bad_compression": 1,
    "missing_attribute": 10,
    "bad_attribute": 24,
    "from_the_future": 1,
    "bad_report": 16,
}
UNPRIVILEGED = 65534
STEPS = ["0001_schema_32", "0002_bigint", "0003_read_indexes", "0004_room_for_updates"]
PASSWORD = "s3cr3t"


@pytest.fixture
def messages(tmp_path: Path) -> str:
    """Return the name of a file with three messages, the last of them useless."""
    file = tmp_path / "messages.jsonl"
    file.write_bytes(b"\n".join([payload(CLUSTERS[0], org_id=1), payload(CLUSTERS[1], org_id=2), b"not a message"]))
    return str(file)


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = open_database(url)
    try:
        yield database
    finally:
        database.close()


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    with opened(url) as database:
        rows: list[tuple[Any, ...]] = database.execute_sql(statement).fetchall()
    return rows


def log_of(process: Process) -> list[dict[str, Any]]:
    """Return the events that a process logged as JSON."""
    return [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]


def assert_refused(process: Process, *said: str) -> None:
    """Expect exit status 2, and one line that says why."""
    assert process.wait_exit() == 2, process.output
    (line,) = [line for line in process.output.splitlines() if not line.startswith("{")]
    assert line.startswith("error: ")
    for text in said:
        assert text in line


class TestMigrate:
    def test_it_makes_the_tables_and_says_what_it_did(self, start: Start, database_url: str) -> None:
        first = start("migrate", DATABASE__URL=database_url)
        assert first.wait_exit() == 0
        printed = [line for line in first.output.splitlines() if not line.startswith("{")]
        assert printed == [*(f"done: {step}" for step in STEPS), "the schema is up to date"]
        with opened(database_url) as database:
            assert check_schema(database) == []
        second = start("migrate", DATABASE__URL=database_url)
        assert second.wait_exit() == 0
        assert second.output.splitlines() == ["the schema is up to date"]

    def test_a_database_of_another_version_is_refused(self, start: Start, sqlite: str) -> None:
        query(sqlite, "UPDATE migration_info SET version = 31 RETURNING version")
        assert_refused(start("migrate", DATABASE__URL=sqlite), "found schema version 31, needs 32")

    def test_a_bad_url_is_refused_without_its_password(self, start: Start) -> None:
        process = start("migrate", DATABASE__URL=f"mysql://user:{PASSWORD}@host/name")
        assert_refused(process, "database.url: ", "mysql://user:***@host/name")

    def test_a_database_that_is_away_is_told_in_one_line(self, start: Start, tmp_path: Path) -> None:
        urls = [f"postgresql://u:{PASSWORD}@127.0.0.1:{free_port()}/x", f"sqlite:///{tmp_path}/no/such/folder/x.db"]
        for process in [start("migrate", DATABASE__URL=url) for url in urls]:
            assert process.wait_exit() == 1
            (line,) = process.output.splitlines()
            assert line.startswith("Error: the database does not do it: ")
            assert PASSWORD not in line


class TestConfig:
    def test_it_prints_what_is_in_force_and_from_where_and_masks_secrets(self, start: Start, tmp_path: Path) -> None:
        file = tmp_path / "settings.toml"
        file.write_text('[kafka]\ntopic = "t"\n[api]\nunknown_here = 1\n')
        secrets = tmp_path / "secrets"
        secrets.mkdir()
        (secrets / "kafka.sasl_password").write_text(PASSWORD)
        settings = {
            "SECRETS_DIR": str(secrets),
            "DATABASE__URL": f"postgresql://user:{PASSWORD}@db/name?password={PASSWORD}",
        }
        process = start("config", "--config", str(file), **settings)
        assert process.wait_exit() == 0
        assert PASSWORD not in process.output
        lines = [" ".join(line.split()) for line in process.output.splitlines()]
        for line in (
            "[kafka]",
            f'topic = "t" # {file}',
            f"sasl_password = '***' # {secrets}/kafka.sasl_password",
            'url = "postgresql://user:***@db/name?password=***" # environment AGGREGATOR_DATABASE__URL',
            'group = "aggregator" # default',
        ):
            assert line in lines

    def test_the_file_can_be_named_by_a_variable(self, start: Start, tmp_path: Path) -> None:
        file = tmp_path / "settings.toml"
        file.write_text('[kafka]\ntopic = "t"\n')
        process = start("config", CONFIG=str(file))
        assert process.wait_exit() == 0
        assert f"# {file}" in process.output

    def test_every_bad_setting_has_a_line(self, start: Start) -> None:
        process = start("config", CONSUMER__MAX_BATCH="0", CONSUMER__NO_SUCH_THING="1")
        assert process.wait_exit() == 2
        assert process.output.splitlines() == [
            "error: consumer.max_batch: expected an integer from 1 to 100000, got 0"
            " (environment AGGREGATOR_CONSUMER__MAX_BATCH)",
            "error: consumer.no_such_thing: unknown setting (environment AGGREGATOR_CONSUMER__NO_SUCH_THING)",
        ]


class TestHealth:
    def test_without_a_process_it_is_1(self, start: Start) -> None:
        port = free_port()
        process = start("health", CONSUMER__ADMIN_PORT=str(port))
        assert process.wait_exit() == 1
        assert process.output.startswith(f"no answer from 127.0.0.1:{port}: ")

    def test_with_a_process_that_is_well_it_is_0(
        self, start: Start, sqlite: str, embedded_broker: EmbeddedTestBroker
    ) -> None:
        settings = {
            "CONSUMER__ADMIN_HOST": "0.0.0.0",
            "CONSUMER__ADMIN_PORT": str(free_port()),
            "DATABASE__URL": sqlite,
            "KAFKA__BOOTSTRAP_SERVERS": embedded_broker.bootstrap,
            "KAFKA__TOPIC": embedded_broker.create_topic(fresh_name()),
            "KAFKA__GROUP": fresh_name("group"),
            "KAFKA__SESSION_TIMEOUT": "2",
        }
        consumer = start("run", **settings)
        port = int(settings["CONSUMER__ADMIN_PORT"])
        eventually(lambda: ask("127.0.0.1", port, "/readyz", 5)[0], 30, "the consumer is ready")
        for process in (start("health", **settings), start("health", "--live", **settings)):
            assert process.wait_exit() == 0
            assert json.loads(process.output)["status"] == "ok"
        assert consumer.stop() == 0

    def test_with_a_process_that_lives_in_an_outage_it_is_1_and_with_live_0(self, start: Start, messages: str) -> None:
        settings = {
            "CONSUMER__ADMIN_PORT": str(free_port()),
            "CONSUMER__SOURCE": "file",
            "FILE__PATH": messages,
            "DATABASE__URL": f"postgresql://user:{PASSWORD}@127.0.0.1:{free_port()}/name",
        }
        consumer = start("run", **settings)
        consumer.wait_for_log("database unavailable")
        ready, live = start("health", **settings), start("health", "--live", **settings)
        assert (ready.wait_exit(), live.wait_exit()) == (1, 0)
        answer = json.loads(ready.output)
        assert answer["status"] == "failed"
        assert "refused" in answer["checks"]["database"]
        assert consumer.stop() == 0
        assert consumer.output.count("database unavailable") == 1
        assert "Traceback" not in consumer.output
        assert PASSWORD not in consumer.output + ready.output


class TestRefusedStart:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            pytest.param({"CONSUMER__MAX_BATCH": "0"}, ["consumer.max_batch: expected an integer"], id="range"),
            pytest.param({"CONSUMER__MAX_BATHC": "5"}, ["consumer.max_bathc: unknown setting"], id="unknown name"),
            pytest.param({"CONSUMER__MAX_FUTURE_SKEW": "inf"}, ["consumer.max_future_skew"], id="endless seconds"),
            pytest.param({"CONSUMER__SOURCE": "carrier pigeon"}, ["consumer.source", "carrier pigeon"], id="source"),
            pytest.param({"CONSUMER__SOURCE": "file"}, ["file.path"], id="file source without a path"),
            pytest.param(
                {"CONSUMER__SOURCE": "file", "FILE__PATH": "/no/such/file"}, ["/no/such/file"], id="missing messages"
            ),
            pytest.param(
                {"CONSUMER__ENABLE_ORG_ALLOWLIST": "true"}, ["consumer.org_allowlist: no file named"], id="no allowlist"
            ),
            pytest.param(
                {"CONSUMER__ENABLE_ORG_ALLOWLIST": "true", "CONSUMER__ORG_ALLOWLIST": "/no/such/list"},
                ["consumer.org_allowlist: /no/such/list: No such file"],
                id="missing allowlist",
            ),
            pytest.param(
                {"DATABASE__URL": f"mysql://user:{PASSWORD}@host/name"},
                ["database.url: expected", "mysql://user:***@host/name"],
                id="URL",
            ),
        ],
    )
    def test_a_bad_setting(self, start: Start, sqlite: str, settings: dict[str, str], said: list[str]) -> None:
        process = start("run", **{"DATABASE__URL": sqlite, **settings})
        assert_refused(process, *said)
        assert PASSWORD not in process.output

    def test_a_bad_line_of_the_allowlist(self, start: Start, sqlite: str, tmp_path: Path) -> None:
        file = tmp_path / "organizations.csv"
        file.write_text("OrgID\n1\ntwo\n")
        settings = {"CONSUMER__ENABLE_ORG_ALLOWLIST": "true", "CONSUMER__ORG_ALLOWLIST": str(file)}
        assert_refused(start("run", DATABASE__URL=sqlite, **settings), f"{file}, line 3", "'two'")

    def test_a_missing_sqlite_file_which_is_not_made(self, start: Start, tmp_path: Path, messages: str) -> None:
        settings = {"CONSUMER__SOURCE": "file", "FILE__PATH": messages}
        missing = tmp_path / "missing.db"
        process = start("run", DATABASE__URL=f"sqlite:///{missing}", **settings)
        assert_refused(process, str(missing), "run `aggregator-consumer migrate` first")
        assert not missing.exists()

    def test_a_database_without_a_schema(self, start: Start, database_url: str, messages: str) -> None:
        query(database_url, "SELECT 1")
        process = start("run", DATABASE__URL=database_url, CONSUMER__SOURCE="file", FILE__PATH=messages)
        assert_refused(process, "no schema yet; run `aggregator-consumer migrate` first")
        with opened(database_url) as database:
            assert database.get_tables() == []

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ("UPDATE migration_info SET version = 31 RETURNING 1", "found schema version 31, needs 32"),
            ("UPDATE migration_info SET version = 33 RETURNING 1", "found schema version 33, newer"),
            ("INSERT INTO migration_info VALUES (32) RETURNING 1", "2 rows"),
        ],
    )
    def test_another_version_of_the_schema(
        self, start: Start, sqlite: str, messages: str, change: str, said: str
    ) -> None:
        query(sqlite, change)
        process = start("run", DATABASE__URL=sqlite, CONSUMER__SOURCE="file", FILE__PATH=messages)
        assert_refused(process, said)
        assert query(sqlite, "SELECT count(*) FROM report") == [(0,)]

    def test_a_database_that_the_server_does_not_have(self, start: Start, postgresql_url: str) -> None:
        assert_refused(
            start("run", DATABASE__URL=f"{postgresql_url}_not"), "the database can't be used", "does not exist"
        )

    def test_a_port_that_is_taken(self, start: Start, sqlite: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            process = start("run", DATABASE__URL=sqlite, CONSUMER__ADMIN_PORT=str(port))
            assert_refused(process, f"consumer.admin_port: can't listen on 127.0.0.1:{port}", "in use")


class TestRun:
    def test_messages_of_a_file_are_stored_and_the_end_of_it_is_the_end(
        self, start: Start, migrated: str, messages: str
    ) -> None:
        process = start("run", DATABASE__URL=migrated, CONSUMER__SOURCE="file", FILE__PATH=messages)
        assert process.wait_exit() == 0
        assert query(migrated, "SELECT org_id, cluster FROM report ORDER BY org_id") == [
            (1, CLUSTERS[0]),
            (2, CLUSTERS[1]),
        ]
        assert query(migrated, "SELECT topic, topic_offset, message FROM consumer_error") == [
            (messages, 2, "not a message")
        ]
        texts = [event["event"] for event in log_of(process)]
        assert texts == ["consumer started", "message rejected", "batch done", "all files are read", "consumer stopped"]

    def test_all_kinds_of_payloads_have_their_outcome(self, start: Start, migrated: str, tmp_path: Path) -> None:
        folder = tmp_path / "payloads"
        folder.mkdir()
        cases = {}
        for number, line in enumerate(BAD_MESSAGES.read_text(encoding="utf-8").splitlines()):
            case = json.loads(line)
            file = folder / f"{number:03}.json"
            file.write_bytes(base64.b64decode(case["payload_b64"]))
            cases[str(file)] = case
        process = start("run", DATABASE__URL=migrated, CONSUMER__SOURCE="file", FILE__PATH=str(folder))
        assert process.wait_exit() == 0
        rejected = dict(query(migrated, "SELECT topic, error FROM consumer_error"))
        expected = {file: case["name"] for file, case in cases.items() if case["expect"] == "rejected"}
        assert {file: cases[file]["name"] for file in rejected} == expected
        assert Counter(error.partition(": ")[0] for error in rejected.values()) == REASONS
        assert query(migrated, "SELECT count(*) FROM report") == [(38,)]
        done = [event for event in log_of(process) if event["event"] == "batch done"]
        assert {name: sum(event[name] for event in done) for name in ("stored", "skipped", "rejected")} == {
            "stored": 38,
            "skipped": 1,
            "rejected": 67,
        }

    def test_the_same_messages_again_are_stale(self, start: Start, sqlite: str, messages: str) -> None:
        settings = {"DATABASE__URL": sqlite, "CONSUMER__SOURCE": "file", "FILE__PATH": messages}
        assert start("run", **settings).wait_exit() == 0
        before = query(sqlite, "SELECT * FROM report")
        again = start("run", **settings)
        assert again.wait_exit() == 0
        assert query(sqlite, "SELECT * FROM report") == before
        (done,) = [event for event in log_of(again) if event["event"] == "batch done"]
        assert (done["stored"], done["skipped"], done["rejected"]) == (0, 2, 1)

    def test_an_allowlist_of_nobody_is_warned_about_once_and_stores_nothing(
        self, start: Start, sqlite: str, messages: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "organizations.csv"
        file.write_text("OrgID\n")
        settings = {"CONSUMER__ENABLE_ORG_ALLOWLIST": "true", "CONSUMER__ORG_ALLOWLIST": str(file)}
        process = start("run", DATABASE__URL=sqlite, CONSUMER__SOURCE="file", FILE__PATH=messages, **settings)
        assert process.wait_exit() == 0
        (warning,) = [event for event in log_of(process) if "allowlist" in event["event"]]
        assert (warning["level"], warning["file"]) == ("warning", str(file))
        assert query(sqlite, "SELECT count(*) FROM report") == [(0,)]
        # only what is no message at all
        assert query(sqlite, "SELECT topic_offset FROM consumer_error") == [(2,)]

    def test_only_organizations_of_the_allowlist_are_stored(
        self, start: Start, sqlite: str, messages: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "organizations.csv"
        file.write_text("OrgID,name\n2,second\n")
        settings = {"CONSUMER__ENABLE_ORG_ALLOWLIST": "true", "CONSUMER__ORG_ALLOWLIST": str(file)}
        process = start("run", DATABASE__URL=sqlite, CONSUMER__SOURCE="file", FILE__PATH=messages, **settings)
        assert process.wait_exit() == 0
        assert query(sqlite, "SELECT org_id FROM report") == [(2,)]

    def test_a_database_of_an_existing_deployment_is_used_with_one_warning(
        self, start: Start, migrated: str, messages: str
    ) -> None:
        with opened(migrated) as database:
            database.execute_sql("DROP TABLE aggregator_migration")
        process = start("run", DATABASE__URL=migrated, CONSUMER__SOURCE="file", FILE__PATH=messages)
        assert process.wait_exit() == 0
        (warning,) = [event for event in log_of(process) if "aggregator-consumer migrate" in event["event"]]
        assert (warning["level"], warning["missing"]) == ("warning", STEPS)
        assert query(migrated, "SELECT count(*) FROM report") == [(2,)]


class TestStop:
    """The process is in the middle of a batch, since somebody keeps the table to himself."""

    @pytest.fixture
    def url(self, postgresql_url: str) -> str:
        with opened(postgresql_url) as database:
            migrate(database)
        return postgresql_url

    @pytest.fixture
    def lock(self, url: str) -> Iterator[Any]:
        connection = psycopg2.connect(url)
        connection.cursor().execute("LOCK TABLE report IN EXCLUSIVE MODE")
        yield connection
        connection.close()

    @pytest.fixture
    def consumer(self, start: Start, url: str, lock: Any, messages: str) -> Process:
        """Return a consumer that waits for the table."""
        settings = {"CONSUMER__SOURCE": "file", "FILE__PATH": messages, "CONSUMER__SHUTDOWN_TIMEOUT": "20"}
        return self.started(start, url, settings)

    def started(self, start: Start, url: str, settings: dict[str, str]) -> Process:
        process = start("run", DATABASE__URL=url, **settings)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            " AND application_name = 'aggregator-consumer'"
        )
        eventually(lambda: query(url, waiting) == [(1,)], 20, "the consumer waits for the table")
        return process

    def test_the_batch_in_hand_is_finished(self, consumer: Process, url: str, lock: Any) -> None:
        consumer.signal(signal.SIGTERM)
        with pytest.raises(AssertionError, match="still running"):
            consumer.wait_exit(1.5)
        lock.rollback()
        assert consumer.wait_exit() == 0
        assert query(url, "SELECT count(*) FROM report") == [(2,)]
        assert [event["event"] for event in log_of(consumer)][-3:] == [
            "batch done",
            "all files are read",
            "consumer stopped",
        ]

    def test_ctrl_c_is_no_different(self, consumer: Process, url: str, lock: Any) -> None:
        consumer.signal(signal.SIGINT)
        lock.rollback()
        assert consumer.wait_exit() == 0
        assert query(url, "SELECT count(*) FROM report") == [(2,)]
        assert "Traceback" not in consumer.output

    def test_a_second_signal_ends_at_once(self, consumer: Process, url: str) -> None:
        consumer.signal(signal.SIGTERM)
        # it is heard when the first one is done with
        eventually(lambda: _is_default(consumer, signal.SIGTERM), 10, "the first signal is heard")
        consumer.signal(signal.SIGTERM)
        assert consumer.wait_exit(5) == -signal.SIGTERM

    def test_a_batch_that_takes_too_long_is_given_up(self, start: Start, url: str, lock: Any, messages: str) -> None:
        settings = {"CONSUMER__SOURCE": "file", "FILE__PATH": messages, "CONSUMER__SHUTDOWN_TIMEOUT": "0.3"}
        consumer = self.started(start, url, settings)
        assert consumer.stop() == 0
        assert "it will come again" in consumer.output
        lock.rollback()
        with opened(url) as database:
            still_there = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'aggregator-consumer'"
            eventually(lambda: database.execute_sql(still_there).fetchone() == (0,), 10, "its session has ended")
        assert query(url, "SELECT count(*) FROM report") == [(0,)]


def _is_default(process: Process, number: int) -> bool:
    """Whether a signal would end a process, told from the mask of those that it catches (Linux)."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return True
    (caught,) = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt:")]
    return not int(caught, 16) >> (number - 1) & 1


class TestUnprivileged:
    """Not root, and nothing can be written but the folder of the SQLite file."""

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        """Yield a folder that everybody may enter, which those of pytest are not."""
        folder = Path(tempfile.mkdtemp(prefix="aggregator-unprivileged-"))
        folder.chmod(0o755)
        yield folder
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(folder)

    @pytest.fixture
    def project(self, folder: Path) -> Path:
        """Return a copy of the packages that nobody may write."""
        project = folder / "project"
        for package in ("libaggregator", "consumer_service"):
            shutil.copytree(REPOSITORY / package, project / package, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (project, *project.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        return project

    def test_the_consumer_needs_to_write_nothing_but_its_database(
        self, processes: Processes, folder: Path, project: Path
    ) -> None:
        data = folder / "data"
        data.mkdir()
        messages = folder / "messages.jsonl"
        messages.write_bytes(payload(hits=[HitSpec("a.report", "K")]))
        messages.chmod(0o444)
        python = self._python_of_somebody_else(data)
        before = sorted(project.rglob("*"))
        environment = {
            "AGGREGATOR_DATABASE__URL": f"sqlite:///{data}/aggregator.db",
            "AGGREGATOR_CONSUMER__SOURCE": "file",
            "AGGREGATOR_FILE__PATH": str(messages),
            "AGGREGATOR_CONSUMER__ADMIN_PORT": "0",
            "HOME": "/nonexistent",
            "PYTHONPATH": sysconfig.get_path("purelib"),
        }
        for command in ("migrate", "run"):
            log = folder / f"{command}.log"
            process = Process(command, [*python, "-m", "consumer_service.cli", command], log, environment, project)
            processes.started.append(process)
            assert process.wait_exit() == 0, process.output
            assert "Traceback" not in process.output
        assert query(f"sqlite:///{data}/aggregator.db", "SELECT rule_fqdn FROM rule_hit") == [("a.report",)]
        assert sorted(project.rglob("*")) == before

    def _python_of_somebody_else(self, data: Path) -> list[str]:
        """Return how Python is started without rights, and give `data` to whom it then is."""
        if os.geteuid() != 0:
            return [sys.executable]
        os.chown(data, UNPRIVILEGED, UNPRIVILEGED)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        for python in filter(None, (sys.executable, shutil.which(f"python{version}", path="/usr/local/bin:/usr/bin"))):
            drop = f"os.setgroups([]); os.setgid({UNPRIVILEGED}); os.setuid({UNPRIVILEGED})"
            command = [sys.executable, "-c", f"import os, sys; {drop}; os.execv(sys.argv[1], sys.argv[1:])", python]
            environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
            imports = [*command, "-c", "import psycopg2, msgspec"]
            if subprocess.run(imports, env=environment, capture_output=True, check=False, cwd="/").returncode == 0:
                return command
        pytest.skip(f"an unprivileged user can use neither {sys.executable} nor another Python {version}")
