"""Writes an export line by line, with checksums."""

import hashlib
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec

from consumer_service.transfer.line_format import (
    LONGEST_ROW,
    MOST_ROWS,
    Begin,
    Check,
    End,
    Header,
    ValueRefused,
    place_of,
    shown,
    time_in_file,
)
from consumer_service.transfer.tables import EXPORTED, Exported

_BLOCK_ROWS = MOST_ROWS
_BLOCK_BYTES = 4 * 1024 * 1024


class TimeRefused(ValueRefused):
    """A time is none of the years 1 to 9999."""


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
        self._write_line(Begin(table.name))

    def add(self, row: tuple[Any, ...]) -> None:
        """Write a row of the table, whose times are text as databases show them.

        Raises ValueRefused if it can't be written.
        """
        begin = len(self._block)
        self._encoder.encode_into(_with_times(self._table, row) if self._table.times else row, self._block, begin)
        self._block += b"\n"
        if len(self._block) - begin > LONGEST_ROW:
            raise ValueRefused(f"{place_of(self._table, row)}: longer than {LONGEST_ROW} bytes as JSON")
        self._block_rows += 1
        if self._block_rows >= _BLOCK_ROWS or len(self._block) >= _BLOCK_BYTES:
            self._write_rows()

    def finish_table(self) -> None:
        """Write what is left of the table."""
        if self._block:
            self._write_rows()

    def end(self) -> dict[str, int]:
        """Write the last line, and return the number of rows of each table."""
        self._write_line(End(self._counts, self._hash.hexdigest()))
        return self._counts

    def _write_rows(self) -> None:
        rows = self._block_rows
        self._write(self._block)
        self._counts[self._table.name] += rows
        self._write_line(Check(self._counts[self._table.name], self._hash.hexdigest()))
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
