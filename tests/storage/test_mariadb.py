"""What keeps MariaDB from being an engine, as `docs/databases.md` says it: each statement is shown to a real server."""

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api_service import queries
from api_service.database import Statement
from consumer_service import statements
from consumer_service.statements import Query, Table, Upsert
from tests.support.mariadb import Mariadb, missing_programs, running_mariadb

PAGE = Path(__file__).parents[2] / "docs" / "databases.md"
NOT_UNDERSTOOD = 1064
TABLES = importlib.import_module("libaggregator.storage.migrations.0001_schema_32").TABLES
OF_POSTGRESQL = {
    "BEGIN_WRITING",
    "MEASURE_HITS",
    "MOVE_AND_MEASURE_RECOMMENDATIONS",
    "MOVE_AND_READ_RECOMMENDATIONS",
}
"""Statements that SQLite does without, too."""
PARTS = {
    "wanted": "VALUES (1)",
    "rows": "VALUES (1)",
    "for_update": "FOR UPDATE",
    "only": "",
    "text_of_length": "NULL",
    "short_details": "NULL",
}

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def mariadb() -> Iterator[Mariadb]:
    """Yield a server with a database of its own, in which texts are compared by their bytes."""
    if missing := missing_programs():
        pytest.skip(f"{', '.join(missing)} not installed: apt-get install mariadb-server")
    with running_mariadb() as server:
        yield server


def _of_consumer() -> Iterator[tuple[str, str]]:
    for name, found in vars(statements).items():
        text = found.text if isinstance(found, Query | Upsert) else found
        if (
            name.isupper()
            and isinstance(text, str)
            and name not in OF_POSTGRESQL
            and not re.search(r"{table}|{arr", text)
        ):
            for part, value in PARTS.items():
                text = text.replace(f"{{{part}}}", value)
            yield name, text.replace("%s", "?")
        elif isinstance(found, Table):
            yield (
                f"INSERT {found.name}",
                statements.INSERT.format(table=found.name, columns=found.column_list, rows="VALUES (1)"),
            )


def _of_api() -> Iterator[tuple[str, str]]:
    for found in vars(queries).values():
        if isinstance(found, Statement):
            yield found.name, re.sub(r":\w+", "?", found.without_collation.sql)


def _of_migrate() -> Iterator[tuple[str, str]]:
    for statement in TABLES.format(now_utc="CURRENT_TIMESTAMP").split(";"):
        yield " ".join(statement.split()[:3]).partition(" IF")[0], statement


def _prepared(named: Iterator[tuple[str, str]]) -> dict[str, str]:
    """Return what has MariaDB read the statements and not run them: of one that it understands it misses the table."""
    return {name: "PREPARE shown FROM '" + text.replace("'", "''") + "'" for name, text in named}


def _listed(heading: str) -> set[str]:
    """Return the names in the first column of the table under a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    return {name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(.+?)`", row)}


@pytest.mark.parametrize(
    ("heading", "named"),
    [
        ("Statements of `migrate`", _of_migrate),
        ("Statements of the consumer", _of_consumer),
        ("Statements of the API", _of_api),
    ],
    ids=["migrate", "consumer", "API"],
)
def test_the_page_lists_the_statements_that_mariadb_does_not_understand_and_no_others(
    mariadb: Mariadb, heading: str, named: Callable[[], Iterator[tuple[str, str]]]
) -> None:
    errors = mariadb.errors_of(_prepared(named()))
    refused = {name for name, number in errors.items() if number == NOT_UNDERSTOOD}
    assert refused
    assert refused == _listed(heading)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (["CREATE TABLE t (a VARCHAR(768) PRIMARY KEY)"], None),
        (["CREATE TABLE t (a VARCHAR(769) PRIMARY KEY)"], 1071),
        (["CREATE TABLE t (a LONGTEXT PRIMARY KEY)"], 1170),
        (["CREATE TABLE t (a VARCHAR(9) PRIMARY KEY)", "INSERT INTO t VALUES ('a'), ('A'), ('a '), ('á')"], None),
        (["CREATE TABLE t (a VARCHAR(3))", "INSERT INTO t VALUES ('long')"], 1406),
        (["CREATE TABLE t (a INT UNIQUE)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)"], 1062),
        (["CREATE TABLE t (a INT)", "UPDATE t SET a = 1 RETURNING a"], 1064),
        (["CREATE TABLE t (a INT)", "SET SESSION TRANSACTION READ ONLY", "INSERT INTO t VALUES (1)"], 1792),
        (["SET max_statement_time = 0.01", "SELECT SLEEP(5)"], 1969),
        # what was written before a table is made can't be undone: the key is there twice
        (
            [
                "CREATE TABLE t (a INT PRIMARY KEY)",
                "START TRANSACTION",
                "INSERT INTO t VALUES (1)",
                "CREATE TABLE u (a INT)",
                "ROLLBACK",
                "INSERT INTO t VALUES (1)",
            ],
            1062,
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_mariadb_does_what_the_page_says_of_it(mariadb: Mariadb, what: list[str], expected: int | None) -> None:
    errors = mariadb.errors_of({str(number): text for number, text in enumerate(what)})
    assert list(errors.values()) == ([] if expected is None else [expected])
    assert str(expected or "") in PAGE.read_text(encoding="utf-8")
