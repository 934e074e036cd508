"""What is replayed: rejected records, wherever they were kept, and which of them are wanted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from consumer_service.sources import Record

PAGE_ROWS = 1000
PAGE_BYTES = 16 * 1024 * 1024
"""With so many letters, or with so many characters or bytes in them, a page is full: what is held at a time."""


class ErrorRow(NamedTuple):
    """A row of `consumer_error` by what tells it from another one at its place, each value as the driver has it."""

    topic: str
    partition: int
    topic_offset: int
    consumed_at: Any
    error: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A rejected record, and the row that it has in `consumer_error`, if it has one."""

    record: Record
    row: ErrorRow | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Letters that are replayed together, after `passed` things were looked at, some of them not letters of ours."""

    letters: Sequence[Letter]
    passed: int
    strangers: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are wanted: of these reasons (none: of all), of this time (UTC) and later, and how many at most."""

    reasons: frozenset[str] = frozenset()
    since: datetime | None = None
    most: int | None = None


class LetterBox(Protocol):
    """Where letters are kept."""

    def count(self) -> int:
        """Return about how many things there are to look at, for showing how far it is."""

    def pages(self) -> Iterator[Page]:
        """Yield all wanted letters that are there, page by page."""

    def close(self) -> None:
        """Free everything; never raises."""
