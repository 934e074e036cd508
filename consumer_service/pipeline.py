"""From records to messages: decode and validate, then the allowlist (`docs/messages.md`, sections 1 to 7)."""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from consumer_service.sources import Record
from libaggregator.messages import InvalidMessage, Limits, Message, Reason, decode

BATCH_BYTES = 8 * 1024 * 1024
"""Bytes of reports with which a batch is full; one of average messages has two fifths of it.

While it is handled, a report of many small hits takes some twelve times its size.
"""

_KNOWN_VERSIONS = (None, 1, 2)

log = structlog.get_logger(__name__)


class SkipReason(enum.StrEnum):
    """Why a usable message leaves no row."""

    EMPTY_REPORT = "empty_report"
    NOT_ALLOWLISTED = "not_allowlisted"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A record whose message is to be stored, if it is not stale."""

    record: Record
    message: Message


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is unusable for ever, and why."""

    record: Record
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record with a usable message that is not to be stored."""

    record: Record
    reason: SkipReason


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in a row, each in one of three lists, in their order."""

    accepted: list[Accepted] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.accepted) + len(self.rejected) + len(self.skipped)


class Pipeline:
    """Sorts records into what is stored, skipped and rejected; touches nothing outside."""

    def __init__(self, limits: Limits, allowlist: frozenset[int] | None, clock: Callable[[], datetime]) -> None:
        """Take the limits of a message, the organizations that are stored (None: all), and the clock (UTC)."""
        self._limits = limits
        self._allowlist = allowlist
        self._clock = clock

    def sort(self, records: Sequence[Record]) -> Batch:
        """Decode and check each record by itself, until the batch is full: the records behind it are left.

        A batch is bounded in what it holds, since a record of some kilobytes can be inflated to many megabytes.
        """
        batch = Batch()
        now = self._clock()
        held_bytes = 0
        for record in records:
            if held_bytes and held_bytes + len(record.value or b"") > BATCH_BYTES:
                break
            try:
                message = decode(record.value, self._limits, now)
            except InvalidMessage as error:
                batch.rejected.append(Rejected(record, error.reason, error.detail))
                continue
            if message.is_empty:
                batch.skipped.append(Skipped(record, SkipReason.EMPTY_REPORT))
            elif self._allowlist is not None and message.org_id not in self._allowlist:
                batch.skipped.append(Skipped(record, SkipReason.NOT_ALLOWLISTED))
            else:
                batch.accepted.append(Accepted(record, message))
                held_bytes += len(message.report_json)
            if message.version not in _KNOWN_VERSIONS:
                log.warning(
                    "unknown version of the format, used all the same",
                    version=message.version,
                    org_id=message.org_id,
                    cluster=message.cluster,
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                )
        return batch
