"""The lines of an export: written with checksums, and read with every rule of the format (`docs/export.md`)."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, BinaryIO

import msgspec
from msgspec import Meta

from consumer_service.statements import INTEGER_BYTES
from consumer_service.transfer.tables import EXPORTED, Exported
from libaggregator.storage.models import SCHEMA_VERSION

FORMAT = "insights-results-aggregator-export"
FORMAT_VERSION = 1

_BLOCK_ROWS = _MOST_ROWS = 5000
_BLOCK_BYTES = 4 * 1024 * 1024
_LONGEST_ROW = 128 * 1024 * 1024
"""Bytes; a message of 64,000,000 bytes fits, whose every byte is escaped once when its JSON becomes a string."""
_LONGEST_CONTROL = 64 * 1024
_LONGEST_REASON = 1000
_SHOWN_CHARACTERS = 60
_LONGEST_SHOWN = 1024 * 1024
"""Bytes of a row up to which a wrong value is looked up: whatever is in it, that takes little memory."""
_DATE, _TIME = "[0-9]{4}-[0-9]{2}-[0-9]{2}", "(?!24)[0-9]{2}:[0-9]{2}:[0-9]{2}"
_STORED_TIME = re.compile(rf"({_DATE})[ T]({_TIME})(?:\.([0-9]{{1,6}}))?")
_FILE_TIME = re.compile(rf"({_DATE}T{_TIME}\.[0-9]{{6}})Z")
_NUL_IN_JSON = b"\\u0000"
_UNREADABLE = (ValueError, RecursionError)
"""What decoding raises: msgspec.MsgspecError, UnicodeDecodeError, and RecursionError where brackets are nested."""
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


class _Name(msgspec.Struct, frozen=True):
    """The first and the second field of every header there will ever be."""

    format: str
    format_version: int
    program_version: str = "unknown"


class _Begin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    table: str


class _Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rows: int
    sha256: str


class _End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    end: dict[str, int]
    sha256: str


class FileRefused(Exception):
    """The file can't be imported; the text says why, with the line where there is one."""


class BrokenCompression(Exception):
    """The bytes of a file are not those of its compression, or end too early."""


class ValueRefused(Exception):
    """A row holds what an export can't; the text names table, row, column and value."""


class TimeRefused(ValueRefused):
    """A time is none of the years 1 to 9999."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a database can hold: whether NUL in texts, and bytes of integer columns (`table.column`)."""

    takes_nul: bool = True
    integer_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that stand one after another and have a checksum in common; times are without a zone, UTC."""

    table: Exported
    first_line: int
    rows: list[tuple[Any, ...]]


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


class LineWriter:
    """Writes an export; `after_block` is told how many rows were written since it was called last."""

    def __init__(self, file: BinaryIO, header: Header, after_block: Callable[[int], None]) -> None:
        self._file = file
        self._after_block = after_block
        self._hash = hashlib.sha256()
        self._encoder = msgspec.json.Encoder()
        self._counts: dict[str, int] = {}
        self._table = EXPORTED[0]
        self._block = bytearray()
        self._block_rows = 0
        self._write_line(header)

    def begin(self, table: Exported) -> None:
        """Begin a table, after all rows of the one before."""
        self._table = table
        self._counts[table.name] = 0
        self._write_line(_Begin(table.name))

    def add(self, row: tuple[Any, ...]) -> None:
        """Write a row of the table, whose times are text as databases show them.

        Raises ValueRefused if it can't be written.
        """
        begin = len(self._block)
        self._encoder.encode_into(_with_times(self._table, row) if self._table.times else row, self._block, begin)
        self._block += b"\n"
        if len(self._block) - begin > _LONGEST_ROW:
            raise ValueRefused(f"{place_of(self._table, row)}: longer than {_LONGEST_ROW} bytes as JSON")
        self._block_rows += 1
        if self._block_rows >= _BLOCK_ROWS or len(self._block) >= _BLOCK_BYTES:
            self._write_rows()

    def finish_table(self) -> None:
        """Write what is left of the table."""
        if self._block:
            self._write_rows()

    def end(self) -> dict[str, int]:
        """Write the last line, and return the number of rows of each table."""
        self._write_line(_End(self._counts, self._hash.hexdigest()))
        return self._counts

    def _write_rows(self) -> None:
        rows = self._block_rows
        self._write(self._block)
        self._counts[self._table.name] += rows
        self._write_line(_Check(self._counts[self._table.name], self._hash.hexdigest()))
        self._block, self._block_rows = bytearray(), 0
        self._after_block(rows)

    def _write_line(self, content: msgspec.Struct) -> None:
        self._write(self._encoder.encode(content) + b"\n")

    def _write(self, lines: bytes | bytearray) -> None:
        self._hash.update(lines)
        self._file.write(lines)


def _with_times(table: Exported, row: tuple[Any, ...]) -> list[Any]:
    written = list(row)
    for place in table.times:
        value = written[place]
        if value is not None:
            try:
                written[place] = time_in_file(value)
            except ValueError as error:
                raise TimeRefused(
                    f"{place_of(table, row)}: {table.columns[place]}: {error}, got {shown(value)}"
                ) from None
    return written


class LineReader:
    """Reads an export and holds it against every rule of the format and every limit of a database."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._file = file
        self._limits = limits
        self._hash = hashlib.sha256()
        self._number = 0
        self._checked_line = 0
        self._expected = iter(EXPORTED)
        self._table: Exported | None = None
        self._decoder: Any = None
        self._last_key: tuple[Any, ...] = ()
        self._rows: list[tuple[Any, ...]] = []
        self._held_bytes = 0
        self._counts: dict[str, int] = {}

    def blocks(self) -> Iterator[Block]:
        """Yield all rows, each block after its checksum was seen to be right.

        Raises FileRefused where the file is not an export, was made by a newer version, cut or changed, or holds what
        the database can't.
        """
        self._read_header()
        while True:
            line = self._read_line()
            if line.startswith(b"["):
                self._take_row(line)
                self._hash.update(line)
                continue
            content = self._control(line)
            if isinstance(content, _Check):
                yield self._finish_block(content)
            elif self._rows:
                raise self._refused("expected a checksum after rows")
            elif isinstance(content, _Begin):
                self._begin(content.table)
            else:
                self._finish(content)
                return
            self._hash.update(line)

    @property
    def counts(self) -> dict[str, int]:
        """How many rows of each table were read."""
        return self._counts

    def _read_header(self) -> None:
        self._number = 1
        try:
            line = self._file.readline(_LONGEST_CONTROL)
        except BrokenCompression as error:
            raise self._refused(str(error)) from None
        try:
            name = msgspec.json.decode(line, type=_Name)
        except _UNREADABLE:
            name = None
        if name is None or name.format != FORMAT:
            raise self._refused("not an export of this program, or cut within its first line")
        if name.format_version > FORMAT_VERSION:
            raise self._refused_as_newer(name, f"format version {name.format_version}", FORMAT_VERSION)
        try:
            header = msgspec.json.decode(line, type=Header)
        except _UNREADABLE as error:
            raise self._refused(f"broken header: {error}") from None
        if header.schema_version > SCHEMA_VERSION:
            raise self._refused_as_newer(name, f"schema version {header.schema_version}", SCHEMA_VERSION)
        if header.format_version != FORMAT_VERSION or header.schema_version != SCHEMA_VERSION:
            raise self._refused(
                f"format version {header.format_version} with schema version {header.schema_version}, expected"
                f" {FORMAT_VERSION} with {SCHEMA_VERSION}"
            )
        self._compare_tables(header.tables)
        self._hash.update(line)

    def _refused_as_newer(self, name: _Name, found: str, known: int) -> FileRefused:
        return self._refused(
            f"made by a newer version of this program ({name.program_version}): {found}, this one knows {known}"
        )

    def _compare_tables(self, found: dict[str, list[str]]) -> None:
        ours = {table.name: list(table.columns) for table in EXPORTED}
        differences = [f"unknown table {name}" for name in found if name not in ours]
        differences += [f"no table {name}" for name in ours if name not in found]
        for name in found.keys() & ours.keys():
            differences += [f"unknown column {name}.{column}" for column in found[name] if column not in ours[name]]
            differences += [f"no column {name}.{column}" for column in ours[name] if column not in found[name]]
        if differences or found != ours or list(found) != list(ours):
            raise self._refused(", ".join(differences) or "tables or columns in another order")

    def _read_line(self) -> bytes:
        self._number += 1
        try:
            line = self._file.readline(_LONGEST_ROW + 1)
        except BrokenCompression as error:
            raise self._refused(str(error)) from None
        if not line:
            raise self._refused("the file ends before its last line: it was cut")
        if len(line) > _LONGEST_ROW:
            raise self._refused(f"longer than {_LONGEST_ROW} bytes")
        if not line.endswith(b"\n"):
            raise self._refused("the file ends within a line: it was cut")
        return line

    def _control(self, line: bytes) -> _Begin | _Check | _End:
        kinds: tuple[tuple[bytes, type[_Begin | _Check | _End]], ...] = (
            (b'{"rows":', _Check),
            (b'{"table":', _Begin),
            (b'{"end":', _End),
        )
        for beginning, kind in kinds:
            if line.startswith(beginning) and len(line) <= _LONGEST_CONTROL:
                try:
                    return msgspec.json.decode(line, type=kind)
                except _UNREADABLE as error:
                    raise self._refused(f"broken: {error}") from None
        raise self._refused(f"neither a row nor anything else of an export: {shown(line[:_SHOWN_CHARACTERS])}")

    def _decode(self, line: bytes, table: Exported) -> tuple[Any, ...]:
        try:
            row: tuple[Any, ...] = self._decoder.decode(line)
        except _UNREADABLE as error:
            raise self._refused(f"table {table.name}: {in_words(error, table, _values(line))}") from None
        if not self._limits.takes_nul and _NUL_IN_JSON in line:
            for name, value in zip(table.columns, row, strict=True):
                if isinstance(value, str) and "\0" in value:
                    raise self._refused(f"{place_of(table, row)}: {name}: holds NUL, which PostgreSQL can't store")
        return self._with_times(row, table) if table.times else row

    def _with_times(self, row: tuple[Any, ...], table: Exported) -> tuple[Any, ...]:
        values = list(row)
        for place in table.times:
            if values[place] is not None:
                try:
                    values[place] = time_from_file(values[place])
                except ValueError as error:
                    problem = f"{table.columns[place]}: {error}, got {shown(row[place])}"
                    raise self._refused(f"{place_of(table, row)}: {problem}") from None
        return tuple(values)

    def _begin(self, name: str) -> None:
        table = next(self._expected, None)
        if table is None or table.name != name:
            raise self._refused(f"table {shown(name)}, expected {table.name if table else 'the last line'}")
        self._table, self._last_key = table, ()
        self._decoder = msgspec.json.Decoder(row_type(table, self._limits))
        self._counts[name] = 0

    def _take_row(self, line: bytes) -> None:
        if self._table is None:
            raise self._refused("a row before the first table")
        if len(self._rows) >= _MOST_ROWS or self._held_bytes >= _LONGEST_ROW:
            raise self._refused(f"expected a checksum after {len(self._rows)} rows")
        row = self._decode(line, self._table)
        key = self._table.key_of(row)
        if key <= self._last_key:
            problem = "comes twice" if key == self._last_key else "is not in the order of keys"
            raise self._refused(f"{place_of(self._table, row)}: {problem}")
        self._last_key = key
        self._rows.append(row)
        self._held_bytes += len(line)

    def _finish_block(self, check: _Check) -> Block:
        self._check(check.sha256)
        if self._table is None or not self._rows:
            raise self._refused("a checksum without rows before it")
        name, rows = self._table.name, self._rows
        self._counts[name] += len(rows)
        if self._counts[name] != check.rows:
            raise self._refused(f"counts {check.rows} rows of {name}, but there are {self._counts[name]}")
        self._rows, self._held_bytes = [], 0
        return Block(self._table, self._number - len(rows), rows)

    def _check(self, sha256: str) -> None:
        if sha256 != self._hash.hexdigest():
            first = self._checked_line + 1
            raise self._refused(f"lines {first} to {self._number - 1} have another checksum: the file was changed")
        self._checked_line = self._number

    def _finish(self, end: _End) -> None:
        self._check(end.sha256)
        if missing := [table.name for table in EXPORTED if table.name not in self._counts]:
            raise self._refused(f"the last line, but no table {missing[0]}")
        if end.end != self._counts:
            raise self._refused("the last line counts other rows than there are")
        self._number += 1
        try:
            rest = self._file.read(1)
        except BrokenCompression as error:
            raise self._refused(str(error)) from None
        if rest:
            raise self._refused("more after the last line")

    def _refused(self, reason: str) -> FileRefused:
        # names and texts of the file are a part of some
        line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in reason[:_LONGEST_REASON])
        return FileRefused(f"line {self._number}: {line}")


def in_words(error: Exception, table: Exported, row: Sequence[Any]) -> str:
    """Return what is wrong with a row, with the name of the column and its value instead of its place."""
    parts = _AT_COLUMN.fullmatch(str(error))
    if not parts or parts[2] is None:
        return str(error)
    place = int(parts[2])
    value = f": {shown(row[place])}" if place < len(row) else ""
    return f"{table.columns[place]}: {parts[1]}{value}"


def _values(line: bytes) -> Sequence[Any]:
    """Return what is in a line with a row, nothing if that can't be told."""
    if len(line) > _LONGEST_SHOWN:
        return ()
    try:
        values: list[Any] = msgspec.json.decode(line)
    except _UNREADABLE:
        return ()
    return values
