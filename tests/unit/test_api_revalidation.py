"""Answers that a client has already are not sent again (`docs/rest.md`, section 6.1)."""

import re
from pathlib import Path

import pytest
from falcon import testing
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from api_service.endpoints import Endpoint
from api_service.resources.service import OpenApi
from tests.support.api import CLUSTER, ApiUnderTest, identity

pytestmark = pytest.mark.usefixtures("plain_logs")

CLUSTERS = "organizations/1/clusters"
NEVER = '"00000000000000000000000000000000"'
SEGMENTS = {
    "org_id": "1",
    "organization": "1",
    "cluster": CLUSTER,
    "cluster_list": CLUSTER,
    "user_id": "u",
    "rule_id": "a.b.report",
    "error_key": "K",
    "rule_selector": "a.b|K",
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> ApiUnderTest:
    """Return an API with a row in every table, so that every endpoint finds something."""
    api = ApiUnderTest(tmp_path_factory.mktemp("api"), org_overview_limit_hours=24)
    for table in ("report", "rule_hit", "recommendation", "report_info", "rule_disable", "advisor_ratings"):
        api.insert(table)
    for table in ("cluster_rule_toggle", "cluster_user_rule_disable_feedback", "cluster_rule_user_feedback"):
        api.insert(table)
    return api


def _path(endpoint: Endpoint) -> str:
    template = endpoint.path.replace("rules/{rule_id}", "rules/a.b.report|K") if endpoint.name == "rule" else None
    return re.sub(r"\{(\w+)\}", lambda name: SEGMENTS[name[1]], template or endpoint.path)


def _kept_headers(answer: testing.Result) -> dict[str, str]:
    return {name: answer.headers[name] for name in ("ETag", "Cache-Control") if name in answer.headers}


def _ask_again(api: ApiUnderTest, path: str, if_none_match: str) -> testing.Result:
    return api.get(path, headers={"If-None-Match": if_none_match})


def test_every_answer_of_a_get_but_metrics_can_be_asked_for_again_without_its_body(api: ApiUnderTest) -> None:
    endpoints = [OpenApi.endpoint, *(resource.endpoint for resource in api.resources)]
    paths = [_path(endpoint) for endpoint in endpoints if endpoint.method == "GET" and endpoint.name != "metrics"]
    assert len(paths) > 15
    for path in paths:
        answer = api.get(path)
        assert answer.status_code == 200, path
        assert re.fullmatch('"[0-9a-f]{32}"', answer.headers["ETag"])
        assert answer.headers["Cache-Control"] == "private, no-cache"
        again = _ask_again(api, path, answer.headers["ETag"])
        assert (again.status_code, again.content) == (304, b""), path
        assert _kept_headers(again) == _kept_headers(answer)
        assert not {"Content-Type", "Content-Length"} & set(again.headers)
        assert _ask_again(api, path, NEVER).content == answer.content


def test_the_tag_is_the_same_for_the_same_body_and_another_for_another(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path, org_overview_limit_hours=24)
    empty = api.get(CLUSTERS).headers["ETag"]
    assert api.get("organizations/2/clusters").headers["ETag"] == empty
    api.insert("report")
    answer = _ask_again(api, CLUSTERS, empty)
    assert (answer.status_code, answer.json["clusters"]) == (200, [CLUSTER])
    assert answer.headers["ETag"] != empty


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ("{tag}", 304),
        ("W/{tag}", 304),
        ("*", 304),
        (' "x" ,{tag}', 304),
        ('"x", W/{tag}, "y"', 304),
        ('"a,b", {tag}', 304),
        ('"x"', 200),
        ('"x", "y"', 200),
        ('"*"', 200),
        ("", 200),
        (" ", 200),
        (",", 200),
        ('"', 200),
        ("W/", 200),
        ('{tag}"', 200),
        ("\xff\x00", 200),
    ],
)
def test_the_comparison_is_weak_and_takes_a_list(api: ApiUnderTest, form: str, status: int) -> None:
    tag = api.get(CLUSTERS).headers["ETag"]
    answer = _ask_again(api, CLUSTERS, form.format(tag=tag))
    assert answer.status_code == status
    assert answer.headers["ETag"] == tag


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=255)))
def test_whatever_the_header_says_the_request_is_answered(api: ApiUnderTest, value: str) -> None:
    tag = api.get(CLUSTERS).headers["ETag"]
    answer = _ask_again(api, CLUSTERS, value)
    known = value.strip() == "*" or tag.strip('"') in value
    assert answer.status_code in ({200, 304} if known else {200})


def test_metrics_are_not_kept(api: ApiUnderTest) -> None:
    answer = _ask_again(api, "metrics", "*")
    assert (answer.status_code, _kept_headers(answer)) == (200, {})


def test_answers_to_post_and_options_are_not_kept(api: ApiUnderTest) -> None:
    path = "organizations/1/clusters/reports"
    answer = api.post(path, f'{{"clusters": ["{CLUSTER}"]}}', headers={"If-None-Match": "*"})
    assert (answer.status_code, _kept_headers(answer)) == (200, {})
    assert _kept_headers(api.ask("OPTIONS", CLUSTERS, headers={"If-None-Match": "*"})) == {}


@pytest.mark.parametrize(
    ("method", "path", "org_id", "status"),
    [
        ("GET", "unknown", "1", 404),
        ("PUT", CLUSTERS, "1", 405),
        ("GET", CLUSTERS, None, 401),
        ("GET", "organizations/x/clusters", "1", 400),
        ("GET", CLUSTERS, "2", 403),
        ("GET", "rules/x.y|Z/organizations/1/users/u/clusters_detail", "1", 404),
    ],
)
def test_an_error_comes_before_what_the_client_knows_and_is_not_kept(
    tmp_path: Path, method: str, path: str, org_id: str | None, status: int
) -> None:
    api = ApiUnderTest(tmp_path, auth="xrh")
    headers = identity(org_id) if org_id else {}
    answer = api.ask(method, path, headers={"If-None-Match": "*", **headers})
    assert (answer.status_code, _kept_headers(answer)) == (status, {})


def test_a_broken_body_and_an_outage_come_before_it_too(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path)
    detail = "rules/a.b|K/organizations/1/users/u/clusters_detail"
    assert api.get(detail, body="{", headers={"If-None-Match": "*"}).status_code == 400
    api.file.unlink()
    outage = _ask_again(api, CLUSTERS, "*")
    assert (outage.status_code, _kept_headers(outage)) == (503, {})


def test_an_answer_that_is_not_sent_has_its_id_its_line_in_the_log_and_its_count(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path)
    with capture_logs() as logs:
        answer = api.get(CLUSTERS, headers={"If-None-Match": "*", "X-Request-Id": "mine"})
    assert answer.headers["X-Request-Id"] == "mine"
    (entry,) = [entry for entry in logs if entry["event"] == "request"]
    assert entry["status"] == 304
    labels = {"route": "/organizations/{organization}/clusters", "method": "GET", "status": "304"}
    assert api.registry.get_sample_value("aggregator_api_requests_total", labels) == 1
