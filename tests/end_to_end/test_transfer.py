"""`aggregator-consumer export` and `import` as an operator runs them: real processes, killed, stopped, out of space."""

import gzip
import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from consumer_service.cli import main
from consumer_service.commands import export, import_
from consumer_service.transfer import line_writer
from examples.demo.ports import free_port
from tests.support.commands import CLI
from tests.support.databases import emptied, migrate_database, open_database, sqlite_url_in
from tests.support.exports import Rows, export_of, fill
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import REPOSITORY, Process, Processes
from tests.support.tables import Tables, read_tables
from tests.support.waiting import eventually

FAULTY = [sys.executable, "-m", "tests.support.faulty_transfer"]
PASSWORD = "s3cr3t"
AT = "2026-05-01 08:00:00"

Run = Callable[..., Process]


def cluster(number: int) -> str:
    return f"{number:08d}-0000-4000-8000-000000000000"


def rows_of(clusters: int, text: str = "{}") -> Rows:
    """Return rows of clusters with two hits each, and a vote."""
    ids = [cluster(number) for number in range(clusters)]
    return {
        "rule_hit": [(1, name, rule, "K", text, AT) for name in ids for rule in ("a", "b")],
        "recommendation": [(1, name, rule, "K", f"{rule}|K", AT, AT) for name in ids for rule in ("a", "b")],
        "report_info": [(1, name, "4.16.1") for name in ids],
        "report": [(1, name, text, AT, AT, 0, None) for name in ids],
        "cluster_rule_user_feedback": [(name, "a", "user", "", 1, AT, AT, "K", "1") for name in ids],
    }


ROWS = rows_of(60)


def noise(seed: int) -> str:
    """Return text that can't be compressed much."""
    return random.Random(seed).randbytes(400).hex()


@pytest.fixture
def run(processes: Processes) -> Run:
    """Return a function that starts a command for a database."""

    def start(url: str, *command: str, program: list[str] = CLI, **environment: str) -> Process:
        return processes.start(command[0], [*program, *command], {"AGGREGATOR_DATABASE__URL": url, **environment})

    return start


@pytest.fixture(scope="module")
def migrated(module_database_url: str) -> str:
    return migrate_database(module_database_url)


@pytest.fixture
def empty(migrated: str) -> str:
    """Return the URL of a migrated database without rows, on each engine in turn."""
    return emptied(migrated)


def filled(url: str, rows: Rows) -> str:
    """Make the schema in a database if it has none, put rows into it, and return its URL."""
    database = open_database(migrate_database(url))
    fill(database, rows)
    database.close()
    return url


def assert_holds(url: str, rows: Rows) -> None:
    found = tables_of(url)
    assert {table: len(found[table]) for table in rows} == {table: len(of_it) for table, of_it in rows.items()}
    for table, of_it in rows.items():
        as_text = [tuple(str(value) if isinstance(value, datetime) else value for value in row) for row in found[table]]
        assert sorted(as_text, key=repr) == sorted(of_it, key=repr)


@pytest.fixture(scope="module")
def in_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an export with small blocks, which are written one after another."""
    file = tmp_path_factory.mktemp("exports") / "blocks.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_writer, "_BLOCK_ROWS", 50)
        file.write_bytes(export_of(ROWS))
    return file


def tables_of(url: str) -> Tables:
    database = open_database(url)
    try:
        return read_tables(database)
    finally:
        database.close()


def assert_ended(process: Process, status: int, *said: str) -> None:
    assert process.wait_exit(60) == status, process.output
    assert "Traceback" not in process.output
    assert PASSWORD not in process.output
    for text in said:
        assert text in process.output


def counts_in(process: Process) -> dict[str, list[int]]:
    lines = [line.split() for line in process.output.splitlines()]
    return {words[0]: [int(word) for word in words[1:]] for words in lines if len(words) > 1 and words[1].isdigit()}


def test_what_was_exported_is_imported_through_a_pipe(run: Run, tmp_path: Path) -> None:
    source = migrate_database(sqlite_url_in(tmp_path))
    (tmp_path / "other").mkdir()
    target = migrate_database(sqlite_url_in(tmp_path / "other"))
    file = tmp_path / "made.jsonl"
    file.write_bytes(export_of(rows_of(20)))
    assert_ended(run(source, "import", str(file)), 0)
    environment = [f"AGGREGATOR_DATABASE__URL={source}", *CLI, "export", "-"]
    pipe = f"env {' '.join(environment)} | gzip | env AGGREGATOR_DATABASE__URL={target} {' '.join(CLI)} import -"
    subprocess.run(["bash", "-o", "pipefail", "-c", pipe], check=True, capture_output=True, cwd=REPOSITORY)
    assert tables_of(target) == tables_of(source)


class TestRefusals:
    @pytest.fixture
    def in_this_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let commands leave signals and logs of this process as they are."""
        for module in (export, import_):
            monkeypatch.setattr(module, "on_first_signal", lambda stop: lambda: None)
            monkeypatch.setattr(module.logs, "configure", lambda settings: None)

    def test_each_has_its_exit_status_and_one_line(self, in_this_process: None, tmp_path: Path) -> None:
        url = migrate_database(sqlite_url_in(tmp_path))
        away = f"postgresql://u:{PASSWORD}@127.0.0.1:{free_port()}/x"
        good, cut, newer = tmp_path / "good.jsonl", tmp_path / "cut.jsonl", tmp_path / "newer.jsonl"
        good.write_bytes(export_of(rows_of(1)))
        cut.write_bytes(export_of(rows_of(1))[:-40])
        flipped, nested = tmp_path / "flipped.jsonl.gz", tmp_path / "nested.jsonl"
        beginning = b"".join(export_of(rows_of(1)).splitlines(keepends=True)[:2])
        flipped.write_bytes(gzip.compress(export_of(rows_of(1)).replace(b'"K"', b'"\xff"', 1)))
        nested.write_bytes(beginning + b"[" * 100_000 + b"\n")
        newer.write_text(json.dumps({"format": "insights-results-aggregator-export", "format_version": 2}) + "\n")
        for at, command, file, status, said in (
            (url, "import", cut, 2, f"error: {cut}: line 24: the file ends within a line: it was cut"),
            (url, "import", newer, 2, f"error: {newer}: line 1: made by a newer version of this program"),
            (url, "import", flipped, 2, f"error: {flipped}: line 3: table rule_hit: 'utf-8' codec can't decode"),
            (url, "import", nested, 2, f"error: {nested}: line 3: table rule_hit: "),
            (url, "import", tmp_path / "none", 1, "none can't be read: No such file or directory"),
            (url, "export", good, 2, "is there already, --force replaces it"),
            (url, "export", tmp_path / "none" / "x.jsonl", 1, "can't be written: No such file or directory"),
            (away, "export", tmp_path / "x.jsonl", 1, "Error: the database does not do it: "),
            (away, "import", good, 1, "Error: the database does not do it: "),
            (sqlite_url_in(tmp_path / "x"), "import", good, 2, "aggregator-consumer migrate"),
            ("mysql://u:p@h/x", "import", good, 2, "error: database.url: expected sqlite"),
        ):
            result = CliRunner().invoke(main, [command, str(file)], env={"AGGREGATOR_DATABASE__URL": at})
            assert (result.exit_code, said in result.output) == (status, True), result.output
            assert len(result.output.splitlines()) == 1, result.output
            assert PASSWORD not in result.output
        assert tables_of(url)["report"] == []

    def test_at_a_row_that_would_be_refused_again_the_same_file_is_not_advised(
        self, in_this_process: None, tmp_path: Path
    ) -> None:
        url, file = migrate_database(sqlite_url_in(tmp_path)), tmp_path / "good.jsonl"
        file.write_bytes(export_of(rows_of(1)))
        database = open_database(url)
        database.execute_sql("CREATE TRIGGER t BEFORE INSERT ON report_info BEGIN SELECT RAISE(ABORT, 'no'); END")
        database.close()
        result = CliRunner().invoke(main, ["import", str(file)], env={"AGGREGATOR_DATABASE__URL": url})
        assert result.exit_code == 1
        assert result.output.splitlines()[-1] == (
            f"Error: {file}: line 11: table report_info: the database refuses it: no; what was written stays,"
            " mend the row where it was exported, and give --merge a new export"
        )

    @pytest.mark.long
    @pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.jsonl.zst"])
    def test_a_full_disk_leaves_nothing(self, run: Run, tmp_path: Path, name: str) -> None:
        url = filled(
            sqlite_url_in(tmp_path), {"report": [(1, cluster(n), noise(n), AT, AT, 0, None) for n in range(300)]}
        )
        folder = tmp_path / "exports"
        folder.mkdir()
        limited = ["prlimit", "--fsize=40000", *CLI]
        assert_ended(run(url, "export", str(folder / name), program=limited), 1, "can't be written: File too large")
        assert list(folder.iterdir()) == []

    @pytest.mark.long
    def test_standard_output_that_is_full_or_closed_is_told(self, run: Run, tmp_path: Path) -> None:
        url = migrate_database(sqlite_url_in(tmp_path))
        for output in ("> /dev/full", "| false"):
            shell = ["bash", "-o", "pipefail", "-c", f'"$@" {output}', "bash", *CLI]
            assert_ended(run(url, "export", "-", program=shell), 1, "Error: standard output can't be written: ")


@pytest.mark.long
@pytest.mark.faults
class TestSignals:
    def test_an_import_that_was_killed_anywhere_goes_on(self, run: Run, empty: str, in_blocks: Path) -> None:
        for step in (2, 14, 21):
            process = run(empty, "import", str(in_blocks), "--merge", program=FAULTY, TESTS_TRANSFER_AT=str(step))
            assert_ended(process, -signal.SIGKILL)
        assert 0 < sum(map(len, tables_of(empty).values())) < 60 * 7
        assert_ended(run(empty, "import", str(in_blocks), "--merge"), 0)
        assert_holds(empty, ROWS)

    def test_an_import_that_is_stopped_says_how_to_go_on(self, run: Run, empty: str, in_blocks: Path) -> None:
        number = signal.SIGINT if empty.startswith("sqlite") else signal.SIGTERM
        faults = {"TESTS_TRANSFER_AT": "8", "TESTS_TRANSFER_SIGNAL": str(int(number))}
        process = run(empty, "import", str(in_blocks), program=FAULTY, **faults)
        assert_ended(process, 128 + number, "what was written stays, --merge goes on with the same file")
        assert counts_in(process)["rule_hit"] == [120, 0]
        assert len(tables_of(empty)["rule_hit"]) == 120

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_of_an_export_that_ends_early_there_is_no_file_under_its_name(
        self, run: Run, empty: str, tmp_path: Path, number: int
    ) -> None:
        filled(empty, ROWS)
        target = tmp_path / "broken.jsonl.zst"
        faults = {"TESTS_TRANSFER_AT": "4", "TESTS_TRANSFER_SIGNAL": str(int(number))}
        killed = number == signal.SIGKILL
        process = run(empty, "export", str(target), program=FAULTY, **faults)
        assert_ended(process, -number if killed else 128 + number)
        assert len(list(tmp_path.glob("broken*"))) == killed
        assert not target.exists()

    def test_a_database_that_goes_away_in_the_middle_is_told_in_one_line(
        self, run: Run, own_postgresql: PostgresqlServer, in_blocks: Path
    ) -> None:
        url = migrate_database(own_postgresql.create_database())
        stopped = {"TESTS_TRANSFER_AT": "8", "TESTS_TRANSFER_SIGNAL": str(int(signal.SIGSTOP))}
        broken = run(url, "import", str(in_blocks), program=FAULTY, **stopped)
        eventually(lambda: psutil.Process(broken.pid).status() == psutil.STATUS_STOPPED, 60, "it stands still")
        own_postgresql.restart()
        broken.signal(signal.SIGCONT)
        assert_ended(broken, 1, "Error: the database does not do it: ", "--merge goes on")
        assert_ended(run(url, "import", str(in_blocks), "--merge"), 0)
        assert_holds(url, ROWS)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the system does not tell of the memory of a process")
def test_memory_does_not_grow_with_the_tables(
    run: Run, empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # both sizes have to be of many blocks: one of them is held in memory, and one more is read
    monkeypatch.setattr(line_writer, "_BLOCK_ROWS", 500)
    peaks: dict[str, list[int]] = {"import": [], "export": []}
    for clusters in (2500, 10_000):
        file = tmp_path / f"{clusters}.jsonl.zst"
        with gzip.open(file, "wb", 1) as compressed:
            compressed.write(export_of(rows_of(clusters, "x" * 2000)))
        for command in ("import", "export"):
            peak = tmp_path / "peak"
            options = {"import": "--merge", "export": "--force"}
            process = run(empty, command, str(file), options[command], program=FAULTY, TESTS_TRANSFER_PEAK=str(peak))
            assert_ended(process, 0)
            peaks[command].append(int(peak.read_text()))
    for few, many in peaks.values():
        assert many - few < 12_000, peaks
