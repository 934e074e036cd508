"""Rejected records as rows of `consumer_error`, and back (`docs/schema.md`, section 7)."""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from consumer_service.pipeline import Rejected
from consumer_service.sources import Record

_EPOCH = datetime(1970, 1, 1)
_BASE64 = "base64:"
_MILLISECOND = timedelta(milliseconds=1)


def error_row(rejected: Rejected, now: datetime, *, in_ascii: bool = False) -> tuple[object, ...]:
    """Return the values for topic, partition, topic_offset, key, produced_at, consumed_at, message and error.

    `in_ascii` keeps to what a database has in any encoding.
    """
    record = rejected.record
    error = error_text(rejected)
    return (
        record.topic,
        record.partition,
        record.offset,
        as_text(record.key, in_ascii=in_ascii),
        _produced_at(record.timestamp) or now,
        now,
        as_text(record.value, in_ascii=in_ascii),
        error.encode("ascii", errors="backslashreplace").decode() if in_ascii else error,
    )


def record_of(row: Sequence[Any]) -> Record:
    """Return the record that left a row of `consumer_error`, whose values are in the order of `error_row`.

    Headers are not kept there. Times may be texts, as SQLite has them.
    """
    topic, partition, offset, key, produced_at, consumed_at, message, _ = row
    # `error_row` puts one for the other
    timestamp = None if produced_at == consumed_at else (_as_time(produced_at) - _EPOCH) // _MILLISECOND
    return Record(topic, partition, offset, as_bytes(key), as_bytes(message), (), timestamp)


def error_text(rejected: Rejected) -> str:
    """Return reason and detail as the column `error` has them."""
    return f"{rejected.reason}: {rejected.detail}"


def as_text(content: bytes | None, *, in_ascii: bool = False) -> str | None:
    """Return bytes as text if it can be stored as such, else in base64, marked; None stays None.

    A database in UTF-8 stores any text without NUL; with `in_ascii` only what every database stores is left as it is.
    """
    if content is None:
        return None
    try:
        text = content.decode("ascii" if in_ascii else "utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or text.startswith(_BASE64):
        return _BASE64 + b64encode(content).decode()
    return text


def as_bytes(text: str | None) -> bytes | None:
    """Return the bytes of which `as_text` made a text; None stays None.

    What begins like base64 and is something else was written by somebody else, as plain text.
    """
    if text is None or not text.startswith(_BASE64):
        return None if text is None else text.encode()
    try:
        return b64decode(text.removeprefix(_BASE64), validate=True)
    except (binascii.Error, ValueError):
        return text.encode()


def _as_time(value: datetime | str) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def _produced_at(timestamp: int | None) -> datetime | None:
    """Return the time of a record from its milliseconds, None if it has none or one outside the years 1 to 9999."""
    if timestamp is None:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=timestamp)
    except OverflowError:
        return None
