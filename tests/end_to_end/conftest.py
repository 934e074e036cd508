"""Deployments on the embedded parts and on Apache Kafka with PostgreSQL."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.api_faults import RESERVED, SLOTS, Scene
from tests.support.deployment import Deployment
from tests.support.fault_run import FaultRun
from tests.support.kafka import ApacheKafka
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import Processes
from tests.support.redis import RedisServer

BeginRun = Callable[..., FaultRun]
"""Begins a run of the fault suite; takes a deployment, a seed, and what else `FaultRun` takes."""

EMBEDDED = ("embedded_broker", "sqlite_url")
REAL = ("apache_kafka", "postgresql_url")


@pytest.fixture(params=[EMBEDDED, pytest.param(REAL, marks=pytest.mark.long)], ids=["embedded", "real"])
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


@pytest.fixture
def redis_deployment(own_redis: RedisServer, postgresql_url: str, processes: Processes) -> Deployment:
    """Return a deployment on a Redis server of its own and PostgreSQL with a migrated database."""
    deployment = Deployment(processes, own_redis, postgresql_url)
    deployment.migrate()
    return deployment


@pytest.fixture
def any_deployment(request: pytest.FixtureRequest) -> Deployment:
    """Return a deployment with PostgreSQL on the broker that the test's parameter names, "kafka" or "redis"."""
    name = {"kafka": "real_deployment", "redis": "redis_deployment"}[request.param]
    found: Deployment = request.getfixturevalue(name)
    return found


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """Yield a server that all tests of this module torture, each after the other."""
    server = PostgresqlServer({"max_connections": str(SLOTS), "superuser_reserved_connections": str(RESERVED)})
    try:
        server.start()
        yield Scene(server)
    finally:
        server.close()


@pytest.fixture
def begin_run(request: pytest.FixtureRequest) -> Iterator[BeginRun]:
    """Yield what begins a run of the fault suite; at the end of the test nothing is produced any more."""
    runs: list[FaultRun] = []

    def begin(deployment: Deployment, seed: int, **options: Any) -> FaultRun:
        runs.append(FaultRun(deployment, seed, record=request, **options))
        return runs[-1]

    yield begin
    for run in runs:
        run.abandon()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much the fault suite compared."""
    found = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in getattr(report, "user_properties", [])
        if name == "compared"
    ]
    if found:
        totals = {name: sum(run[name] for run in found) for name in found[0]}
        shown = ", ".join(f"{count:,} {name}" for name, count in totals.items())
        terminalreporter.write_line(f"fault suite: {len(found)} runs compared; {shown}")
