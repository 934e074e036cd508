"""Entries of a stream of Redis as records, and dead letters as entries (`docs/sources.md`)."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from consumer_service.sources.interface import DeadLetter, Record
from consumer_service.sources.letters import dead_letter_headers

PARTITION = 0
"""A stream has one."""

KEY_FIELD, VALUE_FIELD = b"key", b"value"

_SEQUENCE_BITS, _TIME_BITS = 20, 42
_OTHERS = 1 << (_TIME_BITS + _SEQUENCE_BITS)
"""Added to the offsets of ids that do not fit, so that they meet no other one."""


class EntryId(NamedTuple):
    """The id of an entry, in the order in which the stream has them."""

    milliseconds: int
    sequence: int

    @classmethod
    def parse(cls, text: bytes) -> "EntryId":
        """Return the id that Redis writes as `1700000000000-0`."""
        milliseconds, _, sequence = text.partition(b"-")
        return cls(int(milliseconds), int(sequence))

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.sequence}"

    @property
    def offset(self) -> int:
        """The id as an integer of 63 bits, as tables, logs and dead letters have it.

        42 bits of milliseconds, until the year 2109, and 20 bits of sequence number are in the order of the stream, and
        the id can be read from them. Ids beyond either are a digest of their text above all others, in no order.
        """
        if self._fits:
            return self.milliseconds << _SEQUENCE_BITS | self.sequence
        digest = int.from_bytes(blake2b(str(self).encode(), digest_size=8).digest(), "big")
        return _OTHERS | digest % _OTHERS

    @property
    def timestamp(self) -> int | None:
        """Milliseconds since 1970, when the server took the entry; None if the producer chose an id beyond that."""
        return self.milliseconds if self._fits else None

    @property
    def _fits(self) -> bool:
        return self.milliseconds >> _TIME_BITS == 0 and self.sequence >> _SEQUENCE_BITS == 0


def record_of(stream: str, entry_id: EntryId, fields: Mapping[bytes, bytes]) -> Record:
    """Return the record that an entry stands for; fields other than `key` and `value` are its headers."""
    headers = tuple(
        (name.decode("utf-8", "surrogateescape"), value)
        for name, value in fields.items()
        if name not in {KEY_FIELD, VALUE_FIELD}
    )
    key, value = fields.get(KEY_FIELD), fields.get(VALUE_FIELD)
    return Record(stream, PARTITION, entry_id.offset, key, value, headers, entry_id.timestamp)


def fields_of(letter: DeadLetter) -> dict[bytes, bytes]:
    """Return the fields of the entry that a dead letter is: those of the rejected one, and our headers."""
    parts = {KEY_FIELD: letter.record.key, VALUE_FIELD: letter.record.value}
    fields = {name: value for name, value in parts.items() if value is not None}
    return fields | {name.encode("utf-8", "surrogateescape"): value for name, value in dead_letter_headers(letter)}
