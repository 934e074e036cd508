"""What does not move on is told, by real processes: stalled partitions, a loop that hangs, a topic that is unusable."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from tests.support.brokers import EmbeddedTestBroker
from tests.support.deployment import Consumer, Deployment
from tests.support.faulty_consumer import FaultyConsumer
from tests.support.kafka import ApacheKafka
from tests.support.messages import CLUSTERS, payload
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import Processes
from tests.support.topics import Sent, fresh_name
from tests.support.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.long]

STALLED_AFTER = 4
"""Seconds. The outages of these tests last longer."""

SETTINGS = {"CONSUMER__STALLED_AFTER": str(STALLED_AFTER)}


class TestStalledPartitions:
    def test_one_that_is_not_fetched_is_told_while_another_one_moves_on(
        self, deployment: Deployment, tmp_path: Path
    ) -> None:
        deployment.broker.create_topic(deployment.topic, 2)
        consumer = FaultyConsumer(deployment, tmp_path, **SETTINGS)
        consumer.do_not_fetch(1)
        consumer.wait_until_ready()
        messages = [Sent(payload(cluster), partition=number) for number, cluster in enumerate(CLUSTERS[:2])]
        deployment.broker.produce(deployment.topic, messages)
        deployment.wait_for_rows("report", 1)

        line = consumer.process.wait_for_log("partition stalled", 30)

        assert all(text in line for text in (deployment.topic, "partition=1", "position=0", "end=1"))
        assert stalled_partitions(consumer) == 1
        assert [lag_of(consumer, deployment.topic, number) for number in (0, 1)] == [0, 1]
        readiness = consumer.readiness()
        assert readiness.status == 503
        assert readiness.json["checks"]["progress"].startswith(f"partition 1 of '{deployment.topic}' has stood at")
        assert {name for name, text in readiness.json["checks"].items() if text != "ok"} == {"progress"}
        assert consumer.liveness().status == 200
        deployment.broker.produce(deployment.topic, [Sent(payload(CLUSTERS[2]), partition=0)])
        deployment.wait_for_rows("report", 2)

        consumer.do_not_fetch()

        deployment.wait_for_rows("report", 3)
        consumer.process.wait_for_log("partition no longer stalled")
        consumer.wait_until_ready()
        assert consumer.process.output.count("partition stalled") == 1

    @pytest.mark.parametrize("fault", ["frozen", "killed"])
    def test_an_outage_of_kafka_makes_none(self, processes: Processes, postgresql_url: str, fault: str) -> None:
        broker = ApacheKafka()
        try:
            broker.start()
            deployment = Deployment(processes, broker, postgresql_url)
            deployment.migrate()
            broker.create_topic(deployment.topic, 2)
            consumer = deployment.start_consumer(**SETTINGS, CONSUMER__MAX_BATCH="1")
            consumer.wait_until_ready()
            with ExitStack() as outage:
                with deployment.reports_locked():
                    broker.produce(deployment.topic, twenty_messages())
                    eventually(deployment.waits_for_lock, 20, "a batch in hand, and others behind it")
                    if fault == "frozen":
                        outage.enter_context(broker.frozen())
                    else:
                        broker.kill()
                        outage.callback(broker.start)
                watch_outage(consumer, 3 * STALLED_AFTER)
            deployment.wait_for_rows("report", 3, timeout=60)
            consumer.wait_until_ready()
            assert has_never_stalled(consumer)
        finally:
            broker.close()

    def test_an_outage_of_the_database_makes_none(
        self, own_postgresql: PostgresqlServer, apache_kafka: ApacheKafka, processes: Processes
    ) -> None:
        deployment = Deployment(processes, apache_kafka, own_postgresql.create_database())
        deployment.migrate()
        apache_kafka.create_topic(deployment.topic, 2)
        consumer = deployment.start_consumer(**SETTINGS, CONSUMER__MAX_BATCH="1")
        consumer.wait_until_ready()
        own_postgresql.stop()
        apache_kafka.produce(deployment.topic, twenty_messages())
        watch_outage(consumer, 3 * STALLED_AFTER)
        own_postgresql.start()
        deployment.wait_for_rows("report", 3, timeout=60)
        consumer.wait_until_ready()
        assert has_never_stalled(consumer)


class TestLoop:
    def test_a_database_that_is_frozen_for_longer_than_a_hang_is_an_outage(
        self, own_postgresql: PostgresqlServer, apache_kafka: ApacheKafka, processes: Processes
    ) -> None:
        deployment = Deployment(processes, apache_kafka, own_postgresql.create_database())
        deployment.migrate()
        apache_kafka.create_topic(deployment.topic, 2)
        settings = {**SETTINGS, "CONSUMER__MAX_BATCH": "1"}
        settings |= {"DATABASE__STATEMENT_TIMEOUT": "1", "KAFKA__MAX_POLL_INTERVAL": "8"}
        consumer = deployment.start_consumer(**settings)
        consumer.wait_until_ready()
        with own_postgresql.frozen():
            apache_kafka.produce(deployment.topic, twenty_messages())
            line = consumer.process.wait_for_log("database unavailable", 30)
            assert "no answer for 6 s" in line
            watch_outage(consumer, 16)
        deployment.wait_for_rows("report", 3, timeout=60)
        consumer.wait_until_ready()
        assert "hangs" not in consumer.process.output
        assert has_never_stalled(consumer)

    def test_one_that_hangs_fails_liveness_and_its_stack_is_in_the_log(
        self, embedded_broker: EmbeddedTestBroker, sqlite_url: str, processes: Processes, tmp_path: Path
    ) -> None:
        deployment = Deployment(processes, embedded_broker, sqlite_url)
        deployment.migrate()
        deployment.broker.create_topic(deployment.topic)
        settings = {"DATABASE__STATEMENT_TIMEOUT": "0.1", "KAFKA__MAX_POLL_INTERVAL": "8"}
        consumer = FaultyConsumer(deployment, tmp_path, **settings)
        consumer.wait_until_ready()
        consumer.hang()
        deployment.broker.produce(deployment.topic, [payload()])

        consumer.process.wait_for_log("the consumer hangs", 60)

        assert consumer.liveness().status == 503
        assert "the loop has not come round" in consumer.liveness().json["checks"]["loop"]
        assert consumer.metrics()["aggregator_consumer_loop_silent_seconds"] > 8
        assert "in _handle_batch" in consumer.process.output
        assert "in sort_when_there_is_no_file" in consumer.process.output

        consumer.go_on()

        consumer.process.wait_for_log("the consumer goes on")
        deployment.wait_for_rows("report", 1)
        assert consumer.liveness().status == 200
        assert consumer.process.output.count("the consumer hangs") == 1


class TestHalt:
    GOOD, BAD = 150, 500

    def test_a_topic_that_turns_unusable_stops_the_consumer_until_it_is_restarted(
        self, real_deployment: Deployment
    ) -> None:
        deployment, dead_letters = real_deployment, fresh_name("dead")
        for topic in (deployment.topic, dead_letters):
            deployment.broker.create_topic(topic)
        settings = {"KAFKA__DEAD_LETTER_TOPIC": dead_letters, "CONSUMER__MAX_BATCH": "20"}
        halting = {"CONSUMER__MAX_REJECTED_SHARE": "0.5", "CONSUMER__REJECTED_WINDOW": "100"}
        consumer = deployment.start_consumer(**settings, **halting)
        consumer.wait_until_ready()
        deployment.broker.produce(deployment.topic, map(one_of_many, range(self.GOOD)))
        deployment.wait_for_rows("report", self.GOOD)
        deployment.broker.produce(deployment.topic, [b"not a message"] * self.BAD)

        line = consumer.process.wait_for_log("halted: too many messages are unusable")

        rejected = deployment.count("consumer_error")
        stopped_at = self.GOOD + rejected
        assert f"stopped_at='{deployment.topic} 0 at {stopped_at}'" in line
        assert "reason=not_json" in line.replace("'", "").replace('"', "")
        # a window of a hundred, of which half may be rejected, and no batch is larger than twenty
        assert 30 <= rejected <= 50
        assert consumer.metrics()["aggregator_consumer_halted"] == 1
        assert consumer.readiness().json["checks"]["halted"].split(" ", 1)[1].startswith("of the last 100 messages")
        assert {name for name, text in consumer.readiness().json["checks"].items() if text != "ok"} == {"halted"}
        wait_for(1.5 * float(deployment.environment["AGGREGATOR_KAFKA__SESSION_TIMEOUT"]))
        assert consumer.liveness().status == 200
        assert members_of(deployment) == 1
        assert deployment.count("consumer_error") == rejected

        assert consumer.process.stop() == 0

        assert deployment.broker.committed(deployment.group, deployment.topic) == {0: stopped_at}
        assert len(deployment.broker.read(dead_letters, rejected + 1, timeout=2)) == rejected
        successor = deployment.start_consumer("successor", **settings)
        deployment.wait_for_rows("consumer_error", self.BAD)
        assert successor.process.stop() == 0
        assert len(deployment.broker.read(dead_letters, self.BAD + 1, timeout=5)) == self.BAD
        assert deployment.count("report") == self.GOOD

    def test_by_default_ten_thousand_bad_messages_are_drained(self, real_deployment: Deployment) -> None:
        real_deployment.broker.create_topic(real_deployment.topic)
        real_deployment.broker.produce(real_deployment.topic, [b"not a message"] * 10_000)
        consumer = real_deployment.start_consumer()
        real_deployment.wait_for_rows("consumer_error", 10_000, timeout=60)
        consumer.wait_until_ready()
        assert consumer.metrics()["aggregator_consumer_halted"] == 0


def twenty_messages() -> list[Sent]:
    """Return messages of three clusters in two partitions."""
    return [Sent(payload(CLUSTERS[number % 3]), partition=number % 2) for number in range(20)]


def one_of_many(number: int) -> bytes:
    """Return a message of a cluster of its own."""
    return payload(f"{number:08x}-1111-4111-8111-111111111111")


def stalled_partitions(consumer: Consumer) -> float:
    return consumer.metrics()["aggregator_consumer_stalled_partitions"]


def lag_of(consumer: Consumer, topic: str, number: int) -> float | None:
    return consumer.metrics().get(f'aggregator_consumer_lag_messages{{partition="{number}",topic="{topic}"}}')


def has_never_stalled(consumer: Consumer) -> bool:
    return "partition stalled" not in consumer.process.output and stalled_partitions(consumer) == 0


def watch_outage(consumer: Consumer, seconds: float) -> None:
    """Wait until readiness tells of an outage, and so many seconds more; the process lives all the time."""
    eventually(lambda: consumer.readiness().status == 503, 40, "readiness tells of the outage")
    wait_for(seconds)
    assert consumer.readiness().status == 503
    assert consumer.readiness().json["checks"]["progress"] == "ok"
    assert consumer.liveness().status == 200
    assert has_never_stalled(consumer)


def wait_for(seconds: float) -> None:
    """Wait for a time that the product measures itself."""
    end = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > end, seconds + 10, "the time is over")


def members_of(deployment: Deployment) -> int:
    """Return how many consumers are in the group."""
    client = KafkaAdminClient(bootstrap_servers=deployment.broker.bootstrap)
    try:
        return len(client.describe_groups([deployment.group])[deployment.group]["members"])
    finally:
        client.close()
