"""Everything that is fast to measure: ingest in three rounds, latency, reads, beside the bare limits.

`make bench`, and `make bench-compare BASE=<commit>` for two versions in turn.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from benchmarks.figures import Figures
from benchmarks.ingest import Ingest
from benchmarks.large_answers import LargeAnswers
from benchmarks.latency import Latency
from benchmarks.parts import running_kafka, running_postgresql
from benchmarks.reads import SETUPS, Reads
from benchmarks.rounds import make_rounds, shape_of
from benchmarks.services import versions_of
from tests.support.processes import REPOSITORY

READ_CLUSTERS = 2000
READ_SECONDS = 1.0
LATENCY_MESSAGES = 100


@click.command()
@click.option("--clusters", default=10_000, show_default=True, help="How many clusters are loaded.")
@click.option("--repeats", default=3, show_default=True, help="How often each part is measured.")
@click.option("--base", help="Commit to measure beside this version, each part in turn.")
@click.option("--json", "file", type=click.Path(path_type=Path), default=Path("bench.json"), show_default=True)
def main(clusters: int, repeats: int, base: str | None, file: Path) -> None:
    """Print a table with spread, and write it as JSON."""
    figures = Figures()
    rounds = make_rounds(clusters)
    with (
        tempfile.TemporaryDirectory() as name,
        _checked_out(base) as base_folder,
        running_kafka() as broker,
        running_postgresql(None) as server,
    ):
        folder, versions = Path(name), versions_of(base_folder)
        ingest = Ingest(figures, broker, versions, rounds, folder)
        reads = Reads(figures, versions, folder, READ_CLUSTERS, READ_SECONDS)
        latency = Latency(figures, folder)
        answers = LargeAnswers(figures, folder)
        ingest.fill_topics()
        read_urls = {"PostgreSQL": server.create_database(), "SQLite": f"sqlite:///{folder}/reads.db"}
        for url in read_urls.values():
            reads.fill(url)
        for number in range(repeats):
            click.echo(f"repeat {number + 1} of {repeats}", err=True)
            ingest.repeat_on_postgresql(server)
            ingest.repeat_with_two_processes(server)
            ingest.repeat_on_sqlite()
            latency.repeat("Apache Kafka, PostgreSQL", broker.bootstrap, server.create_database(), LATENCY_MESSAGES)
            reads.repeat("PostgreSQL", read_urls["PostgreSQL"])
            reads.repeat("SQLite", read_urls["SQLite"], SETUPS[::2])
            with answers.database(server) as url:
                answers.repeat(url)
    figures.print(click.echo)
    figures.save(file, {"clusters": clusters, "messages": shape_of(rounds.first), "base": base})


@contextmanager
def _checked_out(commit: str | None) -> Iterator[Path | None]:
    """Yield a folder with the sources of a commit, None for None."""
    if commit is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "base"
        _git("worktree", "add", "--detach", str(folder), commit)
        try:
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> None:
    if subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, check=False).returncode:
        raise click.ClickException(f"git {' '.join(arguments)} failed")


if __name__ == "__main__":
    main()
