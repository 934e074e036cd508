"""Commands of the consumer, and the API as a process, on each HTTP server."""

from collections.abc import Iterator

import pytest

from tests.support.api_process import REPORT, SERVERS, Api, StartApi, fill
from tests.support.commands import CLI, Start
from tests.support.databases import migrate_database, sqlite_url_in
from tests.support.processes import Process, Processes


@pytest.fixture
def start(processes: Processes) -> Start:
    """Return a starter of commands of the consumer, which log JSON and have an admin port of their own."""

    def start_command(*command: str, **settings: str) -> Process:
        environment = {"AGGREGATOR_CONSUMER__ADMIN_PORT": "0", "AGGREGATOR_LOGGING__FORMAT": "json"}
        environment |= {f"AGGREGATOR_{name}": value for name, value in settings.items()}
        return processes.start(command[0], [*CLI, *command], environment)

    return start_command


@pytest.fixture
def sqlite(sqlite_url: str) -> str:
    """Return the URL of a migrated SQLite database."""
    return migrate_database(sqlite_url)


@pytest.fixture
def migrated(database_url: str) -> str:
    """Return the URL of a migrated database, on each engine in turn."""
    return migrate_database(database_url)


@pytest.fixture
def start_api(processes: Processes) -> StartApi:
    """Return a starter of API processes."""

    def start(database_url: str, **settings: str) -> Api:
        return Api(processes, database_url, **settings)

    return start


@pytest.fixture(params=["waitress", pytest.param("granian", marks=pytest.mark.long)])
def server(request: pytest.FixtureRequest) -> str:
    """Return the name of each HTTP server in turn, for tests of what depends on it; each starts processes."""
    return str(request.param)


@pytest.fixture(scope="module", params=SERVERS)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Yield a running API for tests that leave it as it was, on each server, with identities and one report."""
    folder = tmp_path_factory.mktemp("api")
    url = fill(sqlite_url_in(folder), REPORT)
    processes = Processes(folder)
    settings = {"API__SERVER": request.param, "API__AUTH": "xrh", "LOGGING__FORMAT": "json"}
    settings |= {"API__MAX_BODY_BYTES": "1500000", "API__IDLE_TIMEOUT": "20"}
    yield Api(processes, url, **settings).wait_until_it_listens()
    processes.kill_all()
