"""Puts the parts of a replay together and runs it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from threading import Event

from consumer_service.engines import Conflict, Engine, engine_for
from consumer_service.process import pipeline_for
from consumer_service.replay.error_rows import ErrorRows, UnreadableRowError, with_rows
from consumer_service.replay.letters import PAGE_ROWS, LetterBox, Selection
from consumer_service.replay.replayer import Replayer, Summary
from consumer_service.settings import ConsumerProcessSettings
from consumer_service.sources import SourceUnavailable
from consumer_service.writer import Writer
from libaggregator.clock import utc_now
from libaggregator.settings import SettingsError
from libaggregator.storage.connections import open_writer
from libaggregator.storage.faults import DATABASE_ERRORS, describe
from libaggregator.storage.schema import require_schema
from libaggregator.threads import in_a_thread

Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Shows how far it is: takes how many things there are, and gives a function that takes how many were done."""


_WITH_LETTERS_IN_KAFKA = ("kafka", "file")
"""Sources beside which `kafka.dead_letter_topic` is meant; `file` has no dead letters of its own."""


class Origin(StrEnum):
    """Where letters come from."""

    CONSUMER_ERROR = "consumer_error"
    DEAD_LETTERS = "dead_letters"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be replayed, and whether it is only tried."""

    origin: Origin
    selection: Selection
    dry: bool


class ReplayFailed(Exception):
    """Database or broker is away; the text says which and why, in one line."""


def replay(settings: ConsumerProcessSettings, order: Order, stop: Event, progress: Progress, summary: Summary) -> None:
    """Replay until everything was, or until `stop` is set: the page in hand is finished then.

    Counts in `summary`, whatever happens. Raises SettingsError or SchemaError if it can't begin with these settings
    or this database, and ReplayFailed in an outage: what was done stays done.
    """
    in_a_thread("replay", _replay, settings, order, stop, progress, summary)


def _replay(settings: ConsumerProcessSettings, order: Order, stop: Event, progress: Progress, summary: Summary) -> None:
    pipeline = pipeline_for(settings.consumer)
    database = open_writer(settings.database, "aggregator-consumer replay")
    try:
        require_schema(database)
        engine = engine_for(database, rehearsal=order.dry)
        replayer = Replayer(
            pipeline,
            Writer(engine, utc_now, keeps_rejected=False),
            engine,
            renews_errors=order.origin is Origin.CONSUMER_ERROR,
            dry=order.dry,
        )
        with closing(_open(settings, order, engine, stop)) as box, progress(box.count()) as advance:
            for page in box.pages():
                if stop.is_set():
                    break
                replayer.replay(page.letters, summary)
                summary.strangers += page.strangers
                advance(page.passed)
    except SourceUnavailable as error:
        raise ReplayFailed(str(error)) from error
    except Conflict as error:
        raise ReplayFailed(f"the database does not do it: {error}") from error
    except DATABASE_ERRORS as error:
        raise ReplayFailed(f"the database does not do it: {describe(error)}") from error
    except UnreadableRowError as error:
        raise ReplayFailed(str(error)) from error
    finally:
        database.close()


def _open(settings: ConsumerProcessSettings, order: Order, engine: Engine, stop: Event) -> LetterBox:
    page_rows = min(PAGE_ROWS, settings.consumer.max_batch)
    if order.origin is Origin.CONSUMER_ERROR:
        return ErrorRows(engine, order.selection, page_rows)
    if settings.consumer.source not in _WITH_LETTERS_IN_KAFKA:
        source = settings.consumer.source
        raise SettingsError(
            [f"--from dead_letters: reads Kafka alone, consumer.source is {source!r}; use --from consumer_error"]
        )
    from consumer_service.replay.topic import TopicLetters  # noqa: PLC0415 - rows need no Kafka client

    return TopicLetters(settings.kafka, order.selection, partial(with_rows, engine), stop, page_rows)
