"""Stored times and how answers show them (`docs/rest.md`, section 1.5; `docs/schema.md`, section 1)."""

from datetime import datetime

import msgspec

from api_service.fields import ExactAlways

StoredTime = datetime | str | None
"""A time as a driver returns it: naive UTC from PostgreSQL, text with 0 to 6 fraction digits from SQLite."""


class TimeObject(msgspec.Struct, frozen=True):
    """A time that can be missing: there is one if `Valid` is true."""

    time: ExactAlways = msgspec.field(name="Time")
    valid: bool = msgspec.field(name="Valid")


NO_TIME = TimeObject("0001-01-01T00:00:00Z", valid=False)


def read(stored: datetime | str) -> datetime:
    """Return a stored time as naive UTC."""
    return stored if isinstance(stored, datetime) else datetime.fromisoformat(stored)


def seconds(stored: StoredTime) -> str:
    """Return the form *seconds*: the fraction is cut off; empty if there is no time."""
    return "" if stored is None else read(stored).isoformat(timespec="seconds") + "Z"


def exact(stored: StoredTime) -> str:
    """Return the form *exact*: up to six digits of fraction, no zeros at its end; empty if there is no time."""
    return "" if stored is None else without_zeros(read(stored).isoformat()) + "Z"


def time_object(stored: StoredTime) -> TimeObject:
    """Return a *time object*."""
    return NO_TIME if stored is None else TimeObject(exact(stored), valid=True)


def without_zeros(text: str) -> str:
    """Return a time in ISO form without the zeros at the end of its fraction."""
    return text.rstrip("0").rstrip(".") if "." in text else text
