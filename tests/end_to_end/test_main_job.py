"""A message becomes an answer, through real processes."""

import base64
import json
import signal
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from examples.demo.generator import Fleet
from libaggregator.messages import Limits, decode
from tests.end_to_end.conftest import EMBEDDED, REAL
from tests.support.deployment import Deployment
from tests.support.messages import CLUSTERS, HitSpec, payload
from tests.support.model import Model
from tests.support.tables import read_tables
from tests.support.topics import Sent, fresh_name
from tests.support.waiting import eventually

BAD_MESSAGES = Path(__file__).parents[1] / "contract" / "dataset" / "bad_messages.jsonl"
BEGIN = datetime(2026, 5, 1, 8)


@pytest.mark.parametrize("deployment", [EMBEDDED, REAL], ids=["embedded", "real"], indirect=True)
def test_a_message_becomes_an_answer_and_the_processes_end_cleanly(deployment: Deployment) -> None:
    deployment.broker.create_topic(deployment.topic)
    hit = HitSpec("rules.a.report", "KEY", {"size": 1000.5, "name": "ž"})
    deployment.broker.produce(
        deployment.topic, [payload(hits=[hit], version="4.16.3", gathered="2026-05-01T07:55:00Z")]
    )
    consumer = deployment.start_consumer()
    api = deployment.start_api()
    deployment.wait_for_rows("report", 1)
    answer = deployment.get(f"organizations/1/clusters/{CLUSTERS[0]}/users/11/report")
    assert answer.status == 200
    (shown,) = answer.json["report"]["reports"]
    assert (shown["component"], shown["key"], shown["details"]) == (hit.component, hit.key, hit.details)
    assert answer.json["report"]["meta"]["last_checked_at"] == "2026-05-01T08:00:00Z"
    assert deployment.get("organizations").json["organizations"] == [1]
    assert [consumer.process.stop(), api.stop()] == [0, 0]


def test_every_kind_of_payload_has_its_outcome(deployment: Deployment) -> None:
    cases = [json.loads(line) for line in BAD_MESSAGES.read_text(encoding="utf-8").splitlines()]
    deployment.broker.create_topic(deployment.topic)
    payloads = [base64.b64decode(case["payload_b64"]) for case in cases]
    deployment.broker.produce(deployment.topic, payloads)
    consumer = deployment.start_consumer()
    eventually(lambda: _handled(consumer.metrics()) == len(cases), 30, "all payloads are handled")
    with deployment.database() as database:
        rows = database.execute_sql("SELECT topic_offset, error FROM consumer_error").fetchall()
    rejected = {offset: error.partition(":")[0] for offset, error in rows}
    expected = {offset for offset, case in enumerate(cases) if case["expect"] == "rejected"}
    assert set(rejected) == expected
    assert Counter(rejected.values()) == {
        "not_json": 15,
        "bad_compression": 1,
        "missing_attribute": 10,
        "bad_attribute": 24,
        "from_the_future": 1,
        "bad_report": 16,
    }
    metrics = consumer.metrics()
    assert metrics['aggregator_consumer_messages_total{outcome="stored",reason=""}'] == 38
    assert metrics['aggregator_consumer_messages_total{outcome="skipped",reason="empty_report"}'] == 1


def test_a_rejected_message_leaves_a_row_a_log_line_a_count_and_a_dead_letter(deployment: Deployment) -> None:
    deployment.broker.create_topic(deployment.topic)
    dead_letters = deployment.broker.create_topic(fresh_name("rejected"))
    bad = Sent(b"not a message", b"key", [("trace", b"1")])
    deployment.broker.produce(deployment.topic, [bad, payload()])
    consumer = deployment.start_consumer(KAFKA__DEAD_LETTER_TOPIC=dead_letters)
    deployment.wait_for_rows("report", 1)
    (letter,) = deployment.broker.read(dead_letters, 1)
    assert (letter.value, letter.key) == (bad.value, bad.key)
    headers = dict(letter.headers)
    assert headers["trace"] == b"1"
    assert headers["aggregator-reason"] == b"not_json"
    assert headers["aggregator-offset"] == b"0"
    assert deployment.count("consumer_error") == 1
    consumer.process.wait_for_log("message rejected")
    eventually(
        lambda: consumer.metrics().get('aggregator_consumer_dead_letters_total{result="sent"}') == 1, 10, "counted"
    )


def test_a_topic_that_does_not_exist_is_waited_for_and_not_made(deployment: Deployment) -> None:
    consumer = deployment.start_consumer()
    consumer.process.wait_for_log("source unavailable")
    eventually(lambda: deployment.topic in consumer.readiness().text, 20, "readiness names the topic")
    assert consumer.readiness().status == 503
    assert deployment.topic not in deployment.broker.topic_names()
    deployment.broker.create_topic(deployment.topic)
    deployment.broker.produce(deployment.topic, [payload()])
    deployment.wait_for_rows("report", 1, timeout=5)
    consumer.wait_until_ready()
    assert consumer.process.output.count("source unavailable") == 1


@pytest.mark.long
def test_sigterm_in_the_middle_of_a_batch_loses_nothing_and_stores_nothing_half(real_deployment: Deployment) -> None:
    deployment = real_deployment
    payloads = _produce_backlog(deployment, 1000)
    with deployment.reports_locked():
        consumer = deployment.start_consumer()
        eventually(deployment.waits_for_lock, 30, "the consumer is in the middle of a batch")
        consumer.process.signal(signal.SIGTERM)
        assert deployment.broker.committed(deployment.group, deployment.topic) in ({}, {0: -1})
    assert consumer.process.wait_exit(30) == 0
    stored = deployment.count("report")
    assert 0 < stored <= len(payloads)
    assert deployment.broker.committed(deployment.group, deployment.topic) == {0: stored}
    deployment.start_consumer("successor")
    deployment.wait_for_rows("report", len(payloads))
    _assert_tables_are_those_of(payloads, deployment)


@pytest.mark.long
def test_a_killed_consumer_leaves_nothing_half_and_its_batch_comes_again(real_deployment: Deployment) -> None:
    deployment = real_deployment
    payloads = _produce_backlog(deployment, 1000)
    with deployment.reports_locked():
        consumer = deployment.start_consumer()
        eventually(deployment.waits_for_lock, 30, "the consumer is in the middle of a batch")
        consumer.process.kill()
    assert deployment.count("report") == 0
    deployment.start_consumer("successor")
    deployment.wait_for_rows("report", len(payloads))
    _assert_tables_are_those_of(payloads, deployment)


def test_two_consumers_of_one_group_share_the_partitions(deployment: Deployment) -> None:
    deployment.broker.create_topic(deployment.topic, partitions=2)
    consumers = []
    for number in range(2):
        # one after the other: the embedded broker never settles two that begin at the same moment
        consumers.append(deployment.start_consumer(f"consumer-{number}"))
        consumers[-1].wait_until_ready()

    def both_read() -> bool:
        at = f"{datetime.now():%Y-%m-%dT%H:%M:%S.%f}Z"
        records = [Sent(payload(CLUSTERS[number], at), partition=number) for number in range(2)]
        deployment.broker.produce(deployment.topic, records)
        return all(_handled(consumer.metrics()) for consumer in consumers)

    eventually(both_read, 30, "each consumer has read messages", interval=0.5)
    assert deployment.count("consumer_error") == 0


def _produce_backlog(deployment: Deployment, count: int) -> list[bytes]:
    deployment.broker.create_topic(deployment.topic)
    payloads = list(Fleet(seed=7, organizations=3, clusters=count).messages(count, BEGIN))
    deployment.broker.produce(deployment.topic, payloads)
    return payloads


def _assert_tables_are_those_of(payloads: list[bytes], deployment: Deployment) -> None:
    """Compare everything but the times of storing, which belong to the batch that a message came in."""
    model = Model()
    for value in payloads:
        model.apply(decode(value, Limits(), BEGIN), BEGIN)
    without = frozenset(
        {
            "report.reported_at",
            "rule_hit.created_at",
            "recommendation.created_at",
            "recommendation.impacted_since",
        }
    )
    with deployment.database() as database:
        tables = read_tables(database, without)
    expected = model.tables()
    expected["report"] = sorted((row[:3] + row[4:] for row in expected["report"]), key=repr)
    expected["rule_hit"] = sorted((row[:5] for row in expected["rule_hit"]), key=repr)
    expected["recommendation"] = sorted((row[:5] for row in expected["recommendation"]), key=repr)
    assert {table: tables[table] for table in expected} == expected
    assert tables["consumer_error"] == []


def _handled(metrics: dict[str, float]) -> float:
    return sum(value for name, value in metrics.items() if name.startswith("aggregator_consumer_messages_total{"))
