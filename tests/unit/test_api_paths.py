"""Which paths and methods are known, and what they are answered (`docs/rest.md`, sections 1.1 to 1.3 and 5)."""

import itertools
import re
from pathlib import Path

import pytest

from api_service.resources.writes import WRITE_PATHS
from libaggregator.settings import SettingsError
from tests.support.api import CLUSTER, QUESTIONS, ApiUnderTest, identity

JSON = "application/json; charset=utf-8"
CLUSTERS_OF_1 = "organizations/1/clusters"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> ApiUnderTest:
    """Return an API without data."""
    return ApiUnderTest(tmp_path_factory.mktemp("api"))


@pytest.mark.parametrize("path", ["info", CLUSTERS_OF_1, "organizations", "metrics", "openapi.json"])
def test_one_slash_at_the_end_makes_no_difference(api: ApiUnderTest, path: str) -> None:
    without, with_slash = api.get(path), api.get(f"{path}/")
    assert (without.status_code, with_slash.status_code) == (200, 200)
    assert without.content_type == with_slash.content_type


@pytest.mark.parametrize("prefix", ["/api/insights-results-aggregator/v1/", "/x/", "/"])
def test_the_prefix_with_or_without_its_last_slash_is_the_main_endpoint(tmp_path: Path, prefix: str) -> None:
    api = ApiUnderTest(tmp_path, prefix=prefix)
    assert api.get("").json == {"status": "ok"}
    assert api._client.simulate_get(prefix.rstrip("/") or "/").json == {"status": "ok"}
    assert api.get("info").status_code == 200


@pytest.mark.parametrize("prefix", ["", "api/", "/api", "/{x}/", "/a b/", "//"])
def test_a_prefix_that_can_be_none_is_refused_by_name(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(SettingsError, match=r"^api\.prefix: expected a path like '/api/v1/', got "):
        ApiUnderTest(tmp_path, prefix=prefix)


@pytest.mark.parametrize(
    "path",
    [
        "unknown",
        "INFO",
        "info/x",
        "info//",
        "/",
        "/info",
        "organizations//clusters",
        "organizations//",
        "organizations/1//clusters",
        f"organizations/1/clusters/{CLUSTER}/users//report",
        "organization/1/workloads",
        "organizations/1/clusters/./..",
        "organizations%2F%2Fclusters",
        "docs/../info",
    ],
)
def test_an_unknown_path_is_answered_404_in_plain_text(api: ApiUnderTest, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 404
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.text


@pytest.mark.parametrize(("segment", "shown"), [(".", "."), ("..", ".."), ("%2E", "."), ("%2e%2E", "..")])
def test_dots_are_segments_like_any_other(api: ApiUnderTest, segment: str, shown: str) -> None:
    answer = api.get(f"organizations/{segment}/clusters")
    assert answer.status_code == 400
    assert f"with value '{shown}'" in answer.json["status"]


def test_an_address_outside_of_the_prefix_is_unknown(api: ApiUnderTest) -> None:
    assert api._client.simulate_get("/info").status_code == 404


def test_the_query_string_is_ignored(api: ApiUnderTest) -> None:
    assert api.get("info", query_string="a=%zz&a[]=1&=&;").status_code == 200


def test_the_header_accept_is_ignored(api: ApiUnderTest) -> None:
    answer = api.get("organizations/x/clusters", headers={"Accept": "text/html"})
    assert answer.content_type == JSON
    assert answer.json["status"].startswith("Error during parsing param")
    assert "Vary" not in answer.headers


@pytest.mark.parametrize(
    ("path", "decoded"),
    [
        ("a%2Cb", "a,b"),
        ("a+b", "a+b"),
        ("a%20b", "a b"),
        ("%C5%BE", "ž"),
        ("%FF", "\ufffd"),
        ("%zz", "%zz"),
        ("%", "%"),
        ("%0A1", "\n1"),
        ("%001", "\x001"),
        ("'", "'"),
    ],
)
def test_a_parameter_is_shown_decoded_as_it_came(api: ApiUnderTest, path: str, decoded: str) -> None:
    answer = api.get(f"organizations/{path}/clusters")
    text = f"Error during parsing param 'organization' with value '{decoded}'. Error: 'unsigned integer expected'"
    assert (answer.status_code, answer.json) == (400, {"status": text})


def test_an_encoded_slash_counts_as_a_slash(api: ApiUnderTest) -> None:
    assert api.get("organizations%2F1%2Fclusters").json == {"clusters": [], "status": "ok"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "clusters/rules", 405),
        ("GET", "clusters/organizations", 405),
        ("GET", "organizations/1/clusters/reports", 405),
        ("GET", "rules/users/organizations/1/rating", 400),
        ("GET", "rules/organizations/organizations/1/rating", 400),
        ("GET", "rules/organizations/x/disabled", 400),
        ("GET", "organizations/clusters/clusters", 400),
    ],
)
def test_a_parameter_takes_words_that_are_literals_elsewhere(
    api: ApiUnderTest, method: str, path: str, status: int
) -> None:
    assert api.ask(method, path).status_code == status


def _templates(api: ApiUnderTest) -> list[str]:
    return [*(resource.endpoint.path for resource in api.resources), *WRITE_PATHS, "openapi.json"]


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)))


def test_every_path_belongs_to_the_one_template_that_matches_all_of_it_whatever_its_words(api: ApiUnderTest) -> None:
    templates = {template.rstrip("/"): _pattern(template.rstrip("/")) for template in _templates(api)}
    words = {segment for template in templates for segment in template.split("/") if not segment.startswith("{")}
    for template, word in itertools.product(templates, sorted(words - {""})):
        names = re.findall(r"\{\w+\}", template)
        for chosen in itertools.product(("x", word), repeat=len(names)):
            path = re.sub(r"\{\w+\}", "{}", template).format(*chosen)
            (only,) = (other for other, pattern in templates.items() if pattern.fullmatch(path))
            found = api.app._router.find((api.settings.prefix + path).rstrip("/"))
            assert found is not None, path
            assert found[3].removeprefix(api.settings.prefix).rstrip("/") == only, path


def test_no_path_answers_another_method_than_its_own(api: ApiUnderTest) -> None:
    for resource in api.resources:
        endpoint = resource.endpoint
        path = re.sub(r"\{\w+\}", "x", endpoint.path)
        allow = ", ".join(sorted([endpoint.method, "OPTIONS"]))
        methods = {"GET", "POST", "PUT", "HEAD", "DELETE"} - {endpoint.method}
        answers = [api.ask(method, path) for method in sorted(methods)]
        assert {(answer.status_code, answer.headers["Allow"]) for answer in answers} == {(405, allow)}, path
        options = api.ask("OPTIONS", path)
        assert (options.status_code, options.headers["Allow"], options.text) == (200, allow, ""), path


@pytest.mark.parametrize(
    ("path", "offered"),
    [
        ("", "GET"),
        ("info", "GET"),
        ("openapi.json", "GET"),
        ("metrics", "GET"),
        ("organizations/x/clusters", "GET"),
        ("organizations/x/clusters/reports", "POST"),
        ("recommendations/organizations/x/users/u/list", "POST"),
    ],
)
def test_every_other_method_is_answered_405_and_options_200_with_the_same_allow(
    api: ApiUnderTest, path: str, offered: str
) -> None:
    methods = {"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "TRACE"} - {offered}
    answers = {method: api.ask(method, path) for method in sorted(methods)}
    assert {method: answer.status_code for method, answer in answers.items()} == dict.fromkeys(methods, 405)
    allow = ", ".join(sorted([offered, "OPTIONS"]))
    assert {answer.headers["Allow"] for answer in answers.values()} == {allow}
    options = api.ask("OPTIONS", path)
    assert (options.status_code, options.headers["Allow"], options.text) == (200, allow, "")
    assert not [name for name in options.headers if name.lower().startswith("access-control")]


def test_a_method_that_is_not_offered_is_answered_in_the_form_of_every_error(api: ApiUnderTest) -> None:
    answer = api.ask("PUT", "info", headers={"Accept": "text/html"})
    assert (answer.content_type, list(answer.json)) == (JSON, ["status"])
    assert "Vary" not in answer.headers


@pytest.mark.parametrize("path", WRITE_PATHS)
def test_a_path_for_writes_is_known_and_offers_nothing(api: ApiUnderTest, path: str) -> None:
    filled = "/".join("x" if segment.startswith("{") else segment for segment in path.split("/"))
    answers = [api.ask(method, filled) for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD")]
    assert {(answer.status_code, answer.headers["Allow"]) for answer in answers} == {(405, "OPTIONS")}
    options = api.ask("OPTIONS", filled)
    assert (options.status_code, options.headers["Allow"]) == (200, "OPTIONS")


def test_path_and_method_are_checked_before_the_identity(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path, auth="xrh")
    assert api.get("unknown").status_code == 404
    assert api.get("organizations//clusters").status_code == 404
    assert api.ask("PUT", "info").status_code == 405
    assert api.ask("HEAD", "info").status_code == 405
    assert api.ask("DELETE", "organizations/1").status_code == 405


def test_options_needs_neither_an_identity_nor_the_database(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path, auth="xrh")
    api.file.unlink()
    assert api.ask("OPTIONS", CLUSTERS_OF_1).status_code == 200
    assert api.get(CLUSTERS_OF_1, headers=identity()).status_code == 503


@pytest.mark.parametrize(("method", "path"), QUESTIONS)
def test_every_answer_and_every_refusal_is_json_in_utf_8(api: ApiUnderTest, method: str, path: str) -> None:
    assert api.ask_question(method, path).content_type == JSON
    assert api.ask_question(method, re.sub("/[1u]/", "/%20/", path)).content_type == JSON


def test_a_body_where_none_is_expected_is_ignored(api: ApiUnderTest) -> None:
    assert api.get("info", body=b"\xff{").status_code == 200
