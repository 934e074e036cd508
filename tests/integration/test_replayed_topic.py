"""Letters as `aggregator-consumer replay` reads them from the dead letter topic (`docs/replay.md`)."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from threading import Event
from typing import Any

import pytest
from kafka import KafkaProducer
from structlog.testing import capture_logs

from consumer_service.replay import topic as replayed_topic
from consumer_service.replay.letters import Letter, Page, Selection
from consumer_service.replay.topic import TopicLetters
from consumer_service.settings import KafkaSettings
from consumer_service.sources import DeadLetter, Record, SourceUnavailable, dead_letter_headers
from examples.demo.ports import free_port
from libaggregator.settings import SettingsError
from tests.support.brokers import AnyBroker, EmbeddedTestBroker
from tests.support.kafka import ApacheKafka
from tests.support.topics import Sent, fresh_name

ALL = Selection()
HEADERS = (("trace", b"\x00\xff"), ("", b""), ("trace", b"2"))


def letter(offset: int, value: bytes | None = b"bad", reason: str = "not_json", **parts: Any) -> DeadLetter:
    """Return the letter of a record of the topic `results`."""
    record = Record("results", 1, offset, parts.get("key", b"key"), value, HEADERS, parts.get("timestamp", 1_500))
    return DeadLetter(record, reason, "expected one valid JSON object and nothing else")


def sent(of: DeadLetter, partition: int | None = None) -> Sent:
    return Sent(of.record.value, of.record.key, dead_letter_headers(of), partition)


def settings_of(broker: AnyBroker, topic: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=(broker.bootstrap,), dead_letter_topic=topic)


def read(broker: AnyBroker, topic: str, selection: Selection = ALL, rows: int = 1000) -> list[Page]:
    """Return all pages; the letters keep whatever row they have, none."""
    box = TopicLetters(settings_of(broker, topic), selection, list, Event(), rows)
    with closing(box):
        total = box.count()
        pages = list(box.pages())
    if selection.most is None:
        assert sum(page.passed for page in pages) == total
    return pages


def records_of(pages: Sequence[Page]) -> list[Record]:
    return [letter.record for page in pages for letter in page.letters]


def by_offset(pages: Sequence[Page]) -> list[int]:
    return sorted(record.offset for record in records_of(pages))


@pytest.fixture
def topic(broker: AnyBroker) -> str:
    return broker.create_topic(fresh_name("letters"), partitions=2)


def test_a_letter_gives_back_the_record_that_was_rejected(broker: AnyBroker, topic: str) -> None:
    letters = [
        letter(1),
        letter(2, None, timestamp=None),
        letter(3, b"", key=None),
        letter(2**63 - 1, b"\x1f\x8b\x00", timestamp=-5),
    ]
    broker.produce(topic, [sent(one, number % 2) for number, one in enumerate(letters)])
    found = sorted(records_of(read(broker, topic)), key=lambda record: record.offset)
    assert found == [one.record for one in letters]


def test_a_letter_that_was_sent_twice_comes_twice(broker: AnyBroker, topic: str) -> None:
    broker.produce(topic, [sent(letter(1)), sent(letter(1))])
    assert by_offset(read(broker, topic)) == [1, 1]


def test_an_empty_topic_has_no_letters(broker: AnyBroker, topic: str) -> None:
    assert records_of(read(broker, topic)) == []


def test_what_is_no_letter_of_ours_is_counted_logged_and_passed_over(broker: AnyBroker, topic: str) -> None:
    whole = dict(dead_letter_headers(letter(1)))
    broken = [
        {},
        {"unrelated": b"x"},
        {**whole, "aggregator-offset": b"x"},
        {**whole, "aggregator-offset": b"-1"},
        {**whole, "aggregator-offset": str(2**63).encode()},
        {**whole, "aggregator-partition": str(2**31).encode()},
        {**whole, "aggregator-topic": b"\xff"},
        {**whole, "aggregator-topic": b""},
        {**whole, "aggregator-topic": b"a\0b"},
        {**whole, "aggregator-timestamp": b"yesterday"},
        {name: value for name, value in whole.items() if name != "aggregator-reason"},
    ]
    strangers = [Sent(b"x", None, list(headers.items()), 0) for headers in broken]
    broker.produce(topic, [sent(letter(1), 0), *strangers, sent(letter(2), 0)])
    with capture_logs() as logs:
        pages = read(broker, topic)
    assert by_offset(pages) == [1, 2]
    assert sum(page.strangers for page in pages) == len(broken)
    lines = [line for line in logs if line["event"] == "not a dead letter of ours, passed over"]
    assert [line["offset"] for line in lines] == list(range(1, len(broken) + 1))
    assert {(line["topic"], line["partition"]) for line in lines} == {(topic, 0)}


def test_letters_are_chosen_by_reason_and_number(broker: AnyBroker, topic: str) -> None:
    reasons = ["not_json", "bad_report", "too_large"] * 4
    letters = [letter(offset, reason=reason) for offset, reason in enumerate(reasons)]
    broker.produce(topic, [sent(one, 0) for one in letters])
    some = frozenset({"bad_report", "too_large"})
    assert by_offset(read(broker, topic, Selection(some))) == [1, 2, 4, 5, 7, 8, 10, 11]
    assert by_offset(read(broker, topic, Selection(some, most=3))) == [1, 2, 4]
    assert by_offset(read(broker, topic, Selection(most=100))) == list(range(12))


def test_pages_are_bounded_in_letters_and_bytes(broker: AnyBroker, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broker.produce(topic, [sent(letter(offset, b"x" * 1000), 0) for offset in range(25)])
    assert [len(page.letters) for page in read(broker, topic, rows=10)] == [10, 10, 5]
    monkeypatch.setattr(replayed_topic, "PAGE_BYTES", 4_500)
    assert [len(page.letters) for page in read(broker, topic)] == [5, 5, 5, 5, 5, 0]


def test_letters_that_come_while_it_reads_are_left(broker: AnyBroker, topic: str) -> None:
    broker.produce(topic, [sent(letter(offset), 0) for offset in range(5)])
    box = TopicLetters(settings_of(broker, topic), Selection(), list, Event())
    broker.produce(topic, [sent(letter(offset), 0) for offset in range(5, 10)])
    with closing(box):
        assert by_offset(list(box.pages())) == [0, 1, 2, 3, 4]


def test_nothing_comes_once_it_was_told_to_stop(broker: AnyBroker, topic: str) -> None:
    broker.produce(topic, [sent(letter(offset), 0) for offset in range(30)])
    stop = Event()
    with closing(TopicLetters(settings_of(broker, topic), Selection(), list, stop, 5)) as box:
        pages = []
        for page in box.pages():
            pages.append(page)
            stop.set()
    assert len(pages) <= 2


@pytest.fixture
def producer(apache_kafka: ApacheKafka) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(
        bootstrap_servers=apache_kafka.bootstrap, transactional_id=fresh_name("transaction"), acks="all"
    )
    producer.init_transactions()
    yield producer
    producer.close(10)


def test_markers_of_transactions_at_the_end_are_not_waited_for(
    apache_kafka: ApacheKafka, producer: KafkaProducer
) -> None:
    topic = apache_kafka.create_topic(fresh_name("letters"))
    for offset in range(3):
        one = letter(offset)
        producer.begin_transaction()
        producer.send(topic, one.record.value, one.record.key, dead_letter_headers(one)).get(10)
        producer.commit_transaction()
    assert by_offset(read(apache_kafka, topic)) == [0, 1, 2]


def test_letters_are_chosen_by_the_time_of_their_record(apache_kafka: ApacheKafka) -> None:
    topic = apache_kafka.create_topic(fresh_name("letters"), 2)
    producer = KafkaProducer(bootstrap_servers=apache_kafka.bootstrap, batch_size=0, acks="all")
    for offset, seconds in enumerate([1000, 3000, 2000, 3000, 1999]):
        headers = dead_letter_headers(letter(offset))
        producer.send(topic, b"x", headers=headers, partition=0, timestamp_ms=seconds * 1000).get(10)
    producer.send(topic, b"x", headers=dead_letter_headers(letter(5)), partition=1, timestamp_ms=1000).get(10)
    producer.close(10)
    for since, expected in [
        (datetime(1960, 1, 1), [0, 1, 2, 3, 4, 5]),
        (datetime(1970, 1, 1, 0, 33, 20), [1, 2, 3]),
        (datetime(1970, 1, 1, 0, 33, 20, 1), [1, 3]),
        (datetime(2200, 1, 1), []),
    ]:
        assert by_offset(read(apache_kafka, topic, Selection(since=since))) == expected


def test_a_topic_that_does_not_exist_is_told_and_not_made(broker: AnyBroker) -> None:
    missing = fresh_name("missing")
    with pytest.raises(SourceUnavailable, match=f"topic '{missing}' does not exist"):
        read(broker, missing)
    assert missing not in broker.topic_names()


def test_without_a_topic_the_setting_is_named(broker: AnyBroker) -> None:
    with pytest.raises(SettingsError, match=r"kafka\.dead_letter_topic"):
        read(broker, "")


def test_a_broker_that_is_away_at_the_start_is_told() -> None:
    server = f"127.0.0.1:{free_port()}"
    settings = KafkaSettings(bootstrap_servers=(server,), dead_letter_topic="letters")
    with pytest.raises(SourceUnavailable, match=f"can't connect to {server}"):
        TopicLetters(settings, Selection(), list, Event())


def test_a_broker_that_goes_away_in_the_middle_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayed_topic, "SILENCE", 1.0)
    broker = EmbeddedTestBroker()
    broker.start()
    topic = broker.create_topic(fresh_name("letters"))
    # more than one answer holds
    broker.produce(topic, [sent(letter(offset, b"x" * 1_000_000), 0) for offset in range(12)])
    with closing(TopicLetters(settings_of(broker, topic), Selection(), list, Event(), 1)) as box:
        pages = box.pages()
        first: Letter = next(pages).letters[0]
        assert first.record.offset == 0
        broker.stop()
        with pytest.raises(SourceUnavailable, match=f"nothing came for 1 s at topic '{topic}', partition 0, offset"):
            list(pages)
