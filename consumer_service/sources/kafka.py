"""The source `kafka`: one topic, read as a member of a consumer group."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Event

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.base import MemberState
from kafka.errors import (
    CommitFailedError,
    RebalanceInProgressError,
    RetriableError,
)
from kafka.future import Future
from kafka.protocol.consumer import OffsetSpec
from kafka.structs import OffsetAndMetadata

from consumer_service.dead_letters import DeadLetterProducer
from consumer_service.header_names import take_any_header_name
from consumer_service.kafka_client import (
    CLIENT_FAULTS,
    Connecting,
    NetworkClient,
    connection_options,
    describe,
    end_within,
    problems_of,
)
from consumer_service.settings import ConsumerProcessSettings, KafkaSettings
from consumer_service.sources import DeadLetter, Delivery, MessageSource, Partition, Progress, Record, SourceUnavailable
from consumer_service.sources.kafka_diagnosis import (
    broker_problem,
    coordinator_problem,
    missing_topic_problem,
    silence_problem,
)
from libaggregator.settings import SettingsError

COMMIT_TIMEOUT = 4.0
LEAVE_TIMEOUT = 3.0
"""Seconds. A stop has to wait for either, so they are short; a commit that did not succeed is tried again."""

END_OFFSETS_TIMEOUT = 3.0

_REBALANCE_SECONDS = 0.2
_LONGEST_HEARTBEAT_INTERVAL = 3.0
METADATA_SECONDS = 5.0
"""How often partitions are looked up that were added, or a topic that was made again."""

_TOPIC_SECONDS = 0.05
"""How often it is looked whether the client has heard of the topic; it asks the broker ten times a second."""

_LONGEST_TURN = 0.3
_TOPIC_ANSWER_SECONDS = 1.0

_FETCH_BYTES = 3 * 1024 * 1024
_FETCH_WAIT_MS = 100

log = structlog.get_logger(__name__)


def create(settings: ConsumerProcessSettings) -> MessageSource:
    """Return the source for these settings, not connected yet; SettingsError if they can't be used."""
    if problems := problems_of(settings.kafka):
        raise SettingsError(problems)
    return KafkaSource(settings.kafka, settings.consumer.max_message_bytes)


@dataclass(slots=True)
class _Connection:
    consumer: KafkaConsumer
    client: NetworkClient
    topic_asked_for: Future
    topic_exists: bool = False
    had_pause: bool = False
    """For a while nothing was fetched, and the topic was not asked for since."""
    turned_at: float = field(default_factory=time.monotonic)

    def note_pause(self, longest: float) -> None:
        """Tell that the loop came round; if it took longer than `longest` seconds, it had a pause."""
        now = time.monotonic()
        self.had_pause = self.had_pause or now - self.turned_at > longest
        self.turned_at = now

    def close(self) -> None:
        """Leave the group and disconnect."""
        try:
            self.consumer.close(autocommit=False, timeout_ms=round(LEAVE_TIMEOUT * 1000))
        finally:
            self.client.close()


class KafkaSource:
    """A member of the group `kafka.group` that reads `kafka.topic`.

    Connects with the first `poll`, and again after a fault that the client can't recover from by itself.
    `max_message_bytes` is the size up to which messages are used, for the dead letters.
    """

    exhausted = False

    def __init__(self, settings: KafkaSettings, max_message_bytes: int) -> None:
        self._settings = settings
        self._letters = DeadLetterProducer(settings, max_message_bytes) if settings.dead_letter_topic else None
        self._connection: _Connection | None = None
        self._unconfirmed: dict[Partition, int] = {}
        self._last_answer = Event()
        self._last_answer.set()
        self._problem: str | None = "not connected yet"
        self._assigned: set[TopicPartition] = set()
        self._topic_id: object = None
        self._last_member = 0.0

    def poll(self, timeout: float, max_records: int) -> Sequence[Record]:
        """Wait up to `timeout` seconds for records and return at most `max_records` of them.

        While there is no connection it takes up to 3 s, whatever the timeout.
        """
        deadline = time.monotonic() + timeout
        with self._faults():
            connection = self._connection = self._connection or self._connect()
            if not self._has_topic(connection, deadline):
                return []
            consumer = connection.consumer
            _resume(consumer)
            connection.note_pause(_LONGEST_TURN)
            remaining = max(0.0, deadline - time.monotonic())
            fetched = consumer.poll(timeout_ms=round(remaining * 1000), max_records=max_records)
            connection.note_pause(remaining + _LONGEST_TURN)
            if not self._knows_topic(connection):
                # they may be of a new topic, from where the old one was left
                _read_again(consumer, fetched)
                fetched = {}
            elif self._topic_was_made_again(connection):
                fetched = {}
                consumer.seek_to_beginning(*consumer.assignment())
            self._note_assignment(consumer.assignment())
            # one broker may be silent while others deliver
            silence = silence_problem(consumer, connection.client)
            self._problem = silence or (None if fetched else self._find_problem(connection))
        if fetched:
            _fetch_ahead(consumer)
        else:
            self._finish_commit()
        return [_record(found) for records in fetched.values() for found in records]

    def keep_alive(self, timeout: float) -> None:
        """Stay a member of the group for `timeout` seconds without taking a record.

        Never raises: whether the broker is away too shows with the next commit or poll.
        """
        deadline = time.monotonic() + timeout
        if self._connection is not None:
            try:
                self._poll_paused(self._connection.consumer, deadline)
            except SourceUnavailable as error:
                log.debug("could not keep the membership alive", problem=str(error))
        time.sleep(max(0.0, deadline - time.monotonic()))

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Send offsets of partitions that are still assigned, and see to it that those sent before have arrived.

        An answer takes longer than most things that a batch needs, so that it is not waited for before the next
        commit, a poll without records, or the end. SourceUnavailable after some 4 s without success. A rebalance
        that is under way is gone through first; if it takes longer, the offsets are sent again later.
        """
        if self._connection is None:
            return
        before, self._last_answer = self._last_answer, Event()
        self._unconfirmed |= offsets
        with self._faults():
            consumer = self._connection.consumer
            sent = _assigned_offsets(consumer, self._unconfirmed)
            # hands on the answer to the commit before, if it has come
            consumer.commit_async(sent, partial(self._take_answer, self._last_answer))
        if not before.is_set():
            self._finish_commit()

    def send_dead_letters(self, letters: Sequence[DeadLetter]) -> Delivery:
        """Send rejected records to `kafka.dead_letter_topic`, if there is one."""
        return self._letters.send(letters) if self._letters else Delivery()

    def progress(self) -> Mapping[Partition, Progress]:
        """Return how far each assigned partition is read; never raises, and takes 3 s at most.

        Nothing during a rebalance. A partition without a position or a leader is left out.
        """
        if self._connection is None:
            return {}
        consumer = self._connection.consumer
        membership = consumer.group_metadata()
        if membership.state is not MemberState.STABLE:
            return {}
        try:
            # the client's thread may take a position away at this moment
            consumed = consumer._subscription.all_consumed_offsets()
            positions = {partition: found.offset for partition, found in consumed.items() if found is not None}
            ends = _end_offsets(consumer, positions)
        except CLIENT_FAULTS as error:
            log.debug("end offsets not known", problem=describe(error, self._settings))
            return {}
        return {
            Partition(*partition): Progress(positions[partition], end, membership.generation_id)
            for partition, end in ends.items()
        }

    def problem(self) -> str | None:
        """Return what kept the last `poll` or `commit` from working, None if nothing did; from any thread."""
        return self._problem

    def close(self) -> None:
        """Leave the group without committing anything further, and disconnect; never raises."""
        try:
            self._finish_commit()
        except SourceUnavailable as error:
            log.info("offsets not committed, their records will come again", problem=str(error))
        if self._letters:
            self._letters.close()
        self._disconnect()

    def _connect(self) -> _Connection:
        settings = self._settings
        heartbeat_interval = min(_LONGEST_HEARTBEAT_INTERVAL, settings.session_timeout / 3)
        with Connecting(settings) as connecting:
            consumer = KafkaConsumer(
                **connection_options(settings),
                kafka_client=connecting,
                group_id=settings.group,
                group_instance_id=settings.group_instance_id or None,
                session_timeout_ms=round(settings.session_timeout * 1000),
                heartbeat_interval_ms=int(heartbeat_interval * 1000),
                max_poll_interval_ms=round(settings.max_poll_interval * 1000),
                # what other clients offer too, so that they can share a group with this one
                partition_assignment_strategy=(RangePartitionAssignor,),
                auto_offset_reset=settings.auto_offset_reset,
                enable_auto_commit=False,
                # brokers other than Apache Kafka look for new records only when half of it is over
                fetch_max_wait_ms=_FETCH_WAIT_MS,
                # one record that is larger comes all the same
                fetch_max_bytes=_FETCH_BYTES,
                max_partition_fetch_bytes=_FETCH_BYTES,
                metadata_max_age_ms=round(METADATA_SECONDS * 1000),
            )
        take_any_header_name(consumer)
        log.info("connected to Kafka", topic=settings.topic, group=settings.group)
        # what is heard of the topic before the group is joined: a leader that hears of it later has all members
        # join again, which takes them until their next heartbeat (kafka-python 3.0.12)
        consumer.subscribe([settings.topic])
        return _Connection(consumer, connecting.client, connecting.client.cluster.request_update())

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        # the next connection begins at what is committed, so that records come again whose offsets did not arrive
        self._unconfirmed.clear()
        self._last_answer.set()
        self._assigned = set()
        if connection is not None:
            end_within(2 * LEAVE_TIMEOUT, "consumer", connection.close)

    def _take_answer(self, arrived: Event, offsets: Mapping[TopicPartition, OffsetAndMetadata], answer: object) -> None:
        """Note which offsets have arrived; the client hands an answer on when it is called the next time."""
        if not isinstance(answer, Exception):
            arrived.set()
            for partition, sent in offsets.items():
                if self._unconfirmed.get(Partition(*partition)) == sent.offset:
                    del self._unconfirmed[Partition(*partition)]

    def _finish_commit(self) -> None:
        """Send the offsets again that are not known to have arrived, and wait until they have.

        The client keeps its position in a partition that a rebalance leaves it (kafka-python 3.0.12), so that the
        records of offsets that were refused meanwhile do not come again: they are kept until the group is stable.
        """
        deadline = time.monotonic() + COMMIT_TIMEOUT
        while self._connection is not None and self._unconfirmed:
            consumer = self._connection.consumer
            refusal = self._commit_now(consumer, _assigned_offsets(consumer, self._unconfirmed))
            if refusal is None:
                self._problem = None
                if consumer.group_metadata().state is MemberState.STABLE:
                    # others have the rest
                    self._unconfirmed.clear()
                return
            if isinstance(refusal, CommitFailedError) or time.monotonic() > deadline:
                log.info(
                    "offsets not committed in a rebalance, their records may come again",
                    group=self._settings.group,
                    problem=describe(refusal, self._settings),
                )
                if isinstance(refusal, CommitFailedError):
                    # put out of the group: others may have been where the client would go on
                    self._disconnect()
                return
            self.keep_alive(_REBALANCE_SECONDS)

    def _commit_now(
        self, consumer: KafkaConsumer, offsets: dict[TopicPartition, OffsetAndMetadata]
    ) -> Exception | None:
        """Commit offsets and wait; return the error with which the group refused them, None if it did not."""
        refused: Exception | None = None
        with self._faults():
            try:
                consumer.commit(offsets, timeout_ms=round(COMMIT_TIMEOUT * 1000))
                self._take_answer(self._last_answer, offsets, None)
            except (CommitFailedError, RebalanceInProgressError) as refusal:
                refused = refusal
        return refused

    def _poll_paused(self, consumer: KafkaConsumer, deadline: float) -> None:
        """Poll until `deadline` and leave every record where it is."""
        with self._faults():
            while (remaining := deadline - time.monotonic()) > 0:
                consumer.pause(*consumer.assignment())
                fetched = consumer.poll(timeout_ms=round(remaining * 1000), max_records=1)
                # of partitions that a rebalance brought during the call, which were not paused yet
                _read_again(consumer, fetched)

    def _has_topic(self, connection: _Connection, deadline: float) -> bool:
        """Wait until the topic exists; False if it does not until `deadline`.

        The group is joined with the first poll after that. Joining before would do for Apache Kafka, but other
        brokers never give a partition to such a member.
        """
        topic, cluster = self._settings.topic, connection.client.cluster
        while not connection.topic_exists:
            if cluster.partitions_for_topic(topic) is not None:
                connection.topic_exists = True
                self._last_member = time.monotonic()
                self._topic_id = self._topic_id or cluster.topic_id(topic)
            elif time.monotonic() < deadline:
                time.sleep(_TOPIC_SECONDS)
            else:
                unreachable = broker_problem(connection.client, self._settings)
                self._problem = unreachable or self._missing_topic_problem(connection)
                return False
        return True

    def _knows_topic(self, connection: _Connection) -> bool:
        """Ask for the topic anew after a pause; False if the broker does not tell.

        A fetch asks by the topic's name (kafka-python 3.0.12), so that one that was made again in the pause answers as
        if nothing had been.
        """
        if connection.had_pause:
            asked = connection.client.cluster.request_update()
            deadline = time.monotonic() + _TOPIC_ANSWER_SECONDS
            while not asked.is_done and time.monotonic() < deadline:
                time.sleep(_TOPIC_ANSWER_SECONDS / 200)
            connection.had_pause = not asked.succeeded()
        return not connection.had_pause

    def _topic_was_made_again(self, connection: _Connection) -> bool:
        """Notice a topic that was made again, in which old offsets mean nothing; True once for each time."""
        topic_id = connection.client.cluster.topic_id(self._settings.topic)
        if topic_id is None or topic_id == self._topic_id or not connection.consumer.assignment():
            return False
        was_known, self._topic_id = self._topic_id is not None, topic_id
        if was_known:
            log.warning("topic was made again, reading it from its first record", topic=self._settings.topic)
            self._unconfirmed.clear()
        return was_known

    def _note_assignment(self, assigned: set[TopicPartition]) -> None:
        if assigned != self._assigned:
            numbers = sorted(partition.partition for partition in assigned)
            log.info("partitions assigned", topic=self._settings.topic, partitions=numbers)
            self._assigned = assigned

    def _find_problem(self, connection: _Connection) -> str | None:
        """Return why there may have been no records; the client waits for a broker without a word.

        If the topic is gone, the connection is given up: the next one joins the group when the topic is there again.
        """
        client = connection.client
        if problem := broker_problem(client, self._settings) or coordinator_problem(client, self._settings):
            return problem
        if client.cluster.partitions_for_topic(self._settings.topic) is None:
            self._disconnect()
            return self._missing_topic_problem(connection)
        return self._membership_problem(connection.consumer)

    def _missing_topic_problem(self, connection: _Connection) -> str | None:
        if not connection.topic_asked_for.is_done:
            return None
        return missing_topic_problem(connection.client, self._settings.topic)

    def _membership_problem(self, consumer: KafkaConsumer) -> str | None:
        if consumer.group_metadata().state is MemberState.STABLE:
            self._last_member = time.monotonic()
            return None
        # a rebalance is not a fault, one that does not end is
        waits_too_long = time.monotonic() - self._last_member > self._settings.session_timeout
        return f"not a member of group {self._settings.group!r}" if waits_too_long else None

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn faults of the client into SourceUnavailable, and drop a client that can't be used any more."""
        try:
            yield
        except CLIENT_FAULTS as error:
            self._problem = describe(error, self._settings)
            if not isinstance(error, RetriableError):
                # after a record that it can't read, kafka-python 3.0.12 would never return from the next poll
                self._disconnect()
            raise SourceUnavailable(self._problem) from error


def _assigned_offsets(
    consumer: KafkaConsumer, offsets: Mapping[Partition, int]
) -> dict[TopicPartition, OffsetAndMetadata]:
    assigned = consumer.assignment()
    return {
        TopicPartition(*partition): OffsetAndMetadata(offset, "", -1)
        for partition, offset in offsets.items()
        if TopicPartition(*partition) in assigned
    }


def _end_offsets(consumer: KafkaConsumer, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """Ask for the ends of partitions; raises one of CLIENT_FAULTS.

    Once, where `KafkaConsumer.end_offsets` asks again without a pause for those of a topic that is gone, and fails
    for a partition without a leader (kafka-python 3.0.12).
    """
    if not partitions:
        return {}
    fetcher = consumer._fetcher
    wanted = dict.fromkeys(partitions, OffsetSpec.LATEST)

    async def ask() -> dict[TopicPartition, int]:
        answer = fetcher._manager.call_soon(fetcher._send_list_offsets_requests, wanted)
        found, _ = await fetcher._manager.wait_for(answer, END_OFFSETS_TIMEOUT * 1000)
        return {partition: end.offset for partition, end in found.items()}

    ends: dict[TopicPartition, int] = fetcher._net.run(ask)
    return ends


def _resume(consumer: KafkaConsumer) -> None:
    """Fetch from all partitions again after a wait.

    Of those that were paused when they were partly read, kafka-python 3.0.12 goes on with one and never fetches the
    others again: what it put aside of them is dropped, and comes again.
    """
    consumer.resume(*consumer.paused())
    # another dictionary, since the client's thread may be looking through the old one
    put_aside, consumer._fetcher._paused_partition_records = consumer._fetcher._paused_partition_records, {}
    for records in put_aside.values():
        records.drain()


def _read_again(consumer: KafkaConsumer, fetched: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
    """Go back before records that a poll returned."""
    for partition, records in fetched.items():
        consumer.seek(partition, records[0].offset)


def _fetch_ahead(consumer: KafkaConsumer) -> None:
    """Ask for the next records, so that they arrive while these are handled.

    kafka-python 3.0.12 does so only in a poll that does not have to wait for records. What fails here fails again in
    the next poll.
    """
    with suppress(*CLIENT_FAULTS):
        consumer._fetcher.send_fetches()


def _record(found: ConsumerRecord) -> Record:
    # a header may have no value, which no producer of ours could write into a dead letter
    headers = [(name, value or b"") for name, value in found.headers]
    timestamp = found.timestamp if found.timestamp is not None and found.timestamp >= 0 else None
    return Record(found.topic, found.partition, found.offset, found.key, found.value, headers, timestamp)
