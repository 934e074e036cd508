"""What a million stored clusters cost: consumer and API on a full database beside an empty one, and every plan.

Real processes, Apache Kafka, PostgreSQL. `python -m benchmarks.scale --help`.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.crowd import Crowd
from benchmarks.every_statement import messages_of_every_kind, questions
from benchmarks.figures import Figures
from benchmarks.parts import connected, produce, run_at_once, running_kafka, running_postgresql, settle, use_of
from benchmarks.plans import Explained, read_plans
from benchmarks.services import Services, ask, wait_until_handled
from tests.support.deployment import PREFIX
from tests.support.kafka import ApacheKafka
from tests.support.postgresql import ExternalPostgresql
from tests.support.topics import fresh_name

_FULL, _EMPTY, _RATIO = "full database", "empty database", "full / empty"
_PATIENCE_SECONDS = 900.0
_LOOK_SECONDS = 0.02
_STARTS = 3
_READ_SECONDS = 2.0
_OUTCOMES = ("stored", "skipped", "rejected")
# later than all that the repeats send
_LATER_DAYS = 60
# messages of each kind that are explained at once: enough for COPY, and for a batch as it is with a backlog
_EXPLAINED_OF_A_KIND = 100
# PostgreSQL chooses a plan without the values after five executions of a prepared statement
_ASKED = 7
# of smaller tables a scan is the best plan
_BIG_TABLE_ROWS = 30_000
_SHOWN_CHARACTERS = 250

_TABLE_ROWS = (
    "SELECT oid::regclass::text, reltuples FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
)
_TABLE_SIZES = """
    SELECT relname, n_live_tup, pg_table_size(relid) / 1e6, pg_indexes_size(relid) / 1e6
    FROM pg_stat_user_tables WHERE n_live_tup > 0 ORDER BY pg_total_relation_size(relid) DESC
"""
_SCANS = "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE seq_scan > 0"


@dataclass(frozen=True, slots=True)
class Run:
    """What it took a consumer to store the messages of a topic."""

    rate: float
    """Messages a second, from its first fetch on."""
    first_seconds: float
    """From the start of the process until its first batch was stored."""
    peak_megabytes: float
    log_kilobytes: float
    """What the server wrote to its write-ahead log for a message."""


class Scale:
    """Measures the services on a database that holds a crowd, beside one that is empty."""

    def __init__(self, broker: ApacheKafka, server: ExternalPostgresql, crowd: Crowd, folder: Path) -> None:
        """Take the parts; logs go into `folder`."""
        self.figures = Figures()
        self._broker = broker
        self._server = server
        self._crowd = crowd
        self._folder = folder
        self._services = Services(folder)
        self._next_new = crowd.size

    def fill(self) -> str:
        """Make the full database and return its URL."""
        url = self._make_database()
        self._crowd.fill(url, self._folder)
        return url

    def repeat(self, full: str, messages: int, number: int) -> None:
        """Measure everything once, on the full database and on one that is empty at the beginning."""
        new = [self._crowd.stored_message(cluster) for cluster in self._take_new(messages)]
        known = self._crowd.spread(messages, number)
        stored = [self._crowd.stored_message(cluster) for cluster in known]
        changed = [self._crowd.changed_message(cluster, number + 1) for cluster in known]
        empty = self._make_database()
        try:
            # what comes first has to warm up the broker for the other
            urls = (full, empty) if number % 2 == 0 else (empty, full)
            self._compare_starts(urls, full)
            self._compare("new clusters", self._topic_of(new), urls, full)
            self._consume(empty, self._topic_of(stored))
            self._compare("changed text", self._topic_of(changed), urls, full)
        finally:
            self._server.drop_database(empty)

    def read(self, full: str) -> None:
        """Measure the API once."""
        cluster = self._crowd.cluster(self._crowd.size // 2)
        report = f"organizations/{cluster.org_id}/clusters/{cluster.cluster_id}/users/1/report"
        paths = {"report": report, "report/info": f"{report}/info"}
        paths["clusters"] = f"organizations/{cluster.org_id}/clusters"
        with self._services.api(full) as (_, port):
            for name, path in paths.items():
                (rate,) = run_at_once("benchmarks.http_load", [[str(port), PREFIX + path]], _READ_SECONDS)
                self.figures.add("API, full database", name, "requests/s", rate)

    def explain_consumer(self, full: str) -> Path:
        """Let the consumer store messages of every kind, one a batch and many; return the file with the plans."""
        file = self._folder / "consumer.plans"
        for days, (batch, of_a_kind) in enumerate(((1, 2), (1000, _EXPLAINED_OF_A_KIND)), _LATER_DAYS):
            new = self._take_new(of_a_kind)
            with connected(full) as connection:
                messages = messages_of_every_kind(self._crowd, connection, new, days)
            topic = self._topic_of(messages)
            self._consume(full, topic, ["benchmarks.explained", str(file)], {"CONSUMER__MAX_BATCH": str(batch)})
        return file

    def explain_api(self, full: str) -> Path:
        """Ask the API every question that leads to a statement; return the file with the plans."""
        file = self._folder / "api.plans"
        for auth in ("none", "xrh"):
            with self._services.api(full, {"API__AUTH": auth}, ["benchmarks.explained", str(file)]) as (_, port):
                for number in self._crowd.spread(_ASKED, 1):
                    for question in questions(self._crowd, number):
                        ask(port, question)
        return file

    def _compare_starts(self, urls: Sequence[str], full: str) -> None:
        """Start with one message waiting, several times: most of it is waiting for others, which is never alike."""
        group = "start to first message stored"
        for _ in range(_STARTS):
            topic = self._topic_of([self._crowd.stored_message(*self._take_new(1))])
            seconds = {_name(url, full): self._consume(url, topic).first_seconds for url in urls}
            for name, found in seconds.items():
                self.figures.add(group, name, "s", found)
            self.figures.add_ratio(group, _RATIO, seconds[_FULL], seconds[_EMPTY])

    def _compare(self, group: str, topic: str, urls: Sequence[str], full: str) -> None:
        runs = {_name(url, full): self._consume(url, topic) for url in urls}
        for name, run in runs.items():
            self.figures.add(group, name, "messages/s", run.rate)
            self.figures.add(group, f"{name}, peak memory", "MB", run.peak_megabytes)
            self.figures.add(group, f"{name}, write-ahead log", "kB/message", run.log_kilobytes)
        self.figures.add_ratio(group, _RATIO, runs[_FULL].rate, runs[_EMPTY].rate)
        self.figures.add_ratio(group, f"{_RATIO}, peak memory", runs[_FULL].peak_megabytes, runs[_EMPTY].peak_megabytes)

    def _take_new(self, count: int) -> range:
        """Return the numbers of clusters that no database has."""
        taken = range(self._next_new, self._next_new + count)
        self._next_new = taken.stop
        return taken

    def _topic_of(self, messages: Sequence[bytes]) -> str:
        topic = self._broker.create_topic(fresh_name(str(len(messages))))
        produce(self._broker, topic, messages)
        return topic

    def _make_database(self) -> str:
        url = self._server.create_database()
        self._services.migrate(url)
        return url

    def _consume(
        self, url: str, topic: str, launcher: Sequence[str] = (), settings: dict[str, str] | None = None
    ) -> Run:
        """Store all messages of a topic, whose number is the first part of its name."""
        messages = int(topic.partition("-")[0])
        settle(self._server)
        logged = _logged_bytes(url)
        began = time.time()
        with self._services.consumers(url, self._broker.bootstrap, topic, settings=settings, launcher=launcher) as (
            consumer,
        ):
            wait_until_handled([consumer], messages)
            use = use_of(consumer.process.pid)
        (fetched,), stored = consumer.times_of("partitions assigned"), consumer.times_of("batch done")
        return Run(
            rate=messages / (stored[-1] - fetched),
            first_seconds=stored[0] - began,
            peak_megabytes=use.peak_megabytes,
            log_kilobytes=(_logged_bytes(url) - logged) / messages / 1000,
        )


def _name(url: str, full: str) -> str:
    return _FULL if url == full else _EMPTY


def _scans_of(url: str) -> dict[str, int]:
    """Return how often each table was read from end to end, since the database was made."""
    with connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(_SCANS)
        return dict(cursor.fetchall())


def _logged_bytes(url: str) -> int:
    """Return how much the server has ever written to its write-ahead log."""
    with connected(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")
        ((found,),) = cursor.fetchall()
        return int(found)


def _big_tables(url: str) -> set[str]:
    with connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(_TABLE_ROWS)
        return {table for table, rows in cursor.fetchall() if rows >= _BIG_TABLE_ROWS}


def _print_sizes(url: str) -> list[tuple[Any, ...]]:
    with connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(_TABLE_SIZES)
        sizes = [(table, rows, float(size), float(indexes)) for table, rows, size, indexes in cursor.fetchall()]
    click.echo(f"{'table':<36} {'rows':>10} {'MB':>8} {'indexes, MB':>12}")
    for table, rows, size, indexes in sizes:
        click.echo(f"{table:<36} {rows:>10,} {size:>8,.0f} {indexes:>12,.0f}")
    return sizes


def _print_plans(who: str, plans: Sequence[Explained]) -> None:
    click.echo(f"\n{who}: statements, and their plans with times executed, longest time and most pages")
    statement = None
    for entry in plans:
        if entry.statement != statement:
            statement = entry.statement
            click.echo(f"\n{statement[:_SHOWN_CHARACTERS]}")
        found = f" SCANS {', '.join(sorted(entry.scanned))}" if entry.scanned else ""
        numbers = f"{entry.times} x, {entry.slowest_milliseconds:.2f} ms, {entry.most_pages} pages"
        click.echo(
            f"    {numbers}:{found} {entry.plan[:_SHOWN_CHARACTERS]}"
            if entry.plan
            else f"    {entry.times} x, has no plan"
        )


@click.command()
@click.option("--clusters", default=1_000_000, show_default=True, help="How many clusters are stored.")
@click.option("--messages", default=5000, show_default=True, help="How many messages are measured.")
@click.option("--repeats", default=3, show_default=True, help="How often each part is measured.")
@click.option("--postgresql", "url", help="URL of a running server to use; its user must be allowed to make databases.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="File to write the figures to.")
def main(clusters: int, messages: int, repeats: int, url: str | None, file: Path | None) -> None:
    """Print how a full database compares with an empty one, and the plan of every statement.

    Exit status 1 if one of them reads a big table from end to end.
    """
    with tempfile.TemporaryDirectory() as folder, running_kafka() as broker, running_postgresql(url) as server:
        scale = Scale(broker, server, Crowd(clusters), Path(folder))
        timed = _Timed()
        full = scale.fill()
        try:
            timed.note(f"filled with {clusters:,} clusters")
            sizes = _print_sizes(full)
            big_tables, before = _big_tables(full), _scans_of(full)
            for number in range(repeats):
                scale.repeat(full, messages, number)
                scale.read(full)
                timed.note(f"repeat {number + 1} of {repeats}")
            after = _scans_of(full)
            plans = {
                # before clusters get other organizations than their numbers say
                "API": read_plans(scale.explain_api(full), big_tables),
                "consumer": read_plans(scale.explain_consumer(full), big_tables),
            }
            timed.note("explained")
        finally:
            server.drop_database(full)
    for who, entries in plans.items():
        _print_plans(who, entries)
    scale.figures.print(click.echo)
    scanned = {table for table in big_tables if after.get(table, 0) > before.get(table, 0)}
    scanned |= {table for entries in plans.values() for entry in entries for table in entry.scanned}
    if file:
        explained = {
            who: [{**asdict(entry), "scanned": sorted(entry.scanned)} for entry in entries]
            for who, entries in plans.items()
        }
        scale.figures.save(file, {"clusters": clusters, "messages": messages, "tables": sizes, "statements": explained})
    if scanned:
        raise click.ClickException(f"read from end to end: {', '.join(sorted(scanned))}")


class _Timed:
    """Tells how long each part took."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def note(self, part: str) -> None:
        """Tell that a part ended and the next one begins."""
        ended = time.monotonic()
        click.echo(f"{part}: {ended - self._began:.0f} s", err=True)
        self._began = ended


if __name__ == "__main__":
    main()
