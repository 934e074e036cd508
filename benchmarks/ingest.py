"""How fast the consumer stores a backlog, beside a bare COPY of the rows that come of it.

Real processes, Apache Kafka, PostgreSQL and SQLite. `python -m benchmarks.ingest --help`.
"""

import io
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from benchmarks.figures import Figures
from benchmarks.parts import Version, connected, produce, running_kafka, running_postgresql, settle, use_of, versions_of
from benchmarks.rounds import Rounds, make_rounds, shape_of
from tests.support.kafka import ApacheKafka
from tests.support.postgresql import ExternalPostgresql
from tests.support.processes import Process
from tests.support.topics import fresh_name
from tests.support.waiting import eventually

ROUNDS = ("first load", "changed text", "same bytes")
STEPS = ("sort", "write", "commit")

_FILLED_TABLES = ("report", "rule_hit", "recommendation", "report_info")
_PATIENCE_SECONDS = 900.0
_LOOK_SECONDS = 0.02


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
                self._migrate(version, url)
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
        with self._consumers(version, url, self._topics[number]) as (process,):
            eventually(lambda: _times_of(process, "partitions assigned"), 30, "partitions", _LOOK_SECONDS)
            before = use_of(process.pid)
            _wait_until_handled([process], messages)
            after = use_of(process.pid)
            steps = _steps_of(process)
            fetched, stored = _times_of(process, "partitions assigned")[0], _times_of(process, "batch done")[-1]
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
        with self._consumers(version, url, topic, processes) as consumers:
            each = 2 // processes
            for process in consumers:
                eventually(lambda p=process: _partitions_of(p) == each, 60, "partitions")  # type: ignore[misc]
            with connected(url) as connection, connection.cursor() as cursor:
                cursor.execute("LOCK TABLE report IN EXCLUSIVE MODE")
                produce(self._broker, topic, self._rounds.first, partitions=2)
                settle(server)
                began = time.time()
                connection.rollback()
            _wait_until_handled(consumers, len(self._rounds.first))
            ended = max(_times_of(process, "batch done")[-1] for process in consumers)
        return len(self._rounds.first) / (ended - began)

    def _bare_copy(self, version: Version, server: ExternalPostgresql, filled_url: str) -> float:
        """Return the seconds that PostgreSQL needs for the rows alone: a COPY for each table, one transaction."""
        rows = {}
        with connected(filled_url) as connection, connection.cursor() as cursor:
            for table in _FILLED_TABLES:
                rows[table] = io.BytesIO()
                cursor.copy_expert(f"COPY {table} TO STDOUT", rows[table])
        with (
            self._database(version, server) as url,
            connected(url) as connection,
            connection.cursor() as cursor,
        ):
            settle(server)
            began = time.perf_counter()
            for table, text in rows.items():
                text.seek(0)
                cursor.copy_expert(f"COPY {table} FROM STDIN", text)
            connection.commit()
            return time.perf_counter() - began

    @contextmanager
    def _database(self, version: Version, server: ExternalPostgresql) -> Iterator[str]:
        url = server.create_database()
        try:
            self._migrate(version, url)
            yield url
        finally:
            server.drop_database(url)

    def _migrate(self, version: Version, url: str) -> None:
        process = self._start(version, "migrate", {"DATABASE__URL": url})
        if process.wait_exit(60):
            raise click.ClickException(process.output)

    @contextmanager
    def _consumers(self, version: Version, url: str, topic: str, count: int = 1) -> Iterator[list[Process]]:
        """Run consumers of one group with default settings, and stop them as an operator would."""
        settings = {
            "DATABASE__URL": url,
            "KAFKA__BOOTSTRAP_SERVERS": self._broker.bootstrap,
            "KAFKA__TOPIC": topic,
            "KAFKA__GROUP": fresh_name("group"),
            "CONSUMER__ADMIN_PORT": "0",
            "LOGGING__FORMAT": "json",
        }
        with ExitStack() as started:
            processes = []
            for _ in range(count):
                processes.append(self._start(version, "run", settings))
                started.callback(processes[-1].kill)
            yield processes
            for process in processes:
                process.stop(60)

    def _start(self, version: Version, command: str, settings: dict[str, str]) -> Process:
        environment = {f"AGGREGATOR_{key}": value for key, value in settings.items()}
        log = self._folder / f"{fresh_name(command)}.log"
        arguments = [sys.executable, "-m", "consumer_service.cli", command]
        return Process(command, arguments, log, environment, version.folder)


def _events(process: Process, name: str) -> list[dict[str, Any]]:
    """Return the lines of a process's log that tell of an event."""
    lines = [json.loads(line) for line in process.output.splitlines() if line.startswith("{") and line.endswith("}")]
    return [line for line in lines if line["event"] == name]


def _times_of(process: Process, event: str) -> list[float]:
    return [datetime.fromisoformat(line["timestamp"]).timestamp() for line in _events(process, event)]


def _steps_of(process: Process) -> dict[str, float]:
    """Ask the admin port, which the process says, for the time by step."""
    url = _events(process, "consumer started")[0]["admin"]
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {step: float(values[f'aggregator_consumer_step_seconds_sum{{step="{step}"}}']) for step in STEPS}


def _partitions_of(process: Process) -> int:
    assignments = _events(process, "partitions assigned")
    return len(assignments[-1]["partitions"]) if assignments else 0


def _wait_until_handled(processes: Sequence[Process], messages: int) -> None:
    def handled() -> int:
        batches = [line for process in processes for line in _events(process, "batch done")]
        return sum(line["stored"] + line["skipped"] + line["rejected"] for line in batches)

    eventually(lambda: handled() >= messages, _PATIENCE_SECONDS, f"{messages} messages are handled", _LOOK_SECONDS)


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
