"""A deployment as an operator has it: one database, one topic, real consumers and APIs."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from peewee import Database

from examples.demo.ports import free_port
from tests.support.brokers import AnyBroker
from tests.support.databases import open_database
from tests.support.postgresql import table_locked, waiting_for_locks, with_select_only
from tests.support.processes import Process, Processes
from tests.support.redis import RedisServer
from tests.support.topics import fresh_name
from tests.support.waiting import eventually

# whatever proxy the environment names
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PREFIX = "/api/insights-results-aggregator/v1/"


@dataclass
class Consumer:
    """A consumer process and its admin port."""

    process: Process
    admin_port: int

    def metrics(self) -> dict[str, float]:
        """Return each sample of `/metrics` by its name with labels, none while nobody answers."""
        return metrics_of(self.admin_port)

    def readiness(self) -> "Answer":
        """Return the answer of `/readyz`."""
        return fetch(self.admin_port, "/readyz")

    def liveness(self) -> "Answer":
        """Return the answer of `/livez`."""
        return fetch(self.admin_port, "/livez")

    def wait_until_ready(self) -> None:
        """Wait until database and source are in use."""
        eventually(lambda: self.readiness().status == 200, 30, f"{self.process.name} is ready")


@dataclass
class Answer:
    """Status, headers and body of an HTTP answer; status 0 if nobody answers."""

    status: int
    headers: Mapping[str, str] | Message
    text: str

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)


@dataclass
class Deployment:
    """Starts the processes of one deployment, with fresh names of topic and group."""

    processes: Processes
    broker: AnyBroker | RedisServer
    database_url: str
    topic: str = field(default_factory=lambda: fresh_name("results"))
    group: str = field(default_factory=lambda: fresh_name("group"))
    api_port: int = field(default_factory=free_port)

    @property
    def environment(self) -> dict[str, str]:
        """The settings that all processes share."""
        settings = self.broker.consumer_settings(self.topic, self.group)
        return {
            "AGGREGATOR_DATABASE__URL": self.database_url,
            **{f"AGGREGATOR_{name}": value for name, value in settings.items()},
        }

    def migrate(self) -> None:
        """Make the schema with the command for it."""
        process = self._start("migrate", "consumer_service.cli", "migrate", {})
        assert process.wait_exit() == 0, process.output

    def start_consumer(self, name: str = "consumer", module: str = "consumer_service.cli", **settings: str) -> Consumer:
        """Start a consumer; `settings` are further environment variables, without their prefix."""
        port = free_port()
        process = self._start(name, module, "run", {"CONSUMER__ADMIN_PORT": str(port), **settings})
        return Consumer(process, port)

    def start_api(self, **settings: str) -> Process:
        """Start the API on the migrated database, with a role that can only read, and wait until it answers."""
        own = {
            "API__PORT": str(self.api_port),
            "API__ADMIN_PORT": str(free_port()),
            "DATABASE__READ_URL": with_select_only(self.database_url),
        }
        process = self._start("api", "api_service.cli", "serve", {**own, **settings})
        eventually(lambda: self.get("openapi.json").status == 200, 20, "the API answers")
        return process

    def get(self, path: str) -> Answer:
        """Ask the API."""
        return fetch(self.api_port, PREFIX + path)

    def wait_for_rows(self, table: str, count: int, timeout: float = 30) -> None:
        """Wait until a table has so many rows."""
        eventually(lambda: self.count(table) >= count, timeout, f"{count} rows in {table}")
        assert self.count(table) == count

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        with self.database() as database:
            return int(database.execute_sql(f"SELECT count(*) FROM {table}").fetchone()[0])

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Connect to the database for a moment."""
        database = open_database(self.database_url)
        try:
            yield database
        finally:
            database.close()

    @contextmanager
    def reports_locked(self) -> Iterator[None]:
        """Keep every consumer waiting in the middle of its transaction (PostgreSQL)."""
        with table_locked(self.database_url, "report", "EXCLUSIVE"):
            yield

    def waits_for_lock(self) -> bool:
        """Whether a consumer is in the middle of a transaction, waiting for `reports_locked` to end."""
        return waiting_for_locks(self.database_url) > 0

    def _start(self, name: str, module: str, command: str, settings: Mapping[str, str]) -> Process:
        environment = {**self.environment, **{f"AGGREGATOR_{key}": value for key, value in settings.items()}}
        return self.processes.start(name, [sys.executable, "-m", module, command], environment)


def metrics_of(admin_port: int) -> dict[str, float]:
    """Return each sample of `/metrics` by its name with labels, none while nobody answers."""
    answer = fetch(admin_port, "/metrics")
    lines = answer.text.splitlines() if answer.status == 200 else []
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def fetch(port: int, path: str) -> Answer:
    """Send a GET to a port of this machine."""
    try:
        with DIRECTLY.open(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return Answer(response.status, response.headers, response.read().decode())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read().decode())
    except OSError as error:
        return Answer(0, {}, str(error))
