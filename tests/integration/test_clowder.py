"""Both processes in an environment of Clowder: one file tells where everything is, a message becomes an answer."""

import sys
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from examples.demo.ports import free_port
from tests.support.brokers import EmbeddedTestBroker
from tests.support.clowder import PASSWORD, configuration, write_configuration
from tests.support.deployment import PREFIX, fetch
from tests.support.messages import payload
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import Process, Processes
from tests.support.topics import fresh_name
from tests.support.waiting import eventually

ROLE = "clowder:role"


class Pod:
    """What Clowder would start: processes whose ports are in the file too."""

    def __init__(self, folder: Path, processes: Processes, document: dict[str, Any]) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        folder.mkdir()
        ports = {"publicPort": self.port, "metricsPort": self.metrics_port}
        self._file = write_configuration(folder, {**document, **ports})
        self._processes = processes

    def organizations(self) -> str:
        """Return what the API of this pod answers, if it does."""
        return fetch(self.port, PREFIX + "organizations").text

    def start(self, module: str, command: str) -> Process:
        """Start a command with nothing but the file, and a group of the test's own."""
        environment = {
            "ACG_CONFIG": str(self._file),
            "AGGREGATOR_KAFKA__SESSION_TIMEOUT": "2",
            "AGGREGATOR_KAFKA__GROUP": fresh_name("group"),
        }
        return self._processes.start(command, [sys.executable, "-m", module, command], environment)


@pytest.fixture
def document(embedded_broker: EmbeddedTestBroker, own_postgresql: PostgresqlServer) -> dict[str, Any]:
    """Return the configuration of an environment whose database wants the password."""
    with psycopg2.connect(own_postgresql.admin_url) as connection, connection.cursor() as cursor:
        cursor.execute(f'CREATE ROLE "{ROLE}" LOGIN PASSWORD %s', (PASSWORD,))
        cursor.execute(f'GRANT CREATE ON SCHEMA public TO "{ROLE}"')
    connection.close()
    own_postgresql.require_password(f'"{ROLE}"')
    server = parse_dsn(own_postgresql.admin_url)
    host, _, port = embedded_broker.bootstrap.rpartition(":")
    document = configuration()
    document["database"] |= {
        "hostname": server["host"],
        "port": int(server["port"]),
        "name": server["dbname"],
        "username": ROLE,
    }
    topic = embedded_broker.create_topic(fresh_name("real"))
    document["kafka"] = {
        "brokers": [{"hostname": host, "port": int(port)}],
        "topics": [{"requestedName": "ccx.ocp.results", "name": topic}],
    }
    return document


@pytest.mark.long
def test_a_message_becomes_an_answer_with_nothing_but_the_file(
    document: dict[str, Any], embedded_broker: EmbeddedTestBroker, processes: Processes, tmp_path: Path
) -> None:
    ingest, serve = (Pod(tmp_path / name, processes, document) for name in ("ingest", "serve"))
    assert ingest.start("consumer_service.cli", "migrate").wait_exit() == 0
    consumer, api = ingest.start("consumer_service.cli", "run"), serve.start("api_service.cli", "serve")
    embedded_broker.produce(document["kafka"]["topics"][0]["name"], [payload()])
    eventually(lambda: '"organizations":[1]' in serve.organizations(), 30, "the message is an answer")
    assert fetch(ingest.metrics_port, "/readyz").status == fetch(serve.metrics_port, "/readyz").status == 200
    assert [consumer.stop(), api.stop()] == [0, 0]
    assert PASSWORD not in consumer.output + api.output
