"""What is answered when the database or the program fails, and what is logged and counted meanwhile."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from examples.demo.ports import free_port
from libaggregator.storage.models import TABLES
from tests.support.api import QUESTIONS, ApiUnderTest
from tests.support.databases import migrate_database

pytestmark = pytest.mark.usefixtures("plain_logs")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def api_in_outage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ApiUnderTest:
    """Return an API whose database file is gone, and one at whose address nobody listens."""
    if request.param == "sqlite":
        api = ApiUnderTest(tmp_path_factory.mktemp("away"))
        api.database.close()
        api.file.unlink()
    else:
        api = ApiUnderTest(request.getfixturevalue("shared_url"))
        api.reading_url = f"postgresql://reader:secret@127.0.0.1:{free_port()}/results"
    return api


@pytest.fixture(scope="module")
def api_with_wrong_schema(module_database_url: str) -> Iterator[ApiUnderTest]:
    """Yield an API whose tables are gone, so that every statement is wrong, on each engine in turn."""
    api = ApiUnderTest(migrate_database(module_database_url))
    for model in reversed(TABLES):
        api.database.execute_sql(f"DROP TABLE {model._meta.table_name}")
    yield api
    api.close()


@pytest.mark.parametrize(("method", "path"), QUESTIONS)
def test_an_outage_of_the_database_is_503_with_a_time_to_try_again_and_no_word_about_it(
    api_in_outage: ApiUnderTest, method: str, path: str
) -> None:
    answer = api_in_outage.ask_question(method, path)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert list(answer.json) == ["status"]
    told = r"SELECT|sqlite|unable|\.db|127\.0|reader|secret|results|refused"
    assert not re.search(told, answer.text, re.IGNORECASE)


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
    on_sqlite = api_with_wrong_schema.url.startswith("sqlite")
    assert ("no such table" if on_sqlite else 'relation "report" does not exist') in str(bug["exc_info"])
