"""Dead letters as every broker gets them (`docs/messages.md`, section 8)."""

import re
from collections.abc import Iterator, Mapping, Sequence

from consumer_service.sources.interface import DeadLetter, Record

HEADER_PREFIX = "aggregator-"
LONGEST_DETAIL = 1000

_GROUP_BYTES = 4_000_000
_GROUP_LETTERS = 200

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_LARGEST_PARTITION, _LARGEST_OFFSET = 2**31 - 1, 2**63 - 1
_SHOWN = 40
"""Characters of a broken header that its problem shows."""


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


def in_groups(letters: Sequence[DeadLetter]) -> Iterator[list[DeadLetter]]:
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


def _encoded(text: str) -> bytes:
    """Return UTF-8; what a text can't have there (half of a surrogate pair) is replaced."""
    return text.encode("utf-8", errors="replace")
