"""One interface to the sources under test, whatever they read from."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from consumer_service.settings import ConsumerProcessSettings, KafkaSettings
from consumer_service.sources import MessageSource, Partition, Record, SourceUnavailable
from consumer_service.sources.loading import find_source
from libaggregator.settings import load
from tests.support.brokers import AnyBroker
from tests.support.topics import Sent, fresh_name
from tests.support.waiting import eventually

SESSION_TIMEOUT = 2.0
"""Seconds. The embedded broker lets a group wait for half of it at each join."""

POLL_SECONDS = 0.5


class Harness(ABC):
    """Fills one source with messages and opens it, any number of times."""

    def __init__(self) -> None:
        self._opened: list[MessageSource] = []

    @abstractmethod
    def fill(self, values: Iterable[bytes]) -> None:
        """Add messages."""

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


def read(source: MessageSource, count: int, timeout: float = 20.0, max_records: int = 1000) -> list[Record]:
    """Poll until `count` records have come, or more, and return them; an outage is waited out."""
    records: list[Record] = []

    def enough() -> bool:
        with suppress(SourceUnavailable):
            records.extend(source.poll(POLL_SECONDS, max_records))
        return len(records) >= count

    eventually(enough, timeout, f"{count} records", interval=0)
    return records


def read_nothing(source: MessageSource, seconds: float) -> None:
    """Poll for some seconds; AssertionError if a record comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        records = source.poll(POLL_SECONDS, 1000)
        assert not records, f"unexpected: {records[:3]}"


def values(records: Sequence[Record]) -> list[bytes | None]:
    """Return the payloads."""
    return [record.value for record in records]


def offsets_after(records: Sequence[Record]) -> dict[Partition, int]:
    """Return what to commit for these records."""
    return {Partition(record.topic, record.partition): record.offset + 1 for record in records}
