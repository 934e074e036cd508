"""What the command tells. Names of fields are the keys of its JSON, which programs rely on: they stay."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows a table has: None if nobody knows, and as the database estimates it if it is not exact."""

    rows: int | None
    exact: bool


@dataclass(frozen=True, slots=True)
class Schema:
    """Schema version, and the steps of `migrate` that are still to do."""

    version: int
    steps_missing: list[str]


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """The database; results by the time at which they were stored, rejected messages of the last hour by reason."""

    engine: str
    schema: Schema
    tables: dict[str, Rows]
    oldest_result: datetime | None = None
    newest_result: datetime | None = None
    rejected_last_hour: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """Offsets of a partition: what the group committed, where the records end, and how many it has still to read."""

    partition: int
    committed: int | None
    end: int
    lag: int


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """Where messages come from: a topic of Kafka with its partitions, or a stream of Redis; others are a name here.

    `lag` is what the group has still to read, `pending` what consumers have read of a stream and not acknowledged.
    """

    name: str
    topic: str | None = None
    group: str | None = None
    lag: int | None = None
    partitions: list[PartitionStatus] | None = None
    pending: int | None = None


@dataclass(frozen=True, slots=True)
class TopicStatus:
    """A topic or stream, and how many offsets or entries it holds."""

    name: str
    records: int | None


@dataclass(frozen=True, slots=True)
class DeadLettersStatus:
    """Rejected messages that wait for somebody: in `consumer_error`, and in the dead letter topic if there is one."""

    consumer_error: Rows | None
    topic: TopicStatus | None


@dataclass(frozen=True, slots=True)
class Problem:
    """A part that could not be told, and why, in one line."""

    part: str
    problem: str


@dataclass(slots=True)
class Status:
    """All of it, as it was at an instant; a part that could not be told is None, and among the problems."""

    time: datetime
    source: SourceStatus
    database: DatabaseStatus | None = None
    dead_letters: DeadLettersStatus | None = None
    problems: list[Problem] = field(default_factory=list)
