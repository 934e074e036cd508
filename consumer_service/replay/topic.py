"""Letters from the dead letter topic, read without a group, up to where it ended at the start."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from threading import Event

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from consumer_service.header_names import take_any_header_name
from consumer_service.kafka_client import (
    CLIENT_FAULTS,
    CONNECT_TIMEOUT,
    Connecting,
    NetworkClient,
    connection_options,
    describe,
    end_within,
    problems_of,
)
from consumer_service.replay.letters import PAGE_BYTES, PAGE_ROWS, Letter, Page, Selection
from consumer_service.settings import KafkaSettings
from consumer_service.sources import DeadLetter, SourceUnavailable
from consumer_service.sources.letters import NotADeadLetter, read_dead_letter
from libaggregator.settings import SettingsError

SILENCE = 15.0
"""Seconds without any progress after which the broker counts as away."""

_ANSWER_MS = 10_000
_POLL_MS = 200
_POLL_RECORDS = 10
"""Few, since each may be as large as a message may be, and a page is measured only between two polls."""
_FETCH_BYTES = 3 * 1024 * 1024
_EPOCH = datetime(1970, 1, 1)
_MILLISECOND = timedelta(milliseconds=1)

log = structlog.get_logger(__name__)


class TopicLetters:
    """The records of `kafka.dead_letter_topic` as letters; connects at once.

    Raises SettingsError if no topic is named or the settings can't be used, and SourceUnavailable if there is no
    broker or no such topic.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        selection: Selection,
        with_rows: Callable[[Sequence[Letter]], Sequence[Letter]],
        stop: Event,
        page_rows: int = PAGE_ROWS,
    ) -> None:
        """Take the broker, which letters are wanted, what finds their rows in the database, and what ends the waiting.

        A page has at most `page_rows` letters.
        """
        if not settings.dead_letter_topic:
            raise SettingsError(["kafka.dead_letter_topic: expected the topic to read, got ''"])
        if problems := problems_of(settings):
            raise SettingsError(problems)
        self._settings = settings
        self._selection = selection
        self._with_rows = with_rows
        self._stop = stop
        self._page_rows = page_rows
        self._since = None if selection.since is None else max(0, -((_EPOCH - selection.since) // _MILLISECOND))
        self._client: NetworkClient | None = None
        self._consumer: KafkaConsumer | None = None
        try:
            self._consumer = self._connect()
            self._starts, self._ends = self._find_range(self._consumer)
        except CLIENT_FAULTS as error:
            self.close()
            raise SourceUnavailable(f"dead letters: {describe(error, settings)}") from error

    def count(self) -> int:
        """Return how many offsets are looked at."""
        return sum(self._ends[partition] - start for partition, start in self._starts.items())

    def pages(self) -> Iterator[Page]:
        """Yield the wanted letters; SourceUnavailable if the broker is away in the middle."""
        letters: list[Letter] = []
        held_bytes = taken = passed = strangers = 0
        for passed_here, found in self._read():
            passed += passed_here
            if found is not None and (self._since is None or found.timestamp >= self._since):
                letter = self._letter_of(found)
                strangers += letter is None
                if letter and (not self._selection.reasons or letter.reason in self._selection.reasons):
                    letters.append(Letter(letter.record))
                    held_bytes += len(found.value or b"") + len(found.key or b"")
                    taken += 1
            is_last = taken == self._selection.most
            if is_last or len(letters) >= self._page_rows or held_bytes >= PAGE_BYTES:
                yield Page(self._with_rows(letters), passed, strangers)
                letters, held_bytes, passed, strangers = [], 0, 0, 0
            if is_last:
                return
        if not self._stop.is_set():
            yield Page(self._with_rows(letters), passed, strangers)

    def close(self) -> None:
        """Disconnect; never raises."""
        consumer, client = self._consumer, self._client
        self._consumer = self._client = None
        if consumer is not None:
            end_within(CONNECT_TIMEOUT, "dead letters", consumer.close)
        if client is not None:
            end_within(CONNECT_TIMEOUT, "dead letters", client.close)

    def _connect(self) -> KafkaConsumer:
        with Connecting(self._settings) as connecting:
            consumer = KafkaConsumer(
                **connection_options(self._settings),
                kafka_client=connecting,
                group_id=None,
                enable_auto_commit=False,
                # where retention was faster
                auto_offset_reset="earliest",
                fetch_max_wait_ms=_POLL_MS,
                fetch_max_bytes=_FETCH_BYTES,
                max_partition_fetch_bytes=_FETCH_BYTES,
            )
        take_any_header_name(consumer)
        self._client = connecting.client
        return consumer

    def _find_range(self, consumer: KafkaConsumer) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """Return where to begin and where to end in each partition that has something to read."""
        topic = self._settings.dead_letter_topic
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            raise SourceUnavailable(f"dead letters: topic {topic!r} does not exist")
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        ends = consumer.end_offsets(partitions, timeout_ms=_ANSWER_MS)
        starts = consumer.beginning_offsets(partitions, timeout_ms=_ANSWER_MS)
        if self._since is not None:
            found = consumer.offsets_for_times(dict.fromkeys(partitions, self._since), timeout_ms=_ANSWER_MS)
            starts = {it: found[it].offset if found.get(it) else ends[it] for it in partitions}
        starts = {partition: start for partition, start in starts.items() if start < ends[partition]}
        return starts, ends

    def _read(self) -> Iterator[tuple[int, ConsumerRecord | None]]:
        """Yield each record, with how many offsets it takes further; without one where offsets hold none.

        The end is where the position says it, not the last record: offsets may belong to transaction markers, or to
        records that were compacted away.
        """
        positions = dict(self._starts)
        consumer, unfinished = self._consumer, set(positions)
        assert consumer is not None  # noqa: S101 - closed only after the last page
        consumer.assign(sorted(unfinished))
        for partition, start in positions.items():
            consumer.seek(partition, start)
        heard = time.monotonic()
        while unfinished and not self._stop.is_set():
            try:
                fetched = consumer.poll(timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
                reached = {it: consumer.position(it, timeout_ms=_POLL_MS) or 0 for it in unfinished}
            except CLIENT_FAULTS as error:
                raise SourceUnavailable(f"dead letters: {describe(error, self._settings)}") from error
            for partition, records in fetched.items():
                for found in records:
                    if found.offset < self._ends[partition]:
                        yield found.offset + 1 - positions[partition], found
                        positions[partition] = found.offset + 1
                        heard = time.monotonic()
            for partition, somewhere in reached.items():
                position = min(somewhere, self._ends[partition])
                if position > positions[partition]:
                    yield position - positions[partition], None
                    positions[partition] = position
                    heard = time.monotonic()
                if position >= self._ends[partition]:
                    unfinished.discard(partition)
                    consumer.pause(partition)
            if time.monotonic() - heard > SILENCE:
                raise SourceUnavailable(self._silence(min(unfinished), positions))

    def _silence(self, partition: TopicPartition, positions: dict[TopicPartition, int]) -> str:
        place = f"topic {partition.topic!r}, partition {partition.partition}, offset {positions[partition]}"
        failure = self._client.failure if self._client else ""
        return f"dead letters: nothing came for {SILENCE:.0f} s at {place}{failure}"

    def _letter_of(self, found: ConsumerRecord) -> DeadLetter | None:
        """Return the letter that a record is, None if it is none of ours."""
        headers = [(name, value or b"") for name, value in found.headers]
        try:
            return read_dead_letter(found.key, found.value, headers)
        except NotADeadLetter as error:
            log.warning(
                "not a dead letter of ours, passed over",
                problem=str(error),
                topic=found.topic,
                partition=found.partition,
                offset=found.offset,
            )
            return None
