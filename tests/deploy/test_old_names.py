"""With `metrics.legacy_names` real processes show the names that dashboards of existing deployments query."""

import http.client
from pathlib import Path

import pytest

from examples.demo.ports import free_port
from tests.support.api_process import API, REPORT, Api, fill
from tests.support.brokers import EmbeddedTestBroker
from tests.support.commands import CLI
from tests.support.databases import migrate_database
from tests.support.deployment import PREFIX, Deployment, metrics_of
from tests.support.messages import payload
from tests.support.processes import Processes
from tests.support.waiting import eventually

SETTINGS = {"METRICS__LEGACY_NAMES": "true", "METRICS__NAMESPACE": "insights"}


def test_of_the_consumer(embedded_broker: EmbeddedTestBroker, sqlite_url: str, processes: Processes) -> None:
    deployment = Deployment(processes, embedded_broker, migrate_database(sqlite_url))
    embedded_broker.create_topic(deployment.topic)
    embedded_broker.produce(deployment.topic, [payload(), payload(), b"bad"])
    consumer = deployment.start_consumer(METRICS__LEGACY_NAMES="true")
    eventually(lambda: consumer.metrics().get("consumed_messages") == 3, 30, "three messages under the old name")
    found = consumer.metrics()
    assert (found["consuming_errors"], found["written_reports"]) == (1, 1)
    assert found["successful_messages_processing_time_count"] == 2
    assert found["successful_messages_processing_time_sum"] > 0
    assert found['successful_messages_processing_time_bucket{le="+Inf"}'] == 2
    assert found["failed_messages_processing_time_count"] == 1
    assert found["failed_messages_processing_time_sum"] > 0
    assert found["last_checked_timestamp_lag_minutes_count"] == 1
    assert found["last_checked_timestamp_lag_minutes_sum"] > 0
    assert found['aggregator_consumer_messages_total{outcome="stored",reason=""}'] == 1
    assert consumer.process.stop() == 0


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_of_the_api_whatever_worker_answers(processes: Processes, sqlite_url: str, workers: str) -> None:
    api = Api(processes, fill(sqlite_url, REPORT), API__WORKERS=workers, **SETTINGS).wait_until_it_listens()
    connections = [http.client.HTTPConnection("127.0.0.1", api.port, timeout=20) for _ in range(10)]
    for connection in connections:
        connection.request("GET", f"{PREFIX}organizations")
    for connection in connections:
        assert connection.getresponse().status == 200
        connection.close()
    assert api.get("nothing").status == 404
    endpoint = f'endpoint="{PREFIX}organizations"'
    expected = {
        f"insights_api_endpoints_requests{{{endpoint}}}": 10,
        f"insights_api_endpoints_response_time_count{{{endpoint}}}": 10,
        f'insights_api_endpoints_response_time_bucket{{{endpoint},le="+Inf"}}': 10,
        'insights_api_endpoints_status_codes{status_code="200"}': 10,
        'insights_api_endpoints_status_codes{status_code="404"}': 1,
    }
    found = metrics_of(api.admin_port)
    assert {name: found.get(name) for name in expected} == expected
    assert found[f"insights_api_endpoints_response_time_sum{{{endpoint}}}"] > 0
    assert found["aggregator_api_listening_workers"] == int(workers)
    shown_under_the_prefix = api.get("metrics").text
    assert all(f"{name} " in shown_under_the_prefix for name in expected)
    assert api.process.stop() == 0


@pytest.mark.parametrize("command", [[*CLI, "run"], [*API, "serve"]], ids=["consumer", "api"])
def test_a_namespace_that_can_not_be_one_ends_the_start(
    processes: Processes, tmp_path: Path, command: list[str]
) -> None:
    environment = {
        "AGGREGATOR_DATABASE__URL": f"sqlite:///{tmp_path / 'x.db'}",
        "AGGREGATOR_METRICS__NAMESPACE": "9-lives",
        "AGGREGATOR_API__PORT": str(free_port()),
    }
    process = processes.start("refused", command, environment)
    assert process.wait_exit() == 2
    assert "metrics.namespace: expected letters, digits and `_`, no digit first, got '9-lives'" in process.output
    assert "Traceback" not in process.output
