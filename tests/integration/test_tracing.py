"""Real processes are traced: a message to the transaction that stored it, a request to its statement."""

import gc
import json
import threading
from collections.abc import Iterator

import pytest
from psycopg2.extensions import parse_dsn

from consumer_service.process import run_until_stopped
from consumer_service.settings import ConsumerProcessSettings
from examples.demo.ports import free_port
from libaggregator.settings import load
from tests.support.api_process import REPORT, StartApi, fill, http_request
from tests.support.brokers import EmbeddedTestBroker
from tests.support.collector import (
    PRODUCER_SPAN,
    PRODUCER_TRACE,
    TRACEPARENT,
    Collector,
    SpansInMemory,
    ids_of,
    parent_of,
)
from tests.support.databases import migrate_database
from tests.support.deployment import PREFIX, Deployment
from tests.support.messages import CLUSTERS, payload
from tests.support.processes import Processes
from tests.support.topics import Sent, fresh_name
from tests.support.waiting import eventually

TRACED = [("traceparent", TRACEPARENT.encode()), ("other", b"\xff")]
SECRET = "of-the-collector"
PRODUCER = (PRODUCER_TRACE, PRODUCER_SPAN)


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Yield something that takes spans."""
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def traced(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the processes of the test send their spans there, as OpenTelemetry's own variables say."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SECRET}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")


@pytest.fixture
def deployment(embedded_broker: EmbeddedTestBroker, postgresql_url: str, processes: Processes) -> Deployment:
    """Return a deployment on the embedded broker and PostgreSQL, with a topic and a migrated database."""
    deployment = Deployment(processes, embedded_broker, migrate_database(postgresql_url))
    embedded_broker.create_topic(deployment.topic)
    return deployment


@pytest.fixture
def collected_as_before() -> Iterator[None]:
    """Give back what a consumer in this process takes from the garbage collector."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collected_as_before", "plain_logs")
def test_a_message_is_followed_from_its_record_to_the_transaction_that_stored_it(deployment: Deployment) -> None:
    memory, stop = SpansInMemory(), threading.Event()
    environment = {**deployment.environment, "AGGREGATOR_CONSUMER__ADMIN_PORT": str(free_port())}
    settings = load(ConsumerProcessSettings, None, environment).settings
    consumer = threading.Thread(target=run_until_stopped, args=(settings, stop, memory.spans))
    consumer.start()
    try:
        deployment.broker.produce(deployment.topic, [Sent(payload(), headers=TRACED)])
        deployment.wait_for_rows("report", 1)
        eventually(lambda: memory.named("process"), 10, "the batch has ended")
    finally:
        stop.set()
        consumer.join(20)
    (batch,) = memory.named("process")
    assert batch.name == f"process {deployment.topic}"
    (link,) = batch.links
    assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == PRODUCER
    assert dict(link.attributes or {}) == {"messaging.destination.partition.id": "0", "messaging.kafka.offset": 0}
    assert dict(batch.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": deployment.group,
        "messaging.destination.name": deployment.topic,
        "messaging.batch.message_count": 1,
    }
    assert parent_of(batch) is None
    steps = [span.name for span in memory.finished if parent_of(span) == ids_of(batch)[1]]
    assert steps == ["sort", "write", "commit"]
    (write,) = memory.named("write")
    statements = [span.name for span in memory.finished if parent_of(span) == ids_of(write)[1]]
    begin = statements.index("BEGIN")
    assert "INSERT INTO report" in statements[begin:]
    assert statements[-1] == "COMMIT"
    assert {ids_of(span)[0] for span in memory.finished} == {ids_of(batch)[0]}


@pytest.mark.long
@pytest.mark.usefixtures("traced")
def test_a_batch_has_a_link_for_each_message_and_a_dead_letter_its_headers_as_they_were(
    deployment: Deployment, collector: Collector
) -> None:
    times = [f"2026-05-01T08:{number // 60:02}:{number % 60:02}Z" for number in range(200)]
    records = [Sent(payload(checked=time), headers=TRACED) for time in times]
    dead_letters = deployment.broker.create_topic(fresh_name("rejected"))
    deployment.broker.produce(deployment.topic, [Sent(b"rejected", headers=TRACED), *records])
    consumer = deployment.start_consumer(KAFKA__DEAD_LETTER_TOPIC=dead_letters, LOGGING__FORMAT="json")
    eventually(lambda: len(_links(collector)) > len(records), 30, "a link for each message has arrived")
    assert set(_links(collector)) == {PRODUCER}
    (letter,) = deployment.broker.read(dead_letters, 1)
    assert [value for name, value in letter.headers if name == "traceparent"] == [TRACEPARENT.encode()]
    line = json.loads(consumer.process.wait_for_log("message rejected"))
    assert line["trace_id"] in {span.trace_id for span in collector.named("process")}
    assert {span.service for span in collector.spans} == {"aggregator-consumer"}
    assert consumer.process.stop() == 0


@pytest.mark.long
@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_request_is_followed_from_its_header_to_its_statement_in_every_worker(
    postgresql_url: str, start_api: StartApi, collector: Collector, server: str, workers: str
) -> None:
    url = fill(postgresql_url, REPORT)
    api = start_api(url, API__SERVER=server, API__WORKERS=workers, LOGGING__FORMAT="json").wait_until_it_listens()
    asked = http_request("GET", f"{PREFIX}organizations/1/clusters", f"traceparent: {TRACEPARENT}")
    assert api.send(asked).status == 200
    # what was not exported yet is at the end
    assert api.process.stop() == 0
    (request,) = collector.named("GET")
    assert (request.trace_id, request.parent_id) == PRODUCER
    assert request.name == f"GET {PREFIX}organizations/{{organization}}/clusters"
    (statement,) = collector.named("EXECUTE")
    assert (statement.trace_id, statement.parent_id) == (request.trace_id, request.span_id)
    (line,) = [json.loads(line) for line in api.process.output.splitlines() if '"request"' in line]
    assert (line["trace_id"], line["span_id"]) == (request.trace_id, request.span_id)
    assert {span.service for span in collector.spans} == {"aggregator-api"}
    password = parse_dsn(url)["password"]
    assert not [span for span in collector.spans if f":{password}@" in span.raw]


@pytest.mark.long
@pytest.mark.usefixtures("traced")
def test_a_collector_that_is_away_costs_one_line_and_no_message(
    deployment: Deployment, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    collector.well = False
    consumer = deployment.start_consumer()
    for count, cluster in enumerate(CLUSTERS[:2], 1):
        deployment.broker.produce(deployment.topic, [Sent(payload(cluster), headers=TRACED)])
        deployment.wait_for_rows("report", count)
        consumer.process.wait_for_log("traces can't be exported, they are dropped")
    collector.well = True
    deployment.broker.produce(deployment.topic, [Sent(payload(CLUSTERS[2]), headers=TRACED)])
    consumer.process.wait_for_log("traces are exported again")
    assert _links(collector)
    assert consumer.process.stop() == 0
    output = consumer.process.output
    assert output.count("traces can't be exported") == 1
    assert "opentelemetry" not in output
    assert {headers["authorization"] for headers in collector.headers} == {SECRET}
    assert SECRET not in output


def _links(collector: Collector) -> list[tuple[str, str]]:
    return [link for span in collector.named("process") for link in span.links]
