"""Rows in the binary format of PostgreSQL's COPY, which the server takes with less work than any text.

The format: documentation of COPY, "Binary Format"; of each type: what its `_recv` function reads.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain, islice, repeat
from typing import Any

from msgspec import Raw

from consumer_service.statements import Table

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END = struct.pack(">h", -1)
_NULL = struct.pack(">i", -1)
_LENGTH = struct.Struct(">i")
_EPOCH = datetime(2000, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_ROWS = 64  # in a piece: long enough to be quick, short enough to keep the server busy from the start


class CopyFile:
    """Rows of a table as a file that COPY ... FROM STDIN (FORMAT binary) reads, made while it is read.

    `integer_bytes` has the size of each integer column. A number that is too large for its column is written with
    eight bytes, which the server refuses.
    """

    def __init__(self, table: Table, rows: Iterable[Sequence[Any]], integer_bytes: dict[str, int]) -> None:
        self._pieces = _pieces(rows, [*_encoders(table, integer_bytes)])

    def read(self, size: int = -1) -> bytes:
        """Return the next piece, of whatever size; nothing at the end."""
        return next(self._pieces, b"")


class _Memo(dict[Any, bytes]):
    """Encodes each value once: organizations, clusters, rules and times are the same in many rows."""

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, value: Any) -> bytes:
        encoded = self[value] = self._encode(value)
        return encoded


def _pieces(rows: Iterable[Sequence[Any]], encoders: Sequence[Callable[[Any], bytes]]) -> Iterator[bytes]:
    head = struct.pack(">h", len(encoders))
    remaining = iter(rows)
    yield _SIGNATURE
    while piece := list(islice(remaining, _ROWS)):
        # column by column, since that way the loops run in C
        columns = [map(encode, column) for encode, column in zip(encoders, zip(*piece, strict=True), strict=True)]
        yield b"".join(chain.from_iterable(zip(repeat(head), *columns)))
    yield _END


def _encoders(table: Table, integer_bytes: dict[str, int]) -> Iterator[Callable[[Any], bytes]]:
    texts, times = _Memo(_text), _Memo(_time)
    for name, kind in table.columns.items():
        if name == table.long_text:
            yield _text
        elif kind == "timestamp":
            yield times.__getitem__
        elif kind == "varchar":
            yield texts.__getitem__
        else:
            yield _Memo(_integer(integer_bytes[name])).__getitem__


def _text(value: str | Raw | None) -> bytes:
    if value is None:
        return _NULL
    encoded = value.encode() if isinstance(value, str) else value
    return b"%b%b" % (_LENGTH.pack(len(encoded)), encoded)


def _time(value: datetime | None) -> bytes:
    return _NULL if value is None else struct.pack(">iq", 8, (value - _EPOCH) // _MICROSECOND)


def _integer(size: int) -> Callable[[int | None], bytes]:
    limit = 1 << (8 * size - 1)

    def encode(value: int | None) -> bytes:
        if value is None:
            return _NULL
        bytes_taken = size if -limit <= value < limit else 8
        return _LENGTH.pack(bytes_taken) + value.to_bytes(bytes_taken, "big", signed=True)

    return encode
