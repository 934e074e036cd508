"""What an adoption costs: times, sizes, locks, and how long a reader and a writer wait while it goes on.

A database of an existing deployment, made by the server itself, on PostgreSQL; the reader and the writer use the
statements of the old service. `python -m benchmarks.adoption --help`.
"""

import json
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class with a name in lower case

from benchmarks.parts import connected, running_postgresql, settle
from libaggregator.storage.models import WIDENED
from libaggregator.storage.schema import migrate
from libaggregator.storage.session import Session
from tests.support.databases import open_database
from tests.support.existing import INSERTS_OF_OLD_SERVICE, digests, load_existing

_LOOK_SECONDS = 0.01
_REPORT_BYTES = 2048
_NEW_ORGANIZATIONS = (5, 9)  # below those of the crowd

_READ = """
    SELECT report.report, rule_hit.template_data FROM report
    JOIN rule_hit ON rule_hit.cluster_id = report.cluster AND rule_hit.org_id = report.org_id
    WHERE report.cluster = %s
"""
_READ_ORGANIZATION = "SELECT cluster_id, rule_id FROM recommendation WHERE org_id = %s LIMIT 100"
_EXCLUSIVE = """
    SELECT relname FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE mode = 'AccessExclusiveLock' AND granted AND relname = ANY (%s)
"""
_SIZES = """
    SELECT relname, pg_table_size(oid) / 1e6, pg_indexes_size(oid) / 1e6 FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_table_size(oid) > 100000
    ORDER BY pg_total_relation_size(oid) DESC
"""
_REMOVE_NEW = """
    DELETE FROM report WHERE org_id = ANY (%(numbers)s);
    DELETE FROM rule_hit WHERE org_id = ANY (%(numbers)s);
    DELETE FROM recommendation WHERE org_id = ANY (%(numbers)s);
    DELETE FROM report_info WHERE org_id = ANY (%(numbers)s);
    DELETE FROM cluster_rule_toggle WHERE org_id = ANY (%(texts)s)
"""
_LOGGED = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"


@dataclass(slots=True)
class Step:
    """One thing that `migrate` did, and the longest that others waited for one of their statements meanwhile."""

    line: str
    began: float
    seconds: float = 0.0
    longest_read: float = 0.0
    longest_write: float = 0.0


@dataclass(slots=True)
class Adoption:
    """What was seen of one run."""

    steps: list[Step] = field(default_factory=list)
    locked_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """The longest time that a table was locked for everybody, by table."""
    reads: int = 0
    writes: int = 0

    def begin(self, line: str) -> None:
        """Note that the next thing begins; lines that tell of an end begin nothing."""
        if not line.startswith("done: "):
            self.end()
            self.steps.append(Step(line, time.monotonic()))

    def end(self) -> None:
        """Note that the last thing is over."""
        if self.steps and not self.steps[-1].seconds:
            self.steps[-1].seconds = time.monotonic() - self.steps[-1].began

    def waited(self, began: float, *, write: bool) -> None:
        """Note a statement of somebody else that has just ended: each step has the part of it that it met."""
        ended = time.monotonic()
        if write:
            self.writes += 1
        else:
            self.reads += 1
        for step in self.steps:
            until = step.began + step.seconds if step.seconds else ended
            met = min(ended, until) - max(began, step.began)
            if write:
                step.longest_write = max(step.longest_write, met)
            else:
                step.longest_read = max(step.longest_read, met)


def _read(cursor: Cursor, clusters: int) -> None:
    cursor.execute("SELECT md5(%s)::uuid::text", (str(random.randint(1, clusters)),))  # noqa: S311
    cursor.execute(_READ, cursor.fetchone())
    cursor.fetchall()
    cursor.execute(_READ_ORGANIZATION, (random.randint(10, 1009),))  # noqa: S311
    cursor.fetchall()


def _write(cursor: Cursor, clusters: int) -> None:
    """Store a result of a cluster that is new, in one transaction as the old service does."""
    values = {"org_id": random.choice(_NEW_ORGANIZATIONS), "cluster": uuid.uuid4()}  # noqa: S311
    statements = [text for text in INSERTS_OF_OLD_SERVICE if "consumer_error" not in text]
    cursor.execute("BEGIN;" + ";".join(statements).format(**values) + ";COMMIT")


@contextmanager
def _at_work(
    url: str, clusters: int, adoption: Adoption, do: Callable[[Cursor, int], None], *, write: bool
) -> Iterator[None]:
    """Have somebody work for the block, without a pause."""
    over = threading.Event()

    def work() -> None:
        with connected(url) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            while not over.is_set():
                began = time.monotonic()
                do(cursor, clusters)
                adoption.waited(began, write=write)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


@contextmanager
def _locks_watched(url: str, adoption: Adoption) -> Iterator[None]:
    """Note for the block how long each table is locked for everybody."""
    over = threading.Event()

    def watch() -> None:
        since: dict[str, float] = {}
        with connected(url) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            while not over.wait(_LOOK_SECONDS):
                cursor.execute(_EXCLUSIVE, (list(WIDENED),))
                locked, now = {table for (table,) in cursor.fetchall()}, time.monotonic()
                since = {table: since.get(table, now) for table in locked}
                for table, began in since.items():
                    adoption.locked_seconds[table] = max(adoption.locked_seconds[table], now - began)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _adopt(url: str, clusters: int) -> Adoption:
    adoption = Adoption()
    database = open_database(url)
    with (
        _at_work(url, clusters, adoption, _read, write=False),
        _at_work(url, clusters, adoption, _write, write=True),
        _locks_watched(url, adoption),
    ):
        adoption.begin("looking at the database")
        migrate(database, session=Session(database, adoption.begin))
        adoption.end()
    database.close()
    return adoption


def _sizes(url: str) -> dict[str, tuple[float, float]]:
    with connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(_SIZES)
        return {table: (float(size), float(indexes)) for table, size, indexes in cursor.fetchall()}


def _logged_bytes(url: str) -> int:
    with connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(_LOGGED)
        ((found,),) = cursor.fetchall()
        return int(found)


def _print(
    adoption: Adoption, before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]], logged: int
) -> None:
    click.echo(f"\n{'step':<100} {'s':>7} {'longest read, s':>16} {'longest write, s':>17}")
    for step in adoption.steps:
        waits = f"{step.longest_read:>16.2f} {step.longest_write:>17.2f}"
        click.echo(f"{step.line[:100]:<100} {step.seconds:>7.1f} {waits}")
    total = sum(step.seconds for step in adoption.steps)
    click.echo(
        f"all: {total:.1f} s, {adoption.reads:,} reads, {adoption.writes:,} writes, {logged / 1e6:,.0f} MB of log"
    )
    click.echo(f"\n{'table':<36} {'MB before':>10} {'after':>7} {'indexes before':>15} {'after':>7} {'locked, s':>10}")
    for table, (size, indexes) in before.items():
        new, new_indexes = after[table]
        locked = f"{adoption.locked_seconds[table]:>10.2f}" if table in WIDENED else ""
        click.echo(f"{table:<36} {size:>10,.0f} {new:>7,.0f} {indexes:>15,.0f} {new_indexes:>7,.0f} {locked}")


@click.command()
@click.option("--clusters", default=1_000_000, show_default=True, help="How many clusters are stored.")
@click.option("--hits", default=5, show_default=True, help="How many rules hit each of them.")
@click.option("--postgresql", "url", help="URL of a running server to use; its user must be allowed to make databases.")
@click.option("--check", is_flag=True, help="Compare all rows afterwards, which takes longer.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="File to write the figures to.")
def main(clusters: int, hits: int, url: str | None, check: bool, file: Path | None) -> None:
    """Adopt a database of an existing deployment while others use it, and print what it took."""
    with running_postgresql(url) as server, server.database() as existing:
        began = time.monotonic()
        load_existing(existing, clusters, hits=hits, report_bytes=_REPORT_BYTES)
        with connected(existing) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute("VACUUM (ANALYZE)")
        settle(server)
        click.echo(f"filled with {clusters:,} clusters: {time.monotonic() - began:.0f} s", err=True)
        before, rows, logged = _sizes(existing), digests(existing) if check else {}, _logged_bytes(existing)
        adoption = _adopt(existing, clusters)
        logged = _logged_bytes(existing) - logged
        after = _sizes(existing)
        if check:
            _remove_new_rows(existing)
            if digests(existing) != rows:
                raise click.ClickException("rows are not what they were")
        _print(adoption, before, after, logged)
    if file:
        figures = {"clusters": clusters, "hits": hits, "before": before, "after": after, "logged_bytes": logged}
        file.write_text(json.dumps({**figures, **asdict(adoption)}, indent=2) + "\n", encoding="utf-8")


def _remove_new_rows(url: str) -> None:
    """Take away what the writer stored meanwhile, so that what was there before can be compared."""
    with connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(_REMOVE_NEW, {"numbers": list(_NEW_ORGANIZATIONS), "texts": [*map(str, _NEW_ORGANIZATIONS)]})
        connection.commit()


if __name__ == "__main__":
    main()
