"""The row of `consumer_error` that a rejected record leaves (`docs/schema.md`, section 7)."""

from base64 import b64encode
from datetime import datetime, timedelta

from consumer_service.pipeline import Rejected

_EPOCH = datetime(1970, 1, 1)
_BASE64 = "base64:"


def error_row(rejected: Rejected, now: datetime, *, in_ascii: bool = False) -> tuple[object, ...]:
    """Return the values for topic, partition, topic_offset, key, produced_at, consumed_at, message and error.

    `in_ascii` keeps to what a database has in any encoding.
    """
    record = rejected.record
    error = f"{rejected.reason}: {rejected.detail}"
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


def _produced_at(timestamp: int | None) -> datetime | None:
    """Return the time of a record from its milliseconds, None if it has none or one outside the years 1 to 9999."""
    if timestamp is None:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=timestamp)
    except OverflowError:
        return None
