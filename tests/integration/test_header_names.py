"""Headers whose names are not UTF-8: Kafka stores any bytes there, whatever its protocol says."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from consumer_service.sources import DeadLetter, Delivery, Record
from tests.support.brokers import AnyBroker
from tests.support.source_harness import KafkaHarness, offsets_after, read, values
from tests.support.topics import Sent, fresh_name

ODD_NAMES = [b"\xff", b"caf\xe9", b"\xed\xa0\x80", b"\xc3(", b"a\x80b\xfe"]


class NameOfBytes(str):
    """A name that the client of the tests writes as the bytes that it was made of."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return super().encode("latin-1")


@pytest.fixture
def kafka(broker: AnyBroker) -> Iterator[KafkaHarness]:
    made = KafkaHarness(broker)
    made.create_topic()
    yield made
    made.close()


def odd(value: bytes, *names: bytes) -> Sent:
    return Sent(value, b"key", [(NameOfBytes(name, "latin-1"), b"value of it") for name in names])


def names_of(record: Record) -> list[bytes]:
    return [name.encode() for name, _ in record.headers]


@pytest.mark.parametrize("compression", [None, pytest.param("gzip", marks=pytest.mark.long)])
def test_their_records_come_in_order_and_hold_nothing_up(kafka: KafkaHarness, compression: str | None) -> None:
    sent = [Sent(b"0"), odd(b"1", *ODD_NAMES), Sent(b"2", None, [("h", b"x")]), odd(b"3", b"fine", b"\xff"), Sent(b"4")]
    kafka.broker.produce(kafka.topic, sent, compression)
    source = kafka.open()

    records = read(source, 5)

    assert values(records) == [b"0", b"1", b"2", b"3", b"4"]
    assert [names_of(record) for record in records] == [[], ODD_NAMES, [b"h"], [b"fine", b"\xff"], []]
    assert {value for record in records for _, value in record.headers} == {b"value of it", b"x"}
    source.commit(offsets_after(records))
    source.close()
    assert kafka.broker.committed(kafka.kafka.group, kafka.topic) == {0: 5}


def test_a_dead_letter_has_them_byte_for_byte(kafka: KafkaHarness) -> None:
    kafka.kafka = replace(kafka.kafka, dead_letter_topic=fresh_name("dead"))
    kafka.broker.create_topic(kafka.kafka.dead_letter_topic)
    kafka.broker.produce(kafka.topic, [odd(b"not a message", *ODD_NAMES)])
    source = kafka.open()
    (record,) = read(source, 1)

    assert source.send_dead_letters([DeadLetter(record, "not_json", "position 1")]) == Delivery(sent=1)

    letters = KafkaHarness(kafka.broker)
    letters.kafka = replace(letters.kafka, topic=kafka.kafka.dead_letter_topic)
    (letter,) = read(letters.open(), 1)
    letters.close()
    assert letter.value == b"not a message"
    assert names_of(letter)[: len(ODD_NAMES)] == ODD_NAMES
    assert (letter.headers[len(ODD_NAMES)]) == ("aggregator-reason", b"not_json")
