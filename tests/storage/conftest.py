"""A migrated database on each engine, and a store that writes into it as the consumer does."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from peewee import Database

from consumer_service.engines import MANY, engine_for
from consumer_service.pipeline import Pipeline
from consumer_service.sources import Record
from consumer_service.writer import Writer, Written
from libaggregator.messages import Limits
from tests.support.api import ApiUnderTest
from tests.support.databases import migrate_database, open_database, sqlite_url_in
from tests.support.postgresql import ExternalPostgresql
from tests.support.tables import empty_tables

MakeApi = Callable[..., ApiUnderTest]
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


@pytest.fixture(scope="module")
def shared_url(postgresql: ExternalPostgresql) -> Iterator[str]:
    """Yield the URL of a migrated database on PostgreSQL, one for all tests of a module."""
    with postgresql.database() as url:
        yield migrate_database(url)


@pytest.fixture(scope="module")
def migrated_url(module_database_url: str) -> str:
    """Return the URL of a migrated database on each engine in turn, one for all tests of a module."""
    return migrate_database(module_database_url)


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "postgresql by COPY"])
def shared_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Yield a store on each engine in turn, one for all tests of a module; on PostgreSQL also as if rows were many."""
    if request.param == "sqlite":
        database = open_database(migrate_database(sqlite_url_in(tmp_path_factory.mktemp("store"))))
    else:
        database = open_database(request.getfixturevalue("shared_url"))
    yield Store(database, 1 if request.param == "postgresql by COPY" else MANY)
    database.close()


@pytest.fixture
def store(shared_store: Store) -> Store:
    """Return a store without rows, on each engine in turn: making a database takes longer than most tests."""
    with shared_store.database.atomic():
        empty_tables(shared_store.database)
    shared_store.now = NOON
    return shared_store


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
