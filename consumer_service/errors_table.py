"""The row of `consumer_error` that a rejected record leaves (`docs/schema.md`, section 7)."""

from base64 import b64encode
from datetime import datetime, timedelta

from consumer_service.pipeline import Rejected

_EPOCH = datetime(1970, 1, 1)
_BASE64 = "base64:"


def error_row(rejected: Rejected, now: datetime) -> tuple[object, ...]:
    """Return the values for topic, partition, topic_offset, key, produced_at, consumed_at, message and error."""
    record = rejected.record
    return (
        record.topic,
        record.partition,
        record.offset,
        as_text(record.key),
        _produced_at(record.timestamp) or now,
        now,
        as_text(record.value),
        f"{rejected.reason}: {rejected.detail}",
    )


def as_text(content: bytes | None) -> str | None:
    """Return bytes as text if any database can store them as such, else in base64, marked; None stays None."""
    if content is None:
        return None
    try:
        text = content.decode()
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
