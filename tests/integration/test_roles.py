"""Each program with its role of `deploy/postgresql/roles.sql`, as a process."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.test_recorded_requests import CASES, DATASET
from tests.support.api_process import CLUSTER, Api
from tests.support.brokers import EmbeddedTestBroker
from tests.support.commands import CLI
from tests.support.databases import migrate_database
from tests.support.deployment import PREFIX, Deployment
from tests.support.existing import INSERTS_OF_OLD_SERVICE, digests, load_existing
from tests.support.messages import CLUSTERS, HitSpec, payload
from tests.support.postgresql import PostgresqlServer, running_postgresql
from tests.support.processes import Process, Processes
from tests.support.roles import RoleUrls, as_role, database_with_roles, execute, make_roles
from tests.support.topics import fresh_name

CHECK = Path(__file__).parents[1] / "contract" / "check.py"


@pytest.fixture(scope="module")
def roles_server() -> Iterator[PostgresqlServer]:
    """Yield a server for this module: roles belong to a server."""
    with running_postgresql() as server:
        yield server


@pytest.fixture
def urls(roles_server: PostgresqlServer) -> RoleUrls:
    """Return an empty database with the roles."""
    return database_with_roles(roles_server)


@pytest.fixture
def migrated(urls: RoleUrls) -> RoleUrls:
    """Return a migrated database with the roles, made before and after that."""
    migrate_database(urls.owner)
    make_roles(urls.superuser)
    return urls


@pytest.fixture
def deployment(processes: Processes, embedded_broker: EmbeddedTestBroker, migrated: RoleUrls) -> Deployment:
    """Return a deployment whose consumers have the role of the writer."""
    deployment = Deployment(processes, embedded_broker, migrated.writer)
    embedded_broker.create_topic(deployment.topic)
    return deployment


def consumer_command(processes: Processes, url: str, *arguments: str, **settings: str) -> Process:
    """Start a command of the consumer on a database."""
    environment = {f"AGGREGATOR_{name}": value for name, value in settings.items()}
    environment |= {"AGGREGATOR_DATABASE__URL": url, "AGGREGATOR_CONSUMER__ADMIN_PORT": "0"}
    return processes.start(arguments[0], [*CLI, *arguments], environment)


def ends_well(process: Process) -> str:
    """Wait for the end of a process and return what it printed."""
    assert process.wait_exit() == 0, process.output
    return process.output


@pytest.mark.long
def test_the_recorded_requests_hold_with_each_program_in_its_role(processes: Processes, urls: RoleUrls) -> None:
    ends_well(consumer_command(processes, urls.owner, "migrate"))
    make_roles(urls.superuser)
    source = {"CONSUMER__SOURCE": "file", "FILE__PATH": str(DATASET / "messages.jsonl")}
    ends_well(consumer_command(processes, urls.writer, "run", **source))
    execute(urls.superuser, (DATASET / "seed.sql").read_text(encoding="utf-8"))
    # the clusters of the data set are older than any clock
    settings = {"API__ORG_OVERVIEW_LIMIT_HOURS": "1000000"}
    apis = [Api(processes, urls.reader, API__AUTH=auth, **settings).wait_until_it_listens() for auth in ("none", "xrh")]
    base, with_identities = (f"http://127.0.0.1:{api.port}{PREFIX}" for api in apis)
    command = [sys.executable, str(CHECK), "--base-url", base, "--auth-base-url", with_identities]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.stdout.splitlines()[-1] == f"{len(CASES)} passed, 0 failed, 0 skipped", result.stdout


@pytest.mark.long
def test_the_database_of_an_existing_deployment_serves_each_program_in_its_role(
    processes: Processes, roles_server: PostgresqlServer, tmp_path: Path
) -> None:
    execute(roles_server.admin_url, "CREATE ROLE old_service LOGIN")
    urls = RoleUrls(roles_server.create_database("OWNER old_service"))
    old = load_existing(as_role(urls.superuser, "old_service"))
    rows = digests(urls.superuser)
    make_roles(urls.superuser)
    ends_well(consumer_command(processes, urls.owner, "migrate"))
    make_roles(urls.superuser)
    assert digests(urls.superuser) == rows
    execute(old, *(statement.format(org_id=3_000_000_000, cluster="c") for statement in INSERTS_OF_OLD_SERVICE))
    results = tmp_path / "results.jsonl"
    results.write_bytes(payload(CLUSTER))
    ends_well(consumer_command(processes, urls.writer, "run", CONSUMER__SOURCE="file", FILE__PATH=str(results)))
    api = Api(processes, urls.reader).wait_until_it_listens()
    assert api.get("organizations").json["organizations"] == [1, 2147483647, 3_000_000_000]


def test_the_writer_stores_rejects_and_reconnects(deployment: Deployment, migrated: RoleUrls) -> None:
    letters = deployment.broker.create_topic(fresh_name("rejected"))
    consumer = deployment.start_consumer(KAFKA__DEAD_LETTER_TOPIC=letters)
    hits = [HitSpec("rules.one.report", "K")]
    deployment.broker.produce(deployment.topic, [payload(CLUSTERS[0], hits=hits), b"not a message"])
    deployment.wait_for_rows("report", 1)
    deployment.wait_for_rows("consumer_error", 1)
    assert len(deployment.broker.read(letters, 1)) == 1
    execute(
        migrated.superuser,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'aggregator_writer'",
    )
    newer = payload(CLUSTERS[0], "2026-05-01T09:00:00Z", org_id=2)
    deployment.broker.produce(deployment.topic, [newer, payload(CLUSTERS[1])])
    deployment.wait_for_rows("report", 2)
    assert deployment.count("rule_hit") == 0
    assert consumer.process.stop() == 0


def test_the_writer_replays_and_removes_what_succeeds(processes: Processes, migrated: RoleUrls) -> None:
    row = "('t', 0, 1, now(), now(), '{}', 'from_the_future: once')".format(payload().decode().replace("'", "''"))
    columns = "topic, partition, topic_offset, produced_at, consumed_at, message, error"
    execute(migrated.superuser, f"INSERT INTO consumer_error ({columns}) VALUES {row}")
    ends_well(consumer_command(processes, migrated.writer, "replay"))
    assert execute(migrated.superuser, "SELECT cluster FROM report") == [(CLUSTERS[0],)]
    assert execute(migrated.superuser, "SELECT * FROM consumer_error") == []


class TestWantOfRights:
    """What each program says, in one line, and what it does then."""

    @pytest.mark.parametrize("role", ["writer", "reader"])
    def test_migrate_by_another_role_than_the_owner(self, processes: Processes, urls: RoleUrls, role: str) -> None:
        process = consumer_command(processes, getattr(urls, role), "migrate")
        assert process.wait_exit() == 1
        assert process.output == "Error: the database does not do it: permission denied for schema public\n"

    def test_a_consumer_that_may_not_ask_for_the_version(self, processes: Processes, migrated: RoleUrls) -> None:
        execute(migrated.superuser, "REVOKE ALL ON migration_info FROM aggregator_writer")
        process = consumer_command(processes, migrated.writer, "run", KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
        assert process.wait_exit() == 2
        assert process.output.splitlines()[-1] == (
            "error: the database can't be used: permission denied for table migration_info"
        )

    def test_a_consumer_that_may_not_write_a_table_waits_until_it_may(
        self, deployment: Deployment, migrated: RoleUrls
    ) -> None:
        execute(migrated.superuser, "REVOKE INSERT ON report FROM aggregator_writer")
        consumer = deployment.start_consumer()
        deployment.broker.produce(deployment.topic, [payload()])
        consumer.process.wait_for_log("permission denied for table report")
        assert consumer.process.output.count("permission denied") == 1
        assert "Traceback" not in consumer.process.output
        assert consumer.readiness().json["checks"]["database"] == "permission denied for table report"
        make_roles(migrated.superuser)
        deployment.wait_for_rows("report", 1)

    def test_an_api_that_may_not_read_a_table_answers_500_until_it_may(
        self, processes: Processes, migrated: RoleUrls
    ) -> None:
        execute(migrated.superuser, "REVOKE SELECT ON advisor_ratings FROM aggregator_reader")
        api = Api(processes, migrated.reader).wait_until_it_listens()
        assert api.get("rules/a.b|K/organizations/1/rating").status == 500
        api.process.wait_for_log("the database refuses a statement to the role of the API")
        assert "permission denied for table advisor_ratings" in api.process.output
        assert "Traceback" not in api.process.output
        make_roles(migrated.superuser)
        assert api.get("rules/a.b|K/organizations/1/rating").status == 404
