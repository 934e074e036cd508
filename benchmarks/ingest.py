"""How fast the consumer stores a backlog, beside a bare COPY of the rows that come of it.

Real processes, Apache Kafka, PostgreSQL and SQLite. `python -m benchmarks.ingest --help`.
"""

import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.figures import Figures
from benchmarks.parts import connected, produce, running_kafka, running_postgresql, settle, use_of
from benchmarks.rounds import Rounds, make_rounds, shape_of
from benchmarks.services import Consumer, Services, Version, versions_of, wait_until_handled
from tests.support.databases import open_database
from tests.support.kafka import ApacheKafka
from tests.support.postgresql import ExternalPostgresql
from tests.support.topics import fresh_name

ROUNDS = ("first load", "changed text", "same bytes")
STEPS = ("sort", "write", "commit")

_FILLED_TABLES = ("report", "rule_hit", "recommendation", "report_info")


@dataclass(frozen=True, slots=True)
class Run:
    """What it took one process to store the messages of a topic, from its first fetch on."""

    messages: int
    seconds: float
    start_seconds: float
    """From the start of the process to its first fetch."""
    cpu_seconds: float
    peak_megabytes: float
    step_seconds: dict[str, float]
    """By step of the loop; what is left of `seconds` is waiting for records and fetching them."""

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def cpu_milliseconds(self) -> float:
        """CPU of the process a message."""
        return 1000 * self.cpu_seconds / self.messages


class Ingest:
    """Measures versions of the consumer in turn, so that all of them meet the same noise."""

    def __init__(
        self, figures: Figures, broker: ApacheKafka, versions: Sequence[Version], rounds: Rounds, folder: Path
    ) -> None:
        """Take the parts, and note the figures there; logs and SQLite databases go into `folder`."""
        self.figures = figures
        self._broker = broker
        self._versions = versions
        self._rounds = rounds
        self._folder = folder
        self._topics: list[str] = []

    def fill_topics(self) -> None:
        """Write each round to a topic of its own; every repeat reads them again."""
        for messages in (self._rounds.first, self._rounds.changed, self._rounds.same):
            topic = self._broker.create_topic(fresh_name("results"))
            produce(self._broker, topic, messages)
            self._topics.append(topic)

    def repeat_on_postgresql(self, server: ExternalPostgresql) -> None:
        """Measure the three rounds once, and the bare COPY of the rows that the first one left."""
        for version in self._versions:
            with self._database(version, server) as url:
                first = self._round(version, url, 0, lambda: settle(server))
                bare_rate = first.messages / self._bare_copy(version, server, url)
                later = [self._round(version, url, number, lambda: settle(server)) for number in (1, 2)]
            group = f"PostgreSQL{version.mark}"
            self._note_rounds(group, first, *later)
            self.figures.add(group, "bare COPY", "messages/s", bare_rate)
            self.figures.add_ratio(group, "first load / bare COPY", first.rate, bare_rate)

    def repeat_on_sqlite(self) -> None:
        """Measure the three rounds once."""
        for version in self._versions:
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                url = f"sqlite:///{folder}/aggregator.db"
                self._services(version).migrate(url)
                runs = [self._round(version, url, number, lambda: None) for number in range(len(ROUNDS))]
            self._note_rounds(f"SQLite{version.mark}", *runs)

    def repeat_with_two_processes(self, server: ExternalPostgresql) -> None:
        """Measure the first round on two partitions once, read by one process and by two."""
        for version in self._versions:
            group = f"PostgreSQL, two partitions{version.mark}"
            rates = []
            for processes in (1, 2):
                with self._database(version, server) as url:
                    rates.append(self._rate_of_several(version, server, url, processes))
                self.figures.add(group, f"{processes} of them", "messages/s", rates[-1])
            self.figures.add_ratio(group, "two processes / one", rates[1], rates[0])

    def _note_rounds(self, group: str, *runs: Run) -> None:
        first = runs[0]
        for name, run in zip(ROUNDS, runs, strict=True):
            self.figures.add(group, name, "messages/s", run.rate)
            if run is not first:
                self.figures.add_ratio(group, f"{name} / first load", run.rate, first.rate)
            self.figures.add(group, f"{name}: CPU of the process", "ms/message", run.cpu_milliseconds)
            self.figures.add(group, f"{name}: peak memory", "MB", run.peak_megabytes)
            others = run.seconds - sum(run.step_seconds.values())
            for step, seconds in {"poll": others, **run.step_seconds}.items():
                self.figures.add(group, f"{name}: {step}", "ms/message", 1000 * seconds / run.messages)
        self.figures.add(group, "start to first fetch", "s", first.start_seconds)

    def _round(self, version: Version, url: str, number: int, settled: Callable[[], None]) -> Run:
        """Store one of the topics with a process of its own."""
        messages = len(self._rounds.first)
        settled()
        began = time.time()
        with self._services(version).consumers(url, self._broker.bootstrap, self._topics[number]) as (consumer,):
            consumer.wait_for_partitions(1)
            before = use_of(consumer.process.pid)
            wait_until_handled([consumer], messages)
            after = use_of(consumer.process.pid)
            steps = _steps_of(consumer)
            fetched, stored = consumer.times_of("partitions assigned")[0], consumer.times_of("batch done")[-1]
        return Run(
            messages=messages,
            seconds=stored - fetched,
            start_seconds=fetched - began,
            cpu_seconds=after.cpu_seconds - before.cpu_seconds,
            peak_megabytes=after.peak_megabytes,
            step_seconds=steps,
        )

    def _rate_of_several(self, version: Version, server: ExternalPostgresql, url: str, processes: int) -> float:
        """Return messages a second of all processes together, which have their partitions when it begins."""
        topic = self._broker.create_topic(fresh_name("results"), partitions=2)
        with self._services(version).consumers(url, self._broker.bootstrap, topic, processes) as consumers:
            for consumer in consumers:
                consumer.wait_for_partitions(2 // processes)
            with connected(url) as connection, connection.cursor() as cursor:
                cursor.execute("LOCK TABLE report IN EXCLUSIVE MODE")
                produce(self._broker, topic, self._rounds.first, partitions=2)
                settle(server)
                began = time.time()
                connection.rollback()
            wait_until_handled(consumers, len(self._rounds.first))
            ended = max(consumer.times_of("batch done")[-1] for consumer in consumers)
        return len(self._rounds.first) / (ended - began)

    def _bare_copy(self, version: Version, server: ExternalPostgresql, filled_url: str) -> float:
        """Return the seconds that PostgreSQL needs for the rows alone: a COPY for each table, one transaction."""
        rows = {}
        with connected(filled_url) as connection, connection.cursor() as cursor:
            for table in _FILLED_TABLES:
                rows[table] = io.BytesIO()
                cursor.copy_expert(f"COPY {table} TO STDOUT", rows[table])
        with self._database(version, server) as url:
            # as the consumer has it, with long texts compressed in its way
            database = open_database(url)
            settle(server)
            began = time.perf_counter()
            with database.atomic():
                for table, text in rows.items():
                    text.seek(0)
                    database.cursor().copy_expert(f"COPY {table} FROM STDIN", text)
            seconds = time.perf_counter() - began
            database.close()
        return seconds

    @contextmanager
    def _database(self, version: Version, server: ExternalPostgresql) -> Iterator[str]:
        url = server.create_database()
        try:
            self._services(version).migrate(url)
            yield url
        finally:
            server.drop_database(url)

    def _services(self, version: Version) -> Services:
        return Services(self._folder, version)


def _steps_of(consumer: Consumer) -> dict[str, float]:
    values = consumer.metrics()
    return {step: values[f'aggregator_consumer_step_seconds_sum{{step="{step}"}}'] for step in STEPS}


@click.command()
@click.option("--clusters", default=20_000, show_default=True, help="How many clusters there are.")
@click.option("--repeats", default=3, show_default=True, help="How often each part is measured.")
@click.option("--only", type=click.Choice(["postgresql", "sqlite", "processes"]), multiple=True, help="Parts to do.")
@click.option("--postgresql", "url", help="URL of a running server to use; its user must be allowed to make databases.")
@click.option("--base", type=click.Path(path_type=Path), help="Folder with another version to measure beside this one.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="File to write the figures to.")
def main(
    clusters: int, repeats: int, only: tuple[str, ...], url: str | None, base: Path | None, file: Path | None
) -> None:
    """Print messages a second, CPU and memory of the consumer in three rounds, beside a bare COPY."""
    rounds = make_rounds(clusters)
    shape = shape_of(rounds.first)
    click.echo(f"messages: {shape['bytes']} bytes, {shape['hits']} hits, text compresses {shape['compression']} times")
    parts = only or ("postgresql", "sqlite", "processes")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_kafka() as broker,
        running_postgresql(url) as server,
    ):
        ingest = Ingest(Figures(), broker, versions_of(base), rounds, Path(folder))
        ingest.fill_topics()
        for number in range(repeats):
            click.echo(f"repeat {number + 1} of {repeats}", err=True)
            if "postgresql" in parts:
                ingest.repeat_on_postgresql(server)
            if "sqlite" in parts:
                ingest.repeat_on_sqlite()
            if "processes" in parts:
                ingest.repeat_with_two_processes(server)
        with connected(server.admin_url) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            (server_version,) = cursor.fetchone() or ("",)
    ingest.figures.print(click.echo)
    if file:
        ingest.figures.save(file, {"clusters": clusters, "messages": shape, "postgresql": server_version})


if __name__ == "__main__":
    main()
