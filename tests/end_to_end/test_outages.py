"""Database or broker away: everything waits, nothing is lost, and it goes on by itself."""

import pytest

from tests.support.deployment import Deployment
from tests.support.kafka import ApacheKafka
from tests.support.messages import CLUSTERS, payload
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import Processes
from tests.support.waiting import eventually

POLLS_AGAIN = 'aggregator_consumer_retries_total{step="poll"}'


@pytest.fixture
def own_deployment(own_postgresql: PostgresqlServer, apache_kafka: ApacheKafka, processes: Processes) -> Deployment:
    """Return a deployment whose database server belongs to this test."""
    deployment = Deployment(processes, apache_kafka, own_postgresql.create_database())
    deployment.migrate()
    deployment.broker.create_topic(deployment.topic)
    return deployment


def test_an_outage_of_the_database_is_waited_out(own_deployment: Deployment, own_postgresql: PostgresqlServer) -> None:
    deployment = own_deployment
    consumer = deployment.start_consumer()
    deployment.start_api()
    deployment.broker.produce(deployment.topic, [payload(CLUSTERS[0])])
    deployment.wait_for_rows("report", 1)
    own_postgresql.stop()
    deployment.broker.produce(deployment.topic, [payload(CLUSTERS[1]), b"not a message"])
    consumer.process.wait_for_log("database unavailable")
    assert consumer.readiness().json["checks"]["database"] != "ok"
    unavailable = deployment.get("organizations")
    assert unavailable.status == 503
    assert "Retry-After" in unavailable.headers
    own_postgresql.start()
    deployment.wait_for_rows("report", 2)
    deployment.wait_for_rows("consumer_error", 1)
    eventually(lambda: deployment.get("organizations").status == 200, 15, "the API answers again")
    consumer.wait_until_ready()
    assert consumer.process.output.count("database unavailable") == 1


@pytest.mark.long
def test_a_frozen_database_shows_in_readiness_and_its_messages_are_stored_afterwards(
    own_deployment: Deployment, own_postgresql: PostgresqlServer
) -> None:
    deployment = own_deployment
    consumer = deployment.start_consumer()
    consumer.wait_until_ready()
    with own_postgresql.frozen():
        deployment.broker.produce(deployment.topic, [payload()])
        eventually(lambda: consumer.readiness().status == 503, 30, "readiness tells of it")
        assert "no answer" in consumer.readiness().json["checks"]["database"]
        assert consumer.liveness().status == 200
    deployment.wait_for_rows("report", 1)
    consumer.wait_until_ready()


def test_stopping_during_an_outage_gives_the_batch_up_uncommitted(
    own_deployment: Deployment, own_postgresql: PostgresqlServer
) -> None:
    deployment = own_deployment
    consumer = deployment.start_consumer()
    consumer.wait_until_ready()
    own_postgresql.stop()
    deployment.broker.produce(deployment.topic, [payload()])
    consumer.process.wait_for_log("database unavailable")
    assert consumer.process.stop() == 0
    assert deployment.broker.committed(deployment.group, deployment.topic) in ({}, {0: -1})
    own_postgresql.start()
    deployment.start_consumer("successor")
    deployment.wait_for_rows("report", 1)


def test_processes_start_while_the_database_is_away(
    own_deployment: Deployment, own_postgresql: PostgresqlServer
) -> None:
    deployment = own_deployment
    deployment.broker.produce(deployment.topic, [payload()])
    own_postgresql.stop()
    consumer = deployment.start_consumer()
    consumer.process.wait_for_log("database unavailable")
    eventually(lambda: consumer.readiness().status == 503, 10, "not ready")
    own_postgresql.start()
    deployment.wait_for_rows("report", 1)
    consumer.wait_until_ready()


@pytest.mark.long
def test_an_outage_of_the_broker_is_waited_out(processes: Processes, postgresql_url: str) -> None:
    broker = ApacheKafka()
    try:
        deployment = Deployment(processes, broker, postgresql_url)
        deployment.migrate()
        consumer = deployment.start_consumer()
        consumer.process.wait_for_log("source unavailable")
        broker.start()
        broker.create_topic(deployment.topic)
        broker.produce(deployment.topic, [payload(CLUSTERS[0])])
        deployment.wait_for_rows("report", 1)
        broker.kill()
        eventually(lambda: consumer.readiness().status == 503, 60, "readiness tells of the outage")
        polls = consumer.metrics()[POLLS_AGAIN]
        eventually(lambda: consumer.metrics()[POLLS_AGAIN] > polls + 1, 20, "polls that find no broker are counted")
        assert consumer.metrics()['aggregator_consumer_outages_total{part="source"}'] == 2
        broker.start()
        broker.produce(deployment.topic, [payload(CLUSTERS[1])])
        deployment.wait_for_rows("report", 2, timeout=60)
    finally:
        broker.close()
