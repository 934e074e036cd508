"""One run of the fault suite: a topic that fills, two consumers of one group, faults, and the comparison at the end."""

import contextlib
import itertools
import random
import re
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from threading import Event, Thread

import pytest

from consumer_service.sources import Record
from tests.support.brokers import AnyBroker, EmbeddedTestBroker
from tests.support.deployment import Consumer, Deployment
from tests.support.reckoning import CHOICES, Compared, Letter, Reckoning
from tests.support.redis import RedisServer
from tests.support.tables import read_tables
from tests.support.topics import Sent, fresh_name
from tests.support.traffic import Traffic
from tests.support.waiting import eventually

MESSAGES = 1_000
"""Fewer than these and a run shows nothing."""

PARTITIONS = 4
_HANDLED_TIMEOUT = 90.0


class Load:
    """Produces records in the background, at a pace, until it is told to stop; a broker that is away is waited for."""

    def __init__(self, broker: AnyBroker | RedisServer, topic: str, records: Iterable[Sent], per_second: int) -> None:
        self.sent = 0
        self._broker = broker
        self._topic = topic
        self._records = iter(records)
        self._per_second = per_second
        self._stop = Event()
        self._thread = Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def finish(self, least: int) -> None:
        """Return when at least so many records were produced, and no more will be."""
        eventually(lambda: self.sent >= least or not self._thread.is_alive(), 120, f"{least} records are produced")
        assert self.end(), "the broker does not take what is produced"
        assert self.sent >= least, f"{self.sent} records produced"

    def end(self) -> bool:
        """Produce nothing more; return whether the broker took all of it."""
        self._stop.set()
        self._thread.join(90)
        return not self._thread.is_alive()

    def _run(self) -> None:
        producer = self._broker.open_producer()
        try:
            tick = 0.05
            while not self._stop.is_set():
                for record in itertools.islice(self._records, max(1, round(self._per_second * tick))):
                    producer.send(self._topic, record)
                    self.sent += 1
                self._stop.wait(tick)
            producer.flush()
        except self._broker.FAULTS as error:
            print(f"the load ended: {error!r}")
        finally:
            with contextlib.suppress(*self._broker.FAULTS):
                producer.close()


class FaultRun:
    """Consumers under faults, and what they have to leave.

    Everything that is random follows `seed`. The truth is what the topic holds in the end, applied one record after
    another by `reckoning`.
    """

    def __init__(
        self,
        deployment: Deployment,
        seed: int,
        *,
        traffic: Traffic | None = None,
        reckoning: Reckoning | None = None,
        dead_letters: bool = True,
        partitions: int = PARTITIONS,
        record: pytest.FixtureRequest | None = None,
        **settings: str,
    ) -> None:
        self.deployment = deployment
        self.seed = seed
        self.random = random.Random(seed)
        broker = deployment.broker
        # consumers of a group share a stream of Redis entry by entry
        partitions = partitions if broker.keeps_order else 1
        self.traffic = traffic or Traffic(seed, partitions, scattered=not broker.keeps_order)
        self.reckoning = reckoning or Reckoning(in_order=broker.keeps_order)
        self.consumers: list[Consumer] = []
        self.faults: list[str] = []
        self.letters_topic = fresh_name("rejected") if dead_letters else ""
        self._partitions = partitions
        self._settings = settings
        self._load: Load | None = None
        self._began = time.monotonic()
        self._record = record
        broker.create_topic(deployment.topic, partitions)
        if dead_letters:
            broker.create_topic(self.letters_topic, 2, {"max.message.bytes": "20000000"})
        self._make_choices()
        print(f"seed {seed}, topic {deployment.topic}")

    def produce(self, records: Iterable[Sent]) -> None:
        """Write records and return when the broker has all of them."""
        self.deployment.broker.produce(self.deployment.topic, records)

    def begin_load(self, per_second: int = 150) -> None:
        """Let the topic fill in the background."""
        self._load = Load(self.deployment.broker, self.deployment.topic, self.traffic, per_second)

    def start_consumer(self, module: str = "consumer_service.cli", **settings: str) -> Consumer:
        """Start a consumer of the group; `settings` are environment variables without their prefix."""
        name = f"consumer-{len(self.deployment.processes.started)}"
        broker = self.deployment.broker
        own = {**broker.quick_settings, "CONSUMER__MAX_BATCH": "50", **self._settings, **settings}
        if self.letters_topic:
            own[broker.letters_setting] = self.letters_topic
        consumer = self.deployment.start_consumer(name, module, **own)
        self.consumers.append(consumer)
        return consumer

    def start_two(self) -> None:
        """Start two consumers."""
        for _ in range(2):
            consumer = self.start_consumer()
            if isinstance(self.deployment.broker, EmbeddedTestBroker):
                # the embedded broker never settles two that begin at the same moment
                consumer.wait_until_ready()

    def kill(self, consumer: Consumer) -> None:
        """End a consumer without any warning."""
        self.note(f"SIGKILL of {consumer.process.name}")
        consumer.process.kill()
        self.consumers.remove(consumer)

    def stop(self, consumer: Consumer) -> None:
        """End a consumer as an orchestrator does."""
        self.note(f"SIGTERM of {consumer.process.name}")
        self.consumers.remove(consumer)
        # before that a signal ends it as it ends any program
        consumer.process.wait_for_log("consumer started")
        assert consumer.process.stop(40) == 0, consumer.process.output

    @contextlib.contextmanager
    def all_asleep(self) -> Iterator[None]:
        """Stop all consumers from running until the end of the block."""
        for consumer in self.consumers:
            consumer.process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for consumer in self.consumers:
                consumer.process.signal(signal.SIGCONT)

    def note(self, fault: str) -> None:
        """Count a fault; a failed test shows when it was."""
        self.faults.append(fault)
        print(f"{time.monotonic() - self._began:6.2f} s: {fault}")

    @contextlib.contextmanager
    def fault(self, what: str) -> Iterator[None]:
        """Count a fault that lasts until the end of the block."""
        self.note(what)
        yield
        print(f"{time.monotonic() - self._began:6.2f} s: over: {what}")

    def wait_for_stored(self, more: int = 20) -> None:
        """Wait until so many more results were stored than are now: the consumers are at work."""
        before = self._progress()
        eventually(lambda: self._progress() >= before + more, 60, f"{more} more offsets are committed", interval=0.2)

    def wait_until_stored_everywhere(self) -> None:
        """Wait until offsets of every partition have moved on."""
        before = self._committed()

        def have_moved() -> bool:
            committed = self._committed()
            return len(committed) == self._partitions and all(
                committed[number] > before.get(number, -1) for number in committed
            )

        eventually(have_moved, 60, "results of every partition are stored", interval=0.2)

    def wait_until_shared(self) -> None:
        """Wait until every consumer has partitions, and none has all of them."""

        def has_its_share(consumer: Consumer) -> bool:
            assigned = re.findall(r"partitions assigned .*partitions=\[(.*?)\]", consumer.process.output)
            return bool(assigned and assigned[-1]) and len(assigned[-1].split(",")) < self._partitions

        eventually(lambda: all(map(has_its_share, self.consumers)), 60, "the partitions are shared")

    def wait_until_handled(self) -> None:
        """Wait until the group has committed everything that the topic holds."""
        ends = {n: end for n, end in self.deployment.broker.end_offsets(self.deployment.topic).items() if end}
        assert ends, "nothing was produced"

        def is_handled() -> bool:
            committed = self._committed()
            missing = {n: committed.get(n) for n, end in ends.items() if committed.get(n) != end}
            assert not missing, f"committed are {missing}"
            return True

        eventually(is_handled, _HANDLED_TIMEOUT, f"all of {ends} is handled", interval=0.3)

    def remember(self, records: Iterable[Record]) -> None:
        """Take records of which the topic is about to lose the memory; they have to be handled already."""
        self.reckoning.apply(records)

    def finish(self, least: int = MESSAGES) -> Compared:
        """Wait until everything is handled, end the consumers and compare every row and every dead letter."""
        if self._load:
            self._load.finish(least)
        if not self.consumers:
            self.start_two()
        elif len(self.consumers) == 1:
            self.start_consumer()
        self.wait_until_handled()
        for consumer in self.consumers:
            consumer.wait_until_ready()
        for consumer in self.consumers:
            consumer.process.signal(signal.SIGTERM)
        for consumer in self.consumers:
            assert consumer.process.wait_exit(40) == 0, consumer.process.output
        return self.compare(least)

    def abandon(self) -> None:
        """Produce nothing more."""
        if self._load:
            self._load.end()

    def compare(self, least: int = MESSAGES) -> Compared:
        """Compare every row and every dead letter with what the records that the topic holds must have left."""
        broker = self.deployment.broker
        self.reckoning.apply(broker.records(self.deployment.topic))
        letters = [_letter(found) for found in broker.records(self.letters_topic)] if self.letters_topic else None
        with self.deployment.database() as database:
            tables = read_tables(database)
        compared = self.reckoning.compare(tables, letters)
        assert compared.messages >= least, f"only {compared.messages} messages"
        print(f"compared: {compared}, faults: {len(self.faults)}")
        if self._record is not None:
            counts = {**asdict(compared), "faults": len(self.faults)}
            self._record.node.user_properties.append(("compared", counts))
        return compared

    def _progress(self) -> int:
        return sum(self._committed().values())

    def _committed(self) -> dict[int, int]:
        """Return the committed offsets, none while there is no group or no broker."""
        try:
            return self.deployment.broker.committed(self.deployment.group, self.deployment.topic)
        except self.deployment.broker.FAULTS:
            return {}

    def _make_choices(self) -> None:
        """Let users have switched a rule off for every second cluster, and said why."""
        toggle, feedback = CHOICES
        with self.deployment.database() as database:
            for cluster in self.traffic.clusters[::2]:
                org_id = str(cluster.org_id)
                self.reckoning.model.choices[cluster.name] = self.reckoning.choices_before[cluster.name] = org_id
                database.execute_sql(
                    f"INSERT INTO {toggle} (cluster_id, rule_id, disabled, updated_at, error_key, org_id)"
                    f" VALUES ('{cluster.name}', 'rules.rule_1.report', 1, '2026-05-01 00:00:00', 'KEY_1', '{org_id}')"
                )
                database.execute_sql(
                    f"INSERT INTO {feedback}"
                    " (cluster_id, user_id, rule_id, message, added_at, updated_at, error_key, org_id)"
                    f" VALUES ('{cluster.name}', 'u', 'rules.rule_1.report', 'why', '2026-05-01 00:00:00',"
                    f" '2026-05-01 00:00:00', 'KEY_1', '{org_id}')"
                )


def _letter(record: Record) -> Letter:
    return Letter(record.key, record.value, tuple(record.headers))
