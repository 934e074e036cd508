"""The OpenAPI document says what is served (`docs/rest.md`, section 4.1)."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from api_service.endpoints import Access
from api_service.resources.writes import WRITE_PATHS
from tests.support.api import ApiUnderTest


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> ApiUnderTest:
    """Return an API without data."""
    return ApiUnderTest(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def document(api: ApiUnderTest) -> dict[str, Any]:
    """Return the document of an API without identities."""
    answer = api.get("openapi.json")
    assert answer.content_type == "application/json"
    found: dict[str, Any] = answer.json
    return found


def _endpoints_of_the_contract() -> set[tuple[str, str]]:
    page = (Path(__file__).parents[2] / "docs" / "rest.md").read_text(encoding="utf-8")
    section = page[page.index("## 4. Endpoints") : page.index("## 5. Paths for writes")]
    found = re.findall(r"\b(GET|POST) (?:`([^` ]+)`|the prefix itself)", section)
    return {(method, f"/{path}") for method, path in found}


def test_every_path_of_the_contract_is_in_it_and_nothing_else(document: dict[str, Any]) -> None:
    documented = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert documented == _endpoints_of_the_contract()


def test_every_documented_path_and_method_is_served(api: ApiUnderTest, document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        (method,) = item
        allow = api.ask("OPTIONS", path.removeprefix("/")).headers["Allow"]
        assert set(allow.split(", ")) == {method.upper(), "OPTIONS"}


def test_the_parameters_of_a_path_are_described_in_their_order(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for operation in item.values():
            described = [parameter for parameter in operation["parameters"] if parameter["in"] == "path"]
            assert [parameter["name"] for parameter in described] == re.findall(r"\{(\w+)\}", path)
            assert all(parameter["required"] for parameter in described)


def test_pages_are_described_where_they_are_served(document: dict[str, Any]) -> None:
    paged = {"/organizations/{organization}/clusters"}
    paged.add("/rules/{rule_selector}/organizations/{org_id}/users/{user_id}/clusters_detail")
    for path, item in document["paths"].items():
        (operation,) = item.values()
        query = [parameter for parameter in operation["parameters"] if parameter["in"] == "query"]
        assert [parameter["name"] for parameter in query] == (["limit", "after"] if path in paged else [])
        assert not any(parameter["required"] for parameter in query)
        for status in ("200", "304"):
            headers = operation["responses"].get(status, {}).get("headers", {})
            assert ("Link" in headers) is (path in paged)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert references == set(document["components"]["schemas"])


def test_names_of_operations_are_unique(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(names) == len(set(names))


def test_answers_are_described_by_the_structs_that_serve(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["Hit"]
    assert set(schema["properties"]) == {
        "component",
        "key",
        "user_vote",
        "disabled",
        "disable_feedback",
        "disabled_at",
        "details",
        "impacted",
    }
    assert "impacted" not in schema["required"]


@pytest.mark.parametrize(("auth", "statuses"), [("none", set()), ("xrh", {"401", "403"})])
def test_identities_are_described_where_they_are_asked_for(
    tmp_path_factory: pytest.TempPathFactory, auth: str, statuses: set[str]
) -> None:
    api = ApiUnderTest(tmp_path_factory.mktemp("auth"), auth=auth)
    document = api.get("openapi.json").json
    operation = document["paths"]["/organizations/{organization}/clusters"]["get"]
    assert set(operation["responses"]) == {"200", "304", "400", "405", "500", "503"} | statuses
    assert ("security" in operation) is (auth == "xrh")
    assert "security" not in document["paths"]["/metrics"]["get"]


def test_the_server_is_the_prefix(document: dict[str, Any]) -> None:
    assert document["servers"] == [{"url": "/api/insights-results-aggregator/v1"}]


def test_every_resource_takes_what_its_endpoint_gives(api: ApiUnderTest) -> None:
    for resource in api.resources:
        endpoint = resource.endpoint
        given = {parameter.argument for parameter in endpoint.parameters}
        given |= {parameter.argument for parameter in endpoint.query}
        given |= {"clusters"} if endpoint.body else set()
        given |= {"own_org_id"} if endpoint.access is Access.OWN_ORGANIZATION else set()
        assert set(inspect.signature(resource.respond).parameters) == given, endpoint.name


def test_a_path_with_an_organization_is_for_that_organization_alone(api: ApiUnderTest) -> None:
    for resource in api.resources:
        has_organization = bool(re.search(r"\{(org_id|organization)\}", resource.endpoint.path))
        for_that_alone = resource.endpoint.access is Access.ORGANIZATION_OF_PATH
        assert for_that_alone is has_organization, resource.endpoint.name


def test_paths_for_writes_are_not_documented(document: dict[str, Any]) -> None:
    assert not {f"/{path}" for path in WRITE_PATHS} & set(document["paths"])


def test_answers_that_can_be_kept_are_described_with_their_headers_and_304(
    api: ApiUnderTest, document: dict[str, Any]
) -> None:
    kept = {"ETag", "Cache-Control"}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            responses = operation["responses"]
            expected = kept if method == "get" and path != "/metrics" else set()
            assert set(responses["200"].get("headers", {})) & kept == expected
            assert ("304" in responses) is bool(expected)
            if expected:
                assert kept <= set(responses["304"]["headers"])
                assert "content" not in responses["304"]
    described = document["paths"]["/info"]["get"]["responses"]["200"]["headers"]["Cache-Control"]["schema"]
    assert described == {"const": api.get("info").headers["Cache-Control"]}
