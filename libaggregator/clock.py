"""The time, in the one form that is compared and stored: UTC without a zone."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present instant in UTC, microseconds, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)
