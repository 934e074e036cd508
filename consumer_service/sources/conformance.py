"""What every source has to do, as tests; `docs/sources.md` says how a plug-in uses them.

A test module makes a class that inherits from `SourceConformance` and a pytest fixture `harness` that yields a
`SourceHarness`. Nothing here needs pytest itself.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from consumer_service.sources.interface import (
    DeadLetter,
    Delivery,
    MessageSource,
    Partition,
    Record,
    SourceUnavailable,
)

POLL_SECONDS = 0.5
READ_TIMEOUT = 30.0
"""Seconds in which records have to come, which includes joining a group."""

SILENT_SECONDS = 1.0
LONGEST_CALL = 10.0
"""Seconds that any call may take beyond its timeout: a stop has to wait for it."""

TEN = [b'{"number": %d}' % number for number in range(10)]


class SourceHarness(ABC):
    """Fills one place with messages and opens sources that read it; nothing else uses the place."""

    keeps_place = True
    """Whether a source begins after what was committed; one that reads a whole file every time does not."""

    has_end = False
    """Whether a source is `exhausted` after the last message."""

    @abstractmethod
    def fill(self, values: Iterable[bytes]) -> None:
        """Add messages with these payloads, in their order."""

    @abstractmethod
    def open(self) -> MessageSource:
        """Return a new source, as the process makes it, without any topic or stream for dead letters."""


class SourceConformance:
    """The tests; each takes a harness whose place is empty."""

    def test_records_come_in_order_with_their_bytes(self, harness: SourceHarness) -> None:
        """Each record has its payload, and offsets rise."""
        harness.fill(TEN)
        source = harness.open()

        records = read(source, 10)

        assert values(records) == TEN
        offsets = [record.offset for record in records]
        assert offsets == sorted(set(offsets))
        assert len({(record.topic, record.partition) for record in records}) == 1
        assert all(0 <= record.offset < 2**63 and "\0" not in record.topic for record in records)
        assert source.problem() is None
        assert source.exhausted == harness.has_end

    def test_payloads_are_bytes_of_any_kind(self, harness: SourceHarness) -> None:
        """Nothing is decoded on the way."""
        payloads = [b"\xff\xfe", b"\x1f\x8b\x08", b" x ", "ü".encode()]
        harness.fill(payloads)

        assert values(read(harness.open(), len(payloads))) == payloads

    def test_a_poll_returns_no_more_than_it_is_asked_for(self, harness: SourceHarness) -> None:
        """A batch has a limit."""
        harness.fill(TEN)
        source = harness.open()

        sizes: list[int] = []
        while sum(sizes) < len(TEN):
            sizes.append(len(source.poll(POLL_SECONDS, 4)))

        assert max(sizes) <= 4

    def test_a_single_record_is_returned_at_once(self, harness: SourceHarness) -> None:
        """A poll does not wait for its time to be over, nor for a batch to be full."""
        harness.fill([b"first"])
        source = harness.open()
        read(source, 1, max_records=1)
        if harness.has_end:
            assert source.exhausted
            return
        read_nothing(source, SILENT_SECONDS)

        harness.fill([b"second"])
        begin = time.monotonic()
        records = source.poll(5, 1000)

        assert values(records) == [b"second"]
        assert time.monotonic() - begin < 2

    def test_keeping_alive_neither_loses_nor_repeats_a_record(self, harness: SourceHarness) -> None:
        """What was returned stays in hand, and the next poll goes on after it."""
        harness.fill(TEN)
        source = harness.open()
        records = read(source, 3, max_records=3)

        source.keep_alive(0.5)
        records += read(source, 4, max_records=3)
        source.keep_alive(0.1)
        records += read(source, 10 - len(records))

        assert values(records) == TEN

    def test_keeping_alive_takes_its_time(self, harness: SourceHarness) -> None:
        """The runner waits with it between two tries."""
        harness.fill(TEN)
        source = harness.open()

        begin = time.monotonic()
        source.keep_alive(0.3)

        assert 0.25 < time.monotonic() - begin < 0.3 + LONGEST_CALL

    def test_what_was_not_committed_comes_again_and_nothing_else(self, harness: SourceHarness) -> None:
        """A source that is opened later goes on where the one before was told that everything has its effect."""
        if not harness.keeps_place:
            return
        harness.fill(TEN)
        first = harness.open()
        records = read(first, 10)
        for end in (2, 4):
            first.commit(offsets_after(records[:end]))
        first.close()

        second = harness.open()
        records = read(second, 6)
        assert values(records) == TEN[4:]
        second.commit(offsets_after(records))
        second.close()

        harness.fill([b"next"])
        assert values(read(harness.open(), 1)) == [b"next"]

    def test_offsets_can_be_committed_and_the_source_closed_twice(self, harness: SourceHarness) -> None:
        """Both have no effect when they are done again."""
        harness.fill(TEN)
        source = harness.open()
        offsets = offsets_after(read(source, 10))

        source.commit(offsets)
        source.commit(offsets)
        source.commit({})
        source.close()
        source.close()

    def test_is_closed_without_having_been_used(self, harness: SourceHarness) -> None:
        """A process can be told to stop at once."""
        harness.fill(TEN)

        harness.open().close()

    def test_no_dead_letter_is_sent_if_there_is_no_place_for_it(self, harness: SourceHarness) -> None:
        """Rejected messages are in `consumer_error` in any case."""
        harness.fill(TEN)
        source = harness.open()
        letter = DeadLetter(Record("results", 2, 7, None, b"x", (), 1_700_000_000_000), "not_json", "position 1")

        assert source.send_dead_letters([letter]) == Delivery()

    def test_progress_is_empty_or_at_its_end_after_the_last_record(self, harness: SourceHarness) -> None:
        """A source that stands at its end must not look as if it were stalled."""
        harness.fill(TEN)
        source = harness.open()
        assert all(found.lag >= 0 for found in source.progress().values())
        source.commit(offsets_after(read(source, 10)))

        progress = source.progress()

        assert [found.lag for found in progress.values()] == [0] * len(progress)


def read(source: MessageSource, count: int, timeout: float = READ_TIMEOUT, max_records: int = 1000) -> list[Record]:
    """Poll until `count` records have come, or more, and return them; an outage is waited out."""
    records: list[Record] = []
    deadline = time.monotonic() + timeout
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records within {timeout:g} s"
        with suppress(SourceUnavailable):
            records.extend(source.poll(POLL_SECONDS, max_records))
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


def offsets_after(records: Sequence[Record]) -> Mapping[Partition, int]:
    """Return what to commit for these records."""
    return {Partition(record.topic, record.partition): record.offset + 1 for record in records}
