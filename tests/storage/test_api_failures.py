"""What each endpoint answers when PostgreSQL fails; `tests/unit/test_api_failures.py` has the same for SQLite."""

import re
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from examples.demo.ports import free_port
from tests.support.api import QUESTIONS, ApiUnderTest
from tests.support.postgresql import ExternalPostgresql


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    """Keep structlog from drawing each traceback, which takes a second."""
    with capture_logs():
        yield


@pytest.fixture(scope="module")
def api_without_tables(postgresql: ExternalPostgresql) -> Iterator[ApiUnderTest]:
    """Yield an API whose database is empty, so that every statement is wrong."""
    url = postgresql.create_database()
    api = ApiUnderTest(url)
    yield api
    api.close()
    postgresql.drop_database(url)


@pytest.fixture(scope="module")
def api_without_server(shared_url: str) -> ApiUnderTest:
    """Return an API at whose address nobody listens."""
    api = ApiUnderTest(shared_url)
    api.reading_url = f"postgresql://reader:secret@127.0.0.1:{free_port()}/results"
    return api


@pytest.mark.parametrize(("method", "path"), QUESTIONS)
def test_a_server_that_is_away_is_503_without_a_word_about_it(
    api_without_server: ApiUnderTest, method: str, path: str
) -> None:
    answer = api_without_server.ask_question(method, path)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert list(answer.json) == ["status"]
    assert not re.search(r"127\.0|reader|secret|results|refused|SELECT", answer.text, re.IGNORECASE)


@pytest.mark.parametrize(("method", "path"), QUESTIONS)
def test_a_missing_table_is_500_so_that_nobody_tries_again(
    api_without_tables: ApiUnderTest, method: str, path: str
) -> None:
    answer = api_without_tables.ask_question(method, path)
    assert (answer.status_code, answer.json) == (500, {"status": "Internal Server Error"})
    assert "Retry-After" not in answer.headers
