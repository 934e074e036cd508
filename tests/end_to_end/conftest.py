"""Deployments on the embedded parts and on Apache Kafka with PostgreSQL."""

import pytest

from tests.support.deployment import Deployment
from tests.support.kafka import ApacheKafka
from tests.support.processes import Processes

EMBEDDED = ("embedded_broker", "sqlite_url")
REAL = ("apache_kafka", "postgresql_url")


@pytest.fixture(params=[EMBEDDED, REAL], ids=["embedded", "real"])
def deployment(request: pytest.FixtureRequest, processes: Processes) -> Deployment:
    """Return a deployment with a migrated database, on each kind of parts in turn."""
    broker, url = map(request.getfixturevalue, request.param)
    deployment = Deployment(processes, broker, url)
    deployment.migrate()
    return deployment


@pytest.fixture
def real_deployment(apache_kafka: ApacheKafka, postgresql_url: str, processes: Processes) -> Deployment:
    """Return a deployment on Apache Kafka and PostgreSQL with a migrated database."""
    deployment = Deployment(processes, apache_kafka, postgresql_url)
    deployment.migrate()
    return deployment
