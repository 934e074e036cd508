"""How fast the API answers, on each server, beside the trivial `info` and a bare SELECT of the same rows.

Real processes, PostgreSQL and SQLite. `python -m benchmarks.reads --help`.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click

from benchmarks.figures import Figures
from benchmarks.parts import run_at_once, running_postgresql
from benchmarks.services import Services, Version, versions_of
from examples.demo.generator import Cluster, Fleet
from tests.support.deployment import PREFIX

CLUSTERS_OF_AN_ORGANIZATION = 100
HITS = 10


@dataclass(frozen=True, slots=True)
class Setup:
    """A server and how many processes of it answer."""

    server: str
    workers: int

    @property
    def name(self) -> str:
        """How it is called in the table."""
        return f"{self.server}, {self.workers} worker{'s' if self.workers > 1 else ''}"


SETUPS = (Setup("waitress", 1), Setup("waitress", 2), Setup("granian", 1), Setup("granian", 2))
BARE = ("report", "report/info", "clusters")


class Reads:
    """Measures versions of the API in turn, on databases that the consumer has filled."""

    def __init__(
        self, figures: Figures, versions: Sequence[Version], folder: Path, clusters: int, seconds: float
    ) -> None:
        """Note the figures there; logs and messages go into `folder`, each question is asked for so many seconds."""
        fleet = Fleet(1, max(1, clusters // CLUSTERS_OF_AN_ORGANIZATION), clusters)
        self.figures = figures
        self._versions = versions
        self._folder = folder
        self._seconds = seconds
        self._cluster = min(fleet.clusters, key=lambda cluster: abs(len(cluster.rules) - HITS))
        self._messages = list(fleet.messages(clusters, datetime(2026, 5, 1)))

    def fill(self, url: str) -> None:
        """Make the schema and store a message of each cluster."""
        services = Services(self._folder)
        services.migrate(url)
        services.store_file(url, self._messages)

    def repeat(self, group: str, url: str, setups: Sequence[Setup] = SETUPS) -> None:
        """Measure each question on each server once."""
        for setup in setups:
            name = f"{group}, {setup.name}"
            for version in self._versions:
                self._measure(version, name + version.mark, url, setup)
            if url.startswith("postgresql"):
                self._measure_bare_selects(name + self._versions[-1].mark, url, setup.workers)

    def _measure(self, version: Version, name: str, url: str, setup: Setup) -> None:
        settings = {"API__SERVER": setup.server, "API__WORKERS": str(setup.workers)}
        with Services(self._folder, version).api(url, settings) as (_, port):
            rates = {question: self._rate(port, path) for question, path in self._paths(self._cluster).items()}
        for question, rate in rates.items():
            self.figures.add(name, question, "requests/s", rate)
        self.figures.add_ratio(name, "report / info", rates["report"], rates["info"])

    def _measure_bare_selects(self, name: str, url: str, processes: int) -> None:
        for question in BARE:
            arguments = [url, question, str(self._cluster.org_id), self._cluster.cluster_id]
            rate = sum(run_at_once("benchmarks.bare_select", [arguments] * processes, self._seconds))
            self.figures.add(name, f"{question}: bare SELECT", "reads/s", rate)
            self.figures.add_ratio(name, f"{question} / bare SELECT", self.figures.last(name, question), rate)

    def _rate(self, port: int, path: str) -> float:
        # what is opened and prepared at the first request is not measured
        for seconds in (self._seconds / 4, self._seconds):
            (rate,) = run_at_once("benchmarks.http_load", [[str(port), PREFIX + path]], seconds)
        return rate

    @staticmethod
    def _paths(cluster: Cluster) -> dict[str, str]:
        report = f"organizations/{cluster.org_id}/clusters/{cluster.cluster_id}/users/1/report"
        return {
            "info": "info",
            "report": report,
            "report/info": f"{report}/info",
            "clusters": f"organizations/{cluster.org_id}/clusters",
        }


@click.command()
@click.option("--clusters", default=2000, show_default=True, help="How many clusters are stored.")
@click.option("--seconds", default=2.0, show_default=True, help="How long each question is asked.")
@click.option("--repeats", default=3, show_default=True, help="How often each part is measured.")
@click.option("--postgresql", "url", help="URL of a running server to use; its user must be allowed to make databases.")
@click.option("--base", type=click.Path(path_type=Path), help="Folder with another version to measure beside this one.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="File to write the figures to.")
def main(clusters: int, seconds: float, repeats: int, url: str | None, base: Path | None, file: Path | None) -> None:
    """Print requests a second of four questions on each server, beside a bare SELECT."""
    with tempfile.TemporaryDirectory() as name, running_postgresql(url) as server:
        folder = Path(name)
        reads = Reads(Figures(), versions_of(base), folder, clusters, seconds)
        urls = {"PostgreSQL": server.create_database(), "SQLite": f"sqlite:///{folder}/aggregator.db"}
        for database_url in urls.values():
            reads.fill(database_url)
        for number in range(repeats):
            click.echo(f"repeat {number + 1} of {repeats}", err=True)
            for group, database_url in urls.items():
                reads.repeat(group, database_url)
        server.drop_database(urls["PostgreSQL"])
    reads.figures.print(click.echo)
    if file:
        reads.figures.save(file, {"clusters": clusters, "seconds": seconds})


if __name__ == "__main__":
    main()
