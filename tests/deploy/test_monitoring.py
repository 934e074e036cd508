"""A real Prometheus scrapes both processes, and everything that dashboards and alerts ask for is there."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest

from examples.demo.ports import free_port
from tests.support.brokers import EmbeddedTestBroker
from tests.support.deployment import Consumer, Deployment
from tests.support.messages import CLUSTERS, payload
from tests.support.monitoring import Prometheus, alerts, dashboards, require_prometheus, selectors
from tests.support.postgresql import READER, PostgresqlServer
from tests.support.processes import Processes
from tests.support.topics import fresh_name
from tests.support.waiting import eventually

# Grafana takes four scrapes at least; here is one a second, on a machine that has other things to do too
RATE_INTERVAL = "30s"

OUTAGE_ALERTS = {"AggregatorConsumerDatabaseUnavailable", "AggregatorApiDatabaseUnavailable"}


@dataclass
class Monitored:
    """A deployment with a Prometheus, and what is done to it so that everything there is to count is counted."""

    deployment: Deployment
    consumer: Consumer
    prometheus: Prometheus
    server: PostgresqlServer

    def work(self) -> None:
        """Let messages and requests of every kind come."""
        results = [payload(cluster=cluster) for cluster in CLUSTERS]
        before = self._handled()
        self.deployment.broker.produce(self.deployment.topic, [*results, *results, b"bad", payload(Report={})])
        eventually(lambda: self._handled() == before + 8, 30, "all messages are handled")
        for path in ("organizations", "organizations/1/clusters", "organizations/x/clusters", "nothing"):
            self.deployment.get(path)

    def break_a_question(self) -> None:
        """Let an answer be 500: a role that may not read what is asked for is a fault of whoever set it up."""
        self._run(f"REVOKE SELECT ON rule_disable FROM {READER}")
        answer = self.deployment.get("rules/organizations/1/disabled_system_wide")
        assert answer.status == 500
        self._run(f"GRANT SELECT ON rule_disable TO {READER}")

    def take_the_database_away(self) -> None:
        """Stop the database until both processes told of it and Prometheus knows."""
        self.server.stop()
        self.deployment.broker.produce(self.deployment.topic, [payload(checked="2026-05-02T08:00:00Z")])
        assert self.deployment.get("organizations").status == 503
        for query in (
            'aggregator_consumer_available{part="database"} == 0',
            # of "write", or of "ping" if that came to the server first
            "aggregator_consumer_retries_total > 1",
            "aggregator_api_database_available == 0",
            'aggregator_api_requests_total{status="503"}',
        ):
            self.prometheus.wait_for(query)
        eventually(lambda: self.prometheus.alerts_that_hold() >= OUTAGE_ALERTS, 10, "alerts of the outage")
        self.server.start()
        self.prometheus.wait_for('aggregator_consumer_available{part="database"} == 1')

    def _handled(self) -> float:
        found = self.consumer.metrics()
        return sum(value for name, value in found.items() if name.startswith("aggregator_consumer_messages_total{"))

    def _run(self, statement: str) -> None:
        connection = psycopg2.connect(self.deployment.database_url)
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()


@pytest.fixture
def monitored(
    embedded_broker: EmbeddedTestBroker, own_postgresql: PostgresqlServer, processes: Processes, tmp_path: Path
) -> Iterator[Monitored]:
    require_prometheus()
    with own_postgresql.database() as url:
        deployment = Deployment(processes, embedded_broker, url)
        deployment.migrate()
        embedded_broker.create_topic(deployment.topic)
        dead_letters = embedded_broker.create_topic(fresh_name("rejected"))
        consumer = deployment.start_consumer(KAFKA__DEAD_LETTER_TOPIC=dead_letters, CONSUMER__STALLED_AFTER="4")
        admin_port = free_port()
        deployment.start_api(API__ADMIN_PORT=str(admin_port))
        jobs = {"aggregator-consumer": consumer.admin_port, "aggregator-api": admin_port}
        yield Monitored(deployment, consumer, Prometheus(processes, tmp_path, jobs), own_postgresql)


@pytest.mark.long
def test_everything_that_dashboards_and_alerts_ask_for_is_there(monitored: Monitored) -> None:
    prometheus = monitored.prometheus
    monitored.work()
    prometheus.wait_for('aggregator_consumer_messages_total{outcome="stored"} > 0')
    monitored.break_a_question()
    monitored.take_the_database_away()
    monitored.work()
    prometheus.wait_for("aggregator_consumer_lag_messages")
    prometheus.wait_for('rate(aggregator_api_requests_total{status="500"}[30s])')
    asked = [*_panels(), *_selectors_of_alerts()]
    assert len(asked) > 80
    assert [(what, query) for what, query in asked if not prometheus.query(query)] == []
    assert [name for name, label, selector in _variables() if not prometheus.values_of(label, selector)] == []
    eventually(lambda: not prometheus.alerts_that_hold() & OUTAGE_ALERTS, 10, "the end of the outage's alerts")
    eventually(lambda: all(rule["health"] == "ok" for rule in prometheus.rules()), 10, "every alert can be evaluated")
    assert len(prometheus.rules()) == len(alerts())


def _panels() -> Iterator[tuple[str, str]]:
    for board in dashboards():
        for title, query in board.queries:
            of_all_processes = re.sub(r"\$(?:job|instance)\b", ".*", query)
            yield f"{board.file.name}: {title}", of_all_processes.replace("$__rate_interval", RATE_INTERVAL)


def _selectors_of_alerts() -> Iterator[tuple[str, str]]:
    """Yield every selector of each alert: its condition does not hold, so that the whole has no series."""
    for alert in alerts():
        for selector in selectors(alert["expr"]):
            yield alert["alert"], selector


def _variables() -> Iterator[tuple[str, str, str]]:
    """Yield name, label and selector of each variable."""
    for board in dashboards():
        for variable in board.variables:
            parts = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert parts, variable["name"]
            yield variable["name"], parts[2], parts[1].replace("$job", ".*")
