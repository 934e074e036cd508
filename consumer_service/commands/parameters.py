"""Types of options that several commands have, and rules for them."""

import re
from datetime import datetime, timedelta
from typing import TypeVar

import click

from libaggregator.times import parse_time

T = TypeVar("T")

_UNITS = {"w": "weeks", "d": "days", "h": "hours"}


def only_once(context: click.Context, parameter: click.Parameter, values: tuple[T, ...]) -> T | None:
    """Return the value of an option that has `multiple=True` and this as its callback, None without it.

    Fails, naming the option, if it was given twice; without `multiple` click takes the last value and says nothing.
    """
    if len(values) > 1:
        raise click.BadParameter(f"given {len(values)} times, expected once", context, parameter)
    return values[0] if values else None


class Time(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A time as messages have it, RFC 3339 with a zone; gives it in UTC."""

    name = "time"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> datetime:
        """Return the time in UTC; fails, naming the value, if it is none."""
        try:
            return parse_time(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", parameter, context)


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A length of time, a number and its unit: 8w, 60d, 12h; gives it as a timedelta above zero."""

    name = "duration"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> timedelta:
        """Return the length of time; fails, naming the value, if it is none."""
        match = re.fullmatch("([0-9]{1,6})([wdh])", str(value))
        if not match or not int(match[1]):
            self.fail(f"{value!r}: expected a number from 1 to 999999 and w, d or h, as in 60d", parameter, context)
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
