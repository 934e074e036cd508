"""Rejected records on their way to the dead letter topic (`docs/messages.md`, section 8)."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kafka import KafkaProducer
from kafka.errors import (
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
from kafka.producer.future import FutureRecordMetadata
from kafka.serializer import Serializer

from consumer_service.kafka_client import CLIENT_FAULTS, Connecting, connection_options, describe, end_within
from consumer_service.settings import KafkaSettings
from consumer_service.sources import DeadLetter, Delivery, Record, SourceUnavailable

HEADER_PREFIX = "aggregator-"
LONGEST_DETAIL = 1000

DELIVERY_TIMEOUT = 4.0
"""Seconds for one group of letters; a stop has to wait for it."""

_GROUP_BYTES = 4_000_000
_GROUP_LETTERS = 200
_ROOM_FOR_HEADERS = 1_000_000
_LEAST_REQUEST_LIMIT = 100_000_000
"""About what a broker takes in one request by default."""

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_LARGEST_PARTITION, _LARGEST_OFFSET = 2**31 - 1, 2**63 - 1
_SHOWN = 40
"""Characters of a broken header that its problem shows."""

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)

_NULL = object()
"""Stands for a value of null, which the producer refuses for a record that has no key either."""


def dead_letter_headers(letter: DeadLetter) -> list[tuple[str, bytes]]:
    """Return the headers of a letter: those of the record, without those of an earlier round, and our six."""
    record = letter.record
    added = {
        "reason": letter.reason,
        "detail": letter.detail[:LONGEST_DETAIL],
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": "" if record.timestamp is None else str(record.timestamp),
    }
    original = [(name, value) for name, value in record.headers if not name.startswith(HEADER_PREFIX)]
    return original + [(HEADER_PREFIX + name, _encoded(value)) for name, value in added.items()]


class NotADeadLetter(ValueError):
    """A record that is no letter of ours; the text names the header that is missing or broken."""


def read_dead_letter(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> DeadLetter:
    """Return the letter that was sent as a record with these parts: the reverse of `dead_letter_headers`.

    Raises NotADeadLetter if our headers do not say where the record came from and why it was rejected.
    """
    ours = {name.removeprefix(HEADER_PREFIX): value for name, value in headers if name.startswith(HEADER_PREFIX)}
    original = tuple((name, value) for name, value in headers if not name.startswith(HEADER_PREFIX))
    topic, reason = _text(ours, "topic"), _text(ours, "reason")
    if not topic or "\0" in topic:
        raise NotADeadLetter(f"{HEADER_PREFIX}topic: expected a name, got {topic[:_SHOWN]!r}")
    partition = _number(ours, "partition", range(_LARGEST_PARTITION + 1))
    offset = _number(ours, "offset", range(_LARGEST_OFFSET + 1))
    has_time = ours.get("timestamp") != b""
    timestamp = _number(ours, "timestamp", range(-_LARGEST_OFFSET, _LARGEST_OFFSET + 1)) if has_time else None
    record = Record(topic, partition, offset, key, value, original, timestamp)
    return DeadLetter(record, reason, _text(ours, "detail"))


def _text(headers: Mapping[str, bytes], name: str) -> str:
    if name not in headers:
        raise NotADeadLetter(f"{HEADER_PREFIX}{name}: missing")
    try:
        return headers[name].decode()
    except UnicodeDecodeError:
        raise NotADeadLetter(f"{HEADER_PREFIX}{name}: not UTF-8") from None


def _number(headers: Mapping[str, bytes], name: str, allowed: range) -> int:
    text = _text(headers, name)
    if not _INTEGER.fullmatch(text) or int(text) not in allowed:
        expected = f"an integer from {allowed[0]} to {allowed[-1]}"
        raise NotADeadLetter(f"{HEADER_PREFIX}{name}: expected {expected}, got {text[:_SHOWN]!r}")
    return int(text)


class DeadLetterProducer:
    """Sends letters to the topic `kafka.dead_letter_topic`; connects with the first of them.

    `max_message_bytes` is the size up to which a record is read; letters may be larger, up to what a broker takes.
    """

    def __init__(self, settings: KafkaSettings, max_message_bytes: int) -> None:
        self._settings = settings
        self._request_limit = max(_LEAST_REQUEST_LIMIT, max_message_bytes + _ROOM_FOR_HEADERS)
        self._producer: KafkaProducer | None = None

    def send(self, letters: Sequence[DeadLetter]) -> Delivery:
        """Send all letters and return when the broker has them, less those that are too large for the topic.

        Raises SourceUnavailable if one could not be sent for another reason, after some 8 s at most without any
        progress; some of the letters may be in the topic then.
        """
        too_large: list[DeadLetter] = []
        for group in _groups(letters):
            try:
                too_large += self._send_group(group)
            except CLIENT_FAULTS as error:
                self.close()
                raise SourceUnavailable(f"dead letters: {self._describe(error)}") from error
        return Delivery(len(letters) - len(too_large), tuple(too_large))

    def close(self) -> None:
        """Give up what was not sent and disconnect; never raises."""
        producer, self._producer = self._producer, None
        if producer is not None:
            end_within(2 * DELIVERY_TIMEOUT, "dead letters", lambda: _discard(producer))

    def _send_group(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Send letters together and return those that are too large."""
        producer = self._producer = self._producer or self._connect()
        pending: list[tuple[DeadLetter, FutureRecordMetadata]] = []
        too_large = []
        for letter in letters:
            try:
                pending.append((letter, self._start(producer, letter)))
            except _TOO_LARGE:
                too_large.append(letter)
        # a little more than the producer gives itself, so that it is the one to say what went wrong
        deadline = time.monotonic() + DELIVERY_TIMEOUT + 1
        for letter, future in pending:
            try:
                future.get(timeout=max(0.0, deadline - time.monotonic()))
            except _TOO_LARGE:
                too_large.append(letter)
        return too_large

    def _start(self, producer: KafkaProducer, letter: DeadLetter) -> FutureRecordMetadata:
        record = letter.record
        return producer.send(
            self._settings.dead_letter_topic,
            key=record.key,
            value=_NULL if record.value is None else record.value,
            headers=dead_letter_headers(letter),
        )

    def _connect(self) -> KafkaProducer:
        with Connecting(self._settings) as connecting:
            return KafkaProducer(
                **connection_options(self._settings),
                kafka_client=connecting,
                acks="all",
                # with it, one record that is too large fails all later ones too (kafka-python 3.0.12)
                enable_idempotence=False,
                value_serializer=_NullSerializer(),
                # each letter on its own, so that one that is too large takes no other with it
                batch_size=0,
                # a record that was packed on its way to us has to fit in the same space
                compression_type="gzip",
                max_request_size=self._request_limit,
                max_block_ms=round(DELIVERY_TIMEOUT * 1000),
                request_timeout_ms=round(DELIVERY_TIMEOUT * 1000),
                delivery_timeout_ms=round(DELIVERY_TIMEOUT * 1000),
            )

    def _describe(self, error: Exception) -> str:
        if isinstance(error, KafkaTimeoutError) and "metadata" in str(error):
            return f"topic {self._settings.dead_letter_topic!r} does not exist or its broker does not answer"
        return describe(error, self._settings)


class _NullSerializer(Serializer):  # type: ignore[misc]
    def serialize(self, topic: str, headers: Sequence[tuple[str, bytes]], data: Any) -> bytes | None:
        value: bytes | None = None if data is _NULL else data
        return value


def _groups(letters: Sequence[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """Cut letters into groups that a slow connection can take within the delivery timeout."""
    group: list[DeadLetter] = []
    size = 0
    for letter in letters:
        group.append(letter)
        size += len(letter.record.value or b"")
        if size >= _GROUP_BYTES or len(group) >= _GROUP_LETTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _discard(producer: KafkaProducer) -> None:
    # `close` alone waits for what can't be sent, and leaves the thread of the sender running if that fails
    producer._sender.force_close()
    producer.close(timeout=DELIVERY_TIMEOUT)


def _encoded(text: str) -> bytes:
    """Return UTF-8; what a text can't have there (half of a surrogate pair) is replaced."""
    return text.encode("utf-8", errors="replace")
