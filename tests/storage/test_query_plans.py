"""No question of the API reads more than its answer needs, with 100,000 clusters (`docs/schema.md`, section 5).

Every statement of `api_service.queries` is asked for a big, a medium and a small organization, as the API asks it: by
its `Reader`, with a role that can only read, on PostgreSQL with the plan for these values and with that for any. What
a question may read depends on the rows that it needs: those that it answers with, the ids that it was given, and what
`ALSO_NEEDED` says.
"""

import contextlib
import importlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from peewee import Database, SqliteDatabase
from prometheus_client import CollectorRegistry

from api_service import queries
from api_service.database import Reader, Statement
from api_service.metrics import ApiMetrics
from libaggregator.build import BuildFacts
from libaggregator.settings import DatabaseSettings, Secret
from libaggregator.storage.connections import open_reader
from tests.support import landscape
from tests.support.databases import open_database
from tests.support.landscape import BIG, ORGANIZATIONS, Organization, cluster_id
from tests.support.postgresql import with_select_only

pytestmark = pytest.mark.long

STATEMENTS = {found.name: found for found in vars(queries).values() if isinstance(found, Statement)}
READ_INDEXES = importlib.import_module("libaggregator.storage.migrations.0003_read_indexes")

ALSO_NEEDED: dict[str, Callable[[Organization], int]] = {
    # the hour limit is checked on every cluster of the organization
    "clusters": lambda organization: len(organization.clusters),
    # the filter is checked on the clusters that the rule hits, which are the answer if there is no filter
    "clusters_detail_filtered": lambda organization: len(organization.clusters) * landscape.HITS // landscape.RULES,
    # there is no index in which the clusters that a rule hits are in their order
    "clusters_detail_page": lambda organization: len(organization.clusters) * landscape.HITS // landscape.RULES,
    "clusters_detail_filtered_page": lambda organization: (
        len(organization.clusters) * landscape.HITS // landscape.RULES
    ),
    # the primary key begins with the organization, which rates tens of rules
    "rating": lambda organization: landscape.RULES,
}
READS_HALF_OF_THE_TABLE = {
    # to read all of it costs less than to go through an index
    ("clusters", BIG),
    ("disabled_rules", BIG),
}
# SQLite scans these too: a list of ids, what a recursive question has found so far, and the rows of a page
NO_TABLES = ("json_each", "organization", "page")


@dataclass(frozen=True)
class Reading:
    """What was read for an answer of `answered` rows.

    `scanned` names tables that were read from one end to the other, `rows` is how many were looked at, `work` is
    pages on PostgreSQL and instructions on SQLite, which counts no rows.
    """

    answered: int
    scanned: Sequence[str]
    work: int
    rows: int = 0


@dataclass(frozen=True)
class Bound:
    """What may be read for any question, and for each row that is needed in addition."""

    work: int
    work_each: int
    rows: int = 0
    rows_each: int = 0


# rows: with those of other tables that belong to it; pages: each level of an index counts as one
BOUND_ON_POSTGRESQL = Bound(rows=20, rows_each=4, work=60, work_each=8)
BOUND_ON_SQLITE = Bound(work=300, work_each=50)


class Explorer:
    """Asks the questions of the API, and says what is wrong with how they are answered."""

    def __init__(self, name: str, database: Database, bound: Bound) -> None:
        self._name = name
        self._database = database
        self._execute_sql = database.execute_sql
        self._bound = bound
        self._reader = Reader(lambda: database, prepare=True, metrics=ApiMetrics(CollectorRegistry(), BuildFacts()))

    def problems(self, statement: Statement) -> list[str]:
        """Return what is wrong with a question, nothing if all is well."""
        return [problem for organization in ORGANIZATIONS for problem in self._problems(statement, organization)]

    def close(self) -> None:
        """Close its connection."""
        self._database.close()

    def _problems(self, statement: Statement, organization: Organization) -> Iterator[str]:
        known = _values(organization)
        missing = [name for name in statement.parameters if name not in known]
        assert not missing, f"{statement.name} has parameters without a value here, add them to _values: {missing}"
        values = {name: known[name] for name in statement.parameters}
        reading = self._read(statement, values)
        also = ALSO_NEEDED.get(statement.name, lambda organization: 0)(organization)
        needed = reading.answered + len(values.get("clusters", ())) + also
        where = f"{self._name}, {organization.name} organization, {statement.name}, {needed} rows needed:"
        if not reading.answered:
            yield f"{where} finds nothing with the values here, so that its plan says nothing"
        if reading.scanned and (statement.name, organization) not in READS_HALF_OF_THE_TABLE:
            yield f"{where} reads all of {', '.join(reading.scanned)}"
        if reading.rows > self._bound.rows + self._bound.rows_each * needed:
            yield f"{where} reads {reading.rows} rows"
        if reading.work > self._bound.work + self._bound.work_each * needed:
            yield f"{where} works {reading.work}"

    def _read(self, statement: Statement, values: dict[str, Any]) -> Reading:
        raise NotImplementedError


class PostgresqlExplorer(Explorer):
    """Has PostgreSQL explain what it did; `mode` is `custom` (plans for the values) or `generic` (for any values)."""

    def __init__(self, url: str, mode: str) -> None:
        options = f"options=-c%20plan_cache_mode%3Dforce_{mode}_plan"
        settings = DatabaseSettings(url=Secret(f"{url}{'&' if '?' in url else '?'}{options}"))
        super().__init__(f"{mode} plan of PostgreSQL", open_reader(settings, "tests"), BOUND_ON_POSTGRESQL)
        self._database.execute_sql = self._explain

    def _explain(self, sql: str, parameters: Any = None) -> Any:
        prefix = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " if sql.startswith("EXECUTE ") else ""
        return self._execute_sql(prefix + sql, parameters)

    def _read(self, statement: Statement, values: dict[str, Any]) -> Reading:
        (((explained,),),) = self._reader.read(statement, **values)
        plan = explained["Plan"]
        scans = [node for node in _nodes(plan) if "Relation Name" in node or node["Node Type"] == "Bitmap Index Scan"]
        return Reading(
            answered=round(plan["Actual Rows"] * plan["Actual Loops"]),
            scanned=[node["Relation Name"] for node in scans if node["Node Type"] == "Seq Scan"],
            work=plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
            rows=round(sum(_rows_read(node) for node in scans)),
        )


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _rows_read(scan: dict[str, Any]) -> float:
    removed = sum(scan.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
    rows: float = (scan["Actual Rows"] + removed) * scan["Actual Loops"]
    return rows


class SqliteExplorer(Explorer):
    """Asks SQLite for its plan, and counts the instructions of an answer; nobody ever made statistics."""

    def __init__(self, url: str) -> None:
        database = open_reader(DatabaseSettings(url=Secret(url)), "tests")
        super().__init__("SQLite", database, BOUND_ON_SQLITE)
        self._plan: list[str] = []
        self._steps = 0
        database.execute_sql = self._explain

    def _explain(self, sql: str, parameters: Any = None) -> Any:
        self._plan = [row[3] for row in self._execute_sql(f"EXPLAIN QUERY PLAN {sql}", parameters)]
        connection: sqlite3.Connection = self._database.connection()
        self._steps = 0
        connection.set_progress_handler(self._count, 1)
        return self._execute_sql(sql, parameters)

    def _count(self) -> int:
        self._steps += 1
        return 0

    def _read(self, statement: Statement, values: dict[str, Any]) -> Reading:
        rows = self._reader.read(statement, **values)
        scanned = [step for step in self._plan if "AUTOMATIC" in step or _is_scan_of_a_table(step)]
        return Reading(len(rows), scanned, self._steps)


def _is_scan_of_a_table(step: str) -> bool:
    verb, _, what = step.partition(" ")
    return verb == "SCAN" and what.split()[0] not in NO_TABLES


def _values(organization: Organization) -> dict[str, Any]:
    """Return a value for each parameter of the statements, with which every one of them finds something."""
    listed = range(organization.sample, organization.clusters.stop)[:100]
    return {
        "org_id": organization.org_id,
        "cluster": cluster_id(organization.sample),
        "clusters": [cluster_id(number) for number in listed],
        "since": landscape.LATE,
        "user_id": organization.user,
        "component": f"{organization.rule}.report",
        "error_key": "K",
        "rule_selector": f"{organization.rule}|K",
        "after": "",
        "after_canonical": "",
        "rows": 11,
    }


@pytest.fixture(scope="module")
def large_database(migrated_url: str) -> Iterator[Database]:
    """Yield a database with 100,000 clusters on each engine in turn."""
    database = open_database(migrated_url)
    landscape.fill(database)
    if not isinstance(database, SqliteDatabase):
        database.execute_sql("ANALYZE")
    yield database
    database.close()


@pytest.fixture(scope="module")
def explorers(large_database: Database, migrated_url: str) -> Iterator[list[Explorer]]:
    """Yield what asks each engine: PostgreSQL for both kinds of plans."""
    found: list[Explorer]
    if isinstance(large_database, SqliteDatabase):
        found = [SqliteExplorer(migrated_url)]
    else:
        url = with_select_only(migrated_url)
        found = [PostgresqlExplorer(url, "custom"), PostgresqlExplorer(url, "generic")]
    yield found
    for explorer in found:
        explorer.close()


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_question_reads_no_more_than_its_answer_needs(explorers: list[Explorer], name: str) -> None:
    problems = [problem for explorer in explorers for problem in explorer.problems(STATEMENTS[name])]
    assert problems == []


@contextlib.contextmanager
def _without_index(database: Database, index: str) -> Iterator[None]:
    database.execute_sql(f"DROP INDEX {index}")
    try:
        yield
    finally:
        database.execute_sql(f"CREATE INDEX {READ_INDEXES.definition(index)}")


@pytest.mark.parametrize(
    ("index", "question"),
    [
        ("recommendation_org_id_rule_id_idx", "clusters_detail"),
        ("cluster_rule_toggle_org_id_rule_id_error_key_idx", "disabled_clusters"),
        ("cluster_user_rule_disable_feedback_user_id_idx", "reasons_of_user"),
    ],
)
def test_without_its_index_a_question_reads_too_much(
    explorers: list[Explorer], large_database: Database, index: str, question: str
) -> None:
    with _without_index(large_database, index):
        assert all(explorer.problems(STATEMENTS[question]) for explorer in explorers)
