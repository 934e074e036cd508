"""Cluster ids: the forms in which one may be written, and the one in which it is stored and shown.

The forms are those of `docs/messages.md`, section 2, and of `docs/rest.md`, section 2.2.
"""

import re

_HYPHENATED = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_URN_PREFIX = "urn:uuid:"


class InvalidClusterID(ValueError):
    """A text that is no cluster id; `str` of it is the *UUID reason* of `docs/rest.md`, section 2.2.

    The reason can quote a part of the text, so it may hold any character.
    """


def parse_cluster_id(text: str) -> str:
    """Return a cluster id in canonical form, 36 characters in lower case with hyphens.

    Takes a UUID of any version with hyphens, as 32 hex digits, in braces, or after `urn:uuid:`, in any case and
    with nothing around it. Raises InvalidClusterID.
    """
    hyphenated = _hyphenated(text)
    if not _HYPHENATED.fullmatch(hyphenated):
        raise InvalidClusterID("invalid UUID format")
    return hyphenated.lower()


def _hyphenated(text: str) -> str:
    """Return what must be the hyphenated form; the length of the text alone says which form it has."""
    length = len(text.encode(errors="surrogatepass"))
    match length:
        case 36:
            return text
        case 32:
            return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
        case 38:
            return text.removeprefix("{").removesuffix("}")
        case 45:
            if text[:9].lower() != _URN_PREFIX:
                raise InvalidClusterID(f'invalid urn prefix: "{text[:9]}"')
            return text[9:]
        case _:
            raise InvalidClusterID(f"invalid UUID length: {length}")
