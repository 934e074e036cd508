"""Rejected records on their way to the dead letter topic of Kafka (`docs/messages.md`, section 8)."""

import time
from collections.abc import Sequence
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
from consumer_service.sources import DeadLetter, Delivery, SourceUnavailable, dead_letter_headers
from consumer_service.sources.letters import in_groups

DELIVERY_TIMEOUT = 4.0
"""Seconds for one group of letters; a stop has to wait for it."""

_ROOM_FOR_HEADERS = 1_000_000
_LEAST_REQUEST_LIMIT = 100_000_000
"""About what a broker takes in one request by default."""

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)

_NULL = object()
"""Stands for a value of null, which the producer refuses for a record that has no key either."""


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
        for group in in_groups(letters):
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


def _discard(producer: KafkaProducer) -> None:
    # `close` alone waits for what can't be sent, and leaves the thread of the sender running if that fails
    producer._sender.force_close()
    producer.close(timeout=DELIVERY_TIMEOUT)
