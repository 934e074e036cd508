"""JSON that came with a request, and JSON that is stored as text."""

import json
from typing import Any

import msgspec

from libaggregator.raw_json import InvalidJSON, elements

_raw_decoder = msgspec.json.Decoder(msgspec.Raw)


class NotJSONError(ValueError):
    """Bytes that are not one well-formed JSON text in UTF-8."""


def parse(text: bytes) -> Any:
    """Return the value of a JSON text; numbers lose their precision, of a key given twice the last one counts.

    Escaped lone surrogates are taken, `NaN`, a byte order mark and UTF-16 are not, nor is nesting that is too
    deep for the parser. Raises NotJSONError.
    """
    try:
        # integers of any length are valid, and Python makes no integer of more than 4,300 digits
        return json.loads(text.decode(), parse_int=float, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise NotJSONError(f"not a well-formed JSON text: {error}") from None


def is_valid(text: str) -> bool:
    """Say whether a stored text is what RFC 8259 allows (`docs/rest.md`, section 1.6)."""
    encoded = text.encode()
    try:
        _raw_decoder.decode(encoded)
    except (msgspec.DecodeError, RecursionError):
        return _is_valid_to_the_scanner(encoded)
    return True


def as_stored(text: str) -> msgspec.Raw:
    """Return a stored text for an answer: byte for byte if it is JSON, `null` if it is empty, else as a string."""
    if is_valid(text):
        return msgspec.Raw(text.encode())
    return msgspec.Raw(msgspec.json.encode(text or None))


def _is_valid_to_the_scanner(text: bytes) -> bool:
    """Ask the slower reader, which takes some valid texts that msgspec refuses."""
    try:
        return sum(1 for _ in elements(b"[%b]" % text)) == 1
    except InvalidJSON:
        return False


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")
