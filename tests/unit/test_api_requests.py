"""What is logged and counted of a request, and the id that it has."""

import re
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.support.api import ApiUnderTest, identity

pytestmark = pytest.mark.usefixtures("plain_logs")


@pytest.mark.parametrize(
    ("method", "path", "line"),
    [
        ("GET", "organizations/0001/clusters", ("GET", "/organizations/{organization}/clusters", 200, 1)),
        ("GET", "organizations/x/clusters", ("GET", "/organizations/{organization}/clusters", 400, None)),
        ("PUT", "organizations/1/clusters", ("PUT", "/organizations/{organization}/clusters", 405, None)),
        ("GET", "", ("GET", "/", 200, None)),
        ("DELETE", "clusters/secret", ("DELETE", "/clusters/{clusters}", 405, None)),
        ("GET", "secret", ("GET", "(unknown path)", 404, None)),
        ("GET", "organizations//clusters", ("GET", "(unknown path)", 404, None)),
        ("TRACE", "info", ("other", "/info", 405, None)),
        ("HEAD", "info", ("HEAD", "/info", 405, None)),
        ("OPTIONS", "info", ("OPTIONS", "/info", 200, None)),
        ("PATCH", "info", ("PATCH", "/info", 405, None)),
        ("POST", "organizations/1/clusters/reports", ("POST", "/organizations/{org_id}/clusters/reports", 400, 1)),
    ],
)
def test_a_request_is_one_line_and_one_count_by_its_template_never_its_path(
    tmp_path: Path, method: str, path: str, line: tuple[object, ...]
) -> None:
    api = ApiUnderTest(tmp_path)
    with capture_logs() as logs:
        api.ask(method, path)
    (entry,) = [entry for entry in logs if entry["event"] == "request"]
    assert (entry["method"], entry["route"], entry["status"], entry["org_id"]) == line
    assert entry["milliseconds"] >= 0
    labels = {"method": line[0], "route": line[1], "status": str(line[2])}
    assert api.registry.get_sample_value("aggregator_api_requests_total", labels) == 1
    assert api.registry.get_sample_value("aggregator_api_request_seconds_count", labels) == 1
    assert "secret" not in api.get("metrics").text


def test_the_organization_of_the_identity_is_logged_where_the_path_has_none(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path, auth="xrh")
    with capture_logs() as logs:
        api.get("organizations", headers=identity("7"))
    assert [entry["org_id"] for entry in logs if entry["event"] == "request"] == [7]


def test_the_id_of_a_request_is_taken_over(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path)
    assert api.get("info", headers={"X-Request-Id": "a1-B2_c.3"}).headers["X-Request-Id"] == "a1-B2_c.3"
    assert api.get("unknown", headers={"X-Request-Id": "a"}).headers["X-Request-Id"] == "a"


@pytest.mark.parametrize("given", ["", "a b", "a\tb", "x" * 129, "a, b", "<script>", "\xe9"])
def test_an_id_that_could_do_harm_is_replaced(tmp_path: Path, given: str) -> None:
    api = ApiUnderTest(tmp_path)
    made = [api.get("info", headers={"X-Request-Id": given}).headers["X-Request-Id"] for _ in range(2)]
    assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in made)
    assert made[0] != made[1]


def test_metrics_under_the_prefix_are_in_the_format_of_prometheus(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path)
    answer = api.get("metrics")
    assert answer.content_type.startswith("text/plain")
    assert 'aggregator_api_build_info{branch="not known at build time"' in answer.text
