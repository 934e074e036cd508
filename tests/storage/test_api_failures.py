"""What is answered when the database or the program fails, and what is logged and counted meanwhile."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from libaggregator.storage.models import TABLES
from tests.storage.conftest import UrlOn
from tests.support.api import NOW, QUESTIONS, ApiUnderTest
from tests.support.databases import migrate_database
from tests.support.engines import ENGINES, EngineUnderTest, name_of
from tests.support.postgresql import ExternalPostgresql

pytestmark = pytest.mark.usefixtures("plain_logs")


@pytest.fixture(scope="module", params=ENGINES, ids=name_of)
def api_in_outage(request: pytest.FixtureRequest, shared_url_on: UrlOn) -> ApiUnderTest:
    """Return an API whose database file is gone, and one at whose address nobody listens."""
    engine: EngineUnderTest = request.param
    api = ApiUnderTest(shared_url_on(engine))
    api.database.close()
    api.reading_url = engine.unreachable(api.url)
    return api


@pytest.fixture(scope="module")
def api_with_wrong_schema(module_database_url: str) -> Iterator[ApiUnderTest]:
    """Yield an API whose tables are gone, so that every statement is wrong, on each engine in turn."""
    api = ApiUnderTest(migrate_database(module_database_url))
    for model in reversed(TABLES):
        api.database.execute_sql(f"DROP TABLE {model._meta.table_name}")
    yield api
    api.close()


@pytest.fixture(scope="module")
def api_with_failing_rows(postgresql: ExternalPostgresql) -> Iterator[ApiUnderTest]:
    """Yield an API for which a row of `report` raises what its column `report` says, on PostgreSQL."""
    with postgresql.database() as url:
        api = ApiUnderTest(migrate_database(url))
        api.insert("report")
        api.database.execute_sql(
            "CREATE FUNCTION fail(state text) RETURNS boolean LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'SELECT not now' USING ERRCODE = state; END $$"
        )
        api.database.execute_sql("ALTER TABLE report ENABLE ROW LEVEL SECURITY")
        api.database.execute_sql("CREATE POLICY failing ON report USING (report = '{}' OR fail(report))")
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


@pytest.mark.parametrize(
    "state",
    [
        *["53100", "53200", "53300", "53400"],
        *["40001", "40P01"],
        *["55006", "55P03"],
        *["57014", "57P01", "57P03"],
        *["08006", "58030"],
    ],
)
def test_a_database_that_is_full_busy_or_in_conflict_is_503_and_the_next_answer_is_right(
    api_with_failing_rows: ApiUnderTest, state: str
) -> None:
    api = api_with_failing_rows
    api.database.execute_sql(f"UPDATE report SET report = '{state}'")
    answer = api.get("organizations")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "not now" not in answer.text
    api.database.execute_sql("UPDATE report SET report = '{}'")
    assert api.get("organizations").json["organizations"] == [1]


def test_a_temporary_file_that_is_too_large_is_503(postgresql_url: str) -> None:
    unlimited, api = ApiUnderTest(migrate_database(postgresql_url)), ApiUnderTest(postgresql_url)
    api.database.execute_sql(
        "INSERT INTO report (org_id, cluster, report, reported_at)"
        f" SELECT 1, gen_random_uuid(), '', timestamp '{NOW}' FROM generate_series(1, 20000)"
    )
    for each in (unlimited, api):
        # the rows of a prepared statement are kept until it is done
        each.reading_url += "?options=-c%20work_mem%3D64kB"
    assert unlimited.get("organizations/1/clusters").status_code == 200
    # only an administrator can set it, and it is for those who connect from then on
    api.database.execute_sql(f"ALTER DATABASE {api.database.database} SET temp_file_limit = 0")
    answer = api.get("organizations/1/clusters")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    unlimited.close()
    api.close()


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


def test_a_file_that_was_replaced_is_not_read_any_more(tmp_path: Path) -> None:
    (tmp_path / "newer").mkdir()
    api, newer = ApiUnderTest(tmp_path), ApiUnderTest(tmp_path / "newer")
    newer.insert("report")
    newer.close()
    assert api.get("organizations").json["organizations"] == []
    newer.file.replace(api.file)
    assert api.get("organizations").json["organizations"] == [1]
    assert api.registry.get_sample_value("aggregator_api_database_connections") == 1


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
    assert re.search(r"no such table: report|\breport\b.* does(n't| not) exist", str(bug["exc_info"]))
