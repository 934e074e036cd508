"""What every source has to do, and what the one for Kafka has to do besides; each test on every kind."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka import codec as kafka_codec
from kafka.consumer.fetcher import Fetcher

from consumer_service import dead_letters, kafka_client
from consumer_service.sources import DeadLetter, Delivery, MessageSource, Partition, Progress, Record, SourceUnavailable
from consumer_service.sources import kafka as kafka_source
from consumer_service.sources.conformance import SourceConformance
from tests.support.brokers import AnyBroker, EmbeddedTestBroker
from tests.support.kafka import ApacheKafka
from tests.support.source_harness import (
    POLL_SECONDS,
    SESSION_TIMEOUT,
    FileHarness,
    Harness,
    KafkaHarness,
    RedisHarness,
    offsets_after,
    read,
    read_nothing,
    values,
)
from tests.support.topics import Sent, fresh_name
from tests.support.waiting import eventually

BROKER_FIXTURES = {"embedded": "embedded_broker", "apache": "apache_kafka"}

TEN = [b'{"number": %d}' % number for number in range(10)]

PATIENCE = 1.0
"""Seconds that the source gives a broker in these tests; less than it does otherwise, so that they are quick."""

LONGEST_CALL = PATIENCE + 2
"""Seconds that any call may take while the broker is away, so that the process can be stopped."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the source wait for its broker for a second only."""
    monkeypatch.setattr(kafka_client, "CONNECT_TIMEOUT", PATIENCE)
    monkeypatch.setattr(dead_letters, "DELIVERY_TIMEOUT", PATIENCE)
    monkeypatch.setattr(kafka_source, "END_OFFSETS_TIMEOUT", PATIENCE)
    for name in ("COMMIT_TIMEOUT", "LEAVE_TIMEOUT", "METADATA_SECONDS"):
        monkeypatch.setattr(kafka_source, name, PATIENCE)


@pytest.fixture(params=["file", "embedded", "apache", "redis"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    """Yield each kind of source in turn."""
    if request.param == "file":
        made: Harness = FileHarness(tmp_path)
    elif request.param == "redis":
        made = RedisHarness(request.getfixturevalue("redis_server"))
    else:
        made = kafka_harness = KafkaHarness(request.getfixturevalue(BROKER_FIXTURES[request.param]))
        kafka_harness.create_topic()
    yield made
    made.close()


@pytest.fixture
def kafka(broker: AnyBroker) -> Iterator[KafkaHarness]:
    """Yield a topic name and a group on each broker in turn; the topic is not there yet."""
    made = KafkaHarness(broker)
    yield made
    made.close()


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.long)])
def stoppable(request: pytest.FixtureRequest) -> Iterator[KafkaHarness]:
    """Yield the same on a broker that the test may stop; it runs."""
    if request.param == "embedded":
        broker: AnyBroker = EmbeddedTestBroker()
        broker.start()
    else:
        broker = request.getfixturevalue("apache_kafka")
    made = KafkaHarness(broker)
    yield made
    made.close()
    if request.param == "embedded":
        broker.stop()
    elif not broker.running:
        broker.start()


class TestEverySource(SourceConformance):
    pass


class TestKafkaProgress:
    def test_it_is_where_the_next_poll_begins_and_where_the_partition_ends(self, kafka: KafkaHarness) -> None:
        kafka.create_topic(2)
        kafka.fill([Sent(value, partition=1) for value in TEN])
        source = kafka.open()
        assert source.progress() == {}
        read(source, 3, max_records=3)

        assert places(source) == {0: (0, 0), 1: (3, 10)}
        source.keep_alive(0.1)
        assert places(source) == {0: (0, 0), 1: (3, 10)}
        read(source, 7)
        assert places(source) == {0: (0, 0), 1: (10, 10)}

    def test_the_end_moves_on_although_nothing_is_fetched(
        self, kafka: KafkaHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kafka.create_topic()
        kafka.fill(TEN)
        source = kafka.open()
        read(source, 10)
        monkeypatch.setattr(Fetcher, "_create_fetch_requests", lambda fetcher: {})
        # what was asked for before may still come
        read_nothing(source, POLL_SECONDS)

        kafka.fill(TEN)
        read_nothing(source, POLL_SECONDS)

        assert places(source) == {0: (10, 20)}
        assert source.problem() is None

    def test_a_partition_that_is_given_away_is_left_out_and_one_that_stays_is_assigned_anew(
        self, kafka: KafkaHarness
    ) -> None:
        kafka.create_topic(2)
        kafka.fill([Sent(b"first", partition=partition) for partition in (0, 1)])
        first = kafka.open()
        read(first, 2)
        before = first.progress()
        second = kafka.open()
        given_up = wait_for_share(first, second)

        def only_one_is_left() -> Mapping[Partition, Progress]:
            first.poll(POLL_SECONDS, 1000)
            return first.progress()

        # none as long as the rebalance lasts
        with kept_alive(second):
            after = eventually(only_one_is_left, 20, "the progress of the partition that stays", interval=0)

        (kept,) = after
        assert kept.number == 1 - given_up
        assert after[kept].position == before[kept].position
        assert not after[kept].stands_where(before[kept])

    def test_the_end_of_a_transaction_is_no_record_that_is_missing(self, apache_kafka: ApacheKafka) -> None:
        kafka = KafkaHarness(apache_kafka)
        kafka.create_topic()
        producer = KafkaProducer(bootstrap_servers=kafka.broker.bootstrap, transactional_id=fresh_name("transaction"))
        producer.init_transactions()
        for end in (producer.commit_transaction, producer.abort_transaction):
            producer.begin_transaction()
            for value in TEN[:3]:
                producer.send(kafka.topic, value).get(10)
            end()
        producer.close()
        source = kafka.open()
        # exactly so many that the last mark is not looked at with them
        read(source, 6, max_records=3)

        def at_the_end() -> bool:
            read_nothing(source, POLL_SECONDS)
            return places(source) == {0: (8, 8)}

        eventually(at_the_end, what="the position behind the last mark")
        kafka.close()

    @pytest.mark.long
    def test_records_that_compaction_took_away_are_not_missing(self) -> None:
        broker = ApacheKafka({"log.cleaner.backoff.ms": "100", "log.cleaner.min.cleanable.ratio": "0.01"})
        kafka = KafkaHarness(broker)
        try:
            broker.start()
            config = {"cleanup.policy": "compact", "segment.bytes": "1048576", "segment.ms": "100"}
            broker.create_topic(kafka.topic, config=config)
            kafka.fill([Sent(b"%d" % number, b"the same key") for number in range(50)])

            def is_compacted() -> bool:
                # a new record closes the segment before it, and only closed ones are compacted
                kafka.fill([Sent(b"", b"another key")])
                return len(broker.read(kafka.topic, 10, timeout=1)) < 10

            eventually(is_compacted, 60, "the topic is compacted", interval=0.2)
            source = kafka.open()

            def at_the_end() -> bool:
                source.poll(POLL_SECONDS, 1)
                # none before the first position is known
                return any(position == end > 50 for position, end in places(source).values())

            eventually(at_the_end, 20, "the position at the end", interval=0)
        finally:
            kafka.close()
            broker.close()

    def test_a_topic_that_is_gone_has_none_and_it_is_told_as_a_problem(self, kafka: KafkaHarness) -> None:
        kafka.create_topic()
        kafka.fill(TEN)
        source = kafka.open()
        read(source, 10)

        kafka.broker.delete_topic(kafka.topic)
        with bounded():
            eventually(lambda: source.progress() == {}, what="no progress", interval=0)

        eventually(lambda: says(source, "does not exist"), 20, "the topic is missed", interval=0)

    def test_an_outage_is_not_waited_out(self, stoppable: KafkaHarness) -> None:
        stoppable.create_topic()
        stoppable.fill(TEN)
        source = stoppable.open()
        read(source, 10)

        stoppable.broker.stop()

        with bounded():
            assert source.progress() == {}


@pytest.mark.parametrize(
    "commits",
    [pytest.param(False, id="idle", marks=pytest.mark.long), pytest.param(True, id="with offsets on their way")],
)
def test_a_frozen_broker_is_told_although_its_connections_last(apache_kafka: ApacheKafka, commits: bool) -> None:
    kafka = KafkaHarness(apache_kafka)
    # as by default: nothing tells of it before
    kafka.kafka = replace(kafka.kafka, session_timeout=10)
    kafka.create_topic()
    kafka.fill(TEN)
    source = kafka.open()
    read(source, 10)

    with apache_kafka.frozen():
        if commits:
            source.commit({Partition(kafka.topic, 0): 10})
        # requests would be waited for for half a minute
        eventually(lambda: says(source, "no answer"), 25, "the problem", interval=0)
        assert apache_kafka.bootstrap in (source.problem() or "")
        with bounded():
            assert source.progress() == {}

    def answers_again() -> bool:
        with suppress(SourceUnavailable):
            source.poll(POLL_SECONDS, 1)
        return source.problem() is None

    eventually(answers_again, 60, "the broker answers", interval=0)
    kafka.close()


class TestKafkaRecords:
    def test_keys_values_and_headers_are_untouched(self, kafka: KafkaHarness) -> None:
        kafka.create_topic()
        binary = bytes(range(256))
        sent = [
            Sent(binary, binary, [("h", binary), ("h", b""), ("ä", b"x")]),
            Sent(b"", b""),
            Sent(None, b"key"),
            Sent(b"value", None),
        ]
        before = int(time.time() * 1000)
        kafka.fill(sent)

        records = read(kafka.open(), len(sent))

        assert [(r.value, r.key, list(r.headers)) for r in records] == [(s.value, s.key, list(s.headers)) for s in sent]
        assert all(record.topic == kafka.topic for record in records)
        assert all(before <= (record.timestamp or 0) <= time.time() * 1000 for record in records)

    def test_a_record_larger_than_a_fetch_comes_through(self, kafka: KafkaHarness) -> None:
        kafka.create_topic()
        large = bytes(10_000_000)
        kafka.fill([b"before", large, b"after"])

        assert values(read(kafka.open(), 3)) == [b"before", large, b"after"]

    @pytest.mark.parametrize("compression", ["gzip", "lz4", "snappy", "zstd"])
    def test_whatever_way_a_producer_packs_its_batches(self, apache_kafka: ApacheKafka, compression: str) -> None:
        kafka = KafkaHarness(apache_kafka)
        kafka.create_topic()
        kafka.broker.produce(kafka.topic, TEN, compression=compression)

        assert values(read(kafka.open(), len(TEN))) == TEN
        kafka.close()

    def test_a_record_that_the_client_cannot_read_is_reported_and_not_skipped(
        self, kafka: KafkaHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kafka.create_topic()
        kafka.fill([b"plain"])
        kafka.broker.produce(kafka.topic, [b"packed" * 100], compression="gzip")
        kafka.fill([b"plain again"])
        source = kafka.open()

        with monkeypatch.context() as without_library:
            without_library.setattr(kafka_codec, "has_gzip", lambda: False)
            assert values(read(source, 1)) == [b"plain"]
            source.commit({Partition(kafka.topic, 0): 1})
            eventually(lambda: says(source, "gzip"), what="the problem")
            with pytest.raises(SourceUnavailable, match="gzip"):
                read_nothing(source, 10)

        assert values(read(source, 2)) == [b"packed" * 100, b"plain again"]


class TestKafkaOffsets:
    def test_a_new_consumer_goes_on_after_what_was_committed(self, kafka: KafkaHarness) -> None:
        kafka.create_topic()
        kafka.fill(TEN)
        first = kafka.open()
        records = read(first, 4, max_records=4)
        read(first, 3, max_records=3)
        first.commit(offsets_after(records))
        first.close()

        assert values(read(kafka.open(), 6)) == TEN[4:]

    def test_what_was_committed_last_has_arrived_when_the_source_is_closed(self, kafka: KafkaHarness) -> None:
        kafka.create_topic()
        kafka.fill(TEN)
        source = kafka.open()
        for record in read(source, 10):
            source.commit(offsets_after([record]))
        source.close()

        assert kafka.broker.committed(kafka.kafka.group, kafka.topic) == {0: 10}

    def test_closing_commits_nothing(self, kafka: KafkaHarness) -> None:
        kafka.create_topic()
        kafka.fill(TEN)
        first = kafka.open()
        read(first, 10)
        first.close()

        assert kafka.broker.committed(kafka.kafka.group, kafka.topic) == {}
        assert values(read(kafka.open(), 10)) == TEN

    def test_a_new_group_can_start_at_the_end(self, kafka: KafkaHarness) -> None:
        kafka.create_topic()
        kafka.fill(TEN)
        kafka.kafka = replace(kafka.kafka, auto_offset_reset="latest")
        source = kafka.open()
        read_nothing(source, 0.75 * SESSION_TIMEOUT)

        kafka.fill([b"new"])

        assert values(read(source, 1)) == [b"new"]

    def test_a_partition_that_is_not_assigned_is_not_committed(self, kafka: KafkaHarness) -> None:
        kafka.create_topic()
        kafka.fill(TEN)
        source = kafka.open()
        records = read(source, 10)

        source.commit({**offsets_after(records), Partition(kafka.topic, 7): 5, Partition("another", 0): 5})

        assert committed(kafka) == {0: 10}

    def test_a_static_member_can_be_replaced(self, apache_kafka: ApacheKafka) -> None:
        kafka = KafkaHarness(apache_kafka)
        kafka.create_topic()
        kafka.fill(TEN)
        kafka.kafka = replace(kafka.kafka, group_instance_id="consumer-1")
        first = kafka.open()
        first.commit(offsets_after(read(first, 10)))
        first.close()
        kafka.fill([b"next"])

        assert values(read(kafka.open(), 1)) == [b"next"]
        kafka.close()


class TestKafkaTopic:
    def test_is_waited_for_without_being_made(self, kafka: KafkaHarness) -> None:
        source = kafka.open()

        eventually(lambda: says(source, f"topic '{kafka.topic}' does not exist yet"), 10, "the topic is missed")

        assert kafka.topic not in kafka.broker.topic_names()

        kafka.create_topic(2)
        kafka.fill([Sent(b"first", partition=1)])
        begin = time.monotonic()
        assert values(read(source, 1)) == [b"first"]
        assert time.monotonic() - begin < 5
        assert source.problem() is None

    def test_is_followed_when_it_is_made_again(self, kafka: KafkaHarness) -> None:
        kafka.create_topic()
        kafka.fill(TEN[:3])
        source = kafka.open()
        source.commit(offsets_after(read(source, 3)))

        kafka.broker.delete_topic(kafka.topic)
        eventually(lambda: kafka.topic not in kafka.broker.topic_names(), what="the topic is gone")
        kafka.create_topic()
        kafka.fill(TEN)

        seen: list[bytes | None] = []

        def all_came() -> bool:
            seen.extend(values(source.poll(POLL_SECONDS, 1000)))
            return set(TEN) <= set(seen)

        eventually(all_came, 30, "every record of the new topic", interval=0)

    def test_is_read_from_new_partitions_too(self, apache_kafka: ApacheKafka) -> None:
        kafka = KafkaHarness(apache_kafka)
        kafka.create_topic(1)
        source = kafka.open()
        read_nothing(source, POLL_SECONDS)

        apache_kafka.add_partitions(kafka.topic, 2)
        kafka.fill([Sent(b"in a new one", partition=1)])

        assert values(read(source, 1, timeout=30)) == [b"in a new one"]
        kafka.close()


class TestKafkaGroup:
    def test_a_group_is_joined_once(self, kafka: KafkaHarness, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "kafka.coordinator")
        kafka.create_topic()
        kafka.fill(TEN)
        source = kafka.open()
        read(source, 10)

        # to join once more would cost each other member the time to its next heartbeat
        read_nothing(source, 1)
        assert sum("joined group" in record.message for record in caplog.records) == 1

    def test_two_consumers_share_the_partitions(self, kafka: KafkaHarness) -> None:
        kafka.create_topic(2)
        kafka.fill([Sent(b"first", partition=partition) for partition in (0, 1)])
        first = kafka.open()
        in_hand = read(first, 2)
        second = kafka.open()
        given_up = wait_for_share(first, second)

        # one of the two partitions is the other's by now
        kept = 1 - given_up

        def only_the_kept_is_committed() -> bool:
            # offsets are left out as long as a rebalance is under way
            first.commit(offsets_after(in_hand))
            return kafka.broker.committed(kafka.kafka.group, kafka.topic) == {kept: 1}

        with kept_alive(second):
            eventually(only_the_kept_is_committed, 30, "the offset of the kept partition, and no other", interval=0)
        kafka.fill([Sent(b"second", partition=partition) for partition in (0, 1)])
        assert {record.partition for record in read(first, 1)} == {kept}
        assert (given_up, 1) in {(record.partition, record.offset) for record in read(second, 1)}

    def test_records_of_a_partition_that_comes_while_waiting_are_not_lost(self, kafka: KafkaHarness) -> None:
        kafka.create_topic(2)
        kafka.fill([Sent(b"%d" % number, partition=partition) for partition in (0, 1) for number in range(5)])
        first = kafka.open()
        read(first, 10)
        second = kafka.open()
        given_up = wait_for_share(first, second)
        kafka.fill([Sent(b"new", partition=given_up) for _ in range(5)])
        second.close()

        # the other's partition comes while the first waits for its database
        first.keep_alive(SESSION_TIMEOUT)
        records: list[Record] = []

        def all_came() -> bool:
            records.extend(first.poll(POLL_SECONDS, 1000))
            return bool(records) and records[-1].offset == 9

        eventually(all_came, 20, "the last record", interval=0)
        assert {record.partition for record in records} == {given_up}
        # all of them, or those that the first had not read itself before
        assert [record.offset for record in records] in (list(range(10)), list(range(5, 10)))

    def test_partitions_that_a_wait_found_partly_read_are_all_read_on(self, kafka: KafkaHarness) -> None:
        kafka.create_topic(2)
        kafka.fill([Sent(b"%d" % number, partition=partition) for partition in (0, 1) for number in range(10)])
        source = kafka.open()
        (first,) = read(source, 1, max_records=1)
        # as when one partition comes in a rebalance while the other one is paused already
        consumer = source._connection.consumer  # type: ignore[attr-defined]
        found = [TopicPartition(first.topic, first.partition), TopicPartition(first.topic, 1 - first.partition)]
        consumer.pause(found[0])
        others = eventually(lambda: consumer.poll(timeout_ms=200, max_records=1).get(found[1]), 20, "the other one")
        consumer.pause(found[1])
        consumer.poll(timeout_ms=200)

        rest = read(source, 18)

        read_all = {(record.partition, record.offset) for record in [first, *others, *rest]}
        assert read_all == {(partition, offset) for partition in (0, 1) for offset in range(10)}

    def test_a_member_stays_one_while_it_waits(self, kafka: KafkaHarness) -> None:
        kafka.kafka = replace(kafka.kafka, max_poll_interval=1.0)
        kafka.create_topic()
        kafka.fill(TEN)
        source = kafka.open()
        records = read(source, 10)

        source.keep_alive(1.25 * SESSION_TIMEOUT)
        source.commit(offsets_after(records))

        assert committed(kafka) == {0: 10}

    def test_offsets_that_a_rebalance_was_in_the_way_of_arrive_when_it_is_over(
        self, kafka: KafkaHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kafka.create_topic()
        kafka.fill(TEN)
        source = kafka.open()
        records = read(source, 10)

        # as it is between the loss of the old assignment and the new one, which leaves the position where it was
        with monkeypatch.context() as rebalance:
            rebalance.setattr(KafkaConsumer, "assignment", lambda consumer: set())
            source.commit(offsets_after(records))
        read_nothing(source, 2 * POLL_SECONDS)

        assert committed(kafka) == {0: 10}

    def test_a_commit_after_being_put_out_of_the_group_is_no_error(self, kafka: KafkaHarness) -> None:
        kafka.kafka = replace(kafka.kafka, max_poll_interval=1.0)
        kafka.create_topic()
        kafka.fill(TEN)
        source = kafka.open()
        records = read(source, 10)
        pause = time.monotonic() + 2
        eventually(lambda: time.monotonic() > pause, what="longer than max_poll_interval")

        source.commit(offsets_after(records))

        assert values(read(source, 10)) == TEN


class TestKafkaOutage:
    def test_the_broker_is_waited_for_at_the_start_and_not_at_the_end(self, stoppable: KafkaHarness) -> None:
        stoppable.broker.stop()
        source = stoppable.open()

        with bounded(), pytest.raises(SourceUnavailable, match=f"can't connect to {stoppable.broker.bootstrap}"):
            source.poll(POLL_SECONDS, 1000)
        assert "ECONNREFUSED" in (source.problem() or "")
        with bounded():
            source.keep_alive(0.1)
            source.commit({Partition(stoppable.topic, 0): 1})

        stoppable.broker.start()
        stoppable.create_topic()
        stoppable.fill([b"first"])
        assert values(read(source, 1)) == [b"first"]

        stoppable.broker.stop()
        with bounded():
            source.close()

    def test_the_broker_is_waited_for_later_on(self, stoppable: KafkaHarness) -> None:
        stoppable.kafka = replace(stoppable.kafka, dead_letter_topic=fresh_name("dead"))
        stoppable.broker.create_topic(stoppable.kafka.dead_letter_topic)
        stoppable.create_topic()
        stoppable.fill([b"before"])
        source = stoppable.open()
        records = read(source, 1)
        source.commit(offsets_after(records))
        assert source.send_dead_letters([letter_for(value=b"x")]).sent == 1

        stoppable.broker.stop()
        eventually(lambda: says(source, "no connection"), 10, "a problem")
        with bounded():
            # the answer is missed by the next one
            source.commit(offsets_after(records))
        with bounded(), pytest.raises(SourceUnavailable):
            source.commit(offsets_after(records))
        with bounded(), pytest.raises(SourceUnavailable):
            source.send_dead_letters([letter_for(value=b"x")])
        with bounded(2):
            source.keep_alive(1)

        stoppable.broker.start()
        if isinstance(stoppable.broker, EmbeddedTestBroker):
            stoppable.create_topic()
            stoppable.broker.create_topic(stoppable.kafka.dead_letter_topic)
        stoppable.fill([b"after"])
        records = read(source, 1, timeout=30)
        assert b"after" in values(records)
        assert source.problem() is None
        source.commit(offsets_after(records))
        assert source.send_dead_letters([letter_for(value=b"x")]).sent == 1

    @pytest.mark.long
    def test_offsets_that_an_outage_kept_from_arriving_arrive_after_it(self, apache_kafka: ApacheKafka) -> None:
        kafka = KafkaHarness(apache_kafka)
        kafka.create_topic()
        kafka.fill(TEN)
        source = kafka.open()
        records = read(source, 10)
        apache_kafka.stop()
        source.commit(offsets_after(records))
        eventually(lambda: says(source, "no "), 10, "a problem")
        apache_kafka.start()

        def arrived() -> bool:
            with suppress(SourceUnavailable):
                assert not source.poll(POLL_SECONDS, 1000)
            return kafka.broker.committed(kafka.kafka.group, kafka.topic) == {0: 10}

        eventually(arrived, 30, "the offsets have arrived", interval=0)
        kafka.close()


class TestKafkaDeadLetters:
    @pytest.fixture
    def kafka(self, kafka: KafkaHarness) -> KafkaHarness:
        kafka.kafka = replace(kafka.kafka, dead_letter_topic=fresh_name("dead"))
        return kafka

    def test_have_the_original_bytes_and_our_headers(self, kafka: KafkaHarness) -> None:
        kafka.broker.create_topic(kafka.kafka.dead_letter_topic)
        letters = [
            letter_for(value=b"\x1f\x8b\xff", key=b"\x00", headers=(("h", b"\xff"), ("aggregator-reason", b"old"))),
            letter_for(value=b"", key=b""),
            letter_for(value=None, key=b"k"),
            letter_for(value=b"v", key=None),
            letter_for(value=None, key=None),
        ]

        delivery = kafka.open().send_dead_letters(letters)

        assert delivery == Delivery(sent=5)
        found = kafka.broker.read(kafka.kafka.dead_letter_topic, 5)
        assert [(f.value, f.key) for f in found] == [(lt.record.value, lt.record.key) for lt in letters]
        assert list(found[0].headers) == [
            ("h", b"\xff"),
            ("aggregator-reason", b"not_json"),
            ("aggregator-detail", b"position 1"),
            ("aggregator-topic", b"results"),
            ("aggregator-partition", b"2"),
            ("aggregator-offset", b"7"),
            ("aggregator-timestamp", b"1700000000000"),
        ]

    def test_many_are_sent_in_order(self, kafka: KafkaHarness) -> None:
        kafka.broker.create_topic(kafka.kafka.dead_letter_topic)
        letters = [letter_for(value=b"%d" % number) for number in range(500)]

        assert kafka.open().send_dead_letters(letters).sent == 500

        found = kafka.broker.read(kafka.kafka.dead_letter_topic, 500)
        assert sorted(int(f.value or b"") for f in found) == list(range(500))

    def test_their_topic_is_waited_for_without_being_made(self, kafka: KafkaHarness) -> None:
        source = kafka.open()
        topic = kafka.kafka.dead_letter_topic

        with bounded(), pytest.raises(SourceUnavailable, match=topic):
            source.send_dead_letters([letter_for(value=b"x")])

        assert topic not in kafka.broker.topic_names()
        kafka.broker.create_topic(topic)
        assert source.send_dead_letters([letter_for(value=b"x")]).sent == 1

    def test_one_that_is_larger_than_any_request_is_left_out(self, kafka: KafkaHarness) -> None:
        kafka.broker.create_topic(kafka.kafka.dead_letter_topic)
        large = letter_for(value=bytes(100_000_001))

        delivery = kafka.open().send_dead_letters([letter_for(value=b"1"), large, letter_for(value=b"2")])

        assert delivery == Delivery(sent=2, too_large=(large,))
        assert [f.value for f in kafka.broker.read(kafka.kafka.dead_letter_topic, 2)] == [b"1", b"2"]


def test_a_dead_letter_too_large_for_its_topic_is_left_out_and_later_ones_go_through(apache_kafka: ApacheKafka) -> None:
    kafka = KafkaHarness(apache_kafka)
    kafka.kafka = replace(kafka.kafka, dead_letter_topic=fresh_name("dead"))
    apache_kafka.create_topic(kafka.kafka.dead_letter_topic, config={"max.message.bytes": "2000"})
    source = kafka.open()
    large = letter_for(value=os.urandom(3000))
    others = [letter_for(value=value) for value in (b"0", b"1", b"2", bytes(3000))]

    deliveries = [source.send_dead_letters([others[0], large, others[1]]), source.send_dead_letters(others[2:])]

    assert deliveries == [Delivery(sent=2, too_large=(large,)), Delivery(sent=2)]
    found = apache_kafka.read(kafka.kafka.dead_letter_topic, 4)
    assert [f.value for f in found] == [b"0", b"1", b"2", bytes(3000)]
    kafka.close()


def letter_for(
    value: bytes | None, key: bytes | None = None, headers: tuple[tuple[str, bytes], ...] = ()
) -> DeadLetter:
    record = Record("results", 2, 7, key, value, headers, 1_700_000_000_000)
    return DeadLetter(record, "not_json", "position 1")


def wait_for_share(first: MessageSource, second: MessageSource) -> int:
    """Wait until the second has records of one of two partitions, which is returned; the first keeps its own."""
    with kept_alive(first):
        records = eventually(lambda: second.poll(0.2, 1000), 30, "records at the second consumer", interval=0)
    return records[0].partition


@contextmanager
def kept_alive(source: MessageSource) -> Iterator[None]:
    """Keep a source in its group from a thread, as a process of its own would.

    By turns two members may never get there: when a rebalance ends between two polls of a member, kafka-python
    3.0.12 forgets that it has joined and joins again.
    """
    done = Event()

    def keep_alive() -> None:
        while not done.is_set():
            source.keep_alive(0.1)

    thread = Thread(target=keep_alive, name="kept alive")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def places(source: MessageSource) -> dict[int, tuple[int, int]]:
    """Return the position and the end of each partition by its number."""
    return {partition.number: (found.position, found.end) for partition, found in source.progress().items()}


def committed(kafka: KafkaHarness) -> dict[int, int]:
    """Return the offsets of the group once there are any: a commit is on its way when the source returns."""
    return eventually(lambda: kafka.broker.committed(kafka.kafka.group, kafka.topic), what="committed offsets")


def says(source: MessageSource, text: str) -> bool:
    """Poll once and tell whether the source has this problem."""
    with suppress(SourceUnavailable):
        source.poll(POLL_SECONDS, 1)
    return text in (source.problem() or "")


@contextmanager
def bounded(seconds: float = LONGEST_CALL) -> Iterator[None]:
    """Fail if the block takes longer."""
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds
