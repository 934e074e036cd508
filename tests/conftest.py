"""Fixtures that every test may use: brokers, databases and processes that are real."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from tests.support.brokers import AnyBroker, EmbeddedTestBroker
from tests.support.databases import sqlite_url_in
from tests.support.engines import ENGINES, name_of
from tests.support.kafka import ApacheKafka
from tests.support.postgresql import SERVER_VARIABLE, ExternalPostgresql, PostgresqlServer, running_postgresql
from tests.support.processes import Process, Processes
from tests.support.programs import skipped_without_programs
from tests.support.redis import RedisServer

STARTED = pytest.StashKey[list[Process]]()


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Undo what a test did to the log of its process, as a command does that runs in it."""
    root = logging.getLogger()
    handlers, levels = root.handlers[:], _levels()
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    for name, level in _levels().items():
        if level != (before := levels.get(name, logging.NOTSET)):
            logging.getLogger(name).setLevel(before)


def _levels() -> dict[str | None, int]:
    """Return the level of each logger by its name, None for the root."""
    loggers = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    return {None: logging.root.level, **{logger.name: logger.level for logger in loggers}}


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
    with skipped_without_programs():
        broker = ApacheKafka()
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Yield a Redis server, one for all tests: use fresh names of streams and groups."""
    with running_redis() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Yield a Redis server for this test alone, which it may stop, kill and start again; it keeps what it answered."""
    with running_redis(RedisServer.KEEPING) as server:
        yield server


@contextmanager
def running_redis(settings: Mapping[str, str] | None = None) -> Iterator[RedisServer]:
    """Start a Redis server with these settings until the end of the block; skip where it can't run."""
    with skipped_without_programs():
        server = RedisServer(settings)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.long)])
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
    with running_postgresql() as server:
        yield server


@pytest.fixture
def own_postgresql() -> Iterator[PostgresqlServer]:
    """Yield a PostgreSQL server for this test alone, which it may stop, kill and start again."""
    with running_postgresql() as server:
        yield server


@pytest.fixture(params=ENGINES, ids=name_of)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of an empty database, on each engine in turn."""
    with request.param.new_database(request, tmp_path) as url:
        yield url


@pytest.fixture
def postgresql_url(postgresql: ExternalPostgresql) -> Iterator[str]:
    """Yield the URL of an empty database on PostgreSQL."""
    with postgresql.database() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Return the URL of an SQLite file that does not exist yet."""
    return sqlite_url_in(tmp_path)


@pytest.fixture(scope="module", params=ENGINES, ids=name_of)
def module_database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of an empty database for all tests of a module, on each engine in turn."""
    with request.param.new_database(request, tmp_path_factory.mktemp("database")) as url:
        yield url


@pytest.fixture
def plain_logs() -> Iterator[None]:
    """Keep the log of the tests' own process out of the way: structlog takes a second to draw a traceback."""
    with capture_logs():
        yield


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
