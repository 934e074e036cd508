"""The bodies of requests, well-formed or not (`docs/rest.md`, section 2.10)."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from falcon.testing import create_environ

from tests.support.api import CLUSTER, OTHER_CLUSTER, ApiUnderTest

REPORTS = "organizations/1/clusters/reports"
ARRAY_PATHS = (
    "recommendations/organizations/1/users/u/list",
    "clusters/organizations/1/users/u/recommendations",
    "rules/organizations/1/disabled_for_clusters",
)
DETAIL = "rules/a.b|K/organizations/1/users/u/clusters_detail"
NOTHING = {"clusters": [], "errors": [], "reports": {}, "generated_at": "", "status": "ok"}

NOT_WELL_FORMED = [
    b" ",
    b"\n",
    b"{",
    b"[1,]",
    b'["a"] x',
    b"['a']",
    b"[NaN]",
    b"NaN",
    b"[Infinity]",
    b"[-Infinity]",
    b'["\xff"]',
    b'["\xed\xa0\x80"]',
    b"\xef\xbb\xbf[]",
    "[]".encode("utf-16"),
    b'["\t"]',
    b"[01]",
    b"{} {}",
    b"[" * 100_000 + b"]" * 100_000,
]


@pytest.fixture(scope="module")
def api(migrated_url: str) -> Iterator[ApiUnderTest]:
    """Yield an API that knows one cluster, hit by one rule that is switched off, on each engine in turn."""
    api = ApiUnderTest(migrated_url)
    for table in ("report", "recommendation", "cluster_rule_toggle"):
        api.insert(table)
    yield api
    api.close()


@pytest.mark.parametrize("path", [*ARRAY_PATHS, REPORTS])
def test_a_missing_body_is_refused_by_name(api: ApiUnderTest, path: str) -> None:
    answer = api.post(path, b"")
    assert (answer.status_code, answer.json) == (400, {"status": "client didn't provide request body"})


@pytest.mark.parametrize("body", NOT_WELL_FORMED)
@pytest.mark.parametrize("path", [*ARRAY_PATHS, REPORTS, DETAIL])
def test_a_body_that_is_not_well_formed_is_refused(api: ApiUnderTest, path: str, body: bytes) -> None:
    answer = api.ask("GET" if path == DETAIL else "POST", path, body=body)
    assert answer.status_code == 400
    assert list(answer.json) == ["status"]
    assert answer.json["status"] not in ("client didn't provide request body", "bad type in json data")


def test_a_body_of_chunks_that_came_without_a_length_is_read(api: ApiUnderTest) -> None:
    environ = create_environ(
        path=api.settings.prefix + REPORTS,
        method="POST",
        headers={"Transfer-Encoding": "chunked"},
        body=json.dumps({"clusters": [CLUSTER]}),
    )
    del environ["CONTENT_LENGTH"]
    answer = b"".join(api.app(environ, lambda status, headers: None))
    assert json.loads(answer)["clusters"] == [CLUSTER]


@pytest.mark.parametrize("body", ["{}", '{"clusters": []}', '"x"', "1", "null", "true", "[1]", '["x", null]', "[[]]"])
@pytest.mark.parametrize("path", ARRAY_PATHS)
def test_an_array_body_must_be_an_array_of_strings(api: ApiUnderTest, path: str, body: str) -> None:
    answer = api.post(path, body)
    assert (answer.status_code, answer.json) == (400, {"status": "bad type in json data"})


@pytest.mark.parametrize(
    "body", ["[]", '"x"', "1", "null", "true", '{"clusters": "x"}', '{"clusters": {}}', '{"clusters": [1]}']
)
@pytest.mark.parametrize(("method", "path"), [("POST", REPORTS), ("GET", DETAIL)])
def test_an_object_body_must_be_an_object_with_an_array_of_strings(
    api: ApiUnderTest, method: str, path: str, body: str
) -> None:
    answer = api.ask(method, path, body=body)
    assert (answer.status_code, answer.json) == (400, {"status": "bad type in json data"})


@pytest.mark.parametrize("body", ["{}", '{"clusters": null}', '{"clusters": []}', '{"Clusters": ["x"]}', ' {"x": 1} '])
def test_an_object_body_without_clusters_is_an_empty_list(api: ApiUnderTest, body: str) -> None:
    assert api.post(REPORTS, body).json == NOTHING
    assert api.post("organizations/777/clusters/reports", body).json == NOTHING


def test_of_a_key_given_twice_the_last_one_counts(api: ApiUnderTest) -> None:
    assert api.post(REPORTS, f'{{"clusters": 5, "clusters": ["{CLUSTER}"]}}').json["clusters"] == [CLUSTER]
    assert api.post(REPORTS, f'{{"clusters": ["{CLUSTER}"], "clusters": 5}}').status_code == 400


def test_other_keys_are_ignored_whatever_they_hold(api: ApiUnderTest) -> None:
    body = f'{{"x": {"9" * 5000}, "y": "\\ud800", "clusters": ["{CLUSTER}"]}}'
    assert api.post(REPORTS, body).json["clusters"] == [CLUSTER]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "nonsense", ""])
def test_the_content_type_is_ignored(api: ApiUnderTest, content_type: str) -> None:
    answer = api.post(REPORTS, json.dumps({"clusters": [CLUSTER]}), headers={"Content-Type": content_type})
    assert answer.json["clusters"] == [CLUSTER]


def test_the_ids_of_reports_are_checked(api: ApiUnderTest) -> None:
    answer = api.post(REPORTS, json.dumps({"clusters": [CLUSTER, "aaaa", ""]}))
    text = "invalid cluster ID: 'aaaa'. Error: invalid UUID length: 4"
    assert (answer.status_code, answer.json) == (400, {"status": text})


@pytest.mark.parametrize(("element", "length"), [("\\ud800", 3), ("a\\u0000", 2), ("\\ud83d\\ude00", 4)])
def test_an_id_that_is_quoted_in_an_error_may_hold_anything(api: ApiUnderTest, element: str, length: int) -> None:
    answer = api.post(REPORTS, f'{{"clusters": ["{element}"]}}')
    quoted = json.loads(f'"{element}"')
    text = f"invalid cluster ID: '{quoted}'. Error: invalid UUID length: {length}"
    assert (answer.status_code, json.loads(answer.text)) == (400, {"status": text})


@pytest.mark.parametrize(
    ("path", "name", "nothing"),
    [(ARRAY_PATHS[0], "recommendations", {}), (ARRAY_PATHS[1], "clusters", {}), (ARRAY_PATHS[2], "rules", [])],
)
def test_ids_that_match_nothing_are_no_error(api: ApiUnderTest, path: str, name: str, nothing: Any) -> None:
    for ids in ("[]", '["aaaa"]', '[""]', '["\\ud800"]', '["\\u0000"]', '["\\ud800", "\\u0000", "x"]'):
        assert api.post(path, ids).json == {name: nothing, "status": "ok"}
    for written in (CLUSTER, CLUSTER.upper(), f"{{{CLUSTER}}}"):
        found = api.post(path, f'["\\ud800", "{written}", "\\u0000", "{CLUSTER}"]').json[name]
        assert len(found) == 1
        found = api.post(path, f'["x", "{written}"]').json[name]
        assert CLUSTER in json.dumps(found)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"clusters": []}', b'{"clusters": null}'])
def test_an_empty_filter_filters_nothing(api: ApiUnderTest, body: bytes) -> None:
    answer = api.get(DETAIL, body=body)
    assert [cluster["cluster"] for cluster in answer.json["clusters"]] == [CLUSTER]


@pytest.mark.parametrize("ids", ['["x"]', '["\\ud800"]', '["\\u0000"]', f'["{OTHER_CLUSTER}"]', '[""]'])
def test_a_filter_of_ids_that_match_nothing_leaves_nothing(api: ApiUnderTest, ids: str) -> None:
    answer = api.get(DETAIL, body=f'{{"clusters": {ids}}}')
    text = "Item with ID a.b|K was not found in the storage"
    assert (answer.status_code, answer.json) == (404, {"status": text})


def test_a_filter_takes_ids_in_any_form(api: ApiUnderTest) -> None:
    body = json.dumps({"clusters": ["x", f"urn:uuid:{CLUSTER.upper()}"]})
    assert [cluster["cluster"] for cluster in api.get(DETAIL, body=body).json["clusters"]] == [CLUSTER]


def test_a_body_of_25000_ids_works(api: ApiUnderTest) -> None:
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(25_000)]
    answer = api.post(REPORTS, json.dumps({"clusters": [*ids, CLUSTER]}))
    assert (answer.json["clusters"], answer.json["errors"]) == ([CLUSTER], ids)
