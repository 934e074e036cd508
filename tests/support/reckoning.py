"""What the records of a topic must have left, worked out one after another, and compared to the last row."""

import base64
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from consumer_service.sources import Record
from libaggregator.clock import utc_now
from libaggregator.messages import InvalidMessage, Limits, Message, decode
from tests.support.model import Model
from tests.support.tables import Tables

_EPOCH = datetime(1970, 1, 1)
_FIRST_MOMENT = datetime(2000, 1, 1)
_TIMES = {"report": (3,), "rule_hit": (5,), "recommendation": (5, 6), "report_info": ()}
"""Columns, by their place in the rows of a table, that tell when a message was stored."""

CHOICES = ("cluster_rule_toggle", "cluster_user_rule_disable_feedback")
"""Tables of what users chose, whose rows follow a cluster that moves."""

Place = tuple[str, int, int]

_REFUSED = "the database refuses it: "


@dataclass(frozen=True)
class Letter:
    """A dead letter as the topic has it."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def place(self) -> Place:
        """The topic, partition and offset that it came from."""
        found = dict(self.headers)
        topic, partition, offset = (found[f"aggregator-{name}"].decode() for name in ("topic", "partition", "offset"))
        return topic, int(partition), int(offset)

    def is_like(self, expected: "Letter") -> bool:
        """Say whether it is what was expected, which has only the beginning of what a database says."""
        return (self.key, self.value, len(self.headers)) == (
            expected.key,
            expected.value,
            len(expected.headers),
        ) and all(
            name == expected_name
            and (value == wanted or (wanted.endswith(_REFUSED.encode()) and value.startswith(wanted)))
            for (name, value), (expected_name, wanted) in zip(self.headers, expected.headers, strict=True)
        )


@dataclass(frozen=True)
class Compared:
    """How much was compared, and how many dead letters came more than once."""

    messages: int
    rows: int
    errors: int
    letters: int
    repeated_letters: int


def _nothing_is(message: Message) -> bool:
    return False


@dataclass
class Reckoning:
    """Takes the records of a topic in the order of each partition and says what they must have left.

    `is_unstorable` tells of a message that the database refuses; `in_order` is False where the messages of one cluster
    are in several partitions, so that nobody knows which of them was stored when.
    """

    limits: Limits = field(default_factory=Limits)
    is_unstorable: Callable[[Message], bool] = _nothing_is
    in_order: bool = True
    largest_letter: int = 20_000_000
    model: Model = field(default_factory=Model)
    choices_before: dict[str, str] = field(default_factory=dict)
    """The organization of what users chose for a cluster, before there was any message."""
    _errors: dict[Place, tuple[Any, ...]] = field(default_factory=dict)
    _letters: dict[Place, list[Letter]] = field(default_factory=lambda: defaultdict(list))
    """Several at a place where a topic was made again."""
    _records: list[Record] = field(default_factory=list)

    def apply(self, records: Iterable[Record]) -> None:
        """Take further records; those of one partition have to come in their order."""
        pending: list[tuple[Message, datetime]] = []
        for record in records:
            moment = _FIRST_MOMENT + timedelta(seconds=len(self._records))
            self._records.append(record)
            try:
                message = decode(record.value, self.limits, utc_now())
            except InvalidMessage as error:
                self._reject(record, error.reason, error.detail)
                continue
            if self.is_unstorable(message):
                self._reject(record, "not_storable", _REFUSED)
            elif not message.is_empty:
                pending.append((message, moment))
        if not self.in_order:
            pending.sort(key=lambda found: found[0].last_checked_at)
        for message, moment in pending:
            self.model.apply(message, moment)

    def compare(self, tables: Tables, letters: Iterable[Letter] | None) -> Compared:
        """Compare every row of every table and every dead letter; AssertionError for the first that differs.

        `letters` is None where no topic for them is configured.
        """
        assert self._records, "nothing was compared"
        rows = self._compare_results(tables) + self._compare_choices(tables)
        errors = self._compare_errors(tables["consumer_error"])
        found = list(letters or ())
        if letters is not None:
            self._compare_letters(found)
        return Compared(len(self._records), rows, errors, len(found), len(found) - len({one.place for one in found}))

    def _reject(self, record: Record, reason: str, detail: str) -> None:
        place = (record.topic, record.partition, record.offset)
        produced_at = _EPOCH + timedelta(milliseconds=record.timestamp or 0)
        error = f"{reason}: {detail}"
        self._errors[place] = (*place, _text(record.key), produced_at, _text(record.value), error)
        headers = [header for header in record.headers if not header[0].startswith("aggregator-")]
        added = {
            "reason": reason,
            "detail": detail[:1000],
            "topic": record.topic,
            "partition": str(record.partition),
            "offset": str(record.offset),
            "timestamp": str(record.timestamp),
        }
        headers += [(f"aggregator-{name}", value.encode()) for name, value in added.items()]
        if len(record.value or b"") <= self.largest_letter:
            self._letters[place].append(Letter(record.key, record.value, tuple(headers)))

    def _compare_results(self, tables: Tables) -> int:
        """Compare the rows that messages leave, and that their times are those of the messages that began them."""
        count = 0
        stored_at: dict[datetime, set[datetime]] = defaultdict(set)
        for table, expected_rows in self.model.tables().items():
            expected = {_without_times(table, row): _times(table, row) for row in expected_rows}
            found = {_without_times(table, row): _times(table, row) for row in tables[table]}
            assert len(found) == len(tables[table]), f"{table}: two rows that differ in their times alone"
            _compare_keys(table, set(expected), set(found))
            for key, moments in expected.items():
                for moment, time in zip(moments, found[key], strict=True):
                    stored_at[moment.replace(microsecond=0)].add(time.replace(microsecond=0))
            count += len(found)
        if self.in_order:
            self._check_times(stored_at)
        return count

    def _check_times(self, stored_at: Mapping[datetime, set[datetime]]) -> None:
        """Check that all rows of one message say when it was stored, and that later ones were not stored earlier.

        The model says of each row which message it is from: its moment is the number of the message.
        """
        latest: dict[tuple[str, int], datetime] = {}
        for moment in sorted(stored_at):
            record = self._records[round((moment - _FIRST_MOMENT).total_seconds())]
            where = f"{record.topic}/{record.partition}/{record.offset}"
            times = stored_at[moment]
            assert len(times) == 1, f"rows of the message at {where} are of several times: {sorted(times)}"
            (time,) = times
            produced_at = _EPOCH + timedelta(milliseconds=record.timestamp or 0)
            assert produced_at - timedelta(seconds=1) <= time <= utc_now(), f"{where} stored at {time}"
            partition = (record.topic, record.partition)
            assert time >= latest.get(partition, time), f"{where} stored at {time}, a message before it later"
            latest[partition] = time

    def _compare_choices(self, tables: Tables) -> int:
        for table in CHOICES:
            found = {cluster: org_id for cluster, *_, org_id in tables[table]}
            # the first report that was stored of a cluster may be one of after its move: then it was not seen to move
            stayed = {} if self.in_order else dict(self.choices_before.items() & found.items())
            assert found == {**self.model.choices, **stayed}, table
        return sum(len(tables[table]) for table in CHOICES)

    def _compare_errors(self, rows: list[tuple[Any, ...]]) -> int:
        found = {row[:3]: (*row[:5], *row[6:]) for row in rows}
        _compare_keys("consumer_error", set(self._errors), set(found))
        for place, expected in self._errors.items():
            *same, error = expected
            assert list(found[place][:-1]) == same
            in_words = found[place][-1]
            is_right = in_words.startswith(error) if error.endswith(_REFUSED) else in_words == error
            assert is_right, f"{place}: {in_words!r}, expected {error!r}"
        return len(rows)

    def _compare_letters(self, letters: list[Letter]) -> None:
        """Check that each letter came, once or more often, and no other one."""
        _compare_keys("dead letters", set(self._letters), {letter.place for letter in letters})
        found: dict[Place, list[Letter]] = defaultdict(list)
        for letter in letters:
            found[letter.place].append(letter)
        for place, expected in self._letters.items():
            for letter in found[place]:
                assert any(letter.is_like(one) for one in expected), f"{place}: {letter}, expected {expected}"
            for one in expected:
                assert any(letter.is_like(one) for letter in found[place]), f"{place}: {one} is missing"


def _compare_keys(what: str, expected: set[Any], found: set[Any]) -> None:
    missing, unexpected = expected - found, found - expected
    assert not missing, f"{what}: {len(missing)} of {len(expected)} are missing, like {_first(missing)}"
    assert not unexpected, f"{what}: {len(unexpected)} too many, like {_first(unexpected)}"


def _first(rows: set[Any]) -> str:
    return f"{min(rows, key=repr)!r:.600}"


def _without_times(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value for place, value in enumerate(row) if place not in _TIMES[table])


def _times(table: str, row: tuple[Any, ...]) -> tuple[datetime, ...]:
    return tuple(row[place] for place in _TIMES[table])


def _text(content: bytes | None) -> str | None:
    """Return bytes as `consumer_error` has them (`docs/schema.md`, section 7)."""
    if content is None:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(content).decode()
    as_it_is = "\0" not in text and not text.startswith("base64:")
    return text if as_it_is else "base64:" + base64.b64encode(content).decode()
