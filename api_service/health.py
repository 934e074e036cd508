"""Whether the database can be used: its schema at the start, its answers afterwards."""

import time
from threading import Thread

import structlog
from peewee import Database

from api_service.deadline import is_silence, put_first_host_last
from libaggregator.storage.connections import is_of_lost_file
from libaggregator.storage.faults import DATABASE_ERRORS, describe
from libaggregator.storage.schema import require_schema

_PAUSE_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0

log = structlog.get_logger(__name__)


class DatabaseWatch:
    """Reads the schema as soon as the database is there, then asks it once a second whether it is.

    It has a thread and a connection of its own, so that neither probes nor signals wait for a database that hangs.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._problem: str | None = "not asked yet"
        self._asked = time.monotonic()
        self._in_outage = False
        self.schema_is_ours = False
        self.failure: Exception | None = None
        """Why it asks no more: SchemaError if this database never can be used."""

    def start(self) -> None:
        """Begin to ask."""
        Thread(target=self._run, name="database-watch", daemon=True).start()

    def check(self) -> str | None:
        """Return what is wrong, None if the database answered lately."""
        silent = time.monotonic() - self._asked
        return f"no answer for {silent:.0f} s" if silent > _PATIENCE_SECONDS else self._problem

    def _run(self) -> None:
        try:
            while True:
                self._problem = self._ask()
                self._asked = time.monotonic()
                self._log_change()
                time.sleep(_PAUSE_SECONDS)
        except Exception as failure:
            self.failure = failure

    def _ask(self) -> str | None:
        """Return what is wrong with the database; raises SchemaError if it never can be used."""
        try:
            if is_of_lost_file(self._database):
                self._database.close()
            if self.schema_is_ours:
                # SQLite answers without its file what is not about a table
                self._database.execute_sql("SELECT version FROM migration_info").fetchall()
            else:
                require_schema(self._database, to_write=False)
                self.schema_is_ours = True
        except DATABASE_ERRORS as error:
            self._database.close()
            if is_silence(error):
                put_first_host_last(self._database)
            return describe(error)
        return None

    def _log_change(self) -> None:
        if self._problem and not self._in_outage:
            log.warning("database unavailable, waiting for it", problem=self._problem)
        if self._in_outage and not self._problem:
            log.info("database available again")
        self._in_outage = self._problem is not None
