"""Names of headers that are not UTF-8, which Kafka stores and kafka-python 3.0.12 can't read.

There a record with such a name fails the poll, again and again, and holds up its partition for good. Here its name is
read like any other, and written as the same bytes.
"""

from typing import Any

from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords


def take_any_header_name(consumer: KafkaConsumer) -> None:
    """Have a consumer that has fetched nothing yet return records whose headers have names that are not UTF-8."""
    consumer._fetcher.PartitionRecords = _PartitionRecords


class HeaderName(str):
    """A name with half a surrogate pair for each byte that is not UTF-8; encoded, it is those bytes again."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        """Return the bytes of the name; the producer of dead letters calls it without saying how."""
        return super().encode(encoding, errors)


class _Bytes(bytearray):
    """A batch whose parts can be decoded whatever they are."""

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        return _Bytes(part) if isinstance(index, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> HeaderName:
        return HeaderName(super().decode(encoding, errors))


class _Batch(DefaultRecordBatch):  # type: ignore[misc]
    __slots__ = ()

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except CorruptRecordError as error:
            if not isinstance(error.__context__, UnicodeDecodeError):
                raise
            # the failed read left the position where it was
            self._buffer = _Bytes(self._buffer)  # type: ignore[misc, has-type]
            return super().__next__()

    next = __next__


class _Records(MemoryRecords):  # type: ignore[misc]
    __slots__ = ()

    def next_batch(self) -> Any:
        batch = super().next_batch()
        if type(batch) is DefaultRecordBatch:
            batch.__class__ = _Batch
        return batch


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition in the answer to a fetch."""

    def __init__(self, fetch_offset: int, tp: Any, records: MemoryRecords, **options: Any) -> None:
        super().__init__(fetch_offset, tp, _Records(records._buffer), **options)
