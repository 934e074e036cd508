"""The source of `examples/folder_source`, installed as a distribution of its own, and what happens to bad ones."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent, indent

import pytest

from consumer_service.settings import ConsumerProcessSettings
from consumer_service.sources import DeadLetter, MessageSource, Record, SourceUnavailable
from consumer_service.sources.conformance import SourceConformance, SourceHarness, read
from consumer_service.sources.loading import find_source
from libaggregator.settings import FreeSection, load
from tests.support.commands import CLI
from tests.support.databases import migrate_database, open_database, sqlite_url_in
from tests.support.messages import CLUSTERS, payload
from tests.support.processes import REPOSITORY, Process, Processes
from tests.support.waiting import eventually

BAD = """
import threading
from consumer_service.sources import Record

class Bad:
    interface_version = 1
    exhausted = False

    def __init__(self, settings): ...
    def nothing(self, *arguments): ...

    poll = keep_alive = commit = send_dead_letters = progress = problem = close = nothing
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder into which the example is installed, without the network."""
    # a build leaves files beside what it builds
    project = shutil.copytree(REPOSITORY / "examples" / "folder_source", tmp_path_factory.mktemp("source") / "project")
    folder = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
    command = [sys.executable, "-m", "pip", "install", *options, str(project)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


class FolderHarness(SourceHarness):
    """The source of the example, on a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plugin = {"folder": str(folder)}
        self._count = 0

    def fill(self, values: Iterable[bytes]) -> None:
        """Add a file for each payload."""
        for value in values:
            hidden = self.folder / ".new"
            hidden.write_bytes(value)
            hidden.rename(self.folder / f"{self._count:020}.json")
            self._count += 1

    def open(self) -> MessageSource:
        """Return a source as the process makes it."""
        settings = load(ConsumerProcessSettings, None, {}).settings
        return find_source("folder")(replace(settings, plugin=FreeSection(self.plugin)))


@pytest.fixture
def harness(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FolderHarness]:
    """Yield an empty folder."""
    monkeypatch.syspath_prepend(installed)
    importlib.invalidate_caches()
    folder = tmp_path / "folder"
    folder.mkdir()
    return FolderHarness(folder)


class TestFolderSource(SourceConformance):
    def test_a_folder_that_is_away_is_waited_for(self, harness: FolderHarness) -> None:
        away = harness.folder.with_name("away")
        source = harness.open()
        harness.folder.rename(away)

        with pytest.raises(SourceUnavailable, match="No such file"):
            source.poll(0, 1)
        away.rename(harness.folder)
        harness.fill([b"x"])

        assert len(read(source, 1)) == 1

    def test_rejected_messages_are_kept_with_their_headers(self, harness: FolderHarness, tmp_path: Path) -> None:
        rejected = tmp_path / "rejected"
        rejected.mkdir()
        harness.plugin["rejected"] = str(rejected)

        letter = DeadLetter(Record("t", 0, 7, None, b"x", (), None), "not_json", "position 1")

        harness.open().send_dead_letters([letter])

        assert (rejected / f"{7:020}.json").read_bytes() == b"x"
        assert b"aggregator-reason: not_json\n" in (rejected / f"{7:020}.headers").read_bytes()


def test_the_consumer_runs_on_a_source_that_is_installed_beside_it(
    installed: Path, harness: FolderHarness, tmp_path: Path, processes: Processes
) -> None:
    url = migrate_database(sqlite_url_in(tmp_path))
    harness.fill([payload(CLUSTERS[0]), b"no JSON", payload(CLUSTERS[1])])
    environment = {
        "PYTHONPATH": str(installed),
        "AGGREGATOR_DATABASE__URL": url,
        "AGGREGATOR_CONSUMER__ADMIN_PORT": "0",
        "AGGREGATOR_CONSUMER__SOURCE": "folder",
        "AGGREGATOR_PLUGIN__FOLDER": str(harness.folder),
    }
    consumer = processes.start("consumer", [*CLI, "run"], environment)

    eventually(lambda: not list(harness.folder.iterdir()), 30, "all files have their effect")

    assert consumer.stop() == 0, consumer.output
    database = open_database(url)
    tables = ("report", "consumer_error")
    counts = [database.execute_sql(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]
    database.close()
    assert counts == [2, 1]


@pytest.fixture
def start_bad(tmp_path: Path, processes: Processes) -> Callable[[str], Process]:
    """Return a function that starts a consumer on a source whose class has a body that is given as text."""

    def start(body: str) -> Process:
        folder = tmp_path / "installed"
        metadata = folder / "bad-1.5.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.5\n")
        (metadata / "entry_points.txt").write_text("[aggregator.sources]\nbad = bad_source:Bad\n")
        (folder / "bad_source.py").write_text(BAD + indent(dedent(body), "    "))
        environment = {
            "PYTHONPATH": str(folder),
            "AGGREGATOR_DATABASE__URL": migrate_database(sqlite_url_in(tmp_path)),
            "AGGREGATOR_CONSUMER__ADMIN_PORT": "0",
            "AGGREGATOR_CONSUMER__SOURCE": "bad",
        }
        return processes.start("consumer", [*CLI, "run"], environment)

    return start


@pytest.mark.long
def test_a_stop_is_heard_while_a_source_blocks_where_it_is_made(start_bad: Callable[[str], Process]) -> None:
    process = start_bad("""
        def __init__(self, settings):
            print("being made", flush=True)
            threading.Event().wait()
        """)
    process.wait_for_log("being made")

    assert process.stop() == 0, process.output
    assert "stopped while the source was still being made" in process.output


def test_a_source_that_returns_what_none_may_ends_the_process_with_one_line(
    start_bad: Callable[[str], Process],
) -> None:
    process = start_bad("""
        def poll(self, timeout, max_records):
            return [Record("a", 0, 2**70, None, b"no JSON", (), None)]
        """)

    assert process.wait_exit(30) == 1, process.output
    expected = "expected an integer from 0 to 9223372036854775807"
    assert process.output.splitlines()[-1] == (
        f"Error: source 'bad' of bad 1.5: poll returned a record with offset {2**70}, {expected}"
    )
    assert "Traceback" not in process.output


def test_a_start_with_a_setting_that_the_source_does_not_know_ends_with_one_line(
    installed: Path, tmp_path: Path, processes: Processes
) -> None:
    environment = {
        "PYTHONPATH": str(installed),
        "AGGREGATOR_DATABASE__URL": sqlite_url_in(tmp_path),
        "AGGREGATOR_CONSUMER__SOURCE": "folder",
        "AGGREGATOR_PLUGIN__FOLDR": "/x",
    }
    process = processes.start("consumer", [*CLI, "run"], environment)

    assert process.wait_exit(30) == 2
    assert process.output == "error: plugin.foldr: unknown setting\n"
