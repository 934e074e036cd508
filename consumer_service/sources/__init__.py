"""Where messages come from.

A source is named by the setting `consumer.source`. Besides the ones that are built in, those count that an
installed distribution offers in the entry point group `aggregator.sources`: each entry is a factory
`create(settings: ConsumerProcessSettings) -> MessageSource`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple, Protocol

from consumer_service.settings import ConsumerProcessSettings
from libaggregator.settings import SettingsError

ENTRY_POINT_GROUP = "aggregator.sources"

# loaded only when they are used: the file source works without a Kafka client
_BUILT_IN = (
    EntryPoint("file", "consumer_service.sources.file:create", ENTRY_POINT_GROUP),
    EntryPoint("kafka", "consumer_service.sources.kafka:create", ENTRY_POINT_GROUP),
)


class Partition(NamedTuple):
    """One ordered part of a topic."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class Record:
    """One message as the source has it, nothing decoded."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp: int | None
    """Milliseconds since 1970, None if the record has none."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A rejected record, with the reason (`docs/messages.md`, section 5) and the detail in words."""

    record: Record
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of dead letters: how many the topic has, and those that it refused as too large."""

    sent: int = 0
    too_large: Sequence[DeadLetter] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition is read: the offset after what `poll` returned last, and the one after its last record.

    `assignment` changes when the partition was given to this process anew, after which other positions are right.
    """

    position: int
    end: int
    assignment: int = 0

    @property
    def lag(self) -> int:
        """How many offsets are between them; some of them may have no record, after compaction for example."""
        return max(0, self.end - self.position)

    def stands_where(self, earlier: "Progress") -> bool:
        """Whether the position is the same as before, without a new assignment in between."""
        return (self.position, self.assignment) == (earlier.position, earlier.assignment)


class SourceUnavailable(Exception):
    """The source can't do it at the moment; the text says why, and trying again later is right."""


class MessageSource(Protocol):
    """What the runner needs of a broker. All calls come from one thread."""

    def poll(self, timeout: float, max_records: int) -> Sequence[Record]:
        """Wait up to `timeout` seconds for records and return at most `max_records` of them.

        Records of one partition come in the order of their offsets. Returns an empty sequence if there are
        none. Raises SourceUnavailable in an outage that the source notices.
        """

    def keep_alive(self, timeout: float) -> None:
        """Stay a member of the group for up to `timeout` seconds without fetching a record.

        The records that `poll` returned stay in hand: the next `poll` goes on after them.
        """

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Record that everything before these offsets has its effect.

        Partitions that are no longer assigned are left out: their records come again elsewhere. May return while
        the offsets are on their way; they have arrived after the next commit, a poll without records, or `close`.
        Raises SourceUnavailable if the broker could not take these or those before them.
        """

    def send_dead_letters(self, letters: Sequence[DeadLetter]) -> Delivery:
        """Send rejected records to the dead letter topic and return when the broker has all of them.

        Does nothing if none is configured. Letters that the topic refuses as too large are left out and returned;
        the caller logs and counts them. Raises SourceUnavailable for every other failure; sending all of them
        again is right.
        """

    def progress(self) -> Mapping[Partition, Progress]:
        """Return how far each partition is read that this process reads at the moment; never raises.

        The ends have to be asked for, and not taken from what was fetched: they are there to notice when fetching
        stops. Takes some seconds at most. A partition is left out while its end can't be known, or its assignment
        is about to change. A source without partitions, or without an end that grows, returns nothing.
        """

    def problem(self) -> str | None:
        """Return in words what keeps the source from delivering at the moment, None if nothing does."""

    @property
    def exhausted(self) -> bool:
        """Whether the source has an end and has come to it, so that no `poll` will return a record."""

    def close(self) -> None:
        """Leave the group and free everything; never raises."""


SourceFactory = Callable[[ConsumerProcessSettings], MessageSource]


def find_source(name: str) -> SourceFactory:
    """Return the factory of the source with this name; a built-in one can't be replaced.

    Raises SettingsError, with the names that there are, if there is none or it can't be loaded.
    """
    found = {entry.name: entry for entry in (*entry_points(group=ENTRY_POINT_GROUP), *_BUILT_IN)}
    if name not in found:
        raise SettingsError([f"consumer.source: no source named {name!r}; installed: {', '.join(sorted(found))}"])
    try:
        factory: SourceFactory = found[name].load()
    except (ImportError, AttributeError) as error:
        raise SettingsError([f"consumer.source: {name!r} can't be loaded: {error}"]) from error
    return factory
