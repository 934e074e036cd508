r"""JSON taken apart, with every value kept as the bytes it came in.

msgspec does the work where it can. It refuses some texts that RFC 8259 allows: escaped lone surrogates
(`\ud800`), and nesting that exceeds Python's recursion limit. Whatever it refuses is read again by a scanner of our
own, which is slower, strict, and not recursive (`docs/messages.md`, section 5).

All functions take UTF-8: msgspec and the scanner both pass over broken bytes inside strings.
"""

import json
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Generic, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

# Possessive throughout, so that no text makes the search go back and take quadratic time.
_BLANKS = rb"[ \t\n\r]*+"
_STRING = rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[Ee][+-]?[0-9]++)?+"
_EMPTY = rb"\[%b\]|\{%b\}" % (_BLANKS, _BLANKS)

_OPENING_BRACE = re.compile(rb"%b\{%b(\})?" % (_BLANKS, _BLANKS))
_OPENING_BRACKET = re.compile(rb"%b\[%b(\])?" % (_BLANKS, _BLANKS))
_NAME = re.compile(rb"%b(%b)%b:%b" % (_BLANKS, _STRING, _BLANKS, _BLANKS))
_NO_NAME = re.compile(rb"%b()" % _BLANKS)
_VALUE = re.compile(rb"%b(?:%b|%b|true|false|null|%b|([\[{]))" % (_BLANKS, _STRING, _NUMBER, _EMPTY))
_DELIMITER = re.compile(rb"%b([,\]}])" % _BLANKS)
_END = re.compile(rb"%b\Z" % _BLANKS)

# a closing quote may be missing here: a search that failed for it would start again at every escaped quote
_ANY_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?')
_LEVELS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[{]}")

_string_decoder = msgspec.json.Decoder(str)
_array_decoder = msgspec.json.Decoder(list[msgspec.Raw])
# a list of `Raw` takes up to 36 times the memory of its text; longer arrays are scanned, entry by entry
_LIST_BYTES = 1_048_576


class InvalidJSON(ValueError):
    """A text that is not what RFC 8259 allows, or not of the kind that was asked for."""


class ObjectReader(Generic[S]):
    """Reads JSON objects into a msgspec struct; fields have the type `Raw` and defaults, other names are ignored.

    Of a name given twice the last one counts.
    """

    def __init__(self, struct: type[S]) -> None:
        self._struct = struct
        self._decoder = msgspec.json.Decoder(struct)
        self._fields = dict(zip(struct.__struct_encode_fields__, struct.__struct_fields__, strict=True))

    def read(self, text: bytes) -> S:
        """Return the values of an object; raises InvalidJSON if `text` is anything but one valid object."""
        try:
            return self._decoder.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return self.scan(text)

    def scan(self, text: bytes) -> S:
        """Do what `read` does in the slower way, which takes every text that RFC 8259 allows."""
        fields = self._fields
        return self._struct(**{fields[name]: msgspec.Raw(value) for name, value in members(text) if name in fields})


def read_array(text: bytes) -> Iterator[bytes]:
    """Yield the values of an array; raises InvalidJSON where `text` stops being one valid array."""
    if len(text) > _LIST_BYTES:
        return elements(text)
    try:
        return map(bytes, _array_decoder.decode(text))
    except (msgspec.DecodeError, RecursionError):
        return elements(text)


def read_string(text: bytes) -> str:
    """Return what a valid JSON string says; escaped lone surrogates stay in it."""
    try:
        return _string_decoder.decode(text)
    except msgspec.DecodeError:
        string: str = json.loads(text.decode())
        return string


def members(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each name and value of an object, in the slower way; raises InvalidJSON like `elements`."""
    for name, value in _contents(text, _OPENING_BRACE, _NAME, b"}"):
        yield read_string(name), value


def elements(text: bytes) -> Iterator[bytes]:
    """Yield each value of an array, in the slower way.

    Raises InvalidJSON where `text` stops being one valid array, so maybe after some values.
    """
    for _, value in _contents(text, _OPENING_BRACKET, _NO_NAME, b"]"):
        yield value


def is_nested_deeper(text: bytes, levels: int) -> bool:
    """Say whether more than `levels` brackets and braces of a JSON text are open at once, strings left out."""
    if len(text) - len(text.translate(None, b"[{")) <= levels:
        return False
    steps = _ANY_STRING.sub(b"", text).translate(_LEVELS, _NO_BRACKETS)
    return max(accumulate(memoryview(steps).cast("b")), default=0) > levels


def _contents(
    text: bytes, opening: re.Pattern[bytes], name_pattern: re.Pattern[bytes], closing: bytes
) -> Iterator[tuple[bytes, bytes]]:
    """Yield name (empty in an array) and value of each entry, up to `closing` and the end of the text."""
    start = _expect(opening, text, 0)
    position = start.end()
    delimiter = start[1] or b","
    while delimiter == b",":
        name = _expect(name_pattern, text, position)
        end = _end_of_value(text, name.end())
        yield name[1], text[name.end() : end]
        mark = _expect(_DELIMITER, text, end)
        position, delimiter = mark.end(), mark[1]
    if delimiter != closing:
        raise InvalidJSON(f"expected {closing.decode()!r}")
    _expect(_END, text, position)


def _end_of_value(text: bytes, position: int) -> int:
    """Return the position after the one value, scalar or container, that begins at `position`."""
    closings: list[bytes] = []
    while True:
        if closings and closings[-1] == b"}":
            position = _expect(_NAME, text, position).end()
        value = _expect(_VALUE, text, position)
        position = value.end()
        if value[1]:
            closings.append(b"}" if value[1] == b"{" else b"]")
            continue
        while closings:
            mark = _expect(_DELIMITER, text, position)
            position = mark.end()
            if mark[1] == b",":
                break
            if mark[1] != closings.pop():
                raise InvalidJSON("brackets that do not match")
        else:
            return position


def _expect(pattern: re.Pattern[bytes], text: bytes, position: int) -> re.Match[bytes]:
    match = pattern.match(text, position)
    if not match:
        raise InvalidJSON("syntax error")
    return match
