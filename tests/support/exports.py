"""Exports made by hand, and odd rows for every table that any database can hold (`docs/export.md`)."""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st
from peewee import Database

from consumer_service.transfer.line_format import FORMAT, FORMAT_VERSION, Header
from consumer_service.transfer.line_writer import LineWriter
from consumer_service.transfer.tables import EXPORTED
from libaggregator.storage.models import SCHEMA_VERSION
from tests.support.tables import empty_tables

Rows = Mapping[str, Sequence[tuple[Any, ...]]]

HEADER = Header(
    format=FORMAT,
    format_version=FORMAT_VERSION,
    schema_version=SCHEMA_VERSION,
    program_version="tests",
    exported_at="2026-06-01T12:00:00.000000Z",
    engine="sqlite",
    tables={table.name: list(table.columns) for table in EXPORTED},
)


def export_of(rows: Rows, header: Header = HEADER) -> bytes:
    """Return an export of rows that are in the order of their keys, with times as databases show them."""
    file = io.BytesIO()
    writer = LineWriter(file, header, lambda count: None)
    for table in EXPORTED:
        writer.begin(table)
        for row in rows.get(table.name, ()):
            writer.add(row)
        writer.finish_table()
    writer.end()
    return file.getvalue()


def sealed(lines: Iterable[bytes]) -> bytes:
    """Return lines with checksums that are right for them, as only somebody who knows the format can make them."""
    done = b""
    for line in lines:
        content = json.loads(line)
        if isinstance(content, dict) and "sha256" in content:
            content["sha256"] = hashlib.sha256(done).hexdigest()
            done += json.dumps(content, separators=(",", ":")).encode() + b"\n"
        else:
            done += line
    return done


def rows_in(export: bytes) -> list[bytes]:
    """Return what two exports of equal tables have in common: all lines but the header and the checksums."""
    return [line for line in export.splitlines() if line.startswith((b"[", b'{"table"'))]


def fill(database: Database, rows: Rows) -> None:
    """Replace all rows of a database, those of reports before those that need one."""
    mark = database.param
    with database.atomic():
        empty_tables(database)
        for table in EXPORTED:
            marks = ", ".join([mark] * len(table.columns))
            statement = f"INSERT INTO {table.name} ({table.table.column_list}) VALUES ({marks})"
            for row in rows.get(table.name, ()):
                database.execute_sql(statement, row)


def odd_rows(largest_org_id: int = 2**63 - 1) -> st.SearchStrategy[dict[str, list[tuple[Any, ...]]]]:
    """Return rows for all tables such as databases hold: odd texts, upper-case ids, NULL, times from year 1 to 9999."""
    texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
    texts |= st.sampled_from(
        ["", "\\", '"', "\\N", "\\.", "\t\r\n", "\u2028", "\x7f", "😀", "'; --", "null", "%s", "\b\f\v"]
    )
    ids = st.sampled_from(["a" * 8, "A" * 8, "b", "Ä", "\uffff", "😀"])
    times = st.datetimes().map(str) | st.sampled_from(["2026-05-01 08:00:00", "2026-05-01 08:00:00.000001"])
    small = st.sampled_from([-1, 0, 1, -(2**15), 2**15 - 1])
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "varchar": texts,
        "timestamp": times,
        "smallint": small,
        "integer": small | st.sampled_from([-(2**31), 2**31 - 1]),
        "bigint": st.integers(-(2**63), 2**63 - 1),
    }

    def column(table: str, name: str, kind: str, nullable: bool) -> st.SearchStrategy[Any]:
        values = kinds[kind]
        if name in ("cluster", "cluster_id"):
            values = ids
        elif name == "disabled":
            values = st.sampled_from([0, 1])
        elif name == "org_id" and kind == "bigint":
            values = st.sampled_from([1, 2, largest_org_id])
        return values | st.none() if nullable else values

    tables = {}
    for table in EXPORTED:
        columns = [column(table.name, name, kind, name in table.nullable) for name, kind in table.table.columns.items()]
        tables[table.name] = st.lists(st.tuples(*columns), max_size=4, unique_by=table.key_of).map(
            lambda rows, key=table.key_of: sorted(rows, key=key)
        )

    def with_reports_of_votes(rows: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
        clusters = {row[1] for row in rows["report"]}
        votes = rows["cluster_rule_user_feedback"]
        return {**rows, "cluster_rule_user_feedback": [row for row in votes if row[0] in clusters]}

    return st.fixed_dictionaries(tables).map(with_reports_of_votes)
