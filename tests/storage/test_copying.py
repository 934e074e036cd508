"""The binary format of COPY, as the server reads it."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer_service.copying import CopyFile
from consumer_service.statements import Table

TABLE = Table(
    "copied",
    {"wide": "bigint", "narrow": "integer", "name": "varchar", "text": "varchar", "time": "timestamp"},
    long_text="text",
)
SIZES = {"wide": 8, "narrow": 4}


@pytest.fixture(scope="module")
def cursor(shared_url: str) -> Iterator[Any]:
    """Yield a cursor in a session that has the table."""
    connection = psycopg2.connect(shared_url)
    columns = ", ".join(f"{name} {kind}" for name, kind in TABLE.columns.items())
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE copied ({columns}, number serial)")
        connection.commit()
        yield cursor
    connection.close()


def copy(cursor: Any, rows: list[tuple[Any, ...]], sizes: dict[str, int] = SIZES) -> list[tuple[Any, ...]]:
    """Return what the table has after a COPY of rows into it."""
    cursor.execute("DELETE FROM copied")
    file: Any = CopyFile(TABLE, rows, sizes)
    cursor.copy_expert(f"COPY copied ({TABLE.column_list}) FROM STDIN (FORMAT binary)", file)
    cursor.execute(f"SELECT {TABLE.column_list} FROM copied ORDER BY number")
    found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
rows = st.tuples(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.none() | texts,
    st.none() | texts,
    st.none() | st.datetimes(),
)


@given(rows=st.lists(rows, max_size=5))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_value_arrives_as_it_was(cursor: Any, rows: list[tuple[Any, ...]]) -> None:
    assert copy(cursor, rows) == rows


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000])
def test_any_number_of_rows_arrives_in_its_order(cursor: Any, count: int) -> None:
    rows = [(number, -number, str(number), "x" * number, datetime(2026, 5, 1)) for number in range(count)]
    assert copy(cursor, rows) == rows


def test_a_long_text_arrives_whole(cursor: Any) -> None:
    rows = [(1, 1, "name", "ž" * 3_000_000, None), (2, 2, "other", "end", None)]
    assert copy(cursor, rows) == rows


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1])
def test_a_number_too_large_for_its_column_is_refused_as_a_value(cursor: Any, number: int) -> None:
    with pytest.raises(psycopg2.DataError) as raised:
        copy(cursor, [(1, number, None, None, None)])
    assert raised.value.pgcode is not None
    assert raised.value.pgcode.startswith("22")
    cursor.connection.rollback()
