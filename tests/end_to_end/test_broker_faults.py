"""Apache Kafka under faults while two consumers read: everything is done in the end, and nothing twice."""

from collections.abc import Iterator

import pytest

from tests.end_to_end.conftest import BeginRun
from tests.support.deployment import Deployment
from tests.support.fault_run import FaultRun
from tests.support.kafka import ApacheKafka, Listener
from tests.support.kafka_proxy import OFFSET_COMMIT, KafkaProxy, proxied_listener
from tests.support.processes import Processes
from tests.support.topics import Sent
from tests.support.waiting import eventually, last

pytestmark = [pytest.mark.faults, pytest.mark.long]


@pytest.fixture(scope="module")
def listener() -> Listener:
    """Return the listener of this module's broker that is behind a proxy."""
    return proxied_listener()


@pytest.fixture(scope="module")
def broker(listener: Listener) -> Iterator[ApacheKafka]:
    """Yield a broker that tests may do anything to, and have to leave running."""
    broker = ApacheKafka(listeners=[listener])
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


@pytest.fixture
def proxy(listener: Listener) -> Iterator[KafkaProxy]:
    """Yield a proxy in front of the broker."""
    proxy = KafkaProxy(listener)
    yield proxy
    proxy.close()


@pytest.fixture
def deployment(broker: ApacheKafka, postgresql_url: str, processes: Processes) -> Deployment:
    """Return a deployment whose broker belongs to the tests of this module."""
    deployment = Deployment(processes, broker, postgresql_url)
    deployment.migrate()
    return deployment


def test_a_broker_killed_again_and_again_loses_and_repeats_nothing(
    deployment: Deployment, broker: ApacheKafka, begin_run: BeginRun
) -> None:
    run = begin_run(deployment, seed=11)
    run.begin_load(100)
    run.start_two()
    for _ in range(2):
        run.wait_for_stored(run.random.randrange(10, 200))
        with run.fault("SIGKILL of Kafka"):
            broker.kill()
        broker.start()
    run.finish()


def test_a_broker_that_is_frozen_for_longer_than_a_session_loses_and_repeats_nothing(
    deployment: Deployment, broker: ApacheKafka, begin_run: BeginRun
) -> None:
    run = begin_run(deployment, seed=12)
    run.begin_load()
    run.start_two()
    for _ in range(2):
        run.wait_for_stored(run.random.randrange(10, 200))
        with run.fault("SIGSTOP of Kafka"), broker.frozen():
            last(8)
    run.finish()


def test_connections_that_are_held_while_offsets_are_committed_lose_and_repeat_nothing(
    deployment: Deployment, proxy: KafkaProxy, begin_run: BeginRun
) -> None:
    run = begin_run(deployment, seed=13, KAFKA__BOOTSTRAP_SERVERS=proxy.bootstrap)
    run.begin_load()
    run.start_two()
    for _ in range(3):
        run.wait_for_stored(run.random.randrange(10, 200))
        with run.fault("offsets on their way to a broker that takes nothing"), proxy.holding(OFFSET_COMMIT):
            eventually(lambda: proxy.held_requests >= 2, 30, "both consumers have sent offsets")
            last(5)
        with run.fault("connections cut"):
            proxy.cut()
    run.finish()


@pytest.mark.parametrize("seconds", [0, 2], ids=["at once", "later"])
def test_a_topic_that_is_deleted_and_made_again_is_read_from_its_first_record(
    deployment: Deployment, broker: ApacheKafka, begin_run: BeginRun, seconds: float
) -> None:
    run = begin_run(deployment, seed=14)
    run.produce(_bad_everywhere(run) + run.traffic.take(600))
    run.start_two()
    run.wait_until_handled()
    run.remember(broker.records(deployment.topic))
    with run.fault("topic deleted"):
        broker.delete_topic(deployment.topic)
        last(seconds)
    eventually(lambda: deployment.topic not in broker.topic_names(), 20, "the topic is gone")
    broker.create_topic(deployment.topic, 4)
    run.produce(_bad_everywhere(run) + run.traffic.take(600))
    run.finish()


def test_a_topic_that_is_made_again_and_filled_while_nobody_looks_is_read_from_its_first_record(
    deployment: Deployment, broker: ApacheKafka, begin_run: BeginRun
) -> None:
    """The offsets where the consumers stand exist in the new topic as well."""
    run = begin_run(deployment, seed=18, KAFKA__SESSION_TIMEOUT="30")
    run.produce(run.traffic.take(400))
    run.start_two()
    run.wait_until_handled()
    run.remember(broker.records(deployment.topic))
    with run.fault("topic deleted, made again and filled while the consumers are stopped"), run.all_asleep():
        broker.delete_topic(deployment.topic)
        eventually(lambda: deployment.topic not in broker.topic_names(), 20, "the topic is gone")
        broker.create_topic(deployment.topic, 4)
        run.produce(run.traffic.take(1_000))
        # a pause that is shorter than a poll is not seen
        last(1)
    run.finish()


def test_a_group_whose_offsets_are_older_than_the_topic_goes_on_at_the_first_record(
    deployment: Deployment, broker: ApacheKafka, begin_run: BeginRun
) -> None:
    run = begin_run(deployment, seed=15)
    run.produce(run.traffic.take(600))
    run.start_two()
    run.wait_until_handled()
    run.remember(broker.records(deployment.topic))
    for consumer in list(run.consumers):
        run.stop(consumer)
    run.produce(run.traffic.take(1_200))
    handled = broker.committed(deployment.group, deployment.topic)
    with run.fault("records removed by retention"):
        broker.delete_records(deployment.topic, {number: offset + 100 for number, offset in handled.items()})
    run.start_two()
    run.finish()


def test_a_broker_that_is_not_there_at_the_start_is_waited_for(
    deployment: Deployment, broker: ApacheKafka, begin_run: BeginRun
) -> None:
    run = begin_run(deployment, seed=16)
    run.produce(run.traffic.take(1_000))
    with run.fault("no broker at the start"):
        broker.stop()
        run.start_two()
        for consumer in run.consumers:
            consumer.process.wait_for_log("source unavailable")
            assert consumer.liveness().status == 200
    broker.start()
    run.finish()


def test_a_dead_letter_topic_that_takes_nothing_holds_the_offsets_back(
    deployment: Deployment, broker: ApacheKafka, begin_run: BeginRun
) -> None:
    run = begin_run(deployment, seed=17)
    # no record can come so soon after its time
    broker.set_topic_config(run.letters_topic, "message.timestamp.before.max.ms", "0")
    run.produce(run.traffic.take(1_000))
    with run.fault("dead letter topic that refuses"):
        run.start_two()
        eventually(lambda: _tells_of(run, "dead letters"), 30, "readiness tells of it")
        last(2)
    broker.set_topic_config(run.letters_topic, "message.timestamp.before.max.ms", "86400000")
    run.finish()


def _bad_everywhere(run: FaultRun) -> list[Sent]:
    """Return bad records for each partition, so that the same places have other ones when a topic is made again."""
    return [run.traffic.bad()._replace(partition=partition) for partition in [0, 1, 2, 3] * 3]


def _tells_of(run: FaultRun, what: str) -> bool:
    return any(what in consumer.readiness().text for consumer in run.consumers)
