"""The page that shows the API, as it goes over the wire (`docs/rest.md`, section 1.9)."""

import base64
import hashlib
import re
import sys
from pathlib import Path

import pytest

from api_service.resources.docs import find_swagger_ui
from tests.support.api import ApiUnderTest


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> ApiUnderTest:
    """Return an API that asks for identities."""
    return ApiUnderTest(tmp_path_factory.mktemp("api"), auth="xrh")


def _policy(api: ApiUnderTest) -> dict[str, list[str]]:
    directives = api.get("docs").headers["Content-Security-Policy"].split("; ")
    return {name: sources for name, *sources in map(str.split, directives)}


@pytest.mark.parametrize("path", ["docs", "docs/"])
def test_the_page_is_there_without_an_identity(api: ApiUnderTest, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.text.startswith("<!doctype html>")


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
def test_other_methods_are_not_offered(api: ApiUnderTest, method: str) -> None:
    answer = api.ask(method, "docs")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, OPTIONS")


def test_the_policy_allows_this_api_and_what_stands_in_the_page_alone(api: ApiUnderTest) -> None:
    policy = _policy(api)
    page = api.get("docs").content
    for kind, directive in ((b"script", "script-src"), (b"style", "style-src")):
        contents = re.findall(b"^<%b>(.*?)</%b>$" % (kind, kind), page, re.DOTALL | re.MULTILINE)
        hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in contents]
        assert policy.pop(directive) == hashes != []
    assert policy == {
        "default-src": ["'none'"],
        "img-src": ["data:"],
        "connect-src": ["'self'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
    }


def test_the_page_is_for_people_and_not_in_the_document(api: ApiUnderTest) -> None:
    assert "/docs" not in api.get("openapi.json").json["paths"]


def test_without_the_package_the_path_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "offapi", None)
    answer = ApiUnderTest(tmp_path).get("docs")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "text/plain; charset=utf-8")


def test_a_package_without_the_files_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "offapi").mkdir()
    (tmp_path / "offapi" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "offapi", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert find_swagger_ui() is None


def test_the_package_is_not_imported_for_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "offapi", raising=False)
    assert ApiUnderTest(tmp_path).get("docs").status_code == 200
    assert "offapi" not in sys.modules
