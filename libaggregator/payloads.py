"""From the bytes of a record to the bytes of its JSON text: size and compression (`docs/messages.md`, section 1)."""

import zlib

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
# zlib copies what follows a member out of the piece it was given, so that with pieces as long as the payload
# a payload of very many tiny members would take hours
_PIECE_BYTES = 8_192


class TooLarge(ValueError):
    """A payload with more bytes than allowed."""


class BadCompression(ValueError):
    """A payload that begins like gzip and is something else, broken, or cut off."""


def inflate(payload: bytes, max_bytes: int) -> bytes:
    """Return a payload as it is, or what is inside if it begins like gzip; several members are read as one.

    Raises TooLarge if the payload or what is inside has more than `max_bytes` bytes, without inflating more than
    these, and BadCompression if gzip is broken, ends early, or is followed by anything but another member.
    """
    if len(payload) > max_bytes:
        raise TooLarge(f"expected at most {max_bytes} bytes")
    if not payload.startswith(_GZIP_MAGIC):
        return payload
    inflated = bytearray()
    position = 0
    while position < len(payload):
        position = _inflate_member(payload, position, inflated, max_bytes)
    return bytes(inflated)


def _inflate_member(payload: bytes, position: int, inflated: bytearray, max_bytes: int) -> int:
    """Append to `inflated` what is in the member at `position`; return the position after the member."""
    member = zlib.decompressobj(_GZIP_WINDOW)
    while not member.eof:
        piece = payload[position : position + _PIECE_BYTES]
        if not piece:
            raise BadCompression("gzip that ends early")
        try:
            inflated += member.decompress(piece, max_bytes - len(inflated) + 1)
        except zlib.error:
            raise BadCompression("gzip that is broken, or followed by something else") from None
        if len(inflated) > max_bytes:
            raise TooLarge(f"expected at most {max_bytes} bytes when inflated")
        position += len(piece) - len(member.unused_data)
    return position
