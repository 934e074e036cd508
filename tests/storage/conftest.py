"""A migrated database on each engine, and a store that writes into it as the consumer does."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import pytest
from peewee import Database

from consumer_service.engines import MANY, engine_for
from consumer_service.pipeline import Pipeline
from consumer_service.sources import Record
from consumer_service.writer import Writer, Written
from libaggregator.messages import Limits
from tests.support.api import ApiUnderTest
from tests.support.databases import emptied, migrate_database, open_database
from tests.support.engines import ENGINES, POSTGRESQL, Ability, EngineUnderTest, engines_with
from tests.support.tables import empty_tables

MakeApi = Callable[..., ApiUnderTest]
UrlOn = Callable[[EngineUnderTest], str]
NOON = datetime(2026, 6, 1, 12, 0, 0, 123456)


class Store:
    """Pipeline and writer on one database, with a clock that the test sets."""

    def __init__(self, database: Database, many: int = MANY) -> None:
        self.database = database
        self.now = NOON
        self._pipeline = Pipeline(Limits(), None, lambda: self.now)
        self._writer = Writer(engine_for(database, many), lambda: self.now)

    def write(self, records: Sequence[Record]) -> Written:
        """Store one batch."""
        batch = self._pipeline.sort(records)
        return self._writer.write(batch.accepted, batch.rejected)

    def later(self, seconds: float = 60) -> datetime:
        """Put the clock forward."""
        self.now += timedelta(seconds=seconds)
        return self.now


def stores_on(engines: Sequence[EngineUnderTest]) -> list[Any]:
    """Return a parameter for each way in which the consumer writes on each of some engines."""
    return [pytest.param((engine, many), id=name) for engine in engines for name, many in engine.stores.items()]


@pytest.fixture(scope="module")
def shared_url_on(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UrlOn]:
    """Yield what gives the URL of a migrated database on an engine, one for all tests of a module."""
    with ExitStack() as databases:

        @cache
        def url_on(engine: EngineUnderTest) -> str:
            database = engine.new_database(request, tmp_path_factory.mktemp("database"))
            return migrate_database(databases.enter_context(database))

        yield url_on


@pytest.fixture(scope="module")
def shared_url(shared_url_on: UrlOn) -> str:
    """Return the URL of a migrated database on PostgreSQL, one for all tests of a module."""
    return shared_url_on(POSTGRESQL)


@pytest.fixture(scope="module")
def migrated_url(module_database_url: str) -> str:
    """Return the URL of a migrated database on each engine in turn, one for all tests of a module."""
    return migrate_database(module_database_url)


@pytest.fixture(scope="module", params=stores_on(ENGINES))
def shared_store(request: pytest.FixtureRequest, shared_url_on: UrlOn) -> Iterator[Store]:
    """Yield a store on each engine in turn, one for all tests of a module; on PostgreSQL also as if rows were many."""
    engine, many = request.param
    database = open_database(shared_url_on(engine))
    yield Store(database, many)
    database.close()


@pytest.fixture
def store(shared_store: Store) -> Store:
    """Return a store without rows, on each engine in turn: making a database takes longer than most tests."""
    with shared_store.database.atomic():
        empty_tables(shared_store.database)
    shared_store.now = NOON
    return shared_store


@pytest.fixture(params=stores_on(engines_with(Ability.LIMITS)))
def limited_store(request: pytest.FixtureRequest, shared_url_on: UrlOn) -> Iterator[Store]:
    """Yield a store without rows on each engine in turn that can refuse values."""
    engine, many = request.param
    database = open_database(emptied(shared_url_on(engine)))
    yield Store(database, many)
    database.close()


@pytest.fixture
def make_api(migrated_url: str) -> Iterator[MakeApi]:
    """Yield a maker of APIs on one database without rows, on each engine in turn; takes settings and a clock."""
    made: list[ApiUnderTest] = []

    def make(**settings: Any) -> ApiUnderTest:
        made.append(ApiUnderTest(migrated_url, **settings))
        return made[-1]

    database = make().database
    with database.atomic():
        empty_tables(database)
    yield make
    for api in made:
        api.close()


@pytest.fixture
def api(make_api: MakeApi) -> ApiUnderTest:
    """Return an API without data, on each engine in turn."""
    return make_api()
