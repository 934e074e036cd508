"""The recorded requests hold on both engines: real consumer, real APIs, rows of other components beside them."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from libaggregator.settings import DatabaseSettings, Secret
from libaggregator.storage.connections import open_writer
from tests.support.deployment import PREFIX, fetch
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.waiting import eventually

FOLDER = Path(__file__).parent
DATASET = FOLDER / "dataset"
CASES = [json.loads(line) for line in (FOLDER / "requests.jsonl").read_text(encoding="utf-8").splitlines()]
GROUPS = sorted({case["group"] for case in CASES})


class Apis:
    """Two instances of the API on one database that holds the data set, one of them with `api.auth = "xrh"`."""

    def __init__(self, processes: Processes, database_url: str) -> None:
        self._processes = processes
        self._environment = {
            "AGGREGATOR_DATABASE__URL": database_url,
            # the clusters of the data set are older than any clock
            "AGGREGATOR_API__ORG_OVERVIEW_LIMIT_HOURS": "1000000",
            "AGGREGATOR_API__ADMIN_PORT": "0",
        }

    def load(self, database_url: str) -> None:
        """Make the schema, store the messages of the data set, and add the rows that others write."""
        source = {
            "AGGREGATOR_CONSUMER__SOURCE": "file",
            "AGGREGATOR_FILE__PATH": str(DATASET / "messages.jsonl"),
            "AGGREGATOR_CONSUMER__ADMIN_PORT": "0",
        }
        for command in ("migrate", "run"):
            process = self._start(command, "consumer_service.cli", command, source)
            assert process.wait_exit() == 0, process.output
        seed = (DATASET / "seed.sql").read_text(encoding="utf-8")
        database = open_writer(DatabaseSettings(url=Secret(database_url)), "tests")
        for statement in re.split(r";\n", seed):
            if statement.strip():
                database.execute_sql(statement)
        database.close()

    def start(self) -> None:
        """Start both and return when they answer."""
        self.url = self._start_api("none")
        self.auth_url = self._start_api("xrh")

    def _start_api(self, auth: str) -> str:
        port = free_port()
        process = self._start(
            f"api-{auth}", "api_service.cli", "serve", {"AGGREGATOR_API__PORT": str(port), "AGGREGATOR_API__AUTH": auth}
        )
        eventually(lambda: fetch(port, f"{PREFIX}metrics").status == 200, 20, f"{process.name} answers")
        return f"http://127.0.0.1:{port}{PREFIX}"

    def _start(self, name: str, module: str, command: str, settings: dict[str, str]):  # noqa: ANN202
        return self._processes.start(name, [sys.executable, "-m", module, command], {**self._environment, **settings})


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def apis(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apis]:
    """Yield both instances, on each engine in turn."""
    folder = tmp_path_factory.mktemp(f"contract-{request.param}")
    if request.param == "sqlite":
        url = f"sqlite:///{folder}/aggregator.db"
    else:
        url = request.getfixturevalue("postgresql").create_database()
    processes = Processes(folder)
    try:
        apis = Apis(processes, url)
        apis.load(url)
        apis.start()
        yield apis
    finally:
        processes.kill_all()


@pytest.mark.parametrize("group", GROUPS)
def test_every_recorded_request_of_the_group_is_answered_as_recorded(apis: Apis, group: str) -> None:
    recorded = sum(case["group"] == group for case in CASES)
    command = [sys.executable, str(FOLDER / "check.py"), "--group", group]
    command += ["--base-url", apis.url, "--auth-base-url", apis.auth_url]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.stdout.splitlines()[-1] == f"{recorded} passed, 0 failed, 0 skipped", result.stdout
    assert result.returncode == 0
