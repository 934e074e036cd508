"""The lines of an export, and how times, rows and values are written in them and in messages (`docs/export.md`)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from consumer_service.statements import INTEGER_BYTES
from consumer_service.transfer.tables import Exported

FORMAT = "insights-results-aggregator-export"
FORMAT_VERSION = 1
MOST_ROWS = 5000
"""In one block."""
LONGEST_ROW = 128 * 1024 * 1024
"""Bytes; a message of 64,000,000 bytes fits, whose every byte is escaped once when its JSON becomes a string."""

_SHOWN_CHARACTERS = 60
_DATE, _TIME = "[0-9]{4}-[0-9]{2}-[0-9]{2}", "(?!24)[0-9]{2}:[0-9]{2}:[0-9]{2}"
_STORED_TIME = re.compile(rf"({_DATE})[ T]({_TIME})(?:\.([0-9]{{1,6}}))?")
_FILE_TIME = re.compile(rf"({_DATE}T{_TIME}\.[0-9]{{6}})Z")
_AT_COLUMN = re.compile(r"(.*?)(?: - at `\$\[([0-9]+)\]`)?", re.DOTALL)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line."""

    format: str
    format_version: int
    schema_version: int
    program_version: str
    exported_at: str
    engine: str
    tables: dict[str, list[str]]


class Begin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line before the rows of a table."""

    table: str


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line behind a block: how many rows of the table there are so far, and the checksum of all lines before."""

    rows: int
    sha256: str


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last line: how many rows each table has, and the checksum of all lines before."""

    end: dict[str, int]
    sha256: str


class ValueRefused(Exception):
    """A row holds what an export can't; the text names table, row, column and value."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a database can hold: whether NUL in texts, and bytes of integer columns (`table.column`)."""

    takes_nul: bool = True
    integer_bytes: Mapping[str, int] = field(default_factory=dict)


@lru_cache(maxsize=4096)
def time_in_file(text: str) -> str:
    """Return a time as the file has it, from how a database shows it; ValueError if it is none of the years 1 to 9999.

    `text` is `YYYY-MM-DD hh:mm:ss`, also with `T`, with 0 to 6 digits of a second.
    """
    parts = _STORED_TIME.fullmatch(text)
    if not parts:
        raise ValueError("expected a time of the years 1 to 9999, YYYY-MM-DD hh:mm:ss with up to 6 digits more")
    date, time, digits = parts.groups(default="")
    written = f"{date}T{time}.{digits:0<6}"
    datetime.fromisoformat(written)
    return f"{written}Z"


@lru_cache(maxsize=4096)
def time_from_file(text: str) -> datetime:
    """Return a time of the file, without a zone; ValueError if it has another form, or if there is no such time."""
    parts = _FILE_TIME.fullmatch(text)
    if not parts:
        raise ValueError("expected a time of the form YYYY-MM-DDThh:mm:ss.ffffffZ")
    return datetime.fromisoformat(parts[1])


def shown(value: object) -> str:
    """Return a value as errors show it."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} that is nested too deep to be shown"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def place_of(table: Exported, row: tuple[Any, ...]) -> str:
    """Return the name of a row for people: table and key."""
    return f"table {table.name}, row with {key_for_people(table, row)}"


def key_for_people(table: Exported, row: Sequence[Any]) -> str:
    """Return columns and values of the key of a row."""
    return ", ".join(f"{name} {shown(value)}" for name, value in zip(table.key, table.key_of(row), strict=True))


def row_type(table: Exported, limits: Limits) -> Any:
    """Return the type of a row with times as text, with the ranges of integers that a database has."""

    def column_type(name: str, kind: str) -> Any:
        plain: Any = str
        if kind in INTEGER_BYTES:
            limit = 1 << (8 * limits.integer_bytes.get(f"{table.name}.{name}", 8) - 1)
            plain = Annotated[int, Meta(ge=-limit, le=limit - 1)]
        if name == "disabled":
            plain = Annotated[int, Meta(ge=0, le=1)]
        return plain | None if name in table.nullable else plain

    return tuple[tuple(column_type(name, kind) for name, kind in table.table.columns.items())]  # type: ignore[misc]


def in_words(error: Exception, table: Exported, row: Sequence[Any]) -> str:
    """Return what is wrong with a row, with the name of the column and its value instead of its place."""
    parts = _AT_COLUMN.fullmatch(str(error))
    if not parts or parts[2] is None:
        return str(error)
    place = int(parts[2])
    value = f": {shown(row[place])}" if place < len(row) else ""
    return f"{table.columns[place]}: {parts[1]}{value}"
