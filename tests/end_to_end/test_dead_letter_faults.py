"""Dead letters on a way that breaks: each arrives, or `consumer_error` has its record and the log says so."""

import contextlib
import random
from collections.abc import Iterator

import pytest

from tests.end_to_end.conftest import BeginRun
from tests.support.deployment import Deployment
from tests.support.kafka import ApacheKafka
from tests.support.kafka_proxy import PRODUCE, KafkaProxy, proxied_listener
from tests.support.processes import Processes
from tests.support.reckoning import Reckoning
from tests.support.topics import Sent
from tests.support.traffic import Mix, Traffic
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults


@pytest.mark.long
def test_letters_that_a_broker_held_when_it_was_cut_off_and_the_consumers_killed_come_again(
    postgresql_url: str, processes: Processes, begin_run: BeginRun
) -> None:
    with _proxied_broker() as (broker, proxy):
        deployment = Deployment(processes, broker, postgresql_url)
        deployment.migrate()
        traffic = Traffic(51, mix=Mix(bad=0.3))
        run = begin_run(deployment, 51, traffic=traffic, KAFKA__BOOTSTRAP_SERVERS=proxy.bootstrap)
        run.begin_load()
        run.start_two()
        for _ in range(2):
            run.wait_for_stored(100)
            with run.fault("letters on their way to a broker that takes nothing"), proxy.holding(PRODUCE):
                eventually(lambda: proxy.held_requests >= 2, 30, "both consumers have sent letters")
                for consumer in list(run.consumers):
                    run.kill(consumer)
            run.start_two()
        run.finish()


@pytest.mark.long
def test_a_letter_that_is_too_large_for_its_topic_stops_none_of_the_later_ones(
    real_deployment: Deployment, begin_run: BeginRun
) -> None:
    run = begin_run(real_deployment, 52, reckoning=Reckoning(largest_letter=100_000))
    real_deployment.broker.set_topic_config(run.letters_topic, "max.message.bytes", "100000")
    noise = random.Random(52)
    for part in range(5):
        run.produce(run.traffic.take(200))
        run.produce([Sent(noise.randbytes(200_000), b"large", (), part % 4)])
    run.note("letters too large for their topic")
    run.start_two()
    run.finish()
    outputs = " ".join(consumer.process.output for consumer in run.consumers)
    assert outputs.count("dead letter too large for its topic") == 5


@contextlib.contextmanager
def _proxied_broker() -> Iterator[tuple[ApacheKafka, KafkaProxy]]:
    """Yield a broker and the proxy in front of it."""
    listener = proxied_listener()
    broker = ApacheKafka(listeners=[listener])
    proxy = KafkaProxy(listener)
    try:
        broker.start()
        yield broker, proxy
    finally:
        proxy.close()
        broker.close()
