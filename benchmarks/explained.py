"""Runs a service whose every SQL statement is explained on its own connection before it is executed.

    python -m benchmarks.explained FILE consumer_service.cli run

The extension `auto_explain` would do the same, but few servers have it where a program can read its log. Each
statement is executed once for its plan with real numbers, undone, and then executed for good.
"""

import functools
import json
import re
import runpy
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class with a name in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812

_EXPLAINABLE = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|EXECUTE)\b", re.IGNORECASE)
_PREPARE = re.compile(r"\s*PREPARE\s+(?P<name>\w+)")
_EXECUTE = re.compile(r"\s*EXECUTE\s+(?P<name>\w+)")
# of several that psycopg2 sends at once; a semicolon within quotes ends nothing
_FIRST_STATEMENT = re.compile(rb"(?:[^';]|'(?:[^']|'')*')+")


class _Plans:
    """The file with a line of JSON for each statement; the names of prepared statements stand for their text."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._prepared: dict[str, str] = {}
        self._lock = threading.Lock()

    def note(self, statement: str, plan: dict[str, Any] | None) -> None:
        if prepared := _PREPARE.match(statement):
            self._prepared[prepared["name"]] = statement
            return
        if executed := _EXECUTE.match(statement):
            statement = self._prepared[executed["name"]]
        with self._lock, self._file.open("a", encoding="utf-8") as output:
            output.write(json.dumps({"statement": statement, "plan": plan}) + "\n")


class _ExplainingCursor(Cursor):
    """A cursor that has the server explain what it executes."""

    plans: _Plans

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - psycopg2's name
        text = query.decode(errors="replace") if isinstance(query, bytes) else query
        plan = _explained(self.connection, query, vars) if _EXPLAINABLE.match(text) else None
        self.plans.note(text, plan)
        super().execute(query, vars)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        self.plans.note(sql, None)
        super().copy_expert(sql, file, size)


def _explained(connection: Connection, query: Any, values: Any) -> dict[str, Any]:
    """Return the plan of a statement as it was executed, and leave everything as it was."""
    with connection.cursor(cursor_factory=Cursor) as cursor:
        text = cursor.mogrify(query, values)
        first = _FIRST_STATEMENT.match(text)
        assert first
        idle = connection.info.transaction_status == TRANSACTION_STATUS_IDLE
        cursor.execute("BEGIN" if idle else "SAVEPOINT explained")
        cursor.execute(b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + first[0])
        ((found,),) = cursor.fetchall()
        cursor.execute("ROLLBACK" if idle else "ROLLBACK TO SAVEPOINT explained; RELEASE SAVEPOINT explained")
    plan: dict[str, Any] = found[0]
    return plan


def main(arguments: Sequence[str]) -> None:
    """Run the module that the second argument names with the arguments behind it."""
    file, module, *others = arguments
    _ExplainingCursor.plans = _Plans(Path(file))
    psycopg2.connect = functools.partial(psycopg2.connect, cursor_factory=_ExplainingCursor)
    sys.argv = [module, *others]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
