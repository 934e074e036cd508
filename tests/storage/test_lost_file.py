"""The consumer on an SQLite file that is removed or replaced under it, or has no room to grow."""

from pathlib import Path

import pytest
from peewee import Database

from libaggregator.storage.faults import DATABASE_ERRORS, describe
from tests.storage.conftest import Store
from tests.support.databases import migrate_database, open_database, sqlite_url_in
from tests.support.messages import CLUSTERS, HitSpec, payload, record, report


def _reports(database: Database) -> list[str]:
    return [cluster for (cluster,) in database.execute_sql("SELECT cluster FROM report").fetchall()]


def test_a_batch_goes_to_the_file_that_has_the_name(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    url, other = sqlite_url_in(tmp_path), sqlite_url_in(tmp_path / "other")
    store = Store(open_database(migrate_database(url)))
    store.write([record(payload(CLUSTERS[0]), 0)])
    migrate_database(other)
    for file in tmp_path.glob("aggregator.db*"):
        file.unlink()
    for file in (tmp_path / "other").glob("aggregator.db*"):
        file.rename(tmp_path / file.name)
    store.write([record(payload(CLUSTERS[1]), 1)])
    assert _reports(open_database(url)) == [CLUSTERS[1]]


def test_a_batch_is_an_outage_while_there_is_no_file(tmp_path: Path) -> None:
    store = Store(open_database(migrate_database(sqlite_url_in(tmp_path))))
    store.write([record(payload(CLUSTERS[0]), 0)])
    for file in tmp_path.glob("aggregator.db*"):
        file.unlink()
    with pytest.raises(DATABASE_ERRORS, match="no such table"):
        store.write([record(payload(CLUSTERS[1]), 1)])


def test_a_batch_is_an_outage_if_its_file_is_replaced_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(open_database(migrate_database(sqlite_url_in(tmp_path))))
    store.write([record(payload(CLUSTERS[0]), 0)])

    def move_away(engine: object, statement: object, rows: object) -> None:
        if _file(tmp_path).exists():
            _file(tmp_path).rename(tmp_path / "moved")

    monkeypatch.setattr("consumer_service.engines.sqlite.SqliteEngine.run_each", move_away)
    with pytest.raises(DATABASE_ERRORS) as raised:
        store.write([record(payload(CLUSTERS[1]), 1)])
    assert describe(raised.value) == "the file was removed or replaced while it was written"


def test_a_full_disk_is_named_as_the_reason(tmp_path: Path) -> None:
    store = Store(open_database(migrate_database(sqlite_url_in(tmp_path))))
    ((pages,),) = store.database.execute_sql("PRAGMA page_count").fetchall()
    store.database.execute_sql(f"PRAGMA max_page_count = {pages}").fetchall()
    with pytest.raises(DATABASE_ERRORS) as raised:
        store.write(
            [record(payload(CLUSTERS[0], note="x" * 100_000, Report=report([HitSpec("a", "K", "x" * 100_000)])))]
        )
    assert describe(raised.value) == "database or disk is full"


def _file(folder: Path) -> Path:
    return folder / "aggregator.db"
