"""Topics of any broker: made, filled and read by tests with clients of their own."""

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.errors import KafkaError

from consumer_service.sources import Record

TIMEOUT = 60.0


class Sent(NamedTuple):
    """A record to produce, or one that was read."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None


def fresh_name(what: str = "topic") -> str:
    """Return a name that nothing has yet, for a topic or a group."""
    return f"{what}-{uuid.uuid4().hex[:12]}"


class PatientProducer:
    """A producer that waits for a broker that is away, and keeps the order of records whatever it sends again."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            max_in_flight_requests_per_connection=1,
            delivery_timeout_ms=300_000,
            max_block_ms=60_000,
            max_request_size=20_000_000,
            linger_ms=5,
        )

    def send(self, topic: str, record: Sent) -> None:
        """Begin to send a record."""
        self._producer.send(topic, record.value, record.key, list(record.headers), record.partition)

    def flush(self) -> None:
        """Return when the broker has all records; gives up after 80 s."""
        self._producer.flush(80)

    def close(self) -> None:
        """Give up what was not sent."""
        self._producer.close(5)


class Topics:
    """The topics of the broker at `bootstrap`."""

    FAULTS = (KafkaError,)
    """What its clients raise while it is away."""

    keeps_order = True
    """Whether records of one partition have their effect in their order, however many consumers there are."""

    name_setting = "KAFKA__GROUP_INSTANCE_ID"
    """The setting by which a consumer takes over from its predecessor of the same name at once."""

    letters_setting = "KAFKA__DEAD_LETTER_TOPIC"
    producer_batch_bytes = 64 * 1024
    session_timeout = "6"
    quick_settings: Mapping[str, str] = {"KAFKA__SESSION_TIMEOUT": "2"}
    """Settings with which another consumer takes over soon from one that is gone."""

    @property
    def bootstrap(self) -> str:
        """Where the broker listens, `HOST:PORT`."""
        raise NotImplementedError

    def consumer_settings(self, topic: str, group: str) -> dict[str, str]:
        """Return the settings of a consumer, without the prefix of the variables."""
        return {
            "KAFKA__BOOTSTRAP_SERVERS": self.bootstrap,
            "KAFKA__TOPIC": topic,
            "KAFKA__GROUP": group,
            "KAFKA__SESSION_TIMEOUT": self.session_timeout,
        }

    def open_producer(self) -> PatientProducer:
        """Return a producer that waits for a broker that is away."""
        return PatientProducer(self.bootstrap)

    def create_topic(self, name: str, partitions: int = 1, config: dict[str, str] | None = None) -> str:
        """Make a topic, return its name, and come back when it can be used."""
        with_config = NewTopic(name=name, num_partitions=partitions, replication_factor=1, topic_configs=config or {})
        client = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            client.create_topics([with_config])
        finally:
            client.close()
        return name

    def delete_topic(self, name: str) -> None:
        """Remove a topic."""
        client = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            client.delete_topics([name])
        finally:
            client.close()

    def delete_records(self, topic: str, before: dict[int, int]) -> None:
        """Remove the records of each partition before an offset, as retention does."""
        client = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            client.delete_records({TopicPartition(topic, number): offset for number, offset in before.items()})
        finally:
            client.close()

    def set_topic_config(self, topic: str, name: str, value: str) -> None:
        """Change a setting of a topic."""
        client = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            client.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic, {name: value})],
                # it would ask a broker that may not have heard of the topic yet
                raise_on_unknown=False,
            )
        finally:
            client.close()

    def topic_names(self) -> set[str]:
        """Return the names of all topics."""
        client = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            return set(client.list_topics())
        finally:
            client.close()

    def add_partitions(self, name: str, partitions: int) -> None:
        """Give a topic more partitions, `partitions` in all."""
        client = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            client.create_partitions({name: NewPartitions(partitions)})
        finally:
            client.close()

    def produce(self, topic: str, records: Iterable[Sent | bytes], compression: str | None = None) -> None:
        """Write records in their order and return when the broker has all of them."""
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap,
            batch_size=self.producer_batch_bytes,
            acks="all",
            max_request_size=20_000_000,
            compression_type=compression,
        )
        try:
            sent = [record if isinstance(record, Sent) else Sent(record) for record in records]
            futures = [
                producer.send(topic, record.value, record.key, list(record.headers), record.partition)
                for record in sent
            ]
            producer.flush(TIMEOUT)
            for future in futures:
                future.get(TIMEOUT)
        finally:
            producer.close(TIMEOUT)

    def read(self, topic: str, count: int, timeout: float = TIMEOUT) -> list[Sent]:
        """Return the first `count` records of a topic, fewer if they don't come within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._reader() as consumer:
            consumer.assign(_partitions_of(topic, consumer))
            found: list[Sent] = []
            while len(found) < count and time.monotonic() < deadline:
                for records in consumer.poll(timeout_ms=200).values():
                    found += [Sent(r.value, r.key, r.headers, r.partition) for r in records]
            return found

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Return the offset behind the last record of each partition of a topic."""
        with self._reader() as consumer:
            ends = consumer.end_offsets(_partitions_of(topic, consumer))
            return {found.partition: offset for found, offset in ends.items()}

    def records(self, topic: str, timeout: float = TIMEOUT) -> list[Record]:
        """Return every record that a topic has at the moment, those of one partition in their order."""
        deadline = time.monotonic() + timeout
        with self._reader() as consumer:
            ends = {found: end for found, end in consumer.end_offsets(_partitions_of(topic, consumer)).items() if end}
            consumer.assign(list(ends))
            found: list[Record] = []
            while any(consumer.position(partition) < end for partition, end in ends.items()):
                assert time.monotonic() < deadline, f"{len(found)} records of {topic} read, not all within {timeout} s"
                for records in consumer.poll(timeout_ms=200, max_records=10_000).values():
                    found += [
                        Record(r.topic, r.partition, r.offset, r.key, r.value, tuple(r.headers), r.timestamp)
                        for r in records
                    ]
            return found

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Return the committed offset of each partition of a topic for a group."""
        client = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            offsets = client.list_group_offsets({group: None})[group]
        finally:
            client.close()
        return {tp.partition: found.offset for tp, found in offsets.items() if tp.topic == topic}

    @contextmanager
    def _reader(self) -> Iterator[KafkaConsumer]:
        """Yield a consumer without a group, which begins at the first record."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            max_partition_fetch_bytes=20_000_000,
        )
        try:
            yield consumer
        finally:
            consumer.close()


def _partitions_of(topic: str, consumer: KafkaConsumer) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
