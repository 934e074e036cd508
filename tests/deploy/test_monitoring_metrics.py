"""Each process shows the metrics of its closed list, all of them, and nothing else."""

from collections.abc import Mapping, Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api_service.metrics import METRICS as API_METRICS
from consumer_service.metrics import METRICS as CONSUMER_METRICS
from examples.demo.ports import free_port
from libaggregator.metrics import Metric
from tests.support.brokers import EmbeddedTestBroker
from tests.support.deployment import Deployment, fetch
from tests.support.messages import payload
from tests.support.processes import Processes
from tests.support.waiting import eventually

OF_THE_SYSTEM = {
    "process_virtual_memory_bytes": "gauge",
    "process_resident_memory_bytes": "gauge",
    "process_start_time_seconds": "gauge",
    "process_cpu_seconds_total": "counter",
    "process_open_fds": "gauge",
    "process_max_fds": "gauge",
    "python_info": "gauge",
}

OF_ALL_WORKERS = {
    "aggregator_api_database_available",
    "aggregator_api_listening_workers",
    "aggregator_api_worker_restarts_total",
}
"""Not known to a worker, which shows metrics under the prefix."""


@pytest.fixture
def deployment(processes: Processes, embedded_broker: EmbeddedTestBroker, sqlite_url: str) -> Deployment:
    deployment = Deployment(processes, embedded_broker, sqlite_url)
    deployment.migrate()
    embedded_broker.create_topic(deployment.topic)
    return deployment


def test_of_the_consumer(deployment: Deployment) -> None:
    # it looks for the lag four times as often
    consumer = deployment.start_consumer(CONSUMER__STALLED_AFTER="2")
    deployment.broker.produce(deployment.topic, [payload(), b"bad"])
    by_partition = ("handled_offset{", "committed_offset{", "lag_messages{")

    def has_read() -> bool:
        return all(any(f"consumer_{name}" in sample for sample in consumer.metrics()) for name in by_partition)

    eventually(has_read, 30, "metrics of partitions")
    assert _shown(fetch(consumer.admin_port, "/metrics").text) == {**_declared(CONSUMER_METRICS), **OF_THE_SYSTEM}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_of_the_api(deployment: Deployment, workers: int) -> None:
    admin_port = free_port()
    # it answers a request, and that one is counted
    deployment.start_api(API__ADMIN_PORT=str(admin_port), API__WORKERS=str(workers))
    declared = _declared(API_METRICS)
    assert _shown(fetch(admin_port, "/metrics").text) == {**declared, **OF_THE_SYSTEM}
    under_the_prefix = _shown(deployment.get("metrics").text)
    if workers == 1:
        assert under_the_prefix == {**declared, **OF_THE_SYSTEM}
    else:
        assert under_the_prefix == {name: kind for name, kind in declared.items() if name not in OF_ALL_WORKERS}


def _shown(text: str) -> Mapping[str, str]:
    """Return the kind of each metric that has a value, by its name; a value of no metric counts as one."""
    families = [family for family in text_string_to_metric_families(text) if family.samples]
    # the library calls a counter without the ending of its samples
    return {family.name + ("_total" if family.type == "counter" else ""): family.type for family in families}


def _declared(metrics: Sequence[Metric]) -> Mapping[str, str]:
    return {metric.name: metric.kind for metric in metrics}
