"""Export and import between databases on both engines (`docs/export.md`)."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg2
import pytest
from hypothesis import Phase, example, given, settings

from consumer_service.transfer import importer, line_writer
from consumer_service.transfer.exporter import Stopped, _PostgresqlSnapshot, export
from consumer_service.transfer.files import BadName
from consumer_service.transfer.importer import (
    DatabaseReadOnly,
    DatabaseRefused,
    ImportBroken,
    Order,
    RowRefused,
    Summary,
    import_file,
)
from consumer_service.transfer.line_format import ValueRefused
from consumer_service.transfer.line_reader import FileRefused
from consumer_service.transfer.line_writer import LineWriter
from consumer_service.writer import Writer
from libaggregator.settings import DatabaseSettings, Secret
from libaggregator.storage.schema import SchemaError
from tests.storage.conftest import Store
from tests.storage.test_not_storable import TOO_LONG
from tests.support.databases import migrate_database, open_database, sqlite_url_in
from tests.support.exports import export_of, fill, odd_rows, rows_in
from tests.support.messages import HitSpec, payload, record
from tests.support.postgresql import table_locked, waiting_for_locks
from tests.support.tables import empty_tables, read_tables
from tests.support.waiting import eventually, last

pytestmark = pytest.mark.usefixtures("plain_logs")

AT = "2026-05-01 08:00:00"
A, B = HitSpec("a.report", "K", 1), HitSpec("b.report", "K", 2)
ODD_TEXTS = sorted(
    [("", "\\N"), ("\\N", "\b\f\v\t\r\n\\.\\x41"), ("a", ""), ("B", "\x7f"), ("ä", '"'), ("😀", "\uffff")]
)
CLUSTERS = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(30)]


def quiet(label: str, total: int) -> Any:
    return nullcontext(lambda steps: None)


@dataclass
class Place:
    """A database with the commands as they are called for it."""

    url: str
    folder: Path

    def __post_init__(self) -> None:
        self.database = open_database(self.url)
        self.settings = DatabaseSettings(url=Secret(self.url), statement_timeout=5)

    def export(self, name: str = "export.jsonl", *, force: bool = True, stop: Event | None = None) -> bytes:
        file = self.folder / name
        export(self.settings, str(file), force=force, stop=stop or Event(), progress=quiet)
        return file.read_bytes()

    def take(self, content: bytes, *, merge: bool = False, stop: Event | None = None) -> Summary:
        file = self.folder / "import.jsonl"
        file.write_bytes(content)
        summary = Summary()
        import_file(self.settings, Order(str(file), merge), stop or Event(), quiet, summary)
        return summary

    def empty(self) -> None:
        with self.database.atomic():
            empty_tables(self.database)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[str, Place]]:
    """Yield a database on each engine, and another SQLite file."""
    urls = {
        "sqlite": migrate_database(sqlite_url_in(tmp_path_factory.mktemp("sqlite"))),
        "other sqlite": migrate_database(sqlite_url_in(tmp_path_factory.mktemp("other"))),
        "postgresql": request.getfixturevalue("shared_url"),
    }
    made = {name: Place(url, tmp_path_factory.mktemp("exports")) for name, url in urls.items()}
    yield made
    for place in made.values():
        place.database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, places: dict[str, Place]) -> Place:
    """Return an empty database on each engine in turn."""
    found = places[request.param]
    found.empty()
    return found


@pytest.fixture
def on_sqlite(places: dict[str, Place]) -> Place:
    places["sqlite"].empty()
    return places["sqlite"]


@pytest.fixture
def on_postgresql(places: dict[str, Place]) -> Place:
    places["postgresql"].empty()
    return places["postgresql"]


def messages(count: int, minute: int = 0, hits: list[HitSpec] | None = None, org_id: int = 1) -> list[bytes]:
    checked = f"2026-05-01T08:{minute:02}:00Z"
    return [payload(cluster, checked, hits or [A, B], org_id, version="4.16.1") for cluster in CLUSTERS[:count]]


def store(place: Place, values: list[bytes]) -> None:
    Store(place.database).write([record(value, offset) for offset, value in enumerate(values)])


class TestThereAndBack:
    # to look for a smaller example would take minutes
    @settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
    @example(rows={"rule_hit": [(1, "a", "r", key, details, None) for key, details in ODD_TEXTS]})
    @given(rows=odd_rows())
    def test_all_tables_are_equal_on_every_engine_that_they_came_through(
        self, places: dict[str, Place], rows: dict[str, list[tuple[Any, ...]]]
    ) -> None:
        first, second, third = places["sqlite"], places["postgresql"], places["other sqlite"]
        fill(first.database, rows)
        exported = first.export()
        for before, after in ((first, second), (second, third)):
            after.empty()
            after.take(exported)
            assert read_tables(after.database) == read_tables(before.database)
            again = after.export()
            assert rows_in(again) == rows_in(exported)
            exported = again

    @pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.jsonl.zst"])
    def test_a_file_says_by_its_name_how_it_is_compressed_and_by_its_bytes_when_read(
        self, on_sqlite: Place, name: str
    ) -> None:
        store(on_sqlite, messages(10))
        before = read_tables(on_sqlite.database)
        content = on_sqlite.export(name)
        beginning = {"jsonl": b'{"fo', ".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
        assert content.startswith(next(magic for end, magic in beginning.items() if name.endswith(end)))
        on_sqlite.empty()
        on_sqlite.take(content)
        assert read_tables(on_sqlite.database) == before
        with pytest.raises(FileRefused, match=r"^line [0-9]+: .*cut"):
            on_sqlite.take(content[: len(content) // 2], merge=True)

    def test_times_of_other_components_get_six_digits(self, on_sqlite: Place, on_postgresql: Place) -> None:
        fill(on_sqlite.database, {"report": [(1, "a", "{}", "2026-05-01 08:00:00.12", AT, 0, None)]})
        on_postgresql.take(on_sqlite.export())
        assert str(read_tables(on_postgresql.database)["report"][0][3]) == "2026-05-01 08:00:00.120000"

    def test_long_rows_are_few_in_a_block(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(line_writer, "_BLOCK_BYTES", 40_000)
        long = "x" * 30_000
        fill(place.database, {"report": [(1, cluster, long, AT, AT, 0, None) for cluster in CLUSTERS[:4]]})
        exported = place.export()
        assert exported.count(b'"sha256"') == 3
        place.empty()
        assert place.take(exported).added["report"] == 4


class TestExport:
    def test_it_is_of_one_moment_whatever_consumers_write_meanwhile(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store(place, messages(10))
        expected = rows_in(place.export())
        consumer = Place(place.url, place.folder)
        begin = LineWriter.begin

        def begin_after_a_write(writer: LineWriter, table: Any) -> None:
            if table.name == "recommendation":
                store(consumer, messages(20, minute=1, hits=[B]))
            begin(writer, table)

        monkeypatch.setattr(LineWriter, "begin", begin_after_a_write)
        assert rows_in(place.export()) == expected
        assert len(read_tables(place.database)["report"]) == 20
        consumer.database.close()

    def test_a_table_is_not_rewritten_under_it(self, on_postgresql: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """PostgreSQL shows an empty table to whoever took the snapshot before a rewrite."""
        store(on_postgresql, messages(3))
        begin = _PostgresqlSnapshot.begin

        def begin_before_a_rewrite(snapshot: _PostgresqlSnapshot) -> None:
            begin(snapshot)
            with psycopg2.connect(on_postgresql.url) as connection, connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '10ms'")
                with pytest.raises(psycopg2.errors.LockNotAvailable):
                    cursor.execute("ALTER TABLE advisor_ratings ALTER COLUMN rating TYPE integer")
            connection.close()

        monkeypatch.setattr(_PostgresqlSnapshot, "begin", begin_before_a_rewrite)
        assert len(rows_in(on_postgresql.export())) > 10

    def test_the_limits_of_other_sessions_do_not_end_it(
        self, on_postgresql: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither that of a statement, while it waits for a table, nor that of a pause in its transaction."""
        store(on_postgresql, messages(3))
        expected = rows_in(on_postgresql.export())
        limited = Place(
            f"{on_postgresql.url}?options=-c%20idle_in_transaction_session_timeout%3D1", on_postgresql.folder
        )
        limited.settings = replace(limited.settings, read_timeout=0.1)
        found: list[bytes] = []
        exporting = Thread(target=lambda: found.append(limited.export()))
        with table_locked(on_postgresql.url, "report", "ACCESS EXCLUSIVE"):
            exporting.start()
            eventually(lambda: waiting_for_locks(on_postgresql.url) == 1, what="the export waits")
            last(0.2)
        exporting.join()
        assert rows_in(found[0]) == expected

    def test_a_file_that_is_there_stays_unless_told(self, place: Place) -> None:
        place.export("there.jsonl")
        (place.folder / "there.jsonl").write_text("mine")
        with pytest.raises(BadName, match=r"there\.jsonl: is there already, --force replaces it"):
            place.export("there.jsonl", force=False)
        assert (place.folder / "there.jsonl").read_text() == "mine"
        assert place.export("there.jsonl").startswith(b'{"format"')

    @pytest.mark.parametrize("name", ["x.json", "x", "x.zst", "x.jsonl.bz2"])
    def test_another_name_is_refused(self, on_sqlite: Place, name: str) -> None:
        with pytest.raises(BadName, match=r"expected a name that ends in"):
            on_sqlite.export(name)

    def test_of_one_that_is_stopped_nothing_is_left(self, place: Place) -> None:
        store(place, messages(5))
        stop = Event()
        stop.set()
        before = set(place.folder.iterdir())
        with pytest.raises(Stopped):
            place.export("stopped.jsonl", stop=stop)
        assert set(place.folder.iterdir()) == before

    @pytest.mark.parametrize(
        ("statement", "problem"),
        [
            ("UPDATE report SET reported_at = 'yesterday'", "reported_at: expected a time"),
            ("UPDATE report SET reported_at = 2026", "reported_at: Expected `str | null`, got `int`: 2026"),
            ("UPDATE report SET org_id = 'one'", "org_id: Expected `int`, got `str`: 'one'"),
            ("UPDATE report SET report = x'00ff'", "report: Expected `str`, got `bytes`"),
            ("UPDATE report SET report = CAST(x'ff' AS TEXT)", "the first row: a text that is not UTF-8"),
        ],
    )
    def test_a_value_of_sqlite_that_no_other_database_takes_is_named(
        self, on_sqlite: Place, statement: str, problem: str
    ) -> None:
        store(on_sqlite, messages(1))
        on_sqlite.database.execute_sql(statement)
        with pytest.raises(ValueRefused, match=r"^table report, ") as refused:
            on_sqlite.export("refused.jsonl")
        assert problem in str(refused.value)
        assert not (on_sqlite.folder / "refused.jsonl").exists()

    def test_a_vote_without_its_report_is_named(self, on_sqlite: Place) -> None:
        with sqlite3.connect(on_sqlite.url.removeprefix("sqlite:///")) as connection:
            values = ("gone", "r", "u", "", 1, AT, AT, "", "1")
            connection.execute(f"INSERT INTO cluster_rule_user_feedback VALUES ({','.join('?' * 9)})", values)
        connection.close()
        with pytest.raises(ValueRefused, match=r"cluster_rule_user_feedback, rows of cluster 'gone'"):
            on_sqlite.export()

    @pytest.mark.parametrize("time", ["infinity", "0044-03-15 00:00:00 BC", "20000-01-01 00:00:00"])
    def test_a_time_of_postgresql_that_is_not_of_the_years_1_to_9999_is_named(
        self, on_postgresql: Place, time: str
    ) -> None:
        store(on_postgresql, messages(4))
        on_postgresql.database.execute_sql("UPDATE report SET gathered_at = %s WHERE cluster > %s", (time, CLUSTERS[1]))
        on_postgresql.database.execute_sql(
            "UPDATE report SET reported_at = '-infinity' WHERE cluster IN (%s, %s)", (CLUSTERS[0], CLUSTERS[3])
        )
        expected = f"table report, row with cluster '{CLUSTERS[0]}': reported_at: expected a time"
        with pytest.raises(ValueRefused) as refused:
            on_postgresql.export()
        assert str(refused.value).startswith(expected)
        assert str(refused.value).endswith("got '-infinity'; rows of report with such a time: 3")

    def test_without_a_schema_it_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SchemaError, match=r"migrate"):
            Place(sqlite_url_in(tmp_path), tmp_path).export()


class TestImport:
    def test_a_read_only_database_is_told_before_the_file_is_checked(self, on_postgresql: Place) -> None:
        read_only = Place(f"{on_postgresql.url}?options=-c%20default_transaction_read_only%3Don", on_postgresql.folder)
        with pytest.raises(
            DatabaseReadOnly, match=r"read-only, as a replica is: database\.url has to name the primary"
        ):
            read_only.take(b"no export")

    def test_a_database_with_rows_is_refused(self, place: Place) -> None:
        content = export_of({"report": [(1, "b", "{}", AT, AT, 0, None)]})
        fill(place.database, {"rule_disable": [("1", "r", "K", None, AT, None)]})
        with pytest.raises(DatabaseRefused, match=r"rows in rule_disable. With --merge"):
            place.take(content)
        assert read_tables(place.database)["report"] == []
        assert place.take(content, merge=True).added["report"] == 1

    def test_nothing_is_written_of_a_file_that_is_bad_at_its_end(self, place: Place) -> None:
        content = export_of({"report": [(1, "a", "{}", AT, AT, 0, None)]})
        for bad in (content[:-5], content.replace(b'"rows":1', b'"rows":2'), content + b"x"):
            with pytest.raises(FileRefused, match=r"^line "):
                place.take(bad)
        assert read_tables(place.database)["report"] == []

    def test_what_postgresql_can_not_hold_is_refused_before_anything_is_written(self, on_postgresql: Place) -> None:
        good = (1, "a", "{}", AT, AT, 0, None)
        for bad, problem in (
            ((1, "b", "a\0b", AT, AT, 0, None), "line 7: .* report: holds NUL"),
            ((2**63, "b", "", AT, AT, 0, None), "line 7: table report: org_id: Expected `int` <= 922"),
        ):
            with pytest.raises(FileRefused, match=problem):
                on_postgresql.take(export_of({"report": [good, bad]}))
        flags = ("c", "r", 2**15, None, None, AT, 2**15, "", "1")
        with pytest.raises(FileRefused, match=r"cluster_rule_toggle: disabled: Expected `int` <= 1: 32768"):
            on_postgresql.take(export_of({"report": [good], "cluster_rule_toggle": [flags]}))
        with pytest.raises(FileRefused, match=r"disabled_check: Expected `int` <= 32767: 32768"):
            on_postgresql.take(export_of({"report": [good], "cluster_rule_toggle": [("c", "r", 1, *flags[3:])]}))
        assert read_tables(on_postgresql.database)["report"] == []

    def test_an_organization_too_large_for_a_column_that_nobody_widened_yet_is_refused(
        self, postgresql_url: str, tmp_path: Path
    ) -> None:
        place = Place(migrate_database(postgresql_url, "ALTER TABLE report ALTER org_id TYPE integer"), tmp_path)
        with pytest.raises(
            FileRefused, match=r"line 6: table report: org_id: Expected `int` <= 2147483647: 4294967295"
        ):
            place.take(export_of({"report": [(2**32 - 1, "b", "", AT, AT, 0, None)]}))
        place.take(export_of({"report": [(2**31 - 1, "b", "", AT, AT, 0, None)]}))
        place.database.close()

    def test_a_row_that_the_database_refuses_is_told_with_its_line(self, on_postgresql: Place) -> None:
        """Only PostgreSQL knows what it can compress to fit an index."""
        rows = [(1, "a", "r", "K", "1", AT), (1, "b", TOO_LONG.component, "K", "1", AT), (1, "c", "r", "K", "1", AT)]
        content = export_of({"rule_hit": rows})
        with pytest.raises(RowRefused, match=r"^line 4: table rule_hit: the database refuses it: index row"):
            on_postgresql.take(content)
        assert [row[1] for row in read_tables(on_postgresql.database)["rule_hit"]] == ["a"]

    def test_rows_that_are_taken_one_by_one_are_no_reason_to_end(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_once = importer._Importer._write_once

        def refuse_several(self: Any, table: Any, rows: Any) -> int:
            if len(rows) > 1:
                raise sqlite3.DataError("too much at once")
            return write_once(self, table, rows)

        monkeypatch.setattr(importer._Importer, "_write_once", refuse_several)
        store(place, messages(2))
        content, expected = place.export(), read_tables(place.database)
        place.empty()
        place.take(content)
        assert read_tables(place.database) == expected

    def test_a_vote_needs_its_report_in_the_file_or_in_the_database(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(line_writer, "_BLOCK_ROWS", 2)
        votes = [(cluster, "r", "u", "", 1, AT, AT, "", "1") for cluster in ("a", "b", "c", "d")]
        reports = [(1, cluster, "{}", AT, AT, 0, None) for cluster in ("a", "b", "d")]
        content = export_of({"report": reports, "cluster_rule_user_feedback": votes})
        number = next(number for number, line in enumerate(content.splitlines(), 1) if line.startswith(b'["c"'))
        for merge in (False, True):
            with pytest.raises(FileRefused) as refused:
                place.take(content, merge=merge)
            assert str(refused.value) == (
                f"line {number}: table cluster_rule_user_feedback, row with cluster_id 'c', rule_id 'r', user_id 'u',"
                " error_key '': the table report has no such cluster, which its foreign key demands"
            )
        assert read_tables(place.database)["report"] == []
        fill(place.database, {"report": [(1, "c", "{}", AT, AT, 0, None)]})
        assert place.take(content, merge=True).added["cluster_rule_user_feedback"] == 4

    def test_without_room_for_temporary_files_nothing_is_written(
        self, on_sqlite: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store(on_sqlite, messages(1))
        content = on_sqlite.export()
        on_sqlite.empty()
        reports = importer._Reports.__init__

        def full(self: Any, *arguments: Any) -> None:
            reports(self, *arguments)
            self._of_file.execute("PRAGMA query_only = 1")

        monkeypatch.setattr(importer._Reports, "__init__", full)
        with pytest.raises(ImportBroken, match="a temporary file for the clusters of its reports can't be written: "):
            on_sqlite.take(content)
        assert read_tables(on_sqlite.database)["rule_hit"] == []

    def test_one_that_is_broken_off_goes_on(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        store(place, messages(12))
        expected, content = read_tables(place.database), small_blocks(place.export, monkeypatch)
        blocks = content.count(b'{"rows"')
        for done in (1, blocks // 2, blocks - 1):
            place.empty()
            with pytest.raises(Stopped):
                import_until(place, content, done, monkeypatch)
            found = read_tables(place.database)
            assert sum(map(len, found.values())) < sum(map(len, expected.values()))
            summary = place.take(content, merge=True)
            assert read_tables(place.database) == expected
            assert sum(summary.left.values()) > 0
        assert sum(place.take(content, merge=True).added.values()) == 0

    def test_what_others_wait_for_is_tried_again(self, on_postgresql: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        store(on_postgresql, messages(1))
        content = on_postgresql.export()
        on_postgresql.empty()
        failures = ["55P03", "40P01"]
        write_once = importer._Importer._write_once

        def fail_at_first(self: Any, table: Any, rows: Any) -> int:
            if failures:
                state = failures.pop()
                on_postgresql.database.execute_sql(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")
            return write_once(self, table, rows)

        monkeypatch.setattr(importer._Importer, "_write_once", fail_at_first)
        assert on_postgresql.take(content).added["report"] == 1


def small_blocks(action: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch, rows: int = 5) -> bytes:
    with monkeypatch.context() as patch:
        patch.setattr(line_writer, "_BLOCK_ROWS", rows)
        return action()


def import_until(place: Place, content: bytes, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import so many blocks, and stop then."""
    stop, written = Event(), 0
    write = importer._Importer.write

    def write_and_count(self: Any, block: Any) -> None:
        nonlocal written
        write(self, block)
        written += 1
        if written == blocks:
            stop.set()

    with monkeypatch.context() as patch:
        patch.setattr(importer._Importer, "write", write_and_count)
        place.take(content, stop=stop)


class TestBesideConsumers:
    """What a consumer stored is never undone, and never mixed with what the file has of the same cluster."""

    @pytest.mark.parametrize("minute", [0, 5, 30])
    def test_a_cluster_with_a_report_keeps_all_it_has(self, place: Place, minute: int) -> None:
        store(place, messages(6, minute=10))
        content = place.export()
        place.empty()
        store(place, messages(3, minute, hits=[HitSpec("c.report", "K", 3)], org_id=2))
        before = read_tables(place.database)
        place.take(content, merge=True)
        after = read_tables(place.database)
        for table in ("report", "rule_hit", "recommendation", "report_info"):
            assert [row for row in after[table] if row[1] in CLUSTERS[:3]] == before[table]
            assert {row[1] for row in after[table]} == set(CLUSTERS[:6])

    @pytest.mark.parametrize("org_id", [1, 2])
    def test_a_cluster_that_comes_between_two_blocks_ends_as_the_consumer_wrote_it(
        self, place: Place, org_id: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store(place, messages(4, minute=0, hits=[A, B]))
        content = small_blocks(place.export, monkeypatch, rows=3)
        place.empty()
        live = messages(4, minute=1, hits=[B, HitSpec("c.report", "K", 3)], org_id=org_id)
        store(place, live)
        expected = {
            table: sorted({(row[1], row[0], *row[2:4]) for row in rows})
            for table, rows in read_tables(place.database).items()
            if table in ("rule_hit", "recommendation")
        }
        for blocks in (2, 4, content.count(b'{"rows"') - 1):
            place.empty()
            with pytest.raises(Stopped):
                import_until(place, content, blocks, monkeypatch)
            store(place, live)
            place.take(content, merge=True)
            found = read_tables(place.database)
            assert {(row[0], row[1]) for row in found["report"]} == {(org_id, cluster) for cluster in CLUSTERS[:4]}
            for table, rows in expected.items():
                assert sorted({(row[1], row[0], *row[2:4]) for row in found[table]}) == rows, (blocks, table)

    def test_a_consumer_in_the_middle_of_its_batch_is_waited_for(
        self, on_postgresql: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It has read which hits a cluster has that has no report: there must not come any before it wrote its own."""
        store(on_postgresql, messages(1, minute=0, hits=[A]))
        content = on_postgresql.export()
        on_postgresql.empty()
        consumer = Place(on_postgresql.url, on_postgresql.folder)
        importing = Thread(target=lambda: on_postgresql.take(content, merge=True))
        write_changes = Writer._write_changes

        def write_after_the_import_waits(self: Any, *arguments: Any) -> None:
            importing.start()
            eventually(lambda: waiting_for_locks(on_postgresql.url) == 1, what="the import waits")
            write_changes(self, *arguments)

        monkeypatch.setattr(Writer, "_write_changes", write_after_the_import_waits)
        store(consumer, messages(1, minute=1, hits=[B]))
        importing.join()
        assert [row[2] for row in read_tables(on_postgresql.database)["rule_hit"]] == ["b.report"]
        consumer.database.close()

    def test_choices_of_users_stay_and_are_added(self, place: Place) -> None:
        votes = [("a", "r", "u", "file", 1, AT, AT, "", "1"), ("a", "s", "u", "file", 1, AT, AT, "", "1")]
        report = (1, "a", "{}", AT, AT, 0, None)
        fill(
            place.database, {"report": [report], "cluster_rule_user_feedback": [(*votes[0][:3], "here", *votes[0][4:])]}
        )
        summary = place.take(export_of({"report": [report], "cluster_rule_user_feedback": votes}), merge=True)
        assert (summary.added["cluster_rule_user_feedback"], summary.left["cluster_rule_user_feedback"]) == (1, 1)
        assert [row[3] for row in read_tables(place.database)["cluster_rule_user_feedback"]] == ["here", "file"]
