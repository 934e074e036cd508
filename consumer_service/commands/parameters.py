"""Types of options that several commands have."""

from datetime import datetime

import click

from libaggregator.times import parse_time


class Time(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A time as messages have it, RFC 3339 with a zone; gives it in UTC."""

    name = "time"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> datetime:
        """Return the time in UTC; fails, naming the value, if it is none."""
        try:
            return parse_time(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", parameter, context)
