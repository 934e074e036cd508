"""Letters from the table `consumer_error`, read in pages that are bounded in rows and in characters."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from consumer_service import statements
from consumer_service.engines import Engine, Row
from consumer_service.errors_table import as_text, record_of
from consumer_service.replay.letters import PAGE_BYTES, PAGE_ROWS, ErrorRow, Letter, Page, Selection

_BEFORE_ALL = ("", -1, -1)

_Sized = tuple[Any, ...]
"""Topic, partition and offset of a row, and the characters of its key and message."""


class UnreadableRowError(Exception):
    """A row that somebody else wrote has a value that nobody can read; the text says where, in one line."""


class ErrorRows:
    """Rows of `consumer_error` as letters, in the order of the primary key."""

    def __init__(self, engine: Engine, selection: Selection, page_rows: int = PAGE_ROWS) -> None:
        """Take the database, which rows are wanted, and how many letters a page has at most."""
        self._engine = engine
        self._page_rows = page_rows
        self._most = selection.most
        self._only, self._values = _conditions(selection)

    def count(self) -> int:
        """Return how many wanted rows there are."""
        ((found,),) = self._engine.read(statements.COUNT_ERRORS.format(only=self._only), *self._values)
        return int(found) if self._most is None else min(int(found), self._most)

    def pages(self) -> Iterator[Page]:
        """Yield the wanted rows; one that is replaced meanwhile is left for the next run."""
        for sized in _cut(islice(self._places(), self._most), self._page_rows):
            yield Page(self._letters(sized), passed=len(sized))

    def close(self) -> None:
        """Do nothing: the database belongs to others."""

    def _letters(self, sized: Sequence[_Sized]) -> list[Letter]:
        try:
            return [
                Letter(record_of(row), _error_row(row)) for row in self._engine.select(statements.READ_ERRORS, sized)
            ]
        except (TypeError, ValueError) as error:
            first, last = sized[0][:3], sized[-1][:3]
            raise UnreadableRowError(
                f"a row of consumer_error from {first} to {last} has a value that the consumer does not write: {error}"
            ) from error

    def _places(self) -> Iterator[_Sized]:
        statement = statements.FIND_ERRORS.format(only=self._only)
        after: Sequence[object] = _BEFORE_ALL
        while found := self._engine.read(statement, *after, *self._values, self._page_rows):
            yield from found
            after = found[-1][:3]


def with_rows(engine: Engine, letters: Sequence[Letter]) -> list[Letter]:
    """Return letters with the rows of `consumer_error` that hold the same key and message at the same place."""
    texts = [(as_text(letter.record.key), as_text(letter.record.value)) for letter in letters]
    places = [(letter.record.topic, letter.record.partition, letter.record.offset) for letter in letters]
    sized = {(*place, sum(len(text or "") for text in of_it)) for place, of_it in zip(places, texts, strict=True)}
    found = {(*row[:3], row[3], row[6]): row for row in engine.select(statements.READ_ERRORS, sorted(sized))}
    rows = [found.get((*place, *of_it)) for place, of_it in zip(places, texts, strict=True)]
    return [
        Letter(letter.record, None if row is None else _error_row(row))
        for letter, row in zip(letters, rows, strict=True)
    ]


def _conditions(selection: Selection) -> tuple[str, list[object]]:
    """Return what is to be added to a WHERE, and the parameters for it."""
    only = ""
    values: list[object] = []
    if selection.since is not None:
        only, values = " AND consumed_at >= %s", [selection.since]
    if selection.reasons:
        beginnings = [f"{reason}: " for reason in sorted(selection.reasons)]
        only += f" AND ({' OR '.join(f'substr(error, 1, {len(beginning)}) = %s' for beginning in beginnings)})"
        values = [*values, *beginnings]
    return only, values


def _cut(places: Iterator[_Sized], rows: int) -> Iterator[list[_Sized]]:
    """Cut into pages: a page is full with so many rows, or as soon as it has the characters."""
    page: list[_Sized] = []
    held = 0
    for place in places:
        page.append(place)
        held += place[3]
        if len(page) >= rows or held >= PAGE_BYTES:
            yield page
            page, held = [], 0
    if page:
        yield page


def _error_row(row: Row) -> ErrorRow:
    topic, partition, offset, _, _, consumed_at, _, error = row
    return ErrorRow(topic, partition, offset, consumed_at, error)
