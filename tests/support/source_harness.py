"""One interface to the sources under test, whatever they read from."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from consumer_service.settings import ConsumerProcessSettings, KafkaSettings, RedisSettings
from consumer_service.sources import MessageSource
from consumer_service.sources.conformance import (
    POLL_SECONDS,
    SourceHarness,
    offsets_after,
    read,
    read_nothing,
    values,
)
from consumer_service.sources.loading import find_source
from libaggregator.settings import Secret, load
from tests.support.brokers import AnyBroker
from tests.support.redis import RedisServer
from tests.support.topics import Sent, fresh_name

__all__ = [
    "POLL_SECONDS",
    "SESSION_TIMEOUT",
    "FileHarness",
    "Harness",
    "KafkaHarness",
    "RedisHarness",
    "offsets_after",
    "read",
    "read_nothing",
    "values",
]

SESSION_TIMEOUT = 2.0
"""Seconds. The embedded broker lets a group wait for half of it at each join."""


class Harness(SourceHarness):
    """Fills one source with messages and opens it, any number of times."""

    def __init__(self) -> None:
        self._opened: list[MessageSource] = []

    @abstractmethod
    def settings(self) -> ConsumerProcessSettings:
        """Return the settings of a process that reads the messages."""

    def open(self) -> MessageSource:
        """Return a source as the process makes it; it is closed after the test."""
        settings = self.settings()
        source = find_source(settings.consumer.source)(settings)
        self._opened.append(source)
        return source

    def close(self) -> None:
        """Close every source that was opened."""
        for source in self._opened:
            source.close()


class FileHarness(Harness):
    """The source `file`, on a file of lines."""

    keeps_place = False
    has_end = True

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._file = folder / "results.jsonl"

    def fill(self, values: Iterable[bytes]) -> None:
        """Add lines."""
        with self._file.open("ab") as file:
            file.writelines(value + b"\n" for value in values)

    def settings(self) -> ConsumerProcessSettings:
        """Return settings that name the file."""
        settings = load(ConsumerProcessSettings, None, {}).settings
        return replace(
            settings,
            consumer=replace(settings.consumer, source="file"),
            file=replace(settings.file, path=str(self._file)),
        )


class KafkaHarness(Harness):
    """The source `kafka`, on a topic and a group that nothing else uses; the topic is not there yet."""

    def __init__(self, broker: AnyBroker) -> None:
        super().__init__()
        self.broker = broker
        self.kafka = KafkaSettings(
            bootstrap_servers=(broker.bootstrap,),
            topic=fresh_name("results"),
            group=fresh_name("group"),
            session_timeout=SESSION_TIMEOUT,
        )

    @property
    def topic(self) -> str:
        """The topic that is read."""
        return self.kafka.topic

    def create_topic(self, partitions: int = 1) -> None:
        """Make the topic."""
        self.broker.create_topic(self.topic, partitions)

    def fill(self, values: Iterable[bytes | Sent]) -> None:
        """Add records to the topic."""
        self.broker.produce(self.topic, values)

    def settings(self) -> ConsumerProcessSettings:
        """Return settings with `kafka`, which a test may change before it opens a source."""
        return replace(load(ConsumerProcessSettings, None, {}).settings, kafka=self.kafka)


class RedisHarness(Harness):
    """The source `redis`, on a stream and a group that nothing else uses; the stream is not there yet."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__()
        self.server = server
        self.redis = RedisSettings(
            url=Secret(server.url), stream=fresh_name("results"), group=fresh_name("group"), claim_after=1
        )

    @property
    def stream(self) -> str:
        """The stream that is read."""
        return self.redis.stream

    def fill(self, values: Iterable[bytes | Sent]) -> None:
        """Add entries to the stream."""
        self.server.produce(self.stream, values)

    def settings(self) -> ConsumerProcessSettings:
        """Return settings with `redis`, which a test may change before it opens a source."""
        settings = load(ConsumerProcessSettings, None, {}).settings
        return replace(settings, consumer=replace(settings.consumer, source="redis"), redis=self.redis)
