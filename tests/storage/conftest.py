"""A migrated database on each engine, and a store that writes into it as the consumer does."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import pytest
from peewee import Database

from consumer_service.engines import engine_for
from consumer_service.pipeline import Pipeline
from consumer_service.sources import Record
from consumer_service.writer import Writer, Written
from libaggregator.messages import Limits
from libaggregator.settings import DatabaseSettings, Secret
from libaggregator.storage.connections import open_writer
from libaggregator.storage.schema import migrate

NOON = datetime(2026, 6, 1, 12, 0, 0, 123456)


class Store:
    """Pipeline and writer on one database, with a clock that the test sets."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = NOON
        self._pipeline = Pipeline(Limits(), None, lambda: self.now)
        self._writer = Writer(engine_for(database), lambda: self.now)

    def write(self, records: Sequence[Record]) -> Written:
        """Store one batch."""
        batch = self._pipeline.sort(records)
        return self._writer.write(batch.accepted, batch.rejected)

    def later(self, seconds: float = 60) -> datetime:
        """Put the clock forward."""
        self.now += timedelta(seconds=seconds)
        return self.now


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Yield a migrated database without rows."""
    database = open_writer(DatabaseSettings(url=Secret(database_url)), "tests")
    migrate(database)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> Store:
    """Return a store on a migrated database without rows."""
    return Store(database)
