"""The organizations whose messages are stored (`docs/messages.md`, section 7)."""

import csv
import re
from io import StringIO
from pathlib import Path

from libaggregator.settings import SettingsError

_LARGEST = 4_294_967_295
_INTEGER = re.compile(r"[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")


def read_allowlist(file: str) -> frozenset[int]:
    """Return the organizations of a CSV file: a header, then one in the first column of each line.

    Raises SettingsError, naming file, line and value, if any of it can't be used; never returns a part.
    """
    if not file:
        raise SettingsError(["consumer.org_allowlist: no file named, and consumer.enable_org_allowlist is true"])
    organizations: set[int] = set()
    header: str | None = None
    reader = csv.reader(StringIO(_read_text(file), newline=""), strict=True)
    try:
        for row in reader:
            value = row[0].strip() if row else ""
            if not any(field.strip() for field in row):
                continue
            if header is None:
                header = value
                if _NUMBER.fullmatch(header):
                    raise _bad_line(file, reader.line_num, header, "a header, since the first line is never an entry")
                continue
            if not _INTEGER.fullmatch(value) or not 1 <= int(value) <= _LARGEST:
                raise _bad_line(file, reader.line_num, value, f"an organization from 1 to {_LARGEST}")
            organizations.add(int(value))
    except csv.Error as error:
        raise SettingsError([f"consumer.org_allowlist: {file}, line {reader.line_num}: not CSV: {error}"]) from None
    return frozenset(organizations)


def _read_text(file: str) -> str:
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise SettingsError([f"consumer.org_allowlist: {file}: {error.strerror}"]) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SettingsError([f"consumer.org_allowlist: {file}, line {line}: not UTF-8"]) from None


def _bad_line(file: str, line: int, value: str, expected: str) -> SettingsError:
    return SettingsError([f"consumer.org_allowlist: {file}, line {line}: expected {expected}, got {value!r}"])
