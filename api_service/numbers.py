"""Numbers as decimal text."""

import re

MAX_UINT32 = 2**32 - 1
MAX_ORGANIZATION = MAX_UINT32
_DIGITS = re.compile("[0-9]+")
_MAX_UNSIGNED = 2**64 - 1


def natural_number(text: str) -> int | None:
    """Return the number that ASCII digits stand for, None for any other text and for numbers above 2^64-1."""
    if not _DIGITS.fullmatch(text):
        return None
    # Python makes no integer of more than 4,300 digits, zeros at the front included
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(_MAX_UNSIGNED)) or int(digits) > _MAX_UNSIGNED:
        return None
    return int(digits)
