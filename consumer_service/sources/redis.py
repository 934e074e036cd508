"""The source `redis`: one stream, read as a consumer of a group."""

import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from consumer_service.redis_client import FAULTS, describe, make_client, problems_of
from consumer_service.settings import ConsumerProcessSettings, RedisSettings
from consumer_service.sources.interface import (
    DeadLetter,
    Delivery,
    MessageSource,
    Partition,
    Progress,
    Record,
    SourceUnavailable,
)
from consumer_service.sources.letters import in_groups
from consumer_service.sources.redis_entries import PARTITION, EntryId, fields_of, record_of
from libaggregator.settings import SettingsError

_FIRST = b"0-0"
_NEXT = b"$"
_NEVER_DELIVERED = ">"
_BLOCK_SECONDS = 1.0
"""How long the server is asked to wait for an entry, at most: the answer comes within `CALL_TIMEOUT` after that."""

_LOOK_SECONDS = 0.1
"""How often it is looked whether there is the stream."""

_READ_BYTES = 8 * 1024 * 1024
"""About what one read may bring. Redis takes a number of entries only, so that it follows their size."""

_FIRST_READ = 8
_TURNS = 4
"""How often in `claim_after` entries in hand are told to be alive, and those of others are looked through."""

_LONGEST_CLAIM_INTERVAL = 10.0
_ACKNOWLEDGED_TOGETHER = 1000
_PARTS_OF_CLAIM = 3
_MOST_PENDING = 100_000
_SHOWN = 10
_GONE = ("NOGROUP", "UNBLOCKED")
"""How an error begins that tells that stream or group are not there, or went while an entry was waited for."""

Entries = Sequence[tuple[bytes, Mapping[bytes, bytes]]]

log = structlog.get_logger(__name__)


def create(settings: ConsumerProcessSettings) -> MessageSource:
    """Return the source for these settings, not connected yet; SettingsError if they can't be used."""
    if problems := problems_of(settings.redis):
        raise SettingsError(problems)
    return RedisSource(settings.redis)


class RedisSource:
    """A consumer of the group `redis.group` that reads `redis.stream`; settings must have no problems.

    Entries that `poll` returned and that were not acknowledged are *in hand*. Redis keeps them for this consumer, until
    another one claims them after `redis.claim_after`; so does this one with those of others. What was in the hands of
    an earlier process of the same name, or on its way when a connection broke, is read first.
    """

    exhausted = False

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._partition = Partition(settings.stream, PARTITION)
        self._consumer = settings.consumer or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._client = make_client(settings)
        self._letters = DeadLetterStream(self._client, settings.dead_letter_stream)
        self._problem: str | None = "not connected yet"
        self._has_group = self._had_group = self._was_answered = False
        self._in_hand: dict[EntryId, int] = {}
        self._waiting: list[tuple[EntryId, Record]] = []
        self._read_at_once = _FIRST_READ
        self._own_after: bytes | None = _FIRST
        """Our entries after this one are still to be read again; None if there are none."""
        self._claim_after_id = _FIRST
        self._next_claim = self._next_refresh = 0.0

    def poll(self, timeout: float, max_records: int) -> Sequence[Record]:
        """Wait up to `timeout` seconds for records and return at most `max_records` of them."""
        deadline = time.monotonic() + timeout
        with self._faults():
            if not self._find_group(deadline):
                return []
            if not self._waiting:
                self._waiting = self._read(min(max_records, self._read_at_once), deadline)
        return self._take(max_records)

    def keep_alive(self, timeout: float) -> None:
        """Keep the entries in hand from being claimed by others for `timeout` seconds; never raises."""
        deadline = time.monotonic() + timeout
        if self._in_hand and time.monotonic() >= self._next_refresh:
            with suppress(SourceUnavailable), self._faults():
                self._refresh()
        time.sleep(max(0.0, deadline - time.monotonic()))

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Acknowledge the entries in hand that are before the offset, and return when Redis has it.

        Those that another consumer has claimed meanwhile are among them: they have their effect.
        """
        end = offsets.get(self._partition, 0)
        handled = [entry_id for entry_id, offset in self._in_hand.items() if offset < end]
        for begin in range(0, len(handled), _ACKNOWLEDGED_TOGETHER):
            together = handled[begin : begin + _ACKNOWLEDGED_TOGETHER]
            with self._faults():
                self._acknowledge([str(entry_id).encode() for entry_id in together])
            for entry_id in together:
                del self._in_hand[entry_id]

    def send_dead_letters(self, letters: Sequence[DeadLetter]) -> Delivery:
        """Add rejected records to `redis.dead_letter_stream`, if there is one; it is made with the first of them."""
        if not self._settings.dead_letter_stream:
            return Delivery()
        with self._faults("dead letters: ", self._settings.dead_letter_stream):
            self._letters.send(letters)
        return Delivery(sent=len(letters))

    def progress(self) -> Mapping[Partition, Progress]:
        """Return how many entries of the stream the group has taken and how many there were; never raises.

        They are counts, other than the offsets of records. Nothing while Redis does not know how many are left: after
        entries in the middle were deleted, or the server was started again, until the group has come to the end.
        """
        if not self._has_group:
            return {}
        try:
            stream = self._client.xinfo_stream(self._settings.stream)
            groups = self._client.xinfo_groups(self._settings.stream)
        except FAULTS as error:
            log.debug("progress not known", problem=self._described(error, self._settings.stream))
            return {}
        group = group_in(groups, self._settings.group)
        lag = None if group is None else lag_of(stream, group)
        if lag is None:
            return {}
        end = stream["entries-added"]
        return {self._partition: Progress(end - lag, end)}

    def problem(self) -> str | None:
        """Return what kept the last call from working, None if nothing did; from any thread."""
        return self._problem

    def close(self) -> None:
        """Leave the group, if nothing is in hand and the name is of this process alone, and disconnect; never raises.

        A consumer that leaves with entries in hand would take them with it.
        """
        with suppress(*FAULTS):
            if self._has_group and not self._settings.consumer and not self._own_pending("-", "+", 1):
                self._client.xgroup_delconsumer(self._settings.stream, self._settings.group, self._consumer)
        self._has_group = False
        with suppress(*FAULTS):
            self._client.close()

    def _find_group(self, deadline: float) -> bool:
        """Wait for the stream, and make the group if it is missing; False if there is no stream until `deadline`."""
        while not self._has_group:
            if self._make_group():
                log.info(
                    "reading a stream of Redis",
                    stream=self._settings.stream,
                    group=self._settings.group,
                    consumer=self._consumer,
                )
                self._has_group = self._had_group = True
                self._own_after = self._claim_after_id = _FIRST
            elif (remaining := deadline - time.monotonic()) > 0:
                time.sleep(min(_LOOK_SECONDS, remaining))
            else:
                self._problem = f"stream {self._settings.stream!r} does not exist yet"
                return False
        return True

    def _make_group(self) -> bool:
        """Make the group unless it is there; False if there is no stream.

        A group that was there and is gone begins at the first entry, whatever the settings say of a new one.
        """
        is_next = self._settings.start_at == "next" and not self._had_group
        try:
            self._client.xgroup_create(self._settings.stream, self._settings.group, _NEXT if is_next else _FIRST)
        except OutOfMemoryError:
            # refused also if the group is there, which is when reading may make room
            if not self._finds_group():
                raise
        except ResponseError as error:
            if "requires the key to exist" in str(error):
                return False
            if not str(error).startswith("BUSYGROUP"):
                raise
        return True

    def _finds_group(self) -> bool:
        with suppress(ResponseError):
            return group_in(self._client.xinfo_groups(self._settings.stream), self._settings.group) is not None
        return False

    def _read(self, count: int, deadline: float) -> list[tuple[EntryId, Record]]:
        """Return entries that wait for us, claimed ones, or new ones, in their order."""
        try:
            found = self._own(count) or self._claimed(count) or self._new(count, deadline)
        except ResponseError as error:
            if not str(error).startswith(_GONE):
                raise
            log.warning("stream or group is gone, beginning at its first entry when it is there again")
            self._has_group = False
            return []
        self._next_refresh = time.monotonic() + self._settings.claim_after / _TURNS
        self._note_size(found, count)
        by_id = {EntryId.parse(text): fields for text, fields in found}
        return [(entry_id, record_of(self._settings.stream, entry_id, by_id[entry_id])) for entry_id in sorted(by_id)]

    def _own(self, count: int) -> Entries:
        """Return entries that Redis has for us and that are not in hand."""
        while self._own_after is not None:
            found = self._entries_after(self._own_after.decode(), count)
            self._own_after = found[-1][0] if found else None
            if left := self._not_in_hand(found):
                return left
        return ()

    def _claimed(self, count: int) -> Entries:
        """Return entries that were in the hands of others for too long; one part of all that there are, if it is time.

        A part that has none is followed by the next one with the next call.
        """
        now = time.monotonic()
        if now < self._next_claim:
            return ()
        answer = self._client.xautoclaim(
            self._settings.stream,
            self._settings.group,
            self._consumer,
            min_idle_time=_milliseconds(self._settings.claim_after),
            start_id=self._claim_after_id,
            count=count,
        )
        if len(answer) != _PARTS_OF_CLAIM:
            raise ResponseError("a server older than Redis 7.0")
        self._claim_after_id, found, gone = answer
        if self._claim_after_id == _FIRST:
            self._next_claim = now + min(self._settings.claim_after / _TURNS, _LONGEST_CLAIM_INTERVAL)
        _tell_of_gone(gone)
        left = self._not_in_hand(found)
        if left:
            log.info("entries claimed that another consumer left", entries=len(left), stream=self._settings.stream)
        return left

    def _new(self, count: int, deadline: float) -> Entries:
        while True:
            remaining = max(0.0, deadline - time.monotonic())
            # 0 would be without an end
            block = max(1, _milliseconds(min(remaining, _BLOCK_SECONDS)))
            found = self._entries_after(_NEVER_DELIVERED, count, block)
            if found or remaining <= _BLOCK_SECONDS:
                return found

    def _entries_after(self, after: str, count: int, block: int | None = None) -> Entries:
        streams: dict[Any, Any] = {self._settings.stream: after}
        answer: Any = self._client.xreadgroup(self._settings.group, self._consumer, streams, count, block)
        return answer[0][1] if answer else ()

    def _not_in_hand(self, found: Entries) -> Entries:
        """Return entries that were not returned before; those that were removed from the stream are acknowledged."""
        gone = [text for text, fields in found if not fields]
        if gone:
            _tell_of_gone(gone)
            self._acknowledge(gone)
        return [(text, fields) for text, fields in found if fields and EntryId.parse(text) not in self._in_hand]

    def _take(self, max_records: int) -> list[Record]:
        """Return what waits as far as offsets rise, so that a commit in the middle is of those before it alone."""
        taken: list[Record] = []
        for entry_id, record in self._waiting[:max_records]:
            if taken and record.offset <= taken[-1].offset:
                break
            self._in_hand[entry_id] = record.offset
            taken.append(record)
        del self._waiting[: len(taken)]
        return taken

    def _note_size(self, found: Entries, count: int) -> None:
        """Learn how many entries to read at once from what a read of `count` of them brought."""
        if not found:
            return
        size = sum(len(value) for _, fields in found for value in fields.values())
        room = max(1, _READ_BYTES * len(found) // max(1, size))
        # further ones may be larger
        most = 2 * self._read_at_once if len(found) == count == self._read_at_once else self._read_at_once
        self._read_at_once = min(most, room)

    def _refresh(self) -> None:
        """Let entries in hand count as delivered just now, but for those that another consumer has claimed."""
        begin, end = str(min(self._in_hand)), str(max(self._in_hand))
        pending = self._own_pending(begin, end, _MOST_PENDING)
        if ours := [text for text in pending if EntryId.parse(text) in self._in_hand]:
            stream, group = self._settings.stream, self._settings.group
            self._client.xclaim(stream, group, self._consumer, 0, ours, justid=True)
        self._next_refresh = time.monotonic() + self._settings.claim_after / _TURNS

    def _own_pending(self, begin: str, end: str, count: int) -> list[Any]:
        found: Any = self._client.xpending_range(
            self._settings.stream, self._settings.group, begin, end, count, consumername=self._consumer
        )
        return [entry["message_id"] for entry in found]

    def _acknowledge(self, ids: Sequence[bytes]) -> None:
        self._client.xack(self._settings.stream, self._settings.group, *ids)

    @contextmanager
    def _faults(self, doing: str = "", stream: str = "") -> Iterator[None]:
        """Turn faults of the client into SourceUnavailable, and connect anew after one.

        They are of `stream`, by default of the one that is read.

        A server that became a replica is known by its name only, and answers that did not come may have had entries.
        """
        try:
            yield
        except FAULTS as error:
            self._problem = doing + self._described(error, stream or self._settings.stream)
            self._own_after = _FIRST
            with suppress(*FAULTS):
                self._client.close()
            raise SourceUnavailable(self._problem) from error
        self._was_answered = True
        if self._has_group:
            self._problem = None

    def _described(self, error: Exception, stream: str) -> str:
        return describe(error, self._settings, stream, was_answered=self._was_answered)


class DeadLetterStream:
    """Adds letters to a stream of Redis."""

    def __init__(self, client: Redis, stream: str) -> None:
        self._client = client
        self._stream = stream

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Add all letters and return when Redis has them; raises one of `FAULTS` if it does not have all."""
        for group in in_groups(letters):
            with self._client.pipeline(transaction=False) as pipeline:
                for letter in group:
                    self._add(pipeline, letter)
                # an error that it raises by itself would show the whole letter
                answers = pipeline.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer

    def _add(self, pipeline: Any, letter: DeadLetter) -> None:
        pipeline.xadd(self._stream, fields_of(letter))


def group_in(groups: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """Return the group with this name among those that XINFO GROUPS tells of, None if it is not there."""
    return next((group for group in groups if group["name"] == name.encode()), None)


def lag_of(stream: Mapping[str, Any], group: Mapping[str, Any]) -> int | None:
    """Return how many entries no consumer of the group has taken yet, None if Redis does not know.

    Redis 7.0 counts those that were trimmed as well.
    """
    last: tuple[bytes, object] | None = stream["last-entry"]
    if last is None or EntryId.parse(last[0]) <= EntryId.parse(group["last-delivered-id"]):
        return 0
    lag: int | None = group["lag"]
    return None if lag is None else max(1, min(lag, stream["length"]))


def _tell_of_gone(ids: Sequence[bytes]) -> None:
    if ids:
        shown = [text.decode() for text in ids[:_SHOWN]]
        log.warning("entries were removed from the stream before they were acknowledged", count=len(ids), entries=shown)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
