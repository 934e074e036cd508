"""What Kafka tells of the group and its topics, asked from outside: nobody joins the group, nothing is read."""

from collections.abc import Iterator
from contextlib import contextmanager

from kafka import KafkaConsumer, TopicPartition

from consumer_service.kafka_client import (
    CLIENT_FAULTS,
    CONNECT_TIMEOUT,
    Connecting,
    connection_options,
    describe,
    end_within,
    problems_of,
)
from consumer_service.settings import KafkaSettings
from consumer_service.sources import SourceUnavailable
from consumer_service.status.model import PartitionStatus
from libaggregator.settings import SettingsError

_ANSWER_MS = 10_000


class Broker:
    """Answers questions about topics; raises SourceUnavailable if it can't."""

    def __init__(self, consumer: KafkaConsumer, settings: KafkaSettings) -> None:
        """Take a client that belongs to the group and subscribes to nothing."""
        self._consumer = consumer
        self._settings = settings

    def partitions(self, topic: str) -> list[PartitionStatus]:
        """Return how far the group is in each partition of a topic."""
        with _faults_told(self._settings):
            found = self._find(topic)
            begins, ends = self._range(found)
            committed = {it: self._consumer.committed(it, timeout_ms=_ANSWER_MS) for it in found}
        reads_all = self._settings.auto_offset_reset == "earliest"
        return [
            PartitionStatus(
                partition.partition,
                committed[partition],
                ends[partition],
                lag_of(committed[partition], begins[partition], ends[partition], reads_all=reads_all),
            )
            for partition in found
        ]

    def held(self, topic: str) -> int:
        """Return how many offsets a topic holds, between its begin and its end."""
        with _faults_told(self._settings):
            begins, ends = self._range(self._find(topic))
        return sum(end - begins[partition] for partition, end in ends.items())

    def _find(self, topic: str) -> list[TopicPartition]:
        numbers = self._consumer.partitions_for_topic(topic)
        if not numbers:
            raise SourceUnavailable(f"topic {topic!r} does not exist")
        return [TopicPartition(topic, number) for number in sorted(numbers)]

    def _range(self, found: list[TopicPartition]) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        ends: dict[TopicPartition, int] = self._consumer.end_offsets(found, timeout_ms=_ANSWER_MS)
        begins: dict[TopicPartition, int] = self._consumer.beginning_offsets(found, timeout_ms=_ANSWER_MS)
        return begins, ends


def lag_of(committed: int | None, begin: int, end: int, *, reads_all: bool) -> int:
    """Return how many offsets a group has still to read; what retention removed is nothing to read any more.

    `reads_all` says that it begins with the first record where it has no offset, or one that is not in the topic.
    """
    if committed is None or not begin <= committed <= end:
        return end - begin if reads_all else 0
    return end - committed


@contextmanager
def connected(settings: KafkaSettings) -> Iterator[Broker]:
    """Connect for a block; raises SettingsError for settings that can't work, SourceUnavailable without a broker."""
    if problems := problems_of(settings):
        raise SettingsError(problems)
    with _faults_told(settings), Connecting(settings) as connecting:
        consumer = KafkaConsumer(
            **connection_options(settings),
            kafka_client=connecting,
            group_id=settings.group,
            enable_auto_commit=False,
        )
    try:
        yield Broker(consumer, settings)
    finally:
        end_within(CONNECT_TIMEOUT, "status", consumer.close)
        end_within(CONNECT_TIMEOUT, "status", connecting.client.close)


@contextmanager
def _faults_told(settings: KafkaSettings) -> Iterator[None]:
    try:
        yield
    except CLIENT_FAULTS as error:
        raise SourceUnavailable(describe(error, settings)) from error
