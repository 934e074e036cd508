"""The form in which messages write times (`docs/messages.md`, section 2)."""

import re
from datetime import datetime, timedelta

_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:Z|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
_PLAIN_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_MICROSECOND = timedelta(microseconds=1)
_NO_OFFSET = timedelta(0)


def parse_time(text: str) -> datetime:
    """Return a time as naive UTC, rounded to the nearest microsecond, ties to even.

    `text` is `YYYY-MM-DDThh:mm:ss`, optionally `.` and any number of digits, then `Z` or `±hh:mm`. Raises ValueError
    if it has another form, if there is no such time, or if it lies outside the years 1 to 9999 in its own zone, in
    UTC, or after rounding.
    """
    if _PLAIN_TIME.fullmatch(text):
        # most are like this, and it is six times as quick
        return datetime.fromisoformat(text[:-1])
    parts = _TIME.fullmatch(text)
    if not parts:
        raise ValueError("not a time of the form YYYY-MM-DDThh:mm:ss[.digits](Z|±hh:mm)")
    year, month, day, hour, minute, second = map(int, parts.group(1, 2, 3, 4, 5, 6))
    fraction, sign, offset_hours, offset_minutes = parts.group(7, 8, 9, 10)
    offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes)) if sign else _NO_OFFSET
    microsecond, rounds_up = _microseconds(fraction or "")
    local = datetime(year, month, day, hour, minute, second, microsecond)
    try:
        cut = local + offset if sign == "-" else local - offset
        return cut + _MICROSECOND if rounds_up else cut
    except OverflowError:
        raise ValueError("a time outside the years 1 to 9999 in UTC") from None


def _microseconds(fraction: str) -> tuple[int, bool]:
    """Return the whole microseconds in the digits of a fraction, and whether the rest rounds up.

    The rest is compared as text: it can be longer than Python makes an integer of.
    """
    whole = int(fraction[:6].ljust(6, "0"))
    rest = fraction[6:].rstrip("0")
    is_tie = rest == "5"
    return whole, whole % 2 == 1 if is_tie else rest > "5"
