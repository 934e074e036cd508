"""What a source of messages is: the interface between the runner and a broker (`docs/sources.md`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from libaggregator.settings import read_section

T = TypeVar("T")

INTERFACE_VERSION = 1
"""Raised by every change after which a source that was right before is not; `docs/sources.md` says which those are."""

PLUGIN_SECTION = "plugin"


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


class SourceFailed(Exception):
    """The source can't go on, and trying again would not help: the text is the one line with which the process ends."""


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


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What the factory of a plug-in is given.

    `max_message_bytes` is the size above which a message is rejected: more of it need not be read. `values` is the
    section `plugin` of the settings as it was found, for `read`; it is not shown, because it can have secrets.
    """

    max_message_bytes: int
    values: Mapping[str, object] = field(default_factory=dict, repr=False)

    def read(self, settings_class: type[T]) -> T:
        """Return the section `plugin` as a dataclass whose fields are declared with `setting`.

        Values of the environment and of secret files are converted to the fields' types. Raises SettingsError, with a
        line for each unknown name and each value that can't be used; a value of the type Secret is not in it.
        """
        return read_section(PLUGIN_SECTION, settings_class, self.values)


class SourceFactory(Protocol):
    """What an entry point of the group `aggregator.sources` names: in most cases the class of the source itself."""

    @property
    def interface_version(self) -> int:
        """The `INTERFACE_VERSION` that the source was written for; looked at before the source is made."""

    def __call__(self, settings: SourceSettings, /) -> MessageSource:
        """Return the source, not connected yet; SettingsError if it can't be made with these settings."""
