"""The recorded requests hold on both engines and both HTTP servers: real processes, rows of others beside ours."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest

from examples.demo.ports import free_port
from tests.support.api_process import SERVERS
from tests.support.databases import open_database
from tests.support.deployment import PREFIX, fetch
from tests.support.engines import POSTGRESQL, name_of
from tests.support.postgresql import READER, with_select_only
from tests.support.processes import Process, Processes
from tests.support.waiting import eventually

FOLDER = Path(__file__).parent
DATASET = FOLDER / "dataset"
CASES = [json.loads(line) for line in (FOLDER / "requests.jsonl").read_text(encoding="utf-8").splitlines()]
GROUPS = sorted({case["group"] for case in CASES})


class Deployment:
    """A database that holds the data set, and the processes on it."""

    def __init__(self, processes: Processes, database_url: str) -> None:
        self._processes = processes
        self._database_url = database_url

    def load(self) -> None:
        """Make the schema, store the messages of the data set, and add the rows that others write."""
        source = {"CONSUMER__SOURCE": "file", "FILE__PATH": str(DATASET / "messages.jsonl")}
        for command in ("migrate", "run"):
            process = self._start(command, "consumer_service.cli", command, CONSUMER__ADMIN_PORT="0", **source)
            assert process.wait_exit() == 0, process.output
        database = open_database(self._database_url)
        for statement in (DATASET / "seed.sql").read_text(encoding="utf-8").strip().split(";\n"):
            database.execute_sql(statement)
        database.close()

    def start_api(self, auth: str, server: str = "waitress") -> str:
        """Start an instance of the API with a role that can only read, and return its address when it answers."""
        port = free_port()
        settings = {"API__PORT": str(port), "API__ADMIN_PORT": "0", "API__AUTH": auth, "API__SERVER": server}
        # the clusters of the data set are older than any clock
        settings["API__ORG_OVERVIEW_LIMIT_HOURS"] = "1000000"
        settings["DATABASE__READ_URL"] = with_select_only(self._database_url)
        process = self._start(f"api-{server}-{auth}", "api_service.cli", "serve", **settings)
        eventually(lambda: fetch(port, f"{PREFIX}metrics").status == 200, 20, f"{process.name} answers")
        return f"http://127.0.0.1:{port}{PREFIX}"

    def _start(self, name: str, module: str, command: str, **settings: str) -> Process:
        environment = {f"AGGREGATOR_{key}": value for key, value in settings.items()}
        environment["AGGREGATOR_DATABASE__URL"] = self._database_url
        return self._processes.start(name, [sys.executable, "-m", module, command], environment)


@dataclass(frozen=True)
class Apis:
    """The addresses of two instances on one database, without identities and with them."""

    url: str
    url_with_identities: str


@contextmanager
def loaded_deployment(folder: Path, database_url: str) -> Iterator[Deployment]:
    """Yield a deployment with the data set; its logs go into `folder`."""
    processes = Processes(folder)
    try:
        deployment = Deployment(processes, database_url)
        deployment.load()
        yield deployment
    finally:
        processes.kill_all()


@pytest.fixture(scope="module")
def deployment(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Yield a deployment with the data set."""
    with loaded_deployment(tmp_path_factory.mktemp("processes"), module_database_url) as deployment:
        yield deployment


@pytest.fixture(scope="module", params=SERVERS)
def apis(request: pytest.FixtureRequest, deployment: Deployment) -> Apis:
    """Return both instances, on each HTTP server in turn."""
    return Apis(deployment.start_api("none", request.param), deployment.start_api("xrh", request.param))


@pytest.mark.parametrize("group", GROUPS)
def test_every_recorded_request_of_the_group_is_answered_as_recorded(apis: Apis, group: str) -> None:
    recorded = sum(case["group"] == group for case in CASES)
    command = [sys.executable, str(FOLDER / "check.py"), "--group", group]
    command += ["--base-url", apis.url, "--auth-base-url", apis.url_with_identities]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.stdout.splitlines()[-1] == f"{recorded} passed, 0 failed, 0 skipped", result.stdout
    assert result.returncode == 0


@pytest.mark.parametrize("module_database_url", [POSTGRESQL], ids=name_of, indirect=True)
def test_the_answers_were_given_to_a_role_that_can_only_read(apis: Apis, module_database_url: str) -> None:
    connection = psycopg2.connect(module_database_url)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT usename FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename IS NOT NULL"
        )
        assert cursor.fetchall() == [(READER,)]
    connection.close()
