"""The status as people read it."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from consumer_service.status.model import DatabaseStatus, DeadLettersStatus, Rows, SourceStatus, Status

_UNKNOWN = "?"


def lines_of(status: Status) -> Iterator[str]:
    """Yield the lines of the tables; what could not be told is a question mark."""
    if status.database:
        yield from _database(status.database, status.time)
    else:
        yield f"database  {_UNKNOWN}"
    yield ""
    yield from _source(status.source)
    if status.dead_letters:
        yield from _dead_letters(status.dead_letters)


def age(time: datetime, now: datetime) -> str:
    """Return how long ago a time was, in its largest unit."""
    seconds = (now - time) // timedelta(seconds=1)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago" if seconds >= 0 else "in the future"


def _database(database: DatabaseStatus, now: datetime) -> Iterator[str]:
    missing = database.schema.steps_missing
    steps = f"steps missing: {', '.join(missing)}" if missing else "up to date"
    yield f"database  {database.engine}, schema {database.schema.version}, {steps}"
    yield from _aligned([(table, _rows(rows)) for table, rows in database.tables.items()])
    yield ""
    for name, time in (("oldest", database.oldest_result), ("newest", database.newest_result)):
        text = f"{time:%Y-%m-%d %H:%M:%S} UTC, {age(time, now)}" if time else "none known"
        yield f"{name} result  {text}"
    rejected = database.rejected_last_hour
    yield f"rejected in the last hour  {_UNKNOWN if rejected is None else sum(rejected.values())}"
    yield from _aligned([(reason, str(count)) for reason, count in (rejected or {}).items()])


def _source(source: SourceStatus) -> Iterator[str]:
    if source.topic is None:
        yield f"source  {source.name}"
        return
    lag = _UNKNOWN if source.lag is None else source.lag
    pending = "" if source.pending is None else f", pending {source.pending}"
    yield f"topic  {source.topic}, group {source.group}, lag {lag}{pending}"
    if source.partitions is None:
        return
    rows = [
        (str(one.partition), "none" if one.committed is None else str(one.committed), str(one.end), str(one.lag))
        for one in source.partitions
    ]
    yield from _aligned([("partition", "committed", "end", "lag"), *rows])


def _dead_letters(letters: DeadLettersStatus) -> Iterator[str]:
    yield ""
    yield "rejected messages kept"
    rows = [("consumer_error", _rows(letters.consumer_error))]
    if letters.topic:
        rows.append((letters.topic.name, _UNKNOWN if letters.topic.records is None else str(letters.topic.records)))
    yield from _aligned(rows)


def _rows(rows: Rows | None) -> str:
    if rows is None or rows.rows is None:
        return _UNKNOWN
    return str(rows.rows) if rows.exact else f"~{rows.rows}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows with their first column on the left and numbers on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        numbers = [f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True)]
        yield "  ".join(["", f"{first:<{widths[0]}}", *numbers])
