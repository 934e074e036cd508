"""How long a single message takes, with no backlog, from being produced to being answered with.

Real processes, the embedded broker, SQLite. `python -m benchmarks.latency [--messages N]`.
"""

import http.client
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from kafka import KafkaProducer

from examples.demo.broker import EmbeddedBroker
from examples.demo.generator import Cluster, Fleet
from examples.demo.ports import free_port
from tests.support.processes import Processes

TOPIC = "ccx.ocp.results"
PREFIX = "/api/insights-results-aggregator/v1/"
PATIENCE_SECONDS = 30.0


@click.command()
@click.option("--messages", default=200, show_default=True, help="How many messages are measured.")
def main(messages: int) -> None:
    """Print the time from produced to readable: median, 99th percentile, largest."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker:
        processes = Processes(Path(folder))
        try:
            seconds = _measure(processes, Path(folder), broker.bootstrap, messages)
        finally:
            processes.kill_all()
    milliseconds = sorted(1000 * value for value in seconds)
    percentiles = statistics.quantiles(milliseconds, n=100)
    click.echo(
        f"produced to readable, one message at a time, {messages} messages: "
        f"p50 {percentiles[49]:.1f} ms, p99 {percentiles[98]:.1f} ms, max {milliseconds[-1]:.1f} ms"
    )


def _measure(processes: Processes, folder: Path, bootstrap: str, messages: int) -> list[float]:
    api_port = free_port()
    settings = {
        "AGGREGATOR_DATABASE__URL": f"sqlite:///{folder}/aggregator.db",
        "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "AGGREGATOR_KAFKA__SESSION_TIMEOUT": "2",
        "AGGREGATOR_CONSUMER__ADMIN_PORT": "0",
        "AGGREGATOR_API__PORT": str(api_port),
        "AGGREGATOR_API__ADMIN_PORT": "0",
    }
    migrated = processes.start("migrate", [sys.executable, "-m", "consumer_service.cli", "migrate"], settings)
    if migrated.wait_exit():
        raise click.ClickException(migrated.output)
    processes.start("consumer", [sys.executable, "-m", "consumer_service.cli", "run"], settings)
    processes.start("api", [sys.executable, "-m", "api_service.cli", "serve"], settings)
    producer = KafkaProducer(bootstrap_servers=bootstrap, batch_size=0, acks="all")
    fleet = Fleet(seed=1, organizations=1, clusters=1)
    cluster = fleet.clusters[0]
    begin = datetime.now(UTC).replace(tzinfo=None, microsecond=0) - timedelta(hours=1)
    seconds = []
    for number in range(-1, messages):
        checked_at = begin + timedelta(seconds=number)
        payload = fleet.message(cluster, checked_at)
        started = time.perf_counter()
        producer.send(TOPIC, payload)
        _wait_for(lambda at=checked_at: _stored_at(api_port, cluster) == f"{at.isoformat()}Z")  # type: ignore[misc]
        # the first one also waits for the processes to start and the group to form
        if number >= 0:
            seconds.append(time.perf_counter() - started)
    producer.close(timeout=5)
    return seconds


def _stored_at(port: int, cluster: Cluster) -> str | None:
    """Return the check time of the report that the API answers with, None while there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        path = f"{PREFIX}organizations/{cluster.org_id}/clusters/{cluster.cluster_id}/users/u/report/info"
        connection.request("GET", path)
        response = connection.getresponse()
        found = json.load(response)
        return str(found["metainfo"]["last_checked_at"]) if response.status == http.client.OK else None
    except OSError:
        return None
    finally:
        connection.close()


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise click.ClickException(f"a message could not be read within {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.001)


if __name__ == "__main__":
    main()
