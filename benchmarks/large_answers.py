"""How much memory the API takes for large answers, beside the answers themselves.

Real processes, PostgreSQL. `python -m benchmarks.large_answers --help`.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click

from benchmarks.figures import Figures
from benchmarks.parts import connected, running_postgresql, use_of
from benchmarks.services import Question, Services, ask
from examples.demo.generator import Fleet
from tests.support.postgresql import ExternalPostgresql

CLUSTERS = 50_000
LISTED = 1000
SERVERS = ("waitress", "granian")

_ORG_ID = 1
_ASKED = 10
_FILL_UP = """
    INSERT INTO report (org_id, cluster, report, reported_at, last_checked_at, gathered_at, kafka_offset)
    SELECT %s, md5(number::text)::uuid::text, '{}', now(), now(), now(), 0 FROM generate_series(1, %s) AS number
"""


def fill_up(url: str, org_id: int, clusters: int) -> None:
    """Give an organization so many clusters more, without a hit, in a PostgreSQL database."""
    with connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(_FILL_UP, (org_id, clusters))
        connection.commit()


class LargeAnswers:
    """Asks for all clusters of a large organization, and for the reports of many clusters."""

    def __init__(self, figures: Figures, folder: Path) -> None:
        """Note the figures there; logs and messages go into `folder`."""
        self._figures = figures
        self._services = Services(folder)
        fleet = Fleet(1, 1, LISTED)
        self._messages = list(fleet.messages(LISTED, datetime(2026, 5, 1)))
        self._listed = [cluster.cluster_id for cluster in fleet.clusters]

    @contextmanager
    def database(self, server: ExternalPostgresql) -> Iterator[str]:
        """Yield the URL of a database with one large organization."""
        with server.database() as url:
            self._services.migrate(url)
            self._services.store_file(url, self._messages)
            fill_up(url, _ORG_ID, CLUSTERS - LISTED)
            yield url

    def repeat(self, url: str) -> None:
        """Measure each answer on each server once."""
        clusters = f"organizations/{_ORG_ID}/clusters"
        listed = json.dumps({"clusters": self._listed}).encode()
        questions = {
            f"clusters of an organization with {CLUSTERS:,}": Question(clusters),
            f"reports of {LISTED:,} clusters": Question(f"{clusters}/reports", "POST", listed),
        }
        for server in SERVERS:
            for name, question in questions.items():
                with self._services.api(url, {"API__SERVER": server}) as (process, port):
                    before = use_of(process.pid).peak_megabytes
                    sizes = [len(ask(port, question)) for _ in range(_ASKED)]
                    grown = use_of(process.pid).peak_megabytes - before
                self._figures.add(f"memory, {server}", name, "MB of answer", sizes[0] / 1e6)
                self._figures.add(f"memory, {server}", f"{name}: process grew by", "MB", grown)


@click.command()
@click.option("--repeats", default=3, show_default=True, help="How often each part is measured.")
def main(repeats: int) -> None:
    """Print by how much the API grows while it gives the same large answer again and again."""
    figures = Figures()
    with tempfile.TemporaryDirectory() as name, running_postgresql(None) as server:
        answers = LargeAnswers(figures, Path(name))
        with answers.database(server) as url:
            for _ in range(repeats):
                answers.repeat(url)
    figures.print(click.echo)


if __name__ == "__main__":
    main()
