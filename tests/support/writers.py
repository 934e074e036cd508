"""Who writes to a database beside others, and what is in somebody's way in the middle of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from consumer_service.engines import MANY, Conflict, Engine, Row, engine_for
from consumer_service.pipeline import Pipeline
from consumer_service.sources import Record
from consumer_service.statements import Query, Table, Upsert
from consumer_service.writer import Writer, Written
from libaggregator.messages import Limits, Message
from libaggregator.storage.faults import DATABASE_ERRORS, Fault, fault_of
from tests.support.databases import open_database
from tests.support.engines import POSTGRESQL, EngineUnderTest

_ATTEMPTS = 50


@dataclass
class Consumer:
    """A consumer with a connection of its own, which tries again as the runner does."""

    url: str
    now: datetime
    many: int = MANY
    on: EngineUnderTest = POSTGRESQL
    conflicts: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = open_database(self.url)
        self.engine = engine_for(self.database, self.many)

    def write_once(self, records: Sequence[Record], engine: Engine | None = None) -> Written:
        batch = Pipeline(Limits(), None, lambda: self.now).sort(records)
        return Writer(engine or self.engine, lambda: self.now).write(batch.accepted, batch.rejected)

    def write(self, records: Sequence[Record]) -> Written:
        """Write a batch again and again while nobody but the other consumer is at fault."""
        for _ in range(_ATTEMPTS):
            try:
                return self.write_once(records)
            except Conflict as conflict:
                self.conflicts.append(conflict)
            except DATABASE_ERRORS as error:
                if fault_of(error) is not Fault.OUTAGE:
                    raise
                self.conflicts.append(error)
        raise AssertionError(f"not written in {_ATTEMPTS} attempts: {self.conflicts[-1]}")

    def lets_another_wait(self) -> bool:
        """Whether a session of its database waits for a lock."""
        assert self.on.waiting_for_locks is not None
        return self.on.waiting_for_locks(self.url) > 0


class Interrupted(Engine):
    """An engine in whose transaction something else happens between reading and writing, once."""

    def __init__(self, engine: Engine, meanwhile: Callable[[], object]) -> None:
        super().__init__(engine._database)
        self._engine = engine
        self._meanwhile: Callable[[], object] | None = meanwhile

    def select(self, query: Query, rows: Sequence[Row], *values: Any) -> Iterable[Row]:
        return self._engine.select(query, rows, *values)

    def keep_writers_out(self) -> None:
        self._engine.keep_writers_out()

    def move_recommendations_on(self, owners: Sequence[Row], this_second: datetime) -> Iterable[Row]:
        return self._engine.move_recommendations_on(owners, this_second)

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        self._interrupt()
        self._engine.insert(table, rows)

    def store(self, upsert: Upsert, rows: Sequence[Row]) -> int:
        self._interrupt()
        return self._engine.store(upsert, rows)

    def run(self, statement: str, rows: Sequence[Row], *values: Any) -> int:
        self._interrupt()
        return self._engine.run(statement, rows, *values)

    def run_each(self, statement: str, rows: Sequence[Row]) -> None:
        self._interrupt()
        self._engine.run_each(statement, rows)

    def may_refuse(self, message: Message) -> bool:
        return self._engine.may_refuse(message)

    def _interrupt(self) -> None:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile:
            meanwhile()


def without(row: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [value for place, value in enumerate(row) if place not in places]
