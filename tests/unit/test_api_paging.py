"""The parameters of pages, and the header that leads to the next one (`docs/rest.md`, section 6.2)."""

from pathlib import Path
from typing import Any

import pytest
from falcon import testing
from hypothesis import given, settings
from hypothesis import strategies as st

from api_service.database import Reader, Rows, Statement
from tests.support.api import CLUSTER, OTHER_CLUSTER, THIRD_CLUSTER, ApiUnderTest, identity

pytestmark = pytest.mark.usefixtures("plain_logs")

PREFIX = "/api/insights-results-aggregator/v1"
CLUSTERS = "organizations/1/clusters"
DETAIL = "rules/a.b|K/organizations/1/users/u/clusters_detail"
ASCENDING = [OTHER_CLUSTER, CLUSTER, THIRD_CLUSTER]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> ApiUnderTest:
    """Return an API that knows three clusters which one rule hits."""
    api = ApiUnderTest(tmp_path_factory.mktemp("api"), org_overview_limit_hours=24)
    _fill(api)
    return api


def _fill(api: ApiUnderTest) -> None:
    for cluster in (THIRD_CLUSTER, OTHER_CLUSTER, CLUSTER):
        api.insert("report", cluster=cluster)
        api.insert("recommendation", cluster_id=cluster)


def _found(answer: testing.Result) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [found if isinstance(found, str) else found["cluster"] for found in answer.json["clusters"]]


def _refusal(name: str, value: str, reason: str) -> tuple[int, dict[str, str]]:
    text = f"Error during parsing param '{name}' with value '{value}'. Error: '{reason}'"
    return 400, {"status": text}


def _asked(api: ApiUnderTest, path: str, query: str) -> tuple[int, Any]:
    answer = api.get(path, query_string=query)
    return answer.status_code, answer.json


@pytest.mark.parametrize("path", [CLUSTERS, DETAIL])
@pytest.mark.parametrize(
    ("query", "expected", "next_query"),
    [
        ("", ASCENDING, None),
        ("limit=1", ASCENDING[:1], f"limit=1&after={ASCENDING[0]}"),
        ("limit=2", ASCENDING[:2], f"limit=2&after={ASCENDING[1]}"),
        ("limit=0002", ASCENDING[:2], f"limit=2&after={ASCENDING[1]}"),
        ("limit=3", ASCENDING, None),
        ("limit=4294967295", ASCENDING, None),
        (f"after={ASCENDING[0]}", ASCENDING[1:], None),
        (f"after={ASCENDING[0]}&limit=1", ASCENDING[1:2], f"limit=1&after={ASCENDING[1]}"),
        (f"limit=1&after={ASCENDING[1]}", ASCENDING[2:], None),
        (f"limit=1&after={ASCENDING[2]}", [], None),
        (f"after={ASCENDING[2]}", [], None),
        ("after=00000000-0000-0000-0000-000000000000", ASCENDING, None),
    ],
)
def test_a_page_has_what_follows_and_says_where_the_next_one_is(
    api: ApiUnderTest, path: str, query: str, expected: list[str], next_query: str | None
) -> None:
    answer = api.get(path, query_string=query)
    assert _found(answer) == expected
    link = f'<{PREFIX}/{path.replace("|", "%7C")}?{next_query}>; rel="next"' if next_query else None
    assert answer.headers.get("Link") == link


def test_clusters_that_reported_long_ago_are_on_no_page(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path, org_overview_limit_hours=24)
    _fill(api)
    api.database.execute_sql(f"UPDATE report SET reported_at = '2026-01-01 00:00:00' WHERE cluster = '{CLUSTER}'")
    answer = api.get(CLUSTERS, query_string="limit=1")
    assert "Link" in answer.headers
    assert _found(api.get(CLUSTERS, query_string=f"limit=1&after={_found(answer)[0]}")) == [THIRD_CLUSTER]


def test_the_body_filters_pages_too(api: ApiUnderTest) -> None:
    body = f'{{"clusters": ["{ASCENDING[0]}", "{ASCENDING[2]}", "x"]}}'
    first = api.get(DETAIL, query_string="limit=1", body=body)
    assert (_found(first), "Link" in first.headers) == (ASCENDING[:1], True)
    second = api.get(DETAIL, query_string=f"limit=1&after={ASCENDING[0]}", body=body)
    assert (_found(second), "Link" in second.headers) == (ASCENDING[2:], False)


@pytest.mark.parametrize("query", ["", "limit=5"])
def test_a_rule_that_hits_nothing_is_not_found_but_the_end_of_a_list_is_empty(api: ApiUnderTest, query: str) -> None:
    path = DETAIL.replace("|K", "|X")
    text = "Item with ID a.b|X was not found in the storage"
    assert _asked(api, path, query) == (404, {"status": text})
    assert _asked(api, path, f"{query}&after={CLUSTER}") == (200, {"clusters": [], "status": "ok"})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "unsigned integer expected"),
        ("-1", "unsigned integer expected"),
        ("1.0", "unsigned integer expected"),
        ("ten", "unsigned integer expected"),
        ("18446744073709551616", "unsigned integer expected"),
        ("0", "positive value expected"),
        ("000", "positive value expected"),
    ],
)
@pytest.mark.parametrize("path", [CLUSTERS, DETAIL])
def test_a_limit_is_a_positive_integer(api: ApiUnderTest, path: str, value: str, reason: str) -> None:
    assert _asked(api, path, f"limit={value}") == _refusal("limit", value, reason)


@pytest.mark.parametrize("value", ["4294967296", "0004294967296"])
def test_a_limit_above_32_bits_is_refused_with_the_plain_number(api: ApiUnderTest, value: str) -> None:
    assert _asked(api, CLUSTERS, f"limit={value}") == (400, {"status": "value 4294967296 out of range for uint32"})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "invalid UUID length: 0"),
        ("x", "invalid UUID length: 1"),
        (f"urx:uuid:{CLUSTER}", 'invalid urn prefix: "urx:uuid:"'),
        (CLUSTER.replace("-", "_"), "invalid UUID format"),
    ],
)
@pytest.mark.parametrize("path", [CLUSTERS, DETAIL])
def test_after_is_a_cluster_id(api: ApiUnderTest, path: str, value: str, reason: str) -> None:
    assert _asked(api, path, f"after={value}") == _refusal("after", value, reason)


@pytest.mark.parametrize(
    "written", [CLUSTER.upper(), CLUSTER.replace("-", ""), f"%7B{CLUSTER}%7D", f"URN:UUID:{CLUSTER}"]
)
@pytest.mark.parametrize("path", [CLUSTERS, DETAIL])
def test_after_may_have_any_form_of_a_cluster_id(api: ApiUnderTest, path: str, written: str) -> None:
    assert _found(api.get(path, query_string=f"after={written}")) == [THIRD_CLUSTER]


@pytest.mark.parametrize(
    ("encoded", "decoded"),
    [
        ("%FF", "\ufffd"),
        ("%C5%BE", "ž"),
        ("%zz", "%zz"),
        ("%", "%"),
        ("%00", "\0"),
        ("%31%0A", "1\n"),
        ("%2B1", "+1"),
        ("+1", " 1"),
        ("'", "'"),
        ("a=b", "a=b"),
    ],
)
def test_a_value_is_decoded_and_shown_as_it_came(api: ApiUnderTest, encoded: str, decoded: str) -> None:
    assert _asked(api, CLUSTERS, f"limit={encoded}") == _refusal("limit", decoded, "unsigned integer expected")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("limit=x&limit=1", ASCENDING[:1]),
        ("limit=2&limit=1", ASCENDING[:1]),
        (f"after=x&after={ASCENDING[1]}", ASCENDING[2:]),
        ("%6Cimit=1", ASCENDING[:1]),
    ],
)
def test_of_a_parameter_given_twice_the_last_counts(api: ApiUnderTest, query: str, expected: list[str]) -> None:
    assert _found(api.get(CLUSTERS, query_string=query)) == expected
    assert _asked(api, CLUSTERS, f"{query}&limit") == _refusal("limit", "", "unsigned integer expected")


@pytest.mark.parametrize("query", ["Limit=0", "AFTER=x", "limit[]=0", "offset=1", "=0", "&&", "limi%00t=0", ";limit=0"])
def test_other_parameters_are_ignored(api: ApiUnderTest, query: str) -> None:
    answer = api.get(CLUSTERS, query_string=query)
    assert (_found(answer), "Link" in answer.headers) == (ASCENDING, False)


@pytest.mark.parametrize("path", ["", "info", "organizations", "rules/organizations/1/disabled", "openapi.json"])
def test_lists_without_pages_ignore_their_parameters(api: ApiUnderTest, path: str) -> None:
    answer = api.get(path, query_string="limit=0&after=x")
    assert (answer.status_code, answer.content) == (200, api.get(path).content)


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=255)), st.sampled_from(["limit=", "after=", "limit=1&after=", ""]))
def test_no_query_string_is_a_failure(api: ApiUnderTest, text: str, beginning: str) -> None:
    for path in (CLUSTERS, DETAIL):
        assert api.get(path, query_string=(beginning + text).lstrip("?")).status_code in (200, 400)


@pytest.mark.parametrize(
    ("path", "org_id", "query", "body", "named"),
    [
        ("organizations/x/clusters", "2", "limit=0&after=x", "", "param 'organization'"),
        ("rules/a.b|K/organizations/1/users/%20/clusters_detail", "2", "limit=0&after=x", "{", "user_id"),
        (CLUSTERS, "2", "after=x&limit=0", "", "param 'limit'"),
        (DETAIL, "2", "after=x&limit=1", "{", "param 'after'"),
        (CLUSTERS, "2", "after=x", "", "param 'after'"),
        (DETAIL, "2", "limit=1", "{", "no permissions"),
        (DETAIL, "1", "limit=1", "{", "well-formed"),
    ],
)
def test_a_query_is_checked_after_the_path_and_before_organization_and_body(
    tmp_path: Path, path: str, org_id: str, query: str, body: str, named: str
) -> None:
    api = ApiUnderTest(tmp_path, auth="xrh")
    assert api.get(path, query_string=query, body=body).status_code == 401
    answer = api.get(path, query_string=query, body=body, headers=identity(org_id))
    assert answer.status_code == (403 if named == "no permissions" else 400)
    assert named in answer.json["status"]


@pytest.mark.parametrize(
    ("given_path", "linked"),
    [
        ("rules/a.b%7CK/organizations/1/users/u/clusters_detail/", "rules/a.b%7CK/organizations/1/users/u/{}"),
        ("rules/a.b|K/organizations/001/users/%20%3F%23/{}", "rules/a.b%7CK/organizations/001/users/%20%3F%23/{}"),
        ("rules/a.b|K/organizations/1/users/%C5%BE%25/{}", "rules/a.b%7CK/organizations/1/users/%C5%BE%25/{}"),
        ("rules/a.b|K/organizations/1/users/%22%3E,%00%0D%0A/{}", "rules/a.b%7CK/organizations/1/users/{user}/{}"),
        ("rules/a.b|K/organizations/1/users/%FF%zz/{}", "rules/a.b%7CK/organizations/1/users/%EF%BF%BD%25zz/{}"),
    ],
)
def test_the_link_is_the_path_of_the_request_encoded(api: ApiUnderTest, given_path: str, linked: str) -> None:
    user = "%22%3E%2C%00%0D%0A"
    expected = linked.replace("{user}", user).replace("{}", "clusters_detail")
    answer = api.get(given_path.replace("{}", "clusters_detail"), query_string="x=1&limit=1")
    assert answer.headers["Link"] == f'<{PREFIX}/{expected}?limit=1&after={OTHER_CLUSTER}>; rel="next"'
    assert _found(api.get(expected, query_string=f"limit=1&after={OTHER_CLUSTER}")) == [CLUSTER]


def test_a_page_that_the_client_has_already_still_says_where_the_next_one_is(api: ApiUnderTest) -> None:
    answer = api.get(CLUSTERS, query_string="limit=1")
    again = api.get(CLUSTERS, query_string="limit=1", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.headers["Link"]) == (304, answer.headers["Link"])


@pytest.mark.parametrize(
    ("path", "query", "body", "statement"),
    [
        (CLUSTERS, "", "", "clusters"),
        (CLUSTERS, "x=1", "", "clusters"),
        (CLUSTERS, "limit=1", "", "clusters_page"),
        (DETAIL, "", "", "clusters_detail"),
        (DETAIL, "", f'{{"clusters": ["{CLUSTER}"]}}', "clusters_detail_filtered"),
        (DETAIL, f"after={OTHER_CLUSTER}", "", "clusters_detail_page"),
        (DETAIL, "limit=1", f'{{"clusters": ["{CLUSTER}"]}}', "clusters_detail_filtered_page"),
    ],
)
def test_a_page_is_one_statement_and_the_whole_list_its_own(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch, path: str, query: str, body: str, statement: str
) -> None:
    asked: list[str] = []
    read = Reader.read

    def note(self: Reader, statement: Statement, **values: Any) -> Rows:
        asked.append(statement.name)
        return read(self, statement, **values)

    monkeypatch.setattr(Reader, "read", note)
    assert api.get(path, query_string=query, body=body).status_code == 200
    assert asked == [statement]
