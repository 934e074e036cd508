"""What an installed source returns, looked at before the consumer uses it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from consumer_service.sources.interface import (
    DeadLetter,
    Delivery,
    MessageSource,
    Partition,
    Progress,
    Record,
    SourceFailed,
)

_LARGEST_PARTITION, _LARGEST_OFFSET = 2**31 - 1, 2**63 - 1
_SHOWN = 40
"""Characters of a wrong value that are shown."""


class CheckedSource:
    """A source of an installed distribution, which is named if it returns what no source may.

    Raises SourceFailed then: trying again would not help. `who` is how the source is called there.
    """

    def __init__(self, source: MessageSource, who: str) -> None:
        self._source = source
        self._who = who
        self.keep_alive = source.keep_alive
        self.commit = source.commit
        self.close = source.close

    @property
    def exhausted(self) -> bool:
        """Whether no poll will return a record."""
        return self._source.exhausted

    def poll(self, timeout: float, max_records: int) -> Sequence[Record]:
        """Return the next records, each of them as tables and dead letters can have it."""
        records = self._source.poll(timeout, max_records)
        if fault := _fault_of_poll(records, max_records):
            raise self._failed(f"poll returned {fault}")
        return records

    def send_dead_letters(self, letters: Sequence[DeadLetter]) -> Delivery:
        """Send rejected records."""
        delivery = self._source.send_dead_letters(letters)
        if not isinstance(delivery, Delivery):
            raise self._failed(f"send_dead_letters returned {_shown(delivery)}, expected a Delivery")
        return delivery

    def progress(self) -> Mapping[Partition, Progress]:
        """Return how far each partition is read."""
        found = self._source.progress()
        if not isinstance(found, Mapping) or not all(map(_is_progress, found.items())):
            raise self._failed(f"progress returned {_shown(found)}, expected a Progress by Partition")
        return found

    def problem(self) -> str | None:
        """Return what keeps it from delivering in one line; never raises, as `/readyz` has to have an answer."""
        try:
            problem = self._source.problem()
        except Exception as error:
            return f"problem of {self._who} raised {type(error).__name__}"
        if problem and not isinstance(problem, str):
            return f"problem of {self._who} returned {_shown(problem)}, expected text or None"
        return " ".join(problem.split()) if problem else None

    def _failed(self, fault: str) -> SourceFailed:
        return SourceFailed(f"source {self._who}: {fault}")


def _is_name(value: Any) -> bool:
    if not isinstance(value, str) or "\0" in value:
        return False
    return value.isascii() or value == value.encode(errors="replace").decode()


def _is_bytes_or_none(value: Any) -> bool:
    return value is None or isinstance(value, bytes)


def _are_headers(value: Any) -> bool:
    return isinstance(value, Sequence) and all(map(_is_header, value))


def _is_header(value: Any) -> bool:
    return isinstance(value, tuple) and [*map(type, value)] == [str, bytes]


def _is_progress(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], Partition) and isinstance(item[1], Progress)


def _is_partition(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= _LARGEST_PARTITION


def _is_offset(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= _LARGEST_OFFSET


def _is_timestamp(value: Any) -> bool:
    return value is None or (isinstance(value, int) and -_LARGEST_OFFSET <= value <= _LARGEST_OFFSET)


_FIELDS: Sequence[tuple[str, Callable[[Any], bool], str]] = (
    ("topic", _is_name, "text without NUL"),
    ("partition", _is_partition, f"an integer from 0 to {_LARGEST_PARTITION}"),
    ("offset", _is_offset, f"an integer from 0 to {_LARGEST_OFFSET}"),
    ("key", _is_bytes_or_none, "bytes or None"),
    ("value", _is_bytes_or_none, "bytes or None"),
    ("headers", _are_headers, "pairs of text and bytes"),
    ("timestamp", _is_timestamp, "milliseconds as an integer of 64 bits, or None"),
)
_CONTENT = {"key", "value", "headers"}
"""Of these the type is shown alone."""


def _fault_of_poll(records: Any, max_records: int) -> str | None:
    """Return what is wrong with the answer of a poll, None if nothing is; takes some microseconds a record."""
    if not isinstance(records, Sequence):
        return f"{_shown(records)}, expected a sequence of records"
    if len(records) > max_records:
        return f"{len(records)} records, expected at most {max_records}"
    last: dict[tuple[str, int], int] = {}
    for record in records:
        if fault := _fault_of_record(record):
            return fault
        before = last.get((record.topic, record.partition), -1)
        if record.offset <= before:
            # a commit in the middle of the poll would be of records that were not handled
            return f"offset {record.offset} after {before} of the same partition, expected rising offsets"
        last[record.topic, record.partition] = record.offset
    return None


def _fault_of_record(record: Any) -> str | None:
    if not isinstance(record, Record):
        return f"{_shown(record)} among the records, expected a Record"
    for name, is_right, expected in _FIELDS:
        value = getattr(record, name)
        if not is_right(value):
            shown = f"of type {type(value).__name__}" if name in _CONTENT else _shown(value)
            return f"a record with {name} {shown}, expected {expected}"
    return None


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        # an integer of thousands of digits is among those that have none
        text = type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
