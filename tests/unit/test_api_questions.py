"""How often the database is asked for an answer."""

from pathlib import Path
from typing import Any

import pytest

from api_service.database import Reader, Rows, Statement
from tests.support.api import QUESTIONS, ApiUnderTest


@pytest.mark.parametrize(("method", "path"), QUESTIONS)
@pytest.mark.parametrize("has_rows", [True, False])
def test_a_request_is_one_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str, has_rows: bool
) -> None:
    asked: list[str] = []
    read = Reader.read

    def count(self: Reader, statement: Statement, **values: Any) -> Rows:
        asked.append(statement.name)
        return read(self, statement, **values)

    monkeypatch.setattr(Reader, "read", count)
    api = ApiUnderTest(tmp_path)
    if has_rows:
        for table in ("report", "rule_hit", "recommendation", "cluster_rule_toggle", "rule_disable"):
            api.insert(table)
    assert api.ask_question(method, path).status_code in (200, 404)
    assert len(asked) == 1, asked
