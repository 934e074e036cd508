"""What is answered when the database or the program fails, and what is logged and counted meanwhile."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.support.api import QUESTIONS, ApiUnderTest, identity


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    """Keep structlog from drawing each traceback, which takes a second."""
    with capture_logs():
        yield


@pytest.fixture(scope="module")
def api_in_outage(tmp_path_factory: pytest.TempPathFactory) -> ApiUnderTest:
    """Return an API whose database file is gone."""
    api = ApiUnderTest(tmp_path_factory.mktemp("away"))
    api.database.close()
    api.file.unlink()
    return api


@pytest.fixture(scope="module")
def api_with_wrong_schema(tmp_path_factory: pytest.TempPathFactory) -> ApiUnderTest:
    """Return an API whose tables are gone, so that every statement is wrong."""
    api = ApiUnderTest(tmp_path_factory.mktemp("wrong"))
    for table in api.database.get_tables():
        api.database.execute_sql(f"DROP TABLE {table}")
    return api


@pytest.mark.parametrize(("method", "path"), QUESTIONS)
def test_an_outage_of_the_database_is_503_with_a_time_to_try_again(
    api_in_outage: ApiUnderTest, method: str, path: str
) -> None:
    answer = api_in_outage.ask_question(method, path)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert list(answer.json) == ["status"]
    assert not re.search(r"SELECT|sqlite|unable|\.db", answer.text, re.IGNORECASE)


@pytest.mark.parametrize(("method", "path"), QUESTIONS)
def test_a_wrong_statement_is_500_so_that_nobody_tries_again(
    api_with_wrong_schema: ApiUnderTest, method: str, path: str
) -> None:
    answer = api_with_wrong_schema.ask_question(method, path)
    assert (answer.status_code, answer.json) == (500, {"status": "Internal Server Error"})
    assert "Retry-After" not in answer.headers


def test_every_endpoint_that_asks_the_database_is_in_the_tests_above(api_in_outage: ApiUnderTest) -> None:
    answers = {path: api_in_outage.get(path).status_code for path in ("", "info", "metrics", "openapi.json")}
    assert answers == dict.fromkeys(answers, 200)
    assert len(api_in_outage.get("openapi.json").json["paths"]) == len(QUESTIONS) + len(answers)


def test_the_database_is_used_again_when_it_is_back(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path)
    hidden = api.file.rename(tmp_path / "hidden")
    assert api.get("organizations").status_code == 503
    hidden.rename(api.file)
    assert api.get("organizations").status_code == 200


def test_parameters_are_checked_before_the_database(api_in_outage: ApiUnderTest) -> None:
    assert api_in_outage.get("organizations/x/clusters").status_code == 400
    assert api_in_outage.post("organizations/1/clusters/reports", "{").status_code == 400


def test_failed_statements_are_counted_by_whose_fault_it_was(
    api_in_outage: ApiUnderTest, api_with_wrong_schema: ApiUnderTest
) -> None:
    def count(api: ApiUnderTest, fault: str) -> float:
        return api.registry.get_sample_value("aggregator_api_database_errors_total", {"fault": fault}) or 0

    before = count(api_in_outage, "outage"), count(api_with_wrong_schema, "statement")
    api_in_outage.get("organizations")
    api_with_wrong_schema.get("organizations")
    assert (count(api_in_outage, "outage"), count(api_with_wrong_schema, "statement")) == (before[0] + 1, before[1] + 1)
    assert count(api_in_outage, "statement") == count(api_with_wrong_schema, "outage") == 0


def test_a_bug_is_logged_with_its_exception(api_with_wrong_schema: ApiUnderTest) -> None:
    with capture_logs() as logs:
        api_with_wrong_schema.get("organizations")
    (bug,) = [line for line in logs if line["log_level"] == "error"]
    assert "no such table" in str(bug["exc_info"])


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
