"""Reads an export line by line, and holds it against every rule of its format."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec

from consumer_service.transfer.files import BrokenCompression
from consumer_service.transfer.line_format import (
    FORMAT,
    FORMAT_VERSION,
    LONGEST_ROW,
    MOST_ROWS,
    Begin,
    Check,
    End,
    Header,
    Limits,
    in_words,
    place_of,
    row_type,
    shown,
    time_from_file,
)
from consumer_service.transfer.tables import EXPORTED, Exported
from libaggregator.storage.models import SCHEMA_VERSION

_LONGEST_CONTROL = 64 * 1024
_LONGEST_REASON = 1000
_SHOWN_BYTES = 60
_LONGEST_SHOWN = 1024 * 1024
"""Bytes of a row up to which a wrong value is looked up: whatever is in it, that takes little memory."""
_NUL_IN_JSON = b"\\u0000"
_UNREADABLE = (ValueError, RecursionError)
"""What decoding raises: msgspec.MsgspecError, UnicodeDecodeError, and RecursionError where brackets are nested."""


class _Name(msgspec.Struct, frozen=True):
    """The first and the second field of every header there will ever be."""

    format: str
    format_version: int
    program_version: str = "unknown"


class FileRefused(Exception):
    """The file can't be imported; the text says why, with the line where there is one."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that stand one after another and have a checksum in common; times are without a zone, UTC."""

    table: Exported
    first_line: int
    rows: list[tuple[Any, ...]]


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
            if isinstance(content, Check):
                yield self._finish_block(content)
            elif self._rows:
                raise self._refused("expected a checksum after rows")
            elif isinstance(content, Begin):
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
            line = self._file.readline(LONGEST_ROW + 1)
        except BrokenCompression as error:
            raise self._refused(str(error)) from None
        if not line:
            raise self._refused("the file ends before its last line: it was cut")
        if len(line) > LONGEST_ROW:
            raise self._refused(f"longer than {LONGEST_ROW} bytes")
        if not line.endswith(b"\n"):
            raise self._refused("the file ends within a line: it was cut")
        return line

    def _control(self, line: bytes) -> Begin | Check | End:
        kinds: tuple[tuple[bytes, type[Begin | Check | End]], ...] = (
            (b'{"rows":', Check),
            (b'{"table":', Begin),
            (b'{"end":', End),
        )
        for beginning, kind in kinds:
            if line.startswith(beginning) and len(line) <= _LONGEST_CONTROL:
                try:
                    return msgspec.json.decode(line, type=kind)
                except _UNREADABLE as error:
                    raise self._refused(f"broken: {error}") from None
        raise self._refused(f"neither a row nor anything else of an export: {shown(line[:_SHOWN_BYTES])}")

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
        if len(self._rows) >= MOST_ROWS or self._held_bytes >= LONGEST_ROW:
            raise self._refused(f"expected a checksum after {len(self._rows)} rows")
        row = self._decode(line, self._table)
        key = self._table.key_of(row)
        if key <= self._last_key:
            problem = "comes twice" if key == self._last_key else "is not in the order of keys"
            raise self._refused(f"{place_of(self._table, row)}: {problem}")
        self._last_key = key
        self._rows.append(row)
        self._held_bytes += len(line)

    def _finish_block(self, check: Check) -> Block:
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

    def _finish(self, end: End) -> None:
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


def _values(line: bytes) -> Sequence[Any]:
    """Return what is in a line with a row, nothing if that can't be told."""
    if len(line) > _LONGEST_SHOWN:
        return ()
    try:
        values: list[Any] = msgspec.json.decode(line)
    except _UNREADABLE:
        return ()
    return values
