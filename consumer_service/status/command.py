"""Asks everybody, and goes on where somebody does not answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from consumer_service.settings import ConsumerProcessSettings, KafkaSettings, RedisSettings
from consumer_service.sources import SourceUnavailable
from consumer_service.sources.loading import find_source
from consumer_service.statement_limit import StatementLimit
from consumer_service.status.database import SCAN_SECONDS, read_database
from consumer_service.status.model import (
    DatabaseStatus,
    DeadLettersStatus,
    Problem,
    SourceStatus,
    Status,
    TopicStatus,
)
from libaggregator.settings import Secret
from libaggregator.storage.connections import open_reader
from libaggregator.storage.faults import DATABASE_ERRORS, describe
from libaggregator.storage.schema import SchemaError

_KAFKA, _REDIS = "kafka", "redis"


def read_status(settings: ConsumerProcessSettings, now: datetime) -> Status:
    """Return how everything is at an instant (UTC, without a zone).

    Raises SettingsError if database or source could not be asked with these settings however long one waits.
    """
    # what is wrong with the settings is told as at the start of a consumer; no source connects when it is made
    find_source(settings.consumer.source)(settings).close()
    status = Status(now.replace(tzinfo=UTC), SourceStatus(settings.consumer.source))
    status.database = _read_database(settings, now, status.problems)
    letters = None
    if settings.consumer.source == _KAFKA:
        status.source, letters = _read_kafka(settings.kafka, status.problems)
    if settings.consumer.source == _REDIS:
        status.source, letters = _read_redis(settings.redis, status.problems)
    table = status.database.tables["consumer_error"] if status.database else None
    status.dead_letters = DeadLettersStatus(table, letters)
    return status


def _read_database(settings: ConsumerProcessSettings, now: datetime, problems: list[Problem]) -> DatabaseStatus | None:
    # what the consumer writes to, never a replica; and nothing can be changed by asking
    database = open_reader(replace(settings.database, read_url=Secret("")), "aggregator-consumer status")
    try:
        with StatementLimit(SCAN_SECONDS).watching(database):
            return read_database(database, now, problems)
    except SchemaError as error:
        problems.append(Problem("database", str(error)))
    except DATABASE_ERRORS as error:
        problems.append(Problem("database", describe(error)))
    finally:
        database.close()
    return None


def _read_kafka(settings: KafkaSettings, problems: list[Problem]) -> tuple[SourceStatus, TopicStatus | None]:
    from consumer_service.status.broker import connected  # noqa: PLC0415 - other sources need no Kafka client

    source = SourceStatus(_KAFKA, settings.topic, settings.group)
    letters = _letters(settings.dead_letter_topic)
    with _told(problems, "source"), connected(settings) as broker:
        with _told(problems, "source"):
            partitions = broker.partitions(settings.topic)
            source = replace(source, lag=sum(one.lag for one in partitions), partitions=partitions)
        if letters:
            with _told(problems, "dead_letters"):
                letters = replace(letters, records=broker.held(letters.name))
    return source, letters


def _read_redis(settings: RedisSettings, problems: list[Problem]) -> tuple[SourceStatus, TopicStatus | None]:
    from consumer_service.status.streams import connected  # noqa: PLC0415 - other sources need no client of Redis

    source = SourceStatus(_REDIS, settings.stream, settings.group)
    letters = _letters(settings.dead_letter_stream)
    with connected(settings) as streams:
        with _told(problems, "source"):
            source = streams.source(_REDIS)
        if letters:
            with _told(problems, "dead_letters"):
                letters = replace(letters, records=streams.held(letters.name))
    return source, letters


def _letters(name: str) -> TopicStatus | None:
    return TopicStatus(name, None) if name else None


@contextmanager
def _told(problems: list[Problem], part: str) -> Iterator[None]:
    try:
        yield
    except SourceUnavailable as error:
        problems.append(Problem(part, str(error)))
