"""Puts the parts of a prune together and runs it."""

from dataclasses import dataclass
from threading import Event

from consumer_service.engines import engine_for
from consumer_service.pruning.pruner import Limits, Progress, Pruner, Summary
from consumer_service.settings import ConsumerProcessSettings
from consumer_service.statement_limit import StatementLimit
from libaggregator.storage.connections import open_writer
from libaggregator.storage.faults import DATABASE_ERRORS, READ_ONLY, describe, is_read_only
from libaggregator.storage.schema import require_schema
from libaggregator.threads import in_a_thread


@dataclass(frozen=True, slots=True)
class Order:
    """What is to go, and whether it is only counted."""

    limits: Limits
    dry: bool


class PruneFailed(Exception):
    """The database does not do it; the text says why and what to do, in one line."""


def prune(settings: ConsumerProcessSettings, order: Order, stop: Event, progress: Progress, summary: Summary) -> None:
    """Prune until all is gone through, or until `stop` is set: the page in hand is finished then.

    Counts in `summary`, whatever happens. Raises SettingsError or SchemaError if it can't begin with these settings
    or this database, and PruneFailed in an outage: what was done stays done.
    """
    in_a_thread("prune", _prune, settings, order, stop, progress, summary)


def _prune(settings: ConsumerProcessSettings, order: Order, stop: Event, progress: Progress, summary: Summary) -> None:
    database = open_writer(settings.database, "aggregator-consumer prune")
    try:
        with StatementLimit(settings.database.statement_timeout).watching(database):
            require_schema(database)
            Pruner(engine_for(database), order.limits, stop, dry=order.dry).prune(summary, progress)
    except DATABASE_ERRORS as error:
        if is_read_only(error):
            raise PruneFailed(READ_ONLY) from error
        advice = "what was done stays done, run it again"
        raise PruneFailed(f"the database does not do it: {describe(error)}; {advice}") from error
    finally:
        database.close()
