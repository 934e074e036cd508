"""The API while its SQLite file is locked, gone or replaced: each answer is right or 503, and all of it comes back."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_faults import ASKED, fill, start
from tests.support.api_process import Api
from tests.support.databases import migrate_database, sqlite_url_in
from tests.support.load import Load, answers_of
from tests.support.processes import Processes

pytestmark = [pytest.mark.faults, pytest.mark.long]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return an SQLite file with results in it."""
    url = migrate_database(sqlite_url_in(tmp_path))
    fill(url)
    return Path(url.removeprefix("sqlite:///"))


@pytest.fixture
def api_on_file(file: Path, processes: Processes) -> Iterator[Api]:
    """Yield an API that reads the file, and must not fail by itself."""
    api = start(processes, f"sqlite:///{file}").wait_until_it_listens()
    yield api
    assert api.process.stop() == 0
    assert "Traceback" not in api.process.output


def test_a_file_that_somebody_has_locked(file: Path, processes: Processes) -> None:
    holder = sqlite3.connect(file, isolation_level=None)
    # with a write-ahead log, readers wait for nobody
    holder.execute("PRAGMA journal_mode = DELETE")
    api = start(processes, f"sqlite:///{file}").wait_until_it_listens()
    with Load(api, [answers_of(api, ASKED)]) as load:
        holder.execute("BEGIN EXCLUSIVE")
        load.wait_for_refused(8)
        load.wait_until_ready(False)
        holder.close()
        load.wait_until_ready()
        load.wait_for_right()


def test_a_file_that_is_gone_and_comes_back(file: Path, api_on_file: Api) -> None:
    with Load(api_on_file, [answers_of(api_on_file, ASKED)]) as load:
        hidden = file.rename(file.with_name("hidden.db"))
        load.wait_for_refused()
        load.wait_until_ready(False)
        hidden.rename(file)
        load.wait_until_ready()
        load.wait_for_right()


def test_a_file_that_is_replaced_is_read_from_then_on(file: Path, api_on_file: Api, tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    before = answers_of(api_on_file, ASKED)
    migrate_database(f"sqlite:///{empty}")
    with Load(api_on_file, [before]) as load:
        load.wait_for_right()
    empty.replace(file)
    after = answers_of(api_on_file, ASKED)
    assert after[("GET", "organizations", "")] == (200, b'{"organizations":[],"status":"ok"}')
    with Load(api_on_file, [after]) as load:
        load.wait_for_right()
