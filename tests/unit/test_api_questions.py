"""How often the database is asked for an answer, and that the order of its rows plays no part."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from api_service.database import Reader, Rows, Statement
from tests.support.api import CLUSTER, OTHER_CLUSTER, QUESTIONS, THIRD_CLUSTER, ApiUnderTest

CLUSTERS = (CLUSTER, OTHER_CLUSTER, THIRD_CLUSTER)
RULES = (("a.b", "K"), ("a.b", "L"), ("a.c", "K"))


def _fill(api: ApiUnderTest) -> None:
    for cluster, (rule, key) in product(CLUSTERS, RULES):
        if (rule, key) == RULES[0]:
            api.insert("report", cluster=cluster, reported_at="2026-05-04 11:00:00")
        hit = {"cluster_id": cluster, "error_key": key}
        api.insert("rule_hit", **hit, rule_fqdn=f"{rule}.report")
        api.insert("recommendation", **hit, rule_fqdn=rule, rule_id=f"{rule}|{key}", created_at=None)
        api.insert("cluster_rule_toggle", **hit, rule_id=f"{rule}.report", disabled_at="2026-05-04 11:00:00")
        api.insert("cluster_user_rule_disable_feedback", **hit, rule_id=f"{rule}.report")
    for rule, key in RULES:
        api.insert("rule_disable", rule_id=f"{rule}.report", error_key=key)
    api.insert("report", org_id=2, cluster="c")


def _watch(monkeypatch: pytest.MonkeyPatch, see: Callable[[Rows], Rows]) -> None:
    """Let `see` look at, and change, what the database answers."""
    read = Reader.read

    def watched(self: Reader, statement: Statement, **values: Any) -> Rows:
        return see(read(self, statement, **values))

    monkeypatch.setattr(Reader, "read", watched)


@pytest.mark.parametrize(("method", "path"), QUESTIONS)
@pytest.mark.parametrize("fill", [_fill, lambda api: None], ids=["rows", "no rows"])
def test_a_request_is_one_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str, fill: Callable[[ApiUnderTest], None]
) -> None:
    answers: list[Rows] = []

    def count(rows: Rows) -> Rows:
        answers.append(rows)
        return rows

    api = ApiUnderTest(tmp_path)
    fill(api)
    _watch(monkeypatch, count)
    assert api.ask_question(method, path).status_code in (200, 404)
    assert len(answers) == 1


LISTS = [
    ("GET", "organizations", None),
    ("GET", "organizations/1/clusters", None),
    ("GET", f"organizations/1/clusters/{CLUSTER}/users/u/report", None),
    ("POST", "recommendations/organizations/1/users/u/list", list(CLUSTERS)),
    ("GET", "rules/a.b|K/organizations/1/users/u/clusters_detail", None),
    ("POST", "clusters/organizations/1/users/u/recommendations", list(CLUSTERS)),
    ("GET", "rules/organizations/1/disabled", None),
    ("POST", "rules/organizations/1/disabled_for_clusters", list(CLUSTERS)),
    ("GET", "clusters/rules/a.b.report/error_key/K/organizations/1/disabled", None),
    ("GET", "rules/users/u/disabled/feedback", None),
    ("GET", "rules/organizations/1/disabled_system_wide", None),
]


@pytest.mark.parametrize(("method", "path", "body"), LISTS)
def test_an_answer_is_the_same_in_whatever_order_the_database_returns_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: list[str] | None
) -> None:
    api = ApiUnderTest(tmp_path)
    _fill(api)
    rows: list[int] = []
    expected = api.ask(method, path, json=body)

    def reverse(found: Rows) -> Rows:
        rows.append(len(found))
        return found[::-1]

    _watch(monkeypatch, reverse)
    assert api.ask(method, path, json=body).text == expected.text
    assert rows[0] > 1
