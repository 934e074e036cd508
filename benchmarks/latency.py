"""How long a single message takes, with no backlog, from being produced to being answered with.

Real processes, on Apache Kafka with PostgreSQL and on the embedded broker with SQLite.
`python -m benchmarks.latency --help`.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from kafka import KafkaProducer

from benchmarks.figures import Figures
from benchmarks.parts import running_kafka, running_postgresql
from benchmarks.services import Services
from examples.demo.broker import EmbeddedBroker
from examples.demo.generator import Cluster, Fleet
from tests.support.deployment import PREFIX, fetch
from tests.support.topics import fresh_name
from tests.support.waiting import eventually

PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.001


class Latency:
    """Measures one message after another on a deployment of its own."""

    def __init__(self, figures: Figures, folder: Path) -> None:
        """Note the figures there; logs go into `folder`."""
        self.figures = figures
        self._services = Services(folder)

    def repeat(self, group: str, bootstrap: str, url: str, messages: int) -> None:
        """Send so many messages through a new consumer and a new API, and note the percentiles."""
        topic = fresh_name("results")
        self._services.migrate(url)
        with self._services.consumers(url, bootstrap, topic), self._services.api(url) as (_, port):
            milliseconds = [1000 * seconds for seconds in _measure(bootstrap, topic, port, messages)]
        percentiles = statistics.quantiles(milliseconds, n=100)
        self.figures.add(group, "produced to readable, p50", "ms", percentiles[49])
        self.figures.add(group, "produced to readable, p99", "ms", percentiles[98])


def _measure(bootstrap: str, topic: str, port: int, messages: int) -> Iterator[float]:
    """Yield the seconds that each message took."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, batch_size=0, acks="all")
    fleet = Fleet(seed=1, organizations=1, clusters=1)
    cluster = fleet.clusters[0]
    begin = datetime.now(UTC).replace(tzinfo=None, microsecond=0) - timedelta(hours=1)
    for number in range(-1, messages):
        checked_at = begin + timedelta(seconds=number)
        payload = fleet.message(cluster, checked_at)
        started = time.perf_counter()
        producer.send(topic, payload)
        _wait_until_stored(port, cluster, f"{checked_at.isoformat()}Z")
        # the first one also waits for the processes to start and the group to form
        if number >= 0:
            yield time.perf_counter() - started
    producer.close(timeout=5)


def _wait_until_stored(port: int, cluster: Cluster, checked_at: str) -> None:
    eventually(
        lambda: _stored_at(port, cluster) == checked_at, PATIENCE_SECONDS, "the message is readable", _LOOK_SECONDS
    )


def _stored_at(port: int, cluster: Cluster) -> str | None:
    """Return the check time of the report that the API answers with, None while there is none."""
    path = f"{PREFIX}organizations/{cluster.org_id}/clusters/{cluster.cluster_id}/users/u/report/info"
    answer = fetch(port, path)
    return str(json.loads(answer.text)["metainfo"]["last_checked_at"]) if answer.status == 200 else None


@click.command()
@click.option("--messages", default=200, show_default=True, help="How many messages are measured.")
@click.option("--repeats", default=3, show_default=True, help="How often each part is measured.")
@click.option("--only", type=click.Choice(["kafka", "embedded"]), multiple=True, help="Parts to do.")
def main(messages: int, repeats: int, only: tuple[str, ...]) -> None:
    """Print the time from produced to readable: median and 99th percentile."""
    figures = Figures()
    parts = only or ("kafka", "embedded")
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        latency = Latency(figures, Path(name))
        if "kafka" in parts:
            kafka, server = running.enter_context(running_kafka()), running.enter_context(running_postgresql(None))
            for _ in range(repeats):
                latency.repeat("Apache Kafka, PostgreSQL", kafka.bootstrap, server.create_database(), messages)
        if "embedded" in parts:
            embedded = running.enter_context(EmbeddedBroker())
            for number in range(repeats):
                url = f"sqlite:///{name}/{number}.db"
                latency.repeat("embedded broker, SQLite", embedded.bootstrap, url, messages)
    figures.print(click.echo)


if __name__ == "__main__":
    main()
