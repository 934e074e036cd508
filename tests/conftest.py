"""Fixtures that every test may use: brokers, databases and processes that are real."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.brokers import AnyBroker, EmbeddedTestBroker
from tests.support.kafka import REQUIRE_VARIABLE, ApacheKafka, KafkaMissingError
from tests.support.postgresql import SERVER_VARIABLE, ExternalPostgresql, PostgresqlServer
from tests.support.processes import Process, Processes

STARTED = pytest.StashKey[list[Process]]()


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedTestBroker]:
    """Yield the broker from PyPI, one for all tests: use fresh names of topics and groups."""
    broker = EmbeddedTestBroker()
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def apache_kafka() -> Iterator[ApacheKafka]:
    """Yield Apache Kafka, one for all tests: use fresh names of topics and groups. Skip where it can't run."""
    try:
        broker = ApacheKafka()
    except KafkaMissingError as missing:
        if os.environ.get(REQUIRE_VARIABLE) == "1":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


@pytest.fixture(params=["embedded", "apache"])
def broker(request: pytest.FixtureRequest) -> AnyBroker:
    """Return each broker in turn; a test that stops it starts it again."""
    name = {"embedded": "embedded_broker", "apache": "apache_kafka"}[request.param]
    found: AnyBroker = request.getfixturevalue(name)
    return found


@pytest.fixture(scope="session")
def postgresql() -> Iterator[ExternalPostgresql]:
    """Yield a PostgreSQL server for all tests; a running one if `AGGREGATOR_TEST_POSTGRESQL` has its URL."""
    if os.environ.get(SERVER_VARIABLE):
        yield ExternalPostgresql(os.environ[SERVER_VARIABLE])
        return
    server = PostgresqlServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def own_postgresql() -> Iterator[PostgresqlServer]:
    """Yield a PostgreSQL server for this test alone, which it may stop, kill and start again."""
    server = PostgresqlServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of an empty database, on each engine in turn."""
    yield from _empty_database(request, request.param)


@pytest.fixture
def postgresql_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of an empty database on PostgreSQL."""
    yield from _empty_database(request, "postgresql")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Return the URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path}/aggregator.db"


@pytest.fixture
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Processes]:
    """Yield a starter of real processes; all are killed afterwards, and a failure shows what they printed."""
    starter = Processes(tmp_path)
    request.node.stash[STARTED] = starter.started
    yield starter
    starter.kill_all()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the output of the test's processes to the report of its failure."""
    report = yield
    if report.failed:
        for process in item.stash.get(STARTED, []):
            report.sections.append((f"output of {process.name}", process.output))
    return report


def _empty_database(request: pytest.FixtureRequest, engine: str) -> Iterator[str]:
    if engine == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    server: ExternalPostgresql = request.getfixturevalue("postgresql")
    url = server.create_database()
    yield url
    server.drop_database(url)
